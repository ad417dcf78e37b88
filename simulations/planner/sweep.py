# SPDX-License-Identifier: Apache-2.0
"""What a plan's noise does to learning, measured: small made federations, trained by the real engine under the plan's noise.

What hurts is relative noise (`forecast`): how much of a step's mean gradient is noise. A small federation can have the relative noise of a
large one, if it is allowed a worse epsilon, and nobody is harmed by that where nobody exists. So made hospitals of a few times the plan's
batch train the plan's model, by its optimiser, for its rounds, under the noise that the plan's own hospitals would add; and, beside it,
without noise, and with twice as much; and the linear model on scattering features under the same.

Without noise nothing is clipped either, and a step that clipping keeps in hand may be the end of a network. So what noise is measured
against is the better of two trainings: by the plan's step, and by one of an eighth.

What it says: how much AUC this noise takes from this training on made chest CT. What it does not: how well the model will do on your
images. Made hospitals are small, have two slices a patient, and images of at most 64 x 64; classes are two, whatever the plan's are. A
plan whose model learns nothing there may have another learning rate in mind for other images. Each point is one run.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from common.durable import write_atomically
from common.errors import PlanError
from common.plan import AggregationSpec, ClassificationSpec, Plan, ScatteringSpec, Window, to_toml
from common.privacy import Event, epsilon, public_count
from common.update import Weights
from server.aggregation import Silent
from server.journal import CommittedRound
from simulations.comparison import without_privacy
from simulations.engine.nursery import Nursery
from simulations.federation import Federation
from simulations.observer import score
from simulations.phantoms import PhantomSpec
from simulations.planner.forecast import FEWEST_SITES, Forecast
from simulations.planner.modes import in_mode
from simulations.scenario import Scenario, SimulationSpec
from simulations.stage import SITES, Stage, Workshop, clone_home, set_stage

LARGEST_PX: Final = 64
MOST_SITES: Final = 5
FEWEST_PATIENTS: Final = 64
LARGE_BATCH: Final = 128  # beyond, three sites are enough to wait for
SLICES: Final = 2
SHORTER: Final = 1 / 8
"""Of the plan's step, for a training that nothing keeps in hand."""
RESAMPLES: Final = 200
SCATTERING: Final = ScatteringSpec(family="scattering", scales=3, angles=4)
SCATTERING_RATE, SCATTERING_MOMENTUM = 0.1, 0.9
_NO_BOUND: Final = 1e4
"""Updates are plain floats here, and nobody's: what would clip them in a deployment is for sites that lie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One federation: its relative noise (0: not private), and what its model is worth on made patients held out, with a 95 % interval.

    learning_rate: by which it was trained.
    """

    relative_noise: float
    learning_rate: float
    auc: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """`model`: the plan's own; `scattering`: the linear one, empty where the plan's is that already. Both in order of noise, 0 first."""

    model: tuple[Point, ...]
    scattering: tuple[Point, ...]
    sites: int
    patients: int
    held_out: int
    rounds: int
    seconds: float


def sweep(found: Forecast, shop: Workshop, nursery: Nursery) -> Sweep:
    """Train and measure; minutes.

    Raises: PlanError, for a plan that made chest CT cannot stand in for; RoundError, EngineError, StorageError.
    """
    require_stand_in(found.asked.plan)
    began, plan, levels = time.monotonic(), stand_in(found), noise_levels(found)
    linear = scattering_of(plan)
    jobs = [(plan, level) for level in levels] + [(linear, level) for level in levels[:-1] if linear is not None]
    rounds = _Counter(shop.progress, total=sum(len(rates(*job)) for job in jobs) * plan.training.rounds)
    with tempfile.TemporaryDirectory(prefix="fedward-sweep-") as scratch:
        open_plan = not_private(plan, learning_rate=plan.training.learning_rate)
        stage = set_stage(Scenario(plan=open_plan, simulation=_made(plan)), None, Path(scratch) / "stage", shop)
        points = []
        for number, (model, level) in enumerate(jobs):
            tried = []
            for rate in rates(model, level):
                trained = at_noise(model, level, stage) if level else not_private(model, learning_rate=rate)
                played = replace(stage, scenario=replace(stage.scenario, plan=trained), folder=Path(scratch) / f"{number}-{rate:g}")
                tried.append(_point(_train(stage, played, nursery, shop.workers, rounds), played, stage, level))
            points.append(max(tried, key=lambda point: point.auc))
    return Sweep(
        model=tuple(points[: len(levels)]),
        scattering=tuple(points[len(levels) :]),
        sites=len(stage.sites),
        patients=sum(site["patients"] for site in stage.counts["sites"]),
        held_out=stage.counts["holdout"]["patients"],
        rounds=plan.training.rounds,
        seconds=time.monotonic() - began,
    )


def require_stand_in(plan: Plan) -> None:
    """Raises: PlanError, if made chest CT, single slices with one of two findings, cannot stand in for what the plan is trained on."""
    image = plan.input
    beside = image.sequence > 1 or image.second is not None or bool(image.record) or image.text is not None
    if not isinstance(plan.task, ClassificationSpec) or not image.has_image or beside:
        raise PlanError(
            f"plan '{plan.name}': --sweep measures on made chest CT, one slice and one of two findings, which cannot stand in for it.",
            fix="Leave out --sweep: what the plan costs, and how many patients it takes, is calculated without it.",
        )


