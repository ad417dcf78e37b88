# SPDX-License-Identifier: Apache-2.0
"""The forecast as sentences: what is promised, who can take part, who has too few patients, and what they could do about it.

Sentences follow from numbers by the rules that stand here; the terminal and the page say the same ones.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from client.policy import Policy, objections
from common.plan import Plan
from common.privacy import public_count
from common.privacy.lattice import plan_noise
from simulations.planner.forecast import Forecast, Refusal, least_sites
from simulations.planner.modes import mode_of
from simulations.planner.needed import LOSS, is_linear, needed
from simulations.planner.outlook import Outlook
from simulations.planner.tables import NOISES, unit_of
from simulations.report import numbers


def promise(plan: Plan) -> list[str]:
    """What the plan says, in two or three sentences."""
    privacy, training = plan.privacy, plan.training
    assert privacy.epsilon is not None
    assert privacy.delta is not None
    steps = f"{training.rounds} rounds of {training.local_steps} step(s), {training.batch} {unit_of(plan)}s a step"
    said = [
        f"{plan.name} promises ε {privacy.epsilon:g} at δ {privacy.delta:g} for each {unit_of(plan)}, over {steps} and "
        f"{privacy.spare_rounds} spare round(s)."
    ]
    if plan.shares_noise:
        honest = plan.noise_quorum - privacy.colluders
        said.append(
            f"Noise is shared: each site adds 1/{honest} of the variance. ε holds against the outside and up to {privacy.colluders} "
            f"colluding site(s), while at least {plan.noise_quorum} are in the sum; beyond that the ε of a site's own share is left."
        )
    else:
        said.append("Noise is local: each site adds all that its promise needs, and ε holds whoever colludes.")
    return said


def alarms(found: Forecast) -> list[str]:
    """What does not work, and what would."""
    said = []
    refused = {site.number: site.outcome for site in found.asked.sites if isinstance(site.outcome, Refusal)}
    for outcome in dict.fromkeys(refused.values()):
        which = _hospitals([number for number, other in refused.items() if other == outcome])
        said.append(f"{which} cannot take part: {outcome.message} {outcome.fix}")
    if not found.asked.holds_rounds:
        said.append(
            f"No round would be held: {len(found.asked.costs)} of {len(found.asked.sites)} hospitals can take part, and "
            f"{least_sites(found.plan)} are needed."
        )
    for mode, entry in found.modes.items():
        if isinstance(entry, Refusal):
            said.append(f"With {NOISES[mode]} the plan is not possible: {entry.message} {entry.fix}")
    return said


def policies(known: Outlook) -> list[str]:
    """What a hospital whose policy is the one that ships would have against this plan."""
    plan, shipped = known.plan, Policy()
    found = objections(shipped, plan, units=max(site.units for site in known.forecast.asked.sites))
    for name, asked, cap in (
        ("eps_plan", plan.privacy.epsilon or 0.0, shipped.budget.eps_plan),
        ("own_share_plan", max((cost.own_share for cost in known.forecast.asked.costs), default=0.0), shipped.budget.own_share_plan),
    ):
        if asked > cap:
            found.append(f"{name} = {cap:g}, and this plan takes {numbers.epsilon(asked)}")
    return [f"A hospital whose policy.toml is the one that ships would refuse this plan: {'; '.join(found)}."] if found else []


def advice(known: Outlook) -> list[str]:
    """Hospital by hospital, whether their patients are enough for this plan, and by which change they would be; then what was measured."""
    found = known.forecast
    said = list(_by_hospital(found))
    if not said:
        least = numbers.count(needed(found.asked, linear=is_linear(found.plan)).high)
        said = [f"Every hospital has at least {least} {unit_of(found.plan)}s: by the rule of thumb, enough for this plan."]
    return [*said, *_wasted(found), *_measured(known), *_at_most(known), *policies(known)]


def _at_most(known: Outlook) -> Iterator[str]:
    spec = known.plan.evaluation
    if spec is not None and spec.patience is not None:
        yield "The plan may end early ([evaluation] patience). All figures are of the whole of it, so they are the most that it costs."
        yield (
            "ε by PLD, too, bounds this plan only as all its rounds. When it ends depends on what it released, so what a ledger shows by "
            "PLD after an early end is no bound; there, the Rényi figure of all rounds counts."
        )


def _by_hospital(found: Forecast) -> Iterator[str]:
    unit, linear = unit_of(found.plan), is_linear(found.plan)
    need = needed(found.asked, linear=linear)
    span = f"{numbers.count(need.low)} to {numbers.count(need.high)}"
    for units in sorted({site.units for site in found.asked.sites}):
        verdict = need.verdict(units)
        if verdict == "enough":
            continue
        which = _hospitals([site.number for site in found.asked.sites if site.units == units])
        has = f"{which}, {numbers.count(units)} {unit}s: {verdict}; by the rule of thumb a loss of at most {LOSS:g} needs {span}."
        yield has + _way_out(found, units)


def _wasted(found: Forecast) -> Iterator[str]:
    """Shared noise is for hospitals of minimum_patients; where all are larger, it is more than they need."""
    plan = found.plan
    least = min((site.counted_as for site in found.asked.sites), default=0)
    if plan.privacy.minimum_patients is None or public_count(plan.privacy.minimum_patients) >= least:
        return
    fitting = replace(plan, privacy=replace(plan.privacy, minimum_patients=least))
    share = plan_noise(fitting) / plan_noise(plan)
    yield (
        f"The plan's noise is for hospitals of {numbers.count(plan.privacy.minimum_patients)} {unit_of(plan)}s, and the smallest counts "
        f"{numbers.count(least)}: with minimum_patients = {least} it would be {numbers.percent(share)} of what it is, at the same ε."
    )


def _hospitals(which: Sequence[int]) -> str:
    return f"Hospital{'' if len(which) == 1 else 's'} {numbers.runs(which)}"


def _way_out(found: Forecast, units: int) -> str:
    """The least change after which so many are enough, or at least not too few."""
    linear = is_linear(found.plan)
    ways = [(entry.mode, each) for each in ((True,) if linear else (False, True)) for entry in found.possible]
    ways = [way for way in ways if way != (mode_of(found.plan), linear)]
    for wanted in ("enough", "borderline"):
        for mode, is_scattering in ways:
            entry = next(entry for entry in found.possible if entry.mode == mode)
            if needed(entry, linear=is_scattering).verdict(units) == wanted:
                change = ' family = "scattering"' if is_scattering and not linear else ""
                noise = f" {NOISES[mode]}" if mode != mode_of(found.plan) else ""
                return f" With{' and'.join(filter(None, (change, noise)))} {'they are enough' if wanted == 'enough' else 'they may do'}."
    return " No change of model or noise makes them enough: more hospitals would, or a larger ε, or leave this hospital out."


def _measured(known: Outlook) -> Iterator[str]:
    """What the plan's own noise took in the sweep, and whether the linear model did better under it."""
    sweep, noise = known.measured, known.forecast.asked.relative_noise
    if sweep is None or noise is None:
        return
    point = next(point for point in sweep.model if point.relative_noise == noise)
    loss = max(0.0, sweep.model[0].auc - point.auc)
    more = "" if loss <= LOSS else f", more than {LOSS:g}"
    yield f"On made images this noise took {numbers.ratio(loss)} of AUC from {numbers.ratio(sweep.model[0].auc)}{more}."
    linear = next((point for point in sweep.scattering if point.relative_noise == noise), None)
    if linear is not None and linear.auc > point.auc:
        how = "clearly better" if linear.low > point.high else "better, though the intervals overlap"
        yield f'There family = "scattering" did {how}: {numbers.ratio(linear.auc)} against {numbers.ratio(point.auc)}.'
