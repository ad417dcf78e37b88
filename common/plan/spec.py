# SPDX-License-Identifier: Apache-2.0
"""A plan as frozen types: its sections, but for those that say what is shown (`inputs`), asked (`tasks`) and learnt with (`families`).

Every field is public knowledge: all hospitals see it, and it is in the digest. Whatever depends on patients (how many there are, how
they are labelled) belongs to the site and is an argument elsewhere, never a field here. Constraints on one value stand in its
annotation; constraints between values stand in `consistency.py`.

Words: a *unit* is what the privacy guarantee protects: a *patient* with all images of theirs at a site. With `unit = "record"` it is
one image, so a patient of m images has about m times the epsilon; that mode exists for comparison and is labelled so wherever it is shown.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from common.plan.families import ModelSpec
from common.plan.inputs import InputSpec
from common.plan.tasks import ClassificationSpec, TaskSpec
from common.plan.values import STRICT, Count, Fraction, Name, Positive

USUAL_BINS = 16
ADAM_FIRST, ADAM_SECOND = 0.9, 0.999
"""Adam's memories of the gradient and of its square (Kingma and Ba 2015, https://arxiv.org/abs/1412.6980), the paper's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """[plan]: what this federation is for, in words that a review board reads."""

    __pydantic_config__ = STRICT
    name: Name
    purpose: Annotated[str, Field(min_length=1, max_length=2000)]
    version: Count = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSpec:
    """[training]: `batch` counts units per step: exactly with privacy off, in expectation (Poisson sampling) with privacy on.

    Under fedavg and fedavgm a site trains with the optimiser and sends how far it came. Under fedsgd a round is one global step: a site
    sends one batch's gradient, and the optimiser, with its memory, is the coordinator's.

    precision: "bfloat16" computes forward and backward passes in half the bits, for machines that are faster at it (mixed precision;
    weights, gradients and sums stay float32).
    schedule, warmup_rounds: how the learning rate changes over the rounds, never above what is given (common/plan/schedule.py).
    """

    __pydantic_config__ = STRICT
    strategy: Literal["fedavg", "fedavgm", "fedsgd"] = "fedavg"
    rounds: Count
    local_steps: Count | None = None
    local_epochs: Count | None = None
    batch: Count
    optimiser: Literal["sgd", "adam"] = "sgd"
    learning_rate: Positive
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_rounds: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    momentum: Fraction = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    server_learning_rate: Positive = 1.0
    server_momentum: Fraction = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentationSpec:
    """[augmentation]: how far images are altered at random, each time they are trained on; never when the model predicts.

    Turned by up to rotation_degrees either way; enlarged or shrunk by up to `scale` of their size; shifted by up to `shift` of their width
    and height; up to `crop` of each side cut away and the rest enlarged. flip: mirrored left to right ("horizontal"), upside down
    ("vertical") or "both", half of the time; only where a mirrored patient could exist. brightness and noise (its standard deviation) are
    parts of the full range, contrast of itself. Without this section nothing is altered.
    """

    __pydantic_config__ = STRICT
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    scale: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    shift: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    crop: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    flip: Literal["none", "horizontal", "vertical", "both"] = "none"
    brightness: Fraction = 0.0
    contrast: Fraction = 0.0
    noise: Fraction = 0.0

    @property
    def flips_across(self) -> bool:
        return self.flip in ("horizontal", "both")

    @property
    def flips_upright(self) -> bool:
        return self.flip in ("vertical", "both")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacySpec:
    """[privacy]: the promise. Noise is calibrated so that all rounds, and `spare_rounds` retrained after a crash, cost epsilon.

    clip_norm bounds the L2 norm of one unit's gradient; a patient's is the mean over at most `images_per_patient` images, drawn anew for
    each step. `noise = "local"`: every site adds all the noise that its own promise needs, and relies on nobody. "distributed": every site
    adds a share, and the sum over at least `noise_quorum` sites (minimum_cohort, if unset), `colluders` of which may be dishonest, has the
    noise that the promise needs at a site of `minimum_patients`; a smaller site cannot take part.
    """

    __pydantic_config__ = STRICT
    unit: Literal["none", "record", "patient"]
    epsilon: Positive | None = None
    delta: Annotated[float, Field(gt=0, lt=1)] | None = None
    clip_norm: Annotated[float, Field(ge=1e-6, le=1e6)] | None = None
    images_per_patient: Annotated[int, Field(ge=1, le=1024)] = 4
    noise: Literal["local", "distributed"] = "local"
    noise_quorum: Annotated[int, Field(ge=3, le=65_536)] | None = None
    colluders: Annotated[int, Field(ge=0, le=65_536)] = 1
    minimum_patients: Count | None = None
    spare_rounds: Annotated[int, Field(ge=0, le=1000)] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregationSpec:
    """[aggregation]: how many sites make a round, how long it waits for them, and how far one update may reach (L2).

    More than `max_group` enrolled sites are summed in groups, each of at least minimum_cohort. What becomes of the groups' means is
    `combine`: their mean; or their coordinate-wise median, or mean without a quarter of them on either side, which bad groups cannot
    drag away and for which the coordinator sees each group's sum. `bits` is how fine an update is quantised; as fine as fits, if unset.
    `word_bits = 16` halves what travels, for thin links: fewer bits, rounded at random; coordinates beyond `coordinate_range`
    (update_norm, if unset) are cut off at it. `protocol` is the version of secure aggregation in which the plan's rounds are held: a plan
    stays in one, whoever upgrades meanwhile.
    """

    __pydantic_config__ = STRICT
    minimum_cohort: Count = 3
    sites_per_round: Count | None = None
    update_norm: Positive = 10.0
    deadline_s: Positive = 600.0
    max_group: Annotated[int, Field(ge=3, le=65_536)] = 64
    bits: Annotated[int, Field(ge=8, le=24)] | None = None
    word_bits: Literal[16, 32] = 32
    coordinate_range: Positive | None = None
    combine: Literal["mean", "median", "trimmed"] = "mean"
    protocol: Count = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSpec:
    """[evaluation]: how the model does at the sites, on patients whom nobody trains on. Without this section nobody is asked.

    Every so many rounds, counted back from the last, or `after` the rounds that are named, and always after the last, each site counts its
    patients by what they are and what the model says: with two classes in `bins` of the second one's probability
    (common/counting/evaluation.py), with more by the class it decides on. Only noised sums leave; all evaluations together, and `spare`
    repeated after a failure, cost `epsilon` of the plan's own.

    The model that is given out is the last one, or with `keep = "best"` the one that was judged best, by area under the curve or, with more
    than two classes, balanced accuracy. After `patience` judgements in a row that were no better than the best before them, training ends.
    """

    __pydantic_config__ = STRICT
    every: Count | None = None
    after: Annotated[tuple[Count, ...], Field(max_length=1000)] = ()
    epsilon: Positive
    bins: Annotated[int, Field(ge=2, le=100)] = USUAL_BINS
    spare: Annotated[int, Field(ge=0, le=1000)] = 1
    keep: Literal["last", "best"] = "last"
    patience: Count | None = None

    def rounds(self, last: int) -> tuple[int, ...]:
        """The rounds that begin by judging the model they start from; the one after the last trains nothing.

        >>> EvaluationSpec(every=4, epsilon=1.0).rounds(10), EvaluationSpec(after=(2, 5), epsilon=1.0).rounds(10)
        ((3, 7, 11), (3, 6, 11))
        """
        if self.every is None:
            return tuple(number + 1 for number in sorted({*self.after, last}))
        return tuple(range(last + 1, 1, -self.every)[::-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsSpec:
    """[statistics]: what the training data are like, asked once, before the first round. Without this section nobody is asked.

    How many patients there are, by class if `classes`; with `intensity` also mean and standard deviation of the stored intensity in [0, 1],
    every patient counting alike, from which a later plan may choose its [input] mean and std. Only noised sums leave, for `epsilon` of the
    plan's own, `spare` repeated after a failure included.
    """

    __pydantic_config__ = STRICT
    epsilon: Positive
    classes: bool = True
    intensity: bool = True
    spare: Annotated[int, Field(ge=0, le=1000)] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A whole plan. Equal plans have equal canonical bytes, and the other way round."""

    __pydantic_config__ = STRICT
    plan: Identity
    input: InputSpec
    task: TaskSpec
    model: ModelSpec
    training: TrainingSpec
    privacy: PrivacySpec
    aggregation: AggregationSpec
    evaluation: EvaluationSpec | None = None
    statistics: StatisticsSpec | None = None
    augmentation: AugmentationSpec | None = None

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def classification(self) -> ClassificationSpec:
        """[task], where nothing else than classification can be: what counts or draws classes. Raises: TypeError for another kind."""
        if not isinstance(self.task, ClassificationSpec):
            raise TypeError(f"plan '{self.name}': a task of the kind '{self.task.kind}' where only classification has a meaning")
        return self.task

    @property
    def is_private(self) -> bool:
        return self.privacy.unit != "none"

    @property
    def shares_noise(self) -> bool:
        """Whether no site's update is private by itself, only the sum over a noise quorum."""
        return self.is_private and self.privacy.noise == "distributed"

    @property
    def evaluation_rounds(self) -> tuple[int, ...]:
        """The rounds that begin by having their model judged; empty without an [evaluation]."""
        return self.evaluation.rounds(self.training.rounds) if self.evaluation else ()

    @property
    def noise_quorum(self) -> int:
        """m: how many sites' shares of noise make the promise; 0 with local noise, which asks nobody else."""
        if not self.shares_noise:
            return 0
        return self.privacy.noise_quorum or self.aggregation.minimum_cohort
