# SPDX-License-Identifier: Apache-2.0
"""The sections of a plan as frozen types.

Every field is public knowledge: all hospitals see it, and it is in the digest. Whatever depends on patients (how many there are, how
they are labelled) belongs to the site and is an argument elsewhere, never a field here. Constraints on one value stand in its
annotation; constraints between values stand in `consistency.py`.

Words: a *unit* is what the privacy guarantee protects: a *patient* with all images of theirs at a site. With `unit = "record"` it is
one image, so a patient of m images has about m times the epsilon; that mode exists for comparison and is labelled so wherever it is shown.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
ClassName = Annotated[str, Field(min_length=1, max_length=64)]

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
class Window:
    """A public intensity window in the modality's output units (CT: Hounsfield), PS3.3 C.11.2.1.2."""

    __pydantic_config__ = STRICT
    centre: float
    width: Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondImage:
    """[input.second]: another image of the same patient beside the first (MR with CT), in the same size; a patient may lack it."""

    __pydantic_config__ = STRICT
    modality: Literal["CT", "MR", "CR", "DX", "US", "XA", "NM", "MG", "PT", "RF", "SM", "OP", "ES", "XC", "OT", "any"]
    window: Window | None = None
    mean: float = 0.5
    std: Positive = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordField:
    """[[input.record]]: one column of the patient's record. A number becomes (x - mean) / std; one of `values` becomes as many of 0 and 1.

    An empty cell, and a value that is not listed, is "not known": zeros, and one more value that says so.
    """

    __pydantic_config__ = STRICT
    column: Annotated[str, Field(min_length=1)]
    mean: float = 0.0
    std: Positive = 1.0
    values: tuple[ClassName, ...] = ()

    @property
    def width(self) -> int:
        """How many numbers of the model's input it makes."""
        return max(1, len(self.values)) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSpec:
    """[input.text]: a short clinical text; its first `length` words and pairs of words are hashed into `buckets` by a public function.

    So there is no vocabulary that could be learnt from patients, or leave with the model.
    """

    __pydantic_config__ = STRICT
    column: Annotated[str, Field(min_length=1)] = "text"
    buckets: Annotated[int, Field(ge=16, le=2**20)] = 1024
    length: Annotated[int, Field(ge=1, le=4096)] = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """[input]: what one image is once it enters the model: float32, (channels, height, width), (x - mean) / std of [0, 1].

    Without a window, a DICOM file's own VOI window is used, and the full range of the stored type where it has none.
    Mean and standard deviation are public constants, never measured on patients.

    frames: what becomes of a file with several frames, tiles or slices: refused, its first or middle one is taken, or each is an image.
    orientation: "canonical" turns and mirrors an image as its file says, until left, behind and below lie where a reader expects them.
    spacing_mm: one pixel's side; images are then resampled and cut or filled to height and width, not stretched. On whole slides it also
    chooses the level, and `tissue` is the least share of a tile that must be tissue. laterality, views: others are refused.

    sequence: how many images of a case the model sees together (slices, frames, visits), in their order; one, unless said. Where areas or
    boxes are to be found it is each image with its neighbours, an odd number with the image itself in the middle. A case may
    also have a second image, a record and a text; with `modality = "none"` it has no image, and height and width stay 0.
    """

    __pydantic_config__ = STRICT
    modality: Literal["CT", "MR", "CR", "DX", "US", "XA", "NM", "MG", "PT", "RF", "SM", "OP", "ES", "XC", "OT", "any", "none"]
    height: Annotated[int, Field(ge=0, le=2048)] = 0
    width: Annotated[int, Field(ge=0, le=2048)] = 0
    sequence: Annotated[int, Field(ge=1, le=256)] = 1
    channels: Literal[1, 3] = 1
    window: Window | None = None
    mean: float = 0.5
    std: Positive = 0.5
    frames: Literal["single", "first", "middle", "each"] = "single"
    orientation: Literal["canonical", "stored"] = "canonical"
    spacing_mm: Positive | None = None
    laterality: Literal["L", "R"] | None = None
    views: tuple[Annotated[str, Field(min_length=1, max_length=16)], ...] = ()
    tissue: Fraction = 0.0
    second: SecondImage | None = None
    record: tuple[RecordField, ...] = ()
    text: TextSpec | None = None

    @property
    def has_image(self) -> bool:
        return self.modality != "none"

    @property
    def record_width(self) -> int:
        """How many numbers a record makes, 0 without one."""
        return sum(field.width for field in self.record)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationSpec:
    """[task] kind = "classification": one class for a case. Two classes make one logit (the second is the positive one), n make n.

    weights: how much a case of each class counts in the loss, for classes that are rare where the disease is; public, never counted from
    patients. label_smoothing: that part of the truth is spread evenly over the classes.
    """

    __pydantic_config__ = STRICT
    kind: Literal["classification"]
    classes: Annotated[tuple[ClassName, ...], Field(min_length=2, max_length=1000)]
    label_column: Annotated[str, Field(min_length=1)] = "label"
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    weights: Annotated[tuple[Positive, ...], Field(max_length=1000)] = ()
    label_smoothing: Fraction = 0.0

    @property
    def columns(self) -> tuple[str, ...]:
        """Where the truth stands in a table of images, beside each image's name."""
        return (self.label_column,)


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiLabelSpec:
    """[task] kind = "multi-label": several findings, each there or not by itself. One column of the labels for each, named like it.

    weights: how much more each finding counts in the loss where it is there; public, never counted from patients.
    """

    __pydantic_config__ = STRICT
    kind: Literal["multi-label"]
    classes: Annotated[tuple[ClassName, ...], Field(min_length=1, max_length=1000)]
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    weights: Annotated[tuple[Positive, ...], Field(max_length=1000)] = ()
    label_smoothing: Fraction = 0.0

    @property
    def columns(self) -> tuple[str, ...]:
        """Where the truth stands in a table of images."""
        return self.classes


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationSpec:
    """[task] kind = "segmentation": a class for each pixel; the first is the background. Loss: cross-entropy plus `dice` times Dice's.

    weights: how much a pixel of each class counts in the cross-entropy; public, never counted from patients.
    """

    __pydantic_config__ = STRICT
    kind: Literal["segmentation"]
    classes: Annotated[tuple[ClassName, ...], Field(min_length=2, max_length=255)]
    mask_column: Annotated[str, Field(min_length=1)] = "mask_file"
    dice: Annotated[float, Field(ge=0, le=100)] = 1.0
    weights: Annotated[tuple[Positive, ...], Field(max_length=255)] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Where the truth stands in a table of images: the path of a mask."""
        return (self.mask_column,)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionSpec:
    """[task] kind = "detection": boxes with a class and a score, found as peaks of a heat map (see common/tasks/detection.py).

    most_boxes: so many are kept of an image, in training (the first that are listed) and in a prediction (the surest).
    """

    __pydantic_config__ = STRICT
    kind: Literal["detection"]
    classes: Annotated[tuple[ClassName, ...], Field(min_length=1, max_length=255)]
    most_boxes: Annotated[int, Field(ge=1, le=1000)] = 64

    @property
    def columns(self) -> tuple[str, ...]:
        """None: boxes have a table of their own."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorationSpec:
    """[task] kind = "restoration": the image as it was, from one that was made worse by a public rule.

    "noise": Gaussian noise of standard deviation `strength` (of the full range), as at low dose; "resolution": shrunk by `strength` and
    enlarged again.
    """

    __pydantic_config__ = STRICT
    kind: Literal["restoration"]
    degradation: Literal["noise", "resolution"]
    strength: Positive

    @property
    def classes(self) -> tuple[str, ...]:
        """None: nothing is told apart."""
        return ()

    @property
    def columns(self) -> tuple[str, ...]:
        """None: an image is its own truth."""
        return ()


