# SPDX-License-Identifier: Apache-2.0
"""What every hospital's ledger will hold when a plan is over.

A site charges each round what `round_charge` says of its plan and its number of patients, and each evaluation and statistic what `counts`
says of them; its ledger adds them up. All are pure functions of public numbers, so the same functions called beforehand give the ledger's
own figures (a test trains and compares).

Epsilon is that of everything released once; `reserved` has the spare rounds too, which are charged only if something has to be done again.
The gate's figure is by Rényi divergences; by privacy loss distributions it is smaller, and valid for a plan that was fixed beforehand.

    relative noise = standard deviation of the noise on a coordinate of one step's mean gradient, in clip norms

It is what privacy does to learning, in one number: plans of equal relative noise, steps and model learn alike.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from common.errors import CohortTooSmall, EpsilonImpossible, FedwardError, PlanConflict, TooFewPatients
from common.plan import Plan, digest_of
from common.privacy import Charge, epsilon, epsilon_pld, lattice_of, plan_charge, public_count, round_charge
from common.privacy.counts import charges_beside_training, evaluation_charge, statistic_charge
from simulations.planner.modes import MODES, Mode, in_mode, mode_of

FEWEST_SITES: Final = 3
"""Masks among fewer hide nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hospitals:
    """How many patients each has, and how many images of each patient count: for plans that count images."""

    patients: tuple[int, ...]
    images_each: int = 1

    def units(self, plan: Plan) -> tuple[int, ...]:
        """What the plan's promise counts at each."""
        each = self.images_each if plan.privacy.unit == "record" else 1
        return tuple(count * each for count in self.patients)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a plan costs at one hospital; `charge` is that of a round.

    `own_share`: against more colluders than the plan assumes; with local noise the same.
    """

    charge: Charge
    epsilon: float
    epsilon_pld: float
    own_share: float
    reserved: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a hospital, or a whole mode, is refused, and what would work."""

    code: str
    message: str
    fix: str

    @classmethod
    def of(cls, error: FedwardError) -> "Refusal":
        return cls(code=error.code, message=error.message, fix=error.fix)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteForecast:
    """One hospital, numbered from 1 in the order given. `counted_as`: its units rounded down, which is all that others may learn."""

    number: int
    units: int
    counted_as: int
    outcome: Cost | Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeForecast:
    """A plan with one kind of noise, at each hospital; `relative_noise` over those that take part."""

    mode: Mode
    plan: Plan
    sites: tuple[SiteForecast, ...]

    @property
    def costs(self) -> tuple[Cost, ...]:
        return tuple(site.outcome for site in self.sites if isinstance(site.outcome, Cost))

    @property
    def units(self) -> tuple[int, ...]:
        """Of those that take part."""
        return tuple(site.units for site in self.sites if isinstance(site.outcome, Cost))

    @property
    def holds_rounds(self) -> bool:
        """Whether enough hospitals take part."""
        return len(self.costs) >= least_sites(self.plan)

    @property
    def relative_noise(self) -> float | None:
        return relative_noise(self.plan, [cost.charge for cost in self.costs])


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """A plan at these hospitals, with the noise that it asks for and with the other; a mode that the plan cannot have is refused."""

    plan: Plan
    hospitals: Hospitals
    modes: dict[Mode, ModeForecast | Refusal]

    @property
    def digest(self) -> str:
        return digest_of(self.plan)

    @property
    def asked(self) -> ModeForecast:
        """The plan as it is."""
        found = self.modes[mode_of(self.plan)]
        assert isinstance(found, ModeForecast), "the plan's own mode is never refused, it raises"
        return found

    @property
    def possible(self) -> tuple[ModeForecast, ...]:
        return tuple(found for found in self.modes.values() if isinstance(found, ModeForecast))


