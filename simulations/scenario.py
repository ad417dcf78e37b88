# SPDX-License-Identifier: Apache-2.0
"""A reproducible run: a plan, and how it is played on one machine.

A file in `simulations/plans/` is a plan with one more table, `[simulation]`: how many sites, how patients are spread over them, which are
held out, which data are made. Hospitals agree to the plan alone, so the digest covers the plan alone.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from common.errors import DataNotFound, PlanConflict
from common.plan import Plan
from common.plan.parse import PLAN, Sections, dump, line_of, read_table, text_of, validate
from common.plan.values import STRICT, Positive
from simulations.made.spec import MadeSpec
from simulations.phantoms import PhantomSpec

PLANS = Path(__file__).parent / "plans"
DEFAULT_PLAN = "default"
_TABLE = "simulation"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationSpec:
    """[simulation]. Patients are the unit of every split and spread: the images of one never part.

    partition: "by-site" follows the data (a hospital's folder, or the `site` column), "iid" deals patients out evenly, "dirichlet" gives
    each site its own mix of classes (Hsu et al. 2019; a smaller alpha is more uneven).
    validation: the part of a site's patients that it keeps for the plan's [evaluation]; without one a site trains on all that it has.
    learning_rate_without_privacy: the step of the run that shows what privacy costs; without one, the plan's. Clipping and noise keep a
    network alive that dies of steps as long without them.
    holdout: "split" follows the data's own train/val/test, "fold" holds out patients of one of `folds` folds, balanced by class.
    phantoms, made: data of nobody, made when none are given: CT slices as DICOM files, or a folder with an index for any other task.
    """

    __pydantic_config__ = STRICT
    sites: Annotated[int, Field(ge=1, le=100_000)] = 10
    partition: Literal["by-site", "iid", "dirichlet"] = "by-site"
    alpha: Positive | None = None
    holdout: Literal["split", "fold"] = "fold"
    folds: Annotated[int, Field(ge=2, le=100)] = 5
    fold: Annotated[int, Field(ge=0)] = 0
    evaluate_every: Annotated[int, Field(ge=1)] = 1
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    learning_rate_without_privacy: Positive | None = None
    phantoms: PhantomSpec | None = None
    made: MadeSpec | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What `fedward simulate` runs."""

    plan: Plan
    simulation: SimulationSpec

    def with_changes(self, *, sites: int | None = None, rounds: int | None = None, seed: int | None = None) -> "Scenario":
        """The same scenario with the command line's changes; another seed or number of rounds is another plan, with another digest."""
        training = self.plan.training
        training = replace(training, rounds=training.rounds if rounds is None else rounds, seed=training.seed if seed is None else seed)
        simulation = self.simulation
        if sites is not None:
            phantoms = replace(simulation.phantoms, hospitals=sites) if simulation.phantoms else None
            made = replace(simulation.made, hospitals=sites) if simulation.made else None
            simulation = replace(simulation, sites=sites, phantoms=phantoms, made=made)
        return Scenario(plan=replace(self.plan, training=training), simulation=simulation)


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    simulation: SimulationSpec


_FILE: TypeAdapter[_File] = TypeAdapter(_File)
_SECTIONS: Sections = {_TABLE: (SimulationSpec,), "phantoms": (PhantomSpec,), "made": (MadeSpec,)}


def find(name: str) -> Path:
    """A plan by path, or by the name of one that ships with fedward. Raises: DataNotFound, listing those."""
    for path in (Path(name), PLANS / name, PLANS / f"{name}.toml"):
        if path.is_file():
            return path
    shipped = ", ".join(sorted(path.stem for path in PLANS.glob("*.toml")))
    raise DataNotFound(f"there is no plan '{name}'.", fix=f"Give the path of a .toml file, or one of: {shipped}.")


def load(path: Path) -> Scenario:
    """Read a scenario file. Raises: DataNotFound, PlanError."""
    if not path.is_file():
        raise DataNotFound(f"plan file '{path}' does not exist.", fix="Give the path of a .toml file.")
    return parse(text_of(path), name=str(path))


def parse(text: str, *, name: str = "plan.toml") -> Scenario:
    """A plan's text, with or without a [simulation] table. Raises: PlanError."""
    table = read_table(text, name=name)
    simulation = validate(_FILE, {_TABLE: table.pop(_TABLE, {})}, text=text, name=name, sections=_SECTIONS).simulation
    _check(simulation, text, name)
    return Scenario(plan=validate(PLAN, table, text=text, name=name), simulation=simulation)


def to_toml(scenario: Scenario) -> str:
    """The scenario as one file again; `parse` gives back an equal one."""
    return dump(scenario.plan) + "\n" + dump({_TABLE: scenario.simulation})


def _check(spec: SimulationSpec, text: str, name: str) -> None:
    for key, broken, wrong, fix in (
        (
            "alpha",
            spec.partition == "dirichlet" and spec.alpha is None,
            'partition = "dirichlet" needs an alpha',
            "Set alpha, for example 0.5.",
        ),
        ("alpha", spec.partition != "dirichlet" and spec.alpha is not None, "alpha has a meaning for dirichlet alone", "Remove alpha."),
        ("fold", spec.fold >= spec.folds, f"fold {spec.fold} of {spec.folds} does not exist; they count from 0", "Lower fold."),
        (
            "sites",
            spec.phantoms is not None and spec.phantoms.hospitals != spec.sites,
            "sites and phantoms.hospitals differ",
            "Make them equal.",
        ),
        ("sites", spec.made is not None and spec.made.hospitals != spec.sites, "sites and made.hospitals differ", "Make them equal."),
        ("made", spec.made is not None and spec.phantoms is not None, "data are made in two ways", "Keep one of made and phantoms."),
    ):
        if broken:
            line = line_of(text, (_TABLE, key))
            raise PlanConflict(f"{name}, line {line}: [{_TABLE}] {key}: {wrong}.", fix=fix)
