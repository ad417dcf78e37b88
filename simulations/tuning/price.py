# SPDX-License-Identifier: Apache-2.0
"""What a search costs every site's patients at worst, and the noise with which it fits into what is set apart for it.

Who will go on to which rung is not known beforehand, so of each rung the costliest trials are counted, at each order of the accountant by
itself: no choice of survivors, however it was made, costs more. All folds are counted for everybody, although a patient is trained on in
all but one and judged in one: the ledger knows no folds. Beside what is planned there is room for the base plan's spare rounds and one more
judgement, for a search that is killed and goes on.

All trials promise the same, and that is what is fitted: the largest promise of a trial with which the search costs no more than it may.
"""

from collections.abc import Callable, Mapping, Sequence

from common.errors import EpsilonImpossible, TuningBeyondBudget
from common.plan import Plan
from common.privacy import Charge, Event, epsilon_at_most, evaluation_charge, round_charge
from simulations.tuning.folds import Fold
from simulations.tuning.halving import steps
from simulations.tuning.plans import EVALUATION_SPARE, Design, Promise, of_fold

Choices = list[tuple[int, list[list[Event]]]]
"""Of each `(how many, alternatives)` so many are charged: `common.privacy.epsilon_at_most`."""
View = Callable[[Charge], Event]

_TRIES = 40
_CLOSE = 0.97
"""Of what may be spent so much at least is used, where the promise can be raised at all."""


def outside(charge: Charge) -> Event:
    """As seen from outside."""
    return charge.outside


def own_share(charge: Charge) -> Event:
    """By more colluding sites than the plan assumes."""
    return charge.own_share


def fit(design: Design, folds: Sequence[Fold], *, budget: float, evaluation: float) -> Promise:
    """The largest promise of a trial with which the whole search costs at most `budget` at every site.

    Raises: TuningBeyondBudget, with what each trial would have; TooFewPatients, naming the trial.
    """
    best: Promise | None = None
    aim = budget / len(design.trials) ** 0.5
    for _ in range(_TRIES):
        promise = Promise(epsilon=float(f"{aim:.4g}"), evaluation=evaluation)
        try:
            cost = at_worst(design, folds, promise)
        except EpsilonImpossible as error:
            raise beyond(design, budget, f"no noise is enough for it ({error.message})") from error
        if cost <= budget:
            best = promise if best is None or promise.epsilon > best.epsilon else best
            if cost >= _CLOSE * budget or promise.epsilon >= budget:
                return best
        aim = min(budget, aim * (1 + _CLOSE) / 2 * budget / cost)
    if best is None:
        raise beyond(design, budget, "no promise to its trials keeps it")
    return best


def beyond(design: Design, budget: float, why: str) -> TuningBeyondBudget:
    """A refusal with the search's numbers."""
    return TuningBeyondBudget(
        f"{len(design.trials)} trials in {design.num_folds} fold(s) cannot be tried for epsilon {budget:g}: {why}.",
        fix="Lower [tuning] trials or folds, or raise [tuning] epsilon or the plan's own.",
    )


def at_worst(design: Design, folds: Sequence[Fold], promise: Promise, view: View = outside) -> float:
    """What the search costs at most, at the site where that is highest."""
    delta = design.base.privacy.delta
    assert delta is not None
    return max(epsilon_at_most(choices, delta) for choices in choices_of(design, folds, promise, view).values())


def choices_of(design: Design, folds: Sequence[Fold], promise: Promise, view: View = outside) -> dict[tuple[int, ...], Choices]:
    """What may be charged, for each kind of site: by how many units it trains on in each fold."""
    plans = {(trial.number, fold.number): of_fold(design, trial, fold.number, promise) for trial in design.trials for fold in folds}
    return {sizes: _choices(design, plans, sizes, view) for sizes in {sizes_of(folds, site) for site in folds[0].units}}


def sizes_of(folds: Sequence[Fold], site: str) -> tuple[int, ...]:
    """How many units a site trains on in each fold."""
    return tuple(fold.units[site] for fold in folds)


def _choices(design: Design, plans: Mapping[tuple[int, int], Plan], sizes: Sequence[int], view: View) -> Choices:
    rounds = {place: view(round_charge(plan, sizes[place[1]])) for place, plan in plans.items()}
    judged = {place: view(evaluation_charge(plan)) for place, plan in plans.items()}
    found: Choices = []
    for rung in design.rungs:
        each = []
        for trial in design.trials:
            longer = steps(design.rungs, trial.plan.training.rounds)[rung.number]
            places = [(trial.number, fold) for fold in range(len(sizes))]
            each.append([*(_times(rounds[place], longer) for place in places), *(judged[place] for place in places)])
        found.append((rung.trials, each))
    found += [(1, [[event] for event in rounds.values()])] * design.base.privacy.spare_rounds
    return [*found, *[(1, [[event] for event in judged.values()])] * EVALUATION_SPARE]


def _times(event: Event, number: int) -> Event:
    return Event(sampling_rate=event.sampling_rate, noise_multiplier=event.noise_multiplier, steps=number * event.steps)