def forecast(plan: Plan, hospitals: Hospitals) -> Forecast:
    """Both modes of a private plan.

    Raises: PlanConflict, if the plan promises nothing; CohortTooSmall, if so few hospitals cannot hold a round; EpsilonImpossible, with an
    epsilon and steps that would work, naming the hospital.
    """
    if not plan.is_private:
        raise PlanConflict(f"plan '{plan.name}' is not private, so it costs no epsilon and protects nobody.", fix='Set unit = "patient".')
    if (given := len(hospitals.patients)) < (least := least_sites(plan)):
        fewer = f", or set [aggregation] minimum_cohort and [privacy] noise_quorum to {given}" if given >= FEWEST_SITES else ""
        raise CohortTooSmall(
            f"plan '{plan.name}': {given} hospital(s) given, a round needs {least}.", fix=f"Give the patients of {least} or more{fewer}."
        )
    units = hospitals.units(plan)
    modes: dict[Mode, ModeForecast | Refusal] = {mode_of(plan): _in_mode(plan, units)}
    for mode in MODES:
        if mode not in modes:
            try:
                modes[mode] = _in_mode(in_mode(plan, mode, units), units)
            except (PlanConflict, EpsilonImpossible) as error:
                modes[mode] = Refusal.of(error)
    return Forecast(plan=plan, hospitals=hospitals, modes={mode: modes[mode] for mode in MODES})


def least_sites(plan: Plan) -> int:
    """Fewer hold no round."""
    return max(plan.aggregation.minimum_cohort, plan.noise_quorum)


def relative_noise(plan: Plan, charges: Sequence[Charge]) -> float | None:
    """The noise on one step's mean gradient when these sites take part, each adding its own; None if nobody does."""
    if not charges:
        return None
    total = math.sqrt(sum(charge.own_share.noise_multiplier**2 for charge in charges))
    return total / (len(charges) * plan.training.batch)


def released(plan: Plan, charge: Charge, *, rounds: int) -> list[Charge]:
    """What a ledger holds after so many rounds of this charge, nothing done twice."""
    evaluations = sum(number <= rounds for number in plan.evaluation_rounds)
    beside = [evaluation_charge(plan).times(evaluations)] if plan.evaluation else []
    return [charge.times(rounds), *beside, *([statistic_charge(plan)] if plan.statistics else [])]


def spent(plan: Plan, charge: Charge, *, rounds: int) -> tuple[float, float]:
    """Epsilon of that: against the outside, and what a site's own share is worth."""
    assert plan.privacy.delta is not None
    charges = released(plan, charge, rounds=rounds)
    return epsilon((each.outside for each in charges), plan.privacy.delta), epsilon(
        (each.own_share for each in charges), plan.privacy.delta
    )


def _in_mode(plan: Plan, units: Sequence[int]) -> ModeForecast:
    lattice_of(plan)  # refused here as it would be at the sites
    sites = tuple(
        SiteForecast(number=number, units=count, counted_as=public_count(count), outcome=_outcome(plan, number, count))
        for number, count in enumerate(units, start=1)
    )
    return ModeForecast(mode=mode_of(plan), plan=plan, sites=sites)


def _outcome(plan: Plan, number: int, units: int) -> Cost | Refusal:
    try:
        charge = round_charge(plan, units)
    except TooFewPatients as error:
        return Refusal.of(error)
    except EpsilonImpossible as error:
        raise EpsilonImpossible(f"hospital {number}: {error.message}", fix=error.fix) from error
    assert plan.privacy.delta is not None
    outside, own_share = spent(plan, charge, rounds=plan.training.rounds)
    everything = (plan_charge(plan, units), *charges_beside_training(plan))
    return Cost(
        charge=charge,
        epsilon=outside,
        epsilon_pld=epsilon_pld((each.outside for each in released(plan, charge, rounds=plan.training.rounds)), plan.privacy.delta),
        own_share=own_share,
        reserved=epsilon((each.outside for each in everything), plan.privacy.delta),
    )