def noise_levels(found: Forecast) -> list[float]:
    """None, that of each mode, and twice the most."""
    levels = sorted({noise for entry in found.possible if (noise := entry.relative_noise) is not None})
    return [0.0, *levels, 2 * levels[-1]] if levels else [0.0]


def stand_in(found: Forecast) -> Plan:
    """The plan with local noise, which any level can be given, on made chest CT."""
    plan = in_mode(found.asked.plan, "local", found.asked.units)
    height, width = min(plan.input.height, LARGEST_PX), min(plan.input.width, LARGEST_PX)
    window = Window(centre=-600.0, width=1500.0)
    return replace(
        plan,
        input=replace(plan.input, modality="CT", channels=1, window=window, mean=0.5, std=0.5, height=height, width=width),
        task=replace(plan.classification, classes=("normal", "nodule"), label_column="label", threshold=0.5),
        privacy=replace(plan.privacy, spare_rounds=0),
        evaluation=None,
        statistics=None,
        aggregation=AggregationSpec(minimum_cohort=_sites(plan, found), update_norm=_NO_BOUND),
    )


def scattering_of(plan: Plan) -> Plan | None:
    """The linear model under the same rounds and batch, with an optimiser that suits it; None if the plan has one already."""
    if isinstance(plan.model, ScatteringSpec):
        return None
    training = replace(plan.training, optimiser="sgd", learning_rate=SCATTERING_RATE, momentum=SCATTERING_MOMENTUM)
    return replace(plan, model=SCATTERING, training=training)


def rates(plan: Plan, relative_noise: float) -> tuple[float, ...]:
    """The steps that a level is tried by: the plan's, and where a network learns without noise a shorter one too."""
    own = plan.training.learning_rate
    return (own, own * SHORTER) if relative_noise == 0 and not isinstance(plan.model, ScatteringSpec) else (own,)


def not_private(plan: Plan, *, learning_rate: float) -> Plan:
    """The same plan with nothing clipped and no noise, and as many images a step as the private one has."""
    seen = min(plan.privacy.images_per_patient, SLICES)
    return without_privacy(replace(plan, privacy=replace(plan.privacy, images_per_patient=seen)), learning_rate=learning_rate)


def at_noise(plan: Plan, relative_noise: float, stage: Stage) -> Plan:
    """The plan that has this relative noise, more than 0, at the stage's small hospitals: its epsilon is whatever that takes."""
    units = "patients" if plan.privacy.unit == "patient" else "images"
    rate = plan.training.batch / min(public_count(site[units]) for site in stage.counts["sites"])
    noise = relative_noise * plan.training.batch * len(stage.sites) ** 0.5
    steps = plan.training.rounds * (plan.training.local_steps or 1)
    assert plan.privacy.delta is not None
    worse = epsilon([Event(sampling_rate=rate, noise_multiplier=noise, steps=steps)], plan.privacy.delta)
    return replace(plan, privacy=replace(plan.privacy, epsilon=worse))


def _sites(plan: Plan, found: Forecast) -> int:
    most = MOST_SITES if plan.training.batch <= LARGE_BATCH else FEWEST_SITES
    return max(FEWEST_SITES, min(most, len(found.asked.sites)))


def _made(plan: Plan) -> SimulationSpec:
    """Hospitals of four times the batch, half of them held out; a made hospital then draws at most five patients in eight."""
    size = max(LARGEST_PX, plan.input.height, plan.input.width)
    made = PhantomSpec(
        hospitals=plan.aggregation.minimum_cohort,
        patients_per_hospital=max(FEWEST_PATIENTS, 4 * plan.training.batch),
        slices_per_patient=SLICES,
        size_px=size,
    )
    return SimulationSpec(sites=made.hospitals, partition="by-site", holdout="fold", folds=2, phantoms=made)


def _train(stage: Stage, played: Stage, nursery: Nursery, workers: int, rounds: "_Counter") -> Weights:
    for site in stage.sites:
        clone_home(stage, site, played.home(site), aggregation="plain")
    write_atomically(played.plan_file, to_toml(played.scenario.plan).encode(), fsync=False)
    federation = Federation(
        plan=played.scenario.plan,
        plan_file=played.plan_file,
        sites=played.folder / SITES,
        num_sites=len(stage.sites),
        folder=played.folder,
        coordinator=stage.coordinator,
        aggregation="plain",
    )
    weights, _ = federation.train(rounds, engine="local", workers=workers, nursery=nursery)
    return weights


def _point(weights: Weights, played: Stage, stage: Stage, level: float) -> Point:
    scores = score(weights, stage.holdout(), played.scenario.plan, resamples=RESAMPLES)
    assert scores.patients is not None
    assert scores.patients.auc is not None, "made hospitals have both classes"
    found = scores.intervals["auc"] if scores.intervals else None
    low, high = (found.low, found.high) if found else (scores.patients.auc, scores.patients.auc)
    rate = played.scenario.plan.training.learning_rate
    return Point(relative_noise=level, learning_rate=rate, auc=scores.patients.auc, low=low, high=high)


class _Counter(Silent):
    """An observer that counts rounds over all federations."""

    def __init__(self, progress: Callable[[str, int, int], None], *, total: int) -> None:
        self._progress, self._done, self._total = progress, 0, total

    def round_committed(self, done: CommittedRound, weights: Weights) -> None:
        del done, weights
        self._done += 1
        self._progress("small federations, rounds", self._done, self._total)
