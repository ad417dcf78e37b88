# SPDX-License-Identifier: Apache-2.0
"""From the utility benchmark's outcomes to figures: means and spreads, paired intervals, a table in Markdown.

A *loss* is a rival's score minus one's own, from the same seed: what is lost, so negative where something is gained. Its interval is that
of a mean of paired differences (`pooled_gap.gap_of`, Student's t, 95 %). Seeds differ in first weights, in noise, in how units are spread
over sites and in who is held out; their training sets overlap, and the interval that allows for it is in the JSON beside the plain one.
"""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from simulations.benchmarks.pooled_gap import Gap, gap_of
from simulations.benchmarks.utility_cells import AIMED_EPSILON, AIMS, LEVEL, SOURCES, Aim, Cell, Kind, Setting, scenario_of
from simulations.benchmarks.utility_play import Outcome, Score

Metric = Callable[[Score], float]

KINDS: Final[Mapping[Kind, str]] = {
    "federated": "federation, not private",
    "central": "central",
    "distributed": "distributed noise",
    "tolerant": "distributed, one site may be absent",
    "local": "local noise",
    "alone": "you alone, not private",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One metric of one row. `spread`: standard deviation over seeds, None for one. Losses are None where the rival was not run."""

    mean: float
    spread: float | None
    loss: Gap | None
    loss_to_central: Gap | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """All seeds of one kind at one epsilon in one setting. Of `outcomes`, those that were refused have no score and count in no mean."""

    setting: Setting
    kind: Kind
    epsilon: float | None
    outcomes: tuple[Outcome, ...]
    auc: Figure | None
    balanced_accuracy: Figure | None


def rows(outcomes: Iterable[Outcome]) -> list[Row]:
    """A row for each (setting, kind, epsilon), not private ones first; masked twins are left out, for they are the same models."""
    groups: dict[tuple[Setting, float, int], list[Outcome]] = {}
    for outcome in outcomes:
        cell = outcome.cell
        if not cell.masked:
            groups.setdefault((cell.setting, -(cell.epsilon or float("inf")), list(KINDS).index(cell.kind)), []).append(outcome)
    return [_row(groups, sorted(group, key=lambda outcome: outcome.cell.seed)) for _, group in sorted(groups.items())]


def _row(groups: Mapping[tuple[Setting, float, int], Sequence[Outcome]], group: Sequence[Outcome]) -> Row:
    cell = group[0].cell

    def rivals(kind: Kind, epsilon: float | None) -> list[Outcome]:
        return list(groups.get((cell.setting, -(epsilon or float("inf")), list(KINDS).index(kind)), ()))

    federated, central = rivals("federated", None), rivals("central", cell.epsilon)

    def figure(metric: Metric) -> Figure | None:
        own = _by_seed(group, metric)
        if not own:
            return None
        return Figure(
            mean=statistics.fmean(own.values()),
            spread=statistics.stdev(own.values()) if len(own) > 1 else None,
            loss=None if cell.kind == "federated" else _loss(group, federated, metric),
            loss_to_central=None if cell.kind == "central" else _loss(group, central, metric),
        )

    return Row(
        setting=cell.setting,
        kind=cell.kind,
        epsilon=cell.epsilon,
        outcomes=tuple(group),
        auc=figure(lambda score: score.auc),
        balanced_accuracy=figure(lambda score: score.balanced_accuracy),
    )


def _by_seed(outcomes: Iterable[Outcome], metric: Metric) -> dict[int, float]:
    """Each seed's figure; where every site has a model of its own, their mean."""
    return {outcome.cell.seed: statistics.fmean(map(metric, outcome.scores)) for outcome in outcomes if outcome.scores}


def _loss(group: Sequence[Outcome], rivals: Sequence[Outcome], metric: Metric) -> Gap | None:
    own, theirs = _by_seed(group, metric), _by_seed(rivals, metric)
    both = sorted(own.keys() & theirs.keys())
    if not both:
        return None
    return gap_of([theirs[seed] - own[seed] for seed in both], holdout_share=group[0].num_holdout / group[0].num_training)


def masked_twins(outcomes: Iterable[Outcome]) -> list[tuple[Cell, bool]]:
    """Cells that were run with secure aggregation and without, and whether both ended in the same bits."""
    plain = {_identity(outcome.cell): outcome.model for outcome in outcomes if not outcome.cell.masked}
    return [
        (outcome.cell, outcome.model == plain[_identity(outcome.cell)])
        for outcome in outcomes
        if outcome.cell.masked and outcome.model and plain.get(_identity(outcome.cell))
    ]


def _identity(cell: Cell) -> tuple[Setting, Kind, float | None, int]:
    return cell.setting, cell.kind, cell.epsilon, cell.seed


def markdown(outcomes: Sequence[Outcome]) -> str:
    """The whole table, with the aims and what they met."""
    table = rows(outcomes)
    settings = sorted({row.setting for row in table}, key=lambda setting: (list(SOURCES).index(setting.dataset), setting))
    parts = ["\n".join(_of_setting(setting, [row for row in table if row.setting == setting])) for setting in settings]
    parts += ["\n".join(_of_aims(table)), "\n".join(_of_masks(outcomes))]
    return "\n\n".join(part for part in parts if part) + "\n"


def title_of(setting: Setting) -> str:
    """A setting in words."""
    patients = f", {setting.patients} training patients each" if setting.patients else ""
    return f"{setting.dataset}: {setting.sites} sites{patients}"


def _of_setting(setting: Setting, table: Sequence[Row]) -> Iterator[str]:
    some, plan = table[0].outcomes[0], scenario_of(setting, 0).plan
    unit = "patients" if plan.privacy.unit == "patient" else "records"
    yield f"### {title_of(setting)}\n"
    yield (
        f"Unit of privacy: **{plan.privacy.unit}**. {some.num_training} training {unit} (seed {some.cell.seed}; smallest site "
        f"{some.fewest}), {some.num_holdout} held out; judged by {SOURCES[setting.dataset].judged_by}; "
        f"delta {plan.privacy.delta:g}, {plan.training.rounds} rounds of {plan.training.batch} {unit} a site.\n"
    )
    yield "| ε | training | seeds | AUC | loss | loss to central | balanced accuracy | loss | spent ε (own share) |"
    yield "|---:|---|---:|---|---|---|---|---|---|"
    yield from map(_line, table)


def _line(row: Row) -> str:
    auc, balanced = row.auc, row.balanced_accuracy
    bound = "∞" if row.epsilon is None else f"{row.epsilon:g}"
    if auc is None or balanced is None:
        codes = ", ".join(sorted({outcome.refused or "" for outcome in row.outcomes}))
        return f"| {bound} | {KINDS[row.kind]} | 0 | refused: `{codes}` | | | | | |"
    seeds = sum(bool(outcome.scores) for outcome in row.outcomes)
    return (
        f"| {bound} | {KINDS[row.kind]} | {seeds} | {_mean(auc)} | {_gap(auc.loss)} | {_gap(auc.loss_to_central)} "
        f"| {_mean(balanced)} | {_gap(balanced.loss)} | {_spent(row)} |"
    )


def _mean(figure: Figure) -> str:
    return f"{figure.mean:.3f}" + ("" if figure.spread is None else f" ({figure.spread:.3f})")


def _gap(gap: Gap | None) -> str:
    if gap is None:
        return ""
    return f"{gap.mean:+.4f}" + (f" ± {gap.margin:.4f}" if gap.margin != float("inf") else "")


def _spent(row: Row) -> str:
    spent = [outcome.spent for outcome in row.outcomes if outcome.spent]
    if not spent:
        return ""
    outside, own = max(one.outside for one in spent), max(one.own_share for one in spent)
    return f"{outside:.2f}" + (f" ({own:.1f})" if own > outside else "")


def _of_aims(table: Sequence[Row]) -> Iterator[str]:
    lines = [(aim, loss) for aim in AIMS if (loss := _aimed_loss(aim, table)) is not None]
    if not lines:
        return
    yield "### Against the aims\n"
    yield f"| at ε = {AIMED_EPSILON:g} | AUC lost (95 %) | at most | |"
    yield "|---|---|---:|---|"
    for aim, loss in lines:
        who = f"{title_of(aim.setting)}: {KINDS[aim.kind]} against {KINDS[aim.rival]}"
        verdict = "met" if loss.mean <= aim.loss else "**missed**"
        if loss.mean <= aim.loss < loss.mean + loss.margin:
            verdict += " by the mean; its interval reaches further"
        yield f"| {who} | {_gap(loss)} | {aim.loss:g}{' (level)' if aim.loss == LEVEL else ''} | {verdict} |"


def _aimed_loss(aim: Aim, table: Sequence[Row]) -> Gap | None:
    for row in table:
        if (row.setting, row.kind, row.epsilon) == (aim.setting, aim.kind, AIMED_EPSILON) and row.auc:
            return row.auc.loss if aim.rival == "federated" else row.auc.loss_to_central
    return None


def _of_masks(outcomes: Sequence[Outcome]) -> Iterator[str]:
    twins = masked_twins(outcomes)
    if twins:
        same = sum(same for _, same in twins)
        yield (
            f"Runs are summed without masks, as the same integers. {len(twins)} of them were run again with secure aggregation (FSA1): "
            f"{same} of {len(twins)} ended in the same weights, bit by bit."
        )
