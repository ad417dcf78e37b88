# SPDX-License-Identifier: Apache-2.0
"""What the benchmark of private training's utility runs: cells, each one training, and the order in which they are run.

A *setting* is a data set, spread over so many sites. A *cell* is one training in a setting: how, at which epsilon, from which seed. Cells
of the same setting and seed have the same sites, the same hold-out and the same first weights, so that their differences are pairs.

    federated     the federation, with nothing clipped and no noise: what privacy is measured against
    distributed   shared noise, and every site has to answer: noise_quorum is the number of sites
    tolerant      shared noise that is enough when one site is absent; here it is not, so there is more noise than the promise needs
    local         every site adds all the noise of its own promise
    central       everyone's patients in one place, by one trusted trainer; private, or at epsilon infinity not
    alone         every site by itself, not private: what a hospital has without any of this

The order is: what an aim needs, then the rest at the aims' epsilon, then other epsilons, then settings without an aim; and in each of them
seed by seed, so that a run that ends early has whole pairs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from common.plan import Plan
from common.privacy import public_count
from simulations import scenario as scenarios
from simulations.benchmarks.pooled_gap import of_seed
from simulations.comparison import without_privacy
from simulations.scenario import Scenario

Kind = Literal["federated", "distributed", "tolerant", "local", "central", "alone"]
Level = Literal["images", "patients"]

MODES: Final[tuple[Kind, ...]] = ("local", "distributed", "central", "alone")
"""What can be asked for; the rest follows."""
PRIVATE_MODES: Final = ("local", "distributed", "central")
SMALLEST_QUORUM: Final = 3
AIMED_EPSILON: Final = 8.0
_BESIDE = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One of the benchmark's data sets. `judged_by`: what a score counts; `folder`: its name below --data, if the plan makes none."""

    plan_file: Path
    judged_by: Level
    folder: str | None


SOURCES: Final[Mapping[str, Source]] = {
    "xray": Source(plan_file=_BESIDE / "utility_xray.toml", judged_by="images", folder="xray-pneumonia"),
    "xray-cnn": Source(plan_file=_BESIDE / "utility_xray_cnn.toml", judged_by="images", folder="xray-pneumonia"),
    "phantoms": Source(plan_file=_BESIDE / "utility_phantoms.toml", judged_by="patients", folder=None),
    "ct": Source(plan_file=_BESIDE / "utility_ct.toml", judged_by="images", folder="ct-lung"),
    "malaria": Source(plan_file=_BESIDE / "utility_malaria.toml", judged_by="images", folder="cell-malaria"),
}
USUAL: Final = ("xray", "phantoms", "malaria")
"""Those that are run unless others are asked for."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Setting:
    """A data set over so many sites; `patients`: those that a made hospital trains on, 0 for a data set that has as many as it has."""

    dataset: str
    sites: int
    patients: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One training. `epsilon` None: not private. `masked`: under secure aggregation instead of as the ideal sum of the same integers."""

    setting: Setting
    kind: Kind
    epsilon: float | None
    seed: int
    masked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """In this setting, this kind's mean AUC loses at most `loss` against the rival's, both at epsilon 8 or the rival not private."""

    setting: Setting
    kind: Kind
    rival: Kind
    loss: float


