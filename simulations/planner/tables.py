# SPDX-License-Identifier: Apache-2.0
"""The forecast as tables of text, the same ones for the terminal and for the page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from common.plan import Plan
from common.privacy import group_privacy
from simulations.planner.alternatives import Alternative
from simulations.planner.forecast import Cost, Forecast, Refusal, SiteForecast
from simulations.planner.modes import Mode
from simulations.planner.needed import LOSS, is_linear, needed
from simulations.planner.outlook import Outlook
from simulations.report import numbers

if TYPE_CHECKING:
    from simulations.planner.sweep import Point

IMAGES: Final = (1, 2, 3, 5, 10)
NOISES: Final = {"distributed": "shared noise", "local": "local noise"}
"""What a mode is called before people."""

Kind = Literal["", "plan", "alarm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`kind`: "plan" is the plan as it is, "alarm" something that does not work."""

    cells: tuple[str, ...]
    kind: Kind = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table: all cells are text, the first column is the row's name."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str


def of(known: Outlook) -> list[Grid]:
    """Every table that this outlook can fill, in the order in which they are read."""
    found = [hospitals(known)]
    if known.plan.privacy.unit == "record":
        found.append(groups(known.plan))
    found.append(patients_needed(known.forecast))
    if known.measured is not None:
        found.append(measured(known))
    if known.forecast.asked.mode in known.others:
        found += [rounds(known), batches(known), noises(known)]
    return found


def hospitals(known: Outlook) -> Grid:
    """What each hospital's ledger will say at the end, with either noise; hospitals of one size share a row."""
    unit = unit_of(known.plan)
    headings = ["site", f"{unit}s", "counted as", "q"]
    for entry in known.modes:
        headings += [f"{NOISES[entry.mode]}: σ", "ε", "ε by PLD", *(["ε of own share"] if entry.mode == "distributed" else [])]
    rows = []
    for alike in _of_one_size(known.forecast.asked.sites):
        site = alike[0]
        cells = [
            numbers.runs(other.number for other in alike),
            numbers.count(site.units),
            numbers.count(site.counted_as),
            _rate(known.plan, site),
        ]
        for entry in known.modes:
            cells += _cost_cells(entry.sites[site.number - 1].outcome, entry.mode)
        rows.append(Row(cells=tuple(cells), kind="alarm" if isinstance(site.outcome, Refusal) else ""))
    note = (
        f"q: the chance with which a step draws a {unit}. σ: noise multiplier of the sum. ε: after all rounds, by the accountant that "
        "gates (Rényi); the ledger will say the same. ε by PLD: the same promise, counted more tightly, for a plan fixed beforehand."
    )
    shared = " ε of own share: against more colluding sites than the plan assumes." if "distributed" in known.others else ""
    return Grid(title="At the end of the plan", headings=tuple(headings), rows=tuple(rows), note=note + shared)


def rounds(known: Outlook) -> Grid:
    return _alternatives(known, known.others[known.forecast.asked.mode].rounds, "rounds", known.forecast.asked.plan.training.rounds)


def batches(known: Outlook) -> Grid:
    return _alternatives(known, known.others[known.forecast.asked.mode].batches, "batch", known.plan.training.batch)


