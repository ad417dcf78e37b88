# SPDX-License-Identifier: Apache-2.0
"""Playing one cell of the utility benchmark: the deployed client and server on a stage, and a score on patients whom nobody trained on.

A setting's data are read, spread and staged once a seed; every cell has homes of its own there, with the stage's data and an empty ledger.
Noise is drawn from the seed, so that a table can be made again bit by bit and so that a masked sum can be held against the same sum without
masks. Nothing here is released; a run whose noise comes from a seed promises nobody anything.
"""

import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from client.home import AggregationName
from common.durable import write_atomically
from common.errors import DataNotFound, FedwardError
from common.plan import Plan, to_toml
from common.privacy import Event, epsilon, round_charge
from common.update import Weights
from simulations.benchmarks.pooled_gap import Watch
from simulations.benchmarks.utility_cells import SOURCES, Cell, Setting, plan_of, scenario_of
from simulations.comparison import POOLED, pooled_plan, train_apart, without_privacy
from simulations.engine.nursery import Nursery
from simulations.federation import Federation
from simulations.observer import score
from simulations.stage import PLAN_FILE, SITES, STAGE_FILE, Stage, Workshop, clone_home, find_stage, set_stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What one model is worth on the held-out patients, counted as the data set is judged."""

    auc: float
    balanced_accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """The largest epsilon of any site when training was over: against the outside, and against all other sites together."""

    outside: float
    own_share: float
    noise_multiplier: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A cell that was played. One score; for `alone` one of each site. `refused`: the code with which the plan was, instead of scores.

    Counts are of units of privacy: patients, or records; `fewest` those of the smallest site. `model`: the final weights' digest.
    """

    cell: Cell
    scores: tuple[Score, ...]
    model: str | None
    spent: Spent | None
    fewest: int
    num_training: int
    num_holdout: int
    seconds: float
    refused: str | None = None


class House:
    """Where cells are played: it keeps one stage for each setting and seed. A cell is played by one thread; several may play at once."""

    def __init__(self, folder: Path, data: Path | None, shop: Workshop, nursery: Nursery) -> None:
        self._folder, self._data, self._shop, self._nursery = folder, data, shop, nursery
        self._building = threading.Lock()

    def play(self, cell: Cell) -> Outcome:
        """Train and judge. A plan that is refused (too few patients for its batch, say) is an outcome as well.

        Raises: DataError, if the data are not there or do not fit; RoundError, EngineError.
        """
        stage = self._stage(cell.setting, cell.seed)
        fewest = min(_units(stage))
        facts: dict[str, Any] = {
            "cell": cell,
            "fewest": fewest,
            "num_training": sum(_units(stage)),
            "num_holdout": stage.counts["holdout"][_counted(stage)],
        }
        began = time.monotonic()
        plan = plan_of(stage.scenario, cell, fewest_units=fewest)
        try:
            spent = _spending(plan, cell, _units(stage))
        except FedwardError as error:
            return Outcome(**facts, scores=(), model=None, spent=None, seconds=0.0, refused=error.code)
        models = self._train(stage, plan, cell)
        return Outcome(
            **facts,
            scores=tuple(_judge(weights, stage, plan, cell) for weights in models),
            model=models[0].digest.hex() if len(models) == 1 else None,
            spent=spent,
            seconds=time.monotonic() - began,
        )

    def _stage(self, setting: Setting, seed: int) -> Stage:
        folder = self._folder / f"{setting.dataset}-{setting.sites}-{setting.patients}-{seed}"
        scenario = scenario_of(setting, seed)
        with self._building:  # reading uses every core already, and two at once would fill the same cache twice
            if not (folder / STAGE_FILE).is_file():
                # Without privacy, since what the plan asks of a site depends on the cell.
                open_scenario = replace(scenario, plan=without_privacy(scenario.plan, learning_rate=None))
                set_stage(open_scenario, self._images(setting), folder, replace(self._shop, unsafe_noise_seed=seed))
        return replace(find_stage(folder), scenario=scenario)

    def _images(self, setting: Setting) -> Path | None:
        folder = SOURCES[setting.dataset].folder
        if folder is None:
            return None
        if self._data is None:
            raise DataNotFound(f"the images of '{setting.dataset}' are not made.", fix=f"Give --data, the folder that has {folder}/ in it.")
        return self._data / folder

    def _train(self, stage: Stage, plan: Plan, cell: Cell) -> list[Weights]:
        """The final model; of `alone` one for each site."""
        folder = stage.folder / f"{cell.kind}-{cell.epsilon}-{cell.masked}"
        apart = replace(stage, folder=folder, scenario=replace(stage.scenario, plan=plan))
        aggregation: AggregationName = "fsa1" if cell.masked else "ideal"
        shutil.rmtree(folder, ignore_errors=True)
        for site in stage.sites:
            clone_home(stage, site, folder / SITES / site, aggregation=aggregation)
        write_atomically(folder / PLAN_FILE, to_toml(plan).encode(), fsync=False)
        try:
            if cell.kind in ("central", "alone"):
                names = (POOLED,) if cell.kind == "central" else stage.sites
                models = train_apart(apart, workers=1, progress=lambda *_: None, nursery=self._nursery, only=names)
                return [models[name] for name in names]
            return [self._federate(apart, stage.coordinator, aggregation, cell.seed)]
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _federate(self, stage: Stage, coordinator: Path, aggregation: AggregationName, seed: int) -> Weights:
        federation = Federation(
            plan=stage.scenario.plan,
            plan_file=stage.plan_file,
            sites=stage.folder / SITES,
            num_sites=len(stage.sites),
            folder=stage.folder,
            coordinator=coordinator,
            aggregation=aggregation,
            unsafe_noise_seed=seed,
        )
        weights, _ = federation.train(
            Watch(stage.scenario.plan.training.rounds, lambda *_: None), engine="local", workers=1, nursery=self._nursery
        )
        return weights


def _counted(stage: Stage) -> str:
    return "patients" if stage.scenario.plan.privacy.unit == "patient" else "images"


def _units(stage: Stage) -> list[int]:
    """How many units of privacy each site has."""
    return [site[_counted(stage)] for site in stage.counts["sites"]]


def _spending(plan: Plan, cell: Cell, units: Sequence[int]) -> Spent | None:
    """What all rounds cost, at the site where they cost most; None without privacy. Raises: TooFewPatients, EpsilonImpossible."""
    if cell.epsilon is None:
        return None
    central = cell.kind == "central"
    each = [round_charge(pooled_plan(plan, len(units)), sum(units))] if central else [round_charge(plan, count) for count in units]
    return Spent(
        outside=max(_epsilon(charge.outside, plan) for charge in each),
        own_share=max(_epsilon(charge.own_share, plan) for charge in each),
        noise_multiplier=max(charge.outside.noise_multiplier for charge in each),
    )


def _epsilon(a_round: Event, plan: Plan) -> float:
    assert plan.privacy.delta is not None
    return epsilon([replace(a_round, steps=a_round.steps * plan.training.rounds)], plan.privacy.delta)


def _judge(weights: Weights, stage: Stage, plan: Plan, cell: Cell) -> Score:
    scores = score(weights, stage.holdout(), plan, resamples=0)
    level = scores.patients if SOURCES[cell.setting.dataset].judged_by == "patients" else scores.images
    assert level is not None
    assert level.auc is not None, "a hold-out has both classes"
    assert level.balanced_accuracy is not None
    return Score(auc=level.auc, balanced_accuracy=level.balanced_accuracy)