TaskSpec = Annotated[ClassificationSpec | MultiLabelSpec | SegmentationSpec | DetectionSpec | RestorationSpec, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True, kw_only=True)
class CnnSpec:
    """[model] family = "cnn": convolutions with pooling, then two dense layers (see common/models/cnn.py)."""

    __pydantic_config__ = STRICT
    family: Literal["cnn"]
    widths: Annotated[tuple[Count, ...], Field(min_length=1, max_length=6)] = (32, 64, 64)
    hidden: Count = 64
    norm: Literal["group", "none"] = "group"
    dropout: Fraction = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNetSpec:
    """[model] family = "resnet": basic residual blocks with GroupNorm (see common/models/resnet.py)."""

    __pydantic_config__ = STRICT
    family: Literal["resnet"]
    widths: Annotated[tuple[Count, ...], Field(min_length=1, max_length=4)] = (16, 32, 64)
    blocks: Annotated[int, Field(ge=1, le=8)] = 1
    dropout: Fraction = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScatteringSpec:
    """[model] family = "scattering": fixed wavelets, then one dense layer (see common/models/scattering.py)."""

    __pydantic_config__ = STRICT
    family: Literal["scattering"]
    scales: Annotated[int, Field(ge=1, le=5)] = 2
    angles: Annotated[int, Field(ge=2, le=16)] = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetSpec:
    """[model] family = "unet": down and up again with shortcuts, an answer for each pixel (see common/models/unet.py)."""

    __pydantic_config__ = STRICT
    family: Literal["unet"]
    widths: Annotated[tuple[Count, ...], Field(min_length=2, max_length=6)] = (16, 32, 64)
    residual: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FcnSpec:
    """[model] family = "fcn": convolutions alone, for an answer at each pixel or, averaged, for an image (see common/models/fcn.py).

    pooling: the image is halved from each convolution to the next, which is cheap and blurs edges; else they see further each time.
    """

    __pydantic_config__ = STRICT
    family: Literal["fcn"]
    answer: Literal["image", "pixel"]
    widths: Annotated[tuple[Count, ...], Field(min_length=1, max_length=6)] = (16, 32, 32)
    pooling: bool = False
    dropout: Fraction = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CentreSpec:
    """[model] family = "centre": a detector's map of centres, one value for `stride` x `stride` pixels (see common/models/centre.py).

    The first width is at half the image's size, each further one at half the one before; `hidden` is the head's.
    """

    __pydantic_config__ = STRICT
    family: Literal["centre"]
    widths: Annotated[tuple[Count, ...], Field(min_length=1, max_length=6)] = (16, 32, 64)
    hidden: Count = 32
    stride: Literal[2, 4, 8] = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SrcnnSpec:
    """[model] family = "srcnn": three convolutions that make an image better (see common/models/srcnn.py).

    kernels: the side of each, odd; one more than widths.
    """

    __pydantic_config__ = STRICT
    family: Literal["srcnn"]
    widths: Annotated[tuple[Count, ...], Field(min_length=1, max_length=6)] = (64, 32)
    kernels: Annotated[tuple[Annotated[int, Field(ge=1, le=31)], ...], Field(min_length=2, max_length=7)] = (9, 1, 5)
    residual: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceSpec:
    """[model] family = "sequence": one encoder for each of [input] sequence images, and a way to take them together.

    how: one after the other in their order ("gru"), each looking at all ("attention"), or without an order, those that matter weighing
    most ("mil"). features: how many values stand for one image (see common/models/sequence.py).
    """

    __pydantic_config__ = STRICT
    family: Literal["sequence"]
    how: Literal["gru", "attention", "mil"]
    widths: Annotated[tuple[Count, ...], Field(min_length=1, max_length=6)] = (16, 32)
    features: Count = 32
    dropout: Fraction = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MlpSpec:
    """[model] family = "mlp": dense layers on the record, without an image (see common/models/mlp.py)."""

    __pydantic_config__ = STRICT
    family: Literal["mlp"]
    widths: Annotated[tuple[Count, ...], Field(min_length=1, max_length=6)] = (32, 16)
    dropout: Fraction = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TextNetSpec:
    """[model] family = "text": a vector for each hashed word, weighted by attention, without an image (see common/models/text.py)."""

    __pydantic_config__ = STRICT
    family: Literal["text"]
    features: Count = 16
    hidden: Count = 16
    dropout: Fraction = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionSpec:
    """[model] family = "fusion": an image with a second one, a record, a text, any of which may be missing (see common/models/fusion.py).

    how: side by side ("late"), or each source looking at the others first ("cross-attention"). features: values that stand for a source.
    """

    __pydantic_config__ = STRICT
    family: Literal["fusion"]
    how: Literal["late", "cross-attention"]
    widths: Annotated[tuple[Count, ...], Field(min_length=1, max_length=6)] = (16, 32)
    features: Count = 32
    hidden: Count = 32
    dropout: Fraction = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneSpec:
    """[model] family = "backbone": a residual network trained elsewhere; head and last stages learn on (transfer learning).

    weights: the name of a file of pre-trained weights, which every party has in a folder of its own; weights_digest: its SHA-256, so that
    all start from the same one. The first 4 - trained_stages stages stay as they are and never travel. width: channels of the first stage.
    norm: "frozen" for networks trained with BatchNorm, whose statistics became constants; "group" for GroupNorm (see
    common/models/backbone.py).
    """

    __pydantic_config__ = STRICT
    family: Literal["backbone"]
    architecture: Literal["resnet18", "resnet50"] = "resnet50"
    weights: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\.safetensors$")]
    weights_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    trained_stages: Annotated[int, Field(ge=0, le=4)] = 0
    norm: Literal["frozen", "group"] = "frozen"
    width: Annotated[int, Field(ge=4, le=128)] = 64
    dropout: Fraction = 0.0


ModelSpec = Annotated[
    BackboneSpec
    | CnnSpec
    | ResNetSpec
    | ScatteringSpec
    | UNetSpec
    | FcnSpec
    | CentreSpec
    | SrcnnSpec
    | SequenceSpec
    | MlpSpec
    | TextNetSpec
    | FusionSpec,
    Field(discriminator="family"),
]


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
    clip_norm: Positive | None = None
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
    """

    __pydantic_config__ = STRICT
    every: Count | None = None
    after: Annotated[tuple[Count, ...], Field(max_length=1000)] = ()
    epsilon: Positive
    bins: Annotated[int, Field(ge=2, le=100)] = USUAL_BINS
    spare: Annotated[int, Field(ge=0, le=1000)] = 1

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