def noises(known: Outlook) -> Grid:
    """Epsilon at other noise multipliers."""
    found = known.others[known.forecast.asked.mode].noises
    rows = tuple(
        Row(cells=(numbers.decimals(noise, 3), numbers.epsilon(epsilon)), kind="plan" if index == len(found) // 2 else "")
        for index, (noise, epsilon) in enumerate(found)
    )
    note = f"All {known.plan.training.rounds} rounds, at the hospital where ε is highest."
    return Grid(title="Other noise", headings=("σ", "ε"), rows=rows, note=note)


def patients_needed(found: Forecast) -> Grid:
    """What the rule of thumb asks of each hospital: this plan's kind of model, and the linear one."""
    models = [("linear model on scattering features", True)]
    if not is_linear(found.plan):
        models.insert(0, (f"{found.plan.model.family}, as in this plan", False))
    rows = []
    for label, linear in models:
        each = [needed(entry, linear=linear) for entry in found.possible]
        rows.append(Row(cells=(label, *(f"{numbers.count(need.low)} to {numbers.count(need.high)}" for need in each))))
    headings = ("model", *(NOISES[entry.mode] for entry in found.possible))
    note = (
        f"For a loss of at most {LOSS:g} in AUC against the same federation without privacy, if {len(found.hospitals.patients)} hospitals "
        "have as many. A rule of thumb from one study of chest X-rays (networks of 15,000 weights), scaled to this plan's ε and hospitals; "
        "larger networks need more."
    )
    return Grid(title=f"{unit_of(found.plan).capitalize()}s that each hospital needs", headings=headings, rows=tuple(rows), note=note)


def measured(known: Outlook) -> Grid:
    """What the sweep found: AUC under each noise, for the plan's model and for the linear one."""
    sweep = known.measured
    assert sweep is not None
    named = {entry.relative_noise: NOISES[entry.mode] for entry in known.modes}
    rows = []
    for index, point in enumerate(sweep.model):
        label = named.get(point.relative_noise, "twice the most") if point.relative_noise else _not_private(point, known.plan)
        linear = sweep.scattering[index] if index < len(sweep.scattering) else None
        cells = (label, _thousandths(point.relative_noise), _auc(point), *([_auc(linear)] if sweep.scattering else []))
        rows.append(Row(cells=cells, kind="plan" if label == NOISES[known.forecast.asked.mode] else ""))
    headings = (
        "noise",
        "relative noise, ‰",
        f"{known.plan.model.family}: AUC (95 %)",
        *(["scattering: AUC (95 %)"] if sweep.scattering else []),
    )
    note = (
        f"One run each: {sweep.sites} made hospitals, {numbers.count(sweep.patients)} made patients, chest CT; {sweep.rounds} rounds under "
        f"the relative noise that your hospitals would have; judged on {numbers.count(sweep.held_out)} others. It shows what this noise "
        "does to this training, not what the model will be worth on your images."
    )
    return Grid(title="Measured on made images", headings=headings, rows=tuple(rows), note=note)


def _not_private(point: "Point", plan: Plan) -> str:
    """What nothing was added to; the step is told where a shorter one than the plan's was better."""
    shorter = point.learning_rate < plan.training.learning_rate
    return f"not private (step {point.learning_rate:g})" if shorter else "not private"


def groups(plan: Plan) -> Grid:
    """What a promise per image leaves for a patient."""
    assert plan.privacy.epsilon is not None
    assert plan.privacy.delta is not None
    rows = []
    for images in IMAGES:
        epsilon, delta = group_privacy(plan.privacy.epsilon, plan.privacy.delta, images)
        empty = delta >= 1
        rows.append(
            Row(
                cells=(str(images), numbers.epsilon(epsilon), "empty" if empty else numbers.scientific(delta)),
                kind="alarm" if empty else "",
            )
        )
    note = "m images: m ε, and δ times 1 + e^ε + ... + e^((m-1)ε) (Dwork and Roth 2014; Vadhan 2017). Empty: the promise allows everything."
    return Grid(title="This plan counts images, not patients", headings=("images of a patient", "ε", "δ"), rows=tuple(rows), note=note)


def unit_of(plan: Plan) -> str:
    return "patient" if plan.privacy.unit == "patient" else "image"


def _alternatives(known: Outlook, found: Sequence[Alternative], what: str, own: int) -> Grid:
    rows = tuple(
        Row(
            cells=(
                numbers.count(row.value),
                numbers.epsilon(row.epsilon),
                "not possible" if row.noise is None else numbers.decimals(row.noise, 3),
                numbers.NOTHING if row.relative_noise is None else _thousandths(row.relative_noise),
            ),
            kind="plan" if row.value == own else "",
        )
        for row in found
    )
    headings = (what, "ε with this σ", f"σ that keeps ε {known.plan.privacy.epsilon:g}", "relative noise, ‰")
    note = (
        "At the hospital where ε is highest. Relative noise: what the σ beside it leaves on a coordinate of one step's mean gradient, in "
        "thousandths of the clip norm."
    )
    return Grid(title=f"Other {'batches' if what == 'batch' else what}", headings=headings, rows=rows, note=note)


def _thousandths(relative_noise: float) -> str:
    return numbers.decimals(1000 * relative_noise, 2)


def _auc(point: "Point | None") -> str:
    return numbers.NOTHING if point is None else f"{numbers.ratio(point.auc)} ({numbers.ratio(point.low)}–{numbers.ratio(point.high)})"


def _of_one_size(sites: Sequence[SiteForecast]) -> list[list[SiteForecast]]:
    """In the order of the first of each size."""
    return [[site for site in sites if site.units == units] for units in dict.fromkeys(site.units for site in sites)]


def _cost_cells(outcome: Cost | Refusal, mode: Mode) -> Iterator[str]:
    if isinstance(outcome, Refusal):
        yield "refused"
        yield from [numbers.NOTHING] * (3 if mode == "distributed" else 2)
        return
    yield numbers.decimals(outcome.charge.outside.noise_multiplier, 3)
    yield numbers.epsilon(outcome.epsilon)
    yield numbers.epsilon(outcome.epsilon_pld)
    if mode == "distributed":
        yield numbers.epsilon(outcome.own_share)


def _rate(plan: Plan, site: SiteForecast) -> str:
    rate = plan.training.batch / site.counted_as if site.counted_as else 2.0
    return numbers.NOTHING if rate > 1 else numbers.decimals(rate, 4)