_XRAY = Setting(dataset="xray", sites=5)
_MANY, _MORE = Setting(dataset="phantoms", sites=5, patients=1000), Setting(dataset="phantoms", sites=5, patients=2000)
LEVEL: Final = 0.005
"""A difference in AUC that is called none: half of the standard error that one hold-out of this size has."""
AIMS: Final = (
    Aim(setting=_XRAY, kind="distributed", rival="federated", loss=0.015),
    Aim(setting=_XRAY, kind="distributed", rival="central", loss=LEVEL),
    Aim(setting=_XRAY, kind="local", rival="federated", loss=0.02),
    Aim(setting=_MANY, kind="distributed", rival="federated", loss=0.03),
    Aim(setting=_MORE, kind="local", rival="federated", loss=0.03),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the command line asks for. Epsilon None is infinity: not private."""

    datasets: Sequence[str]
    epsilons: Sequence[float | None]
    modes: Sequence[Kind]
    sites: Sequence[int]
    patients: Sequence[int]
    seeds: Sequence[int]


def schedule(wanted: Wanted) -> list[Cell]:
    """Every cell that is asked for, once, the most wanted first."""
    return sorted(dict.fromkeys(_cells(wanted)), key=_rank)


def _cells(wanted: Wanted) -> Iterator[Cell]:
    for setting in _settings(wanted):
        for seed in wanted.seeds:
            yield from _unmasked(setting, wanted, seed)
        for kind in wanted.modes:
            if kind in ("local", "distributed") and AIMED_EPSILON in wanted.epsilons:
                yield Cell(setting=setting, kind=kind, epsilon=AIMED_EPSILON, seed=wanted.seeds[0], masked=True)


def _unmasked(setting: Setting, wanted: Wanted, seed: int) -> Iterator[Cell]:
    for epsilon in wanted.epsilons:
        for kind in wanted.modes:
            if epsilon is not None and kind in PRIVATE_MODES:
                yield Cell(setting=setting, kind=kind, epsilon=epsilon, seed=seed)
    if AIMED_EPSILON in wanted.epsilons and "distributed" in wanted.modes and setting.sites > SMALLEST_QUORUM:
        yield Cell(setting=setting, kind="tolerant", epsilon=AIMED_EPSILON, seed=seed)
    if None in wanted.epsilons:
        yield Cell(setting=setting, kind="federated", epsilon=None, seed=seed)
        for kind in ("central", "alone"):
            if kind in wanted.modes:
                yield Cell(setting=setting, kind=kind, epsilon=None, seed=seed)


def _settings(wanted: Wanted) -> Iterator[Setting]:
    """More patients than the first number are tried with the first number of sites alone: making them takes as long as training on them."""
    for dataset in wanted.datasets:
        made = SOURCES[dataset].folder is None
        for sites in wanted.sites:
            for patients in wanted.patients if made and sites == wanted.sites[0] else wanted.patients[:1] if made else (0,):
                yield Setting(dataset=dataset, sites=sites, patients=patients)


def _rank(cell: Cell) -> tuple[bool | int | Setting | str | float, ...]:
    aims = [aim for aim in AIMS if aim.setting == cell.setting]
    wanted = any(_serves(cell, aim) for aim in aims)
    return (
        not wanted,
        not aims,
        cell.epsilon not in (AIMED_EPSILON, None),
        cell.masked,
        cell.seed,
        cell.setting,
        cell.kind,
        cell.epsilon or 0.0,
    )


def _serves(cell: Cell, aim: Aim) -> bool:
    rival_epsilon = None if aim.rival == "federated" else AIMED_EPSILON
    return not cell.masked and (cell.kind, cell.epsilon) in ((aim.kind, AIMED_EPSILON), (aim.rival, rival_epsilon))


def scenario_of(setting: Setting, seed: int) -> Scenario:
    """The scenario on whose stage all cells of this setting and seed are played: seed, sites and hold-out; not yet private."""
    scenario = of_seed(scenarios.load(SOURCES[setting.dataset].plan_file).with_changes(sites=setting.sites), seed)
    simulation = scenario.simulation
    if simulation.phantoms is not None:
        everybody = round(setting.patients * simulation.folds / (simulation.folds - 1))
        simulation = replace(simulation, phantoms=replace(simulation.phantoms, patients_per_hospital=everybody))
    plan = replace(scenario.plan, aggregation=replace(scenario.plan.aggregation, minimum_cohort=setting.sites))
    return Scenario(plan=plan, simulation=simulation)


def plan_of(scenario: Scenario, cell: Cell, *, fewest_units: int) -> Plan:
    """A cell's plan; `fewest_units` are those of the setting's smallest site.

    For central and lone training it is the federation's plan with local noise, from which `simulations.comparison` derives their own.
    """
    plan = scenario.plan
    if cell.epsilon is None:
        return without_privacy(plan, learning_rate=scenario.simulation.learning_rate_without_privacy)
    privacy = replace(plan.privacy, epsilon=cell.epsilon, noise="local", noise_quorum=None, minimum_patients=None)
    if cell.kind in ("distributed", "tolerant"):
        quorum = cell.setting.sites - (cell.kind == "tolerant")
        privacy = replace(privacy, noise="distributed", noise_quorum=quorum, minimum_patients=public_count(fewest_units))
    return replace(plan, privacy=privacy)
