# SPDX-License-Identifier: Apache-2.0
"""A search as it is asked for: in a folder, with its trials, its folds and its promises, before anything is trained.

    tune/space.toml  plan.toml      what was asked
        stage/                      data, sites' homes, hold-out: as `fedward simulate` sets them
        folds/  ledgers/  trials/   see `folds` and `trials`
        design.json                 what trials there are and what each promises; written last, so a folder that has it is whole
        scores.jsonl                see `book`
        tune.json  index.html  winner.toml

Everything is decided by these files, so a search that was killed goes on where it was: the same trials, promises and survivors. A search
that its budget cannot hold is refused here, with numbers.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

from client import policy
from client.home import PREPARED_FOLDER, SimulatedSite
from client.imaging.prepared import load_prepared
from common.durable import write_atomically
from common.errors import DataNotFound, PlanConflict, PolicyRefused, RunFolderTaken, TooFewPatients, TuningBeyondBudget
from common.plan import ClassificationSpec, Plan, digest_of
from common.privacy import round_charge
from simulations import scenario as scenarios
from simulations.partition import number_kept
from simulations.scenario import Scenario
from simulations.stage import STAGE_FILE, Stage, Workshop, find_stage, set_stage
from simulations.tuning import halving, price, space
from simulations.tuning.folds import Fold, deal
from simulations.tuning.plans import Design, Promise, of_fold
from simulations.tuning.precision import Precision, foresee
from simulations.tuning.space import Metric, Space, Trial, TuningSpec
from simulations.tuning.trials import policy_of
from simulations.tuning.winner import left_for

FEWEST_TRIALS: Final = 2
SPACE_FILE, BASE_FILE, DESIGN_FILE, STAGE = "space.toml", "plan.toml", "design.json", "stage"


@dataclass(frozen=True, kw_only=True)  # no slots: what is foretold is worked out once
class Search:
    """A search that is ready to run. `budget` and `promise` are None without privacy; `left` is foretold, for the plan as it is."""

    folder: Path
    base: Scenario
    stage: Stage
    space: Space
    design: Design
    folds: tuple[Fold, ...]
    metric: Metric
    budget: float | None
    promise: Promise | None
    site_kind: SimulatedSite

    @property
    def trials(self) -> tuple[Trial, ...]:
        return self.design.trials

    def final_units(self) -> dict[str, int]:
        """What each site will train the winner on: everyone, but for whom its own [evaluation] keeps."""
        kept = self.base.simulation.validation if self.base.plan.evaluation else 0.0
        found = {}
        for site in self.stage.sites:
            data = load_prepared(self.stage.home(site) / PREPARED_FOLDER)
            patients = data.num_patients
            left = patients - (number_kept(patients, kept) if kept else 0)
            found[site] = left if self.base.plan.privacy.unit == "patient" else len(data) * left // patients
        return found

    def spent_at_worst(self) -> dict[str, price.Choices]:
        """What each site may have to pay, at most."""
        assert self.promise is not None
        kinds = price.choices_of(self.design, self.folds, self.promise)
        return {site: kinds[price.sizes_of(self.folds, site)] for site in self.stage.sites}

    @cached_property
    def cost(self) -> float:
        """What tuning costs at most, at the site where that is highest."""
        assert self.promise is not None
        return price.at_worst(self.design, self.folds, self.promise)

    @cached_property
    def left(self) -> float | None:
        """What the plan as it is would have left if tuning spends the most that it can."""
        return left_for(self.base.plan, self.final_units(), self.spent_at_worst())

    @cached_property
    def precision(self) -> Precision | None:
        """How well scores will be known; None without privacy, where nothing hides them."""
        if self.promise is None:
            return None
        plan = of_fold(self.design, self.trials[0], 0, self.promise)
        judged = [fold.judged for fold in self.folds]
        return foresee(plan, judged, num_sites=len(self.stage.sites), metric=self.metric)


def prepare(asked: Scenario, wanted: Space, data: Path | None, folder: Path, shop: Workshop) -> Search:
    """Set the stage and fit the search into its budget; trains nothing.

    Raises: RunFolderTaken; TuningBeyondBudget, with numbers; PlanError, where the space leaves the plans; DataError; PolicyRefused.
    """
    if (folder / DESIGN_FILE).exists():
        raise RunFolderTaken(f"'{folder}' holds a search already.", fix="Go on with --resume, or choose another --out.")
    trials = space.draw(wanted, asked.plan)
    folder.mkdir(parents=True, exist_ok=True)
    metric, budget = _metric(asked.plan, wanted), _budget(asked.plan, wanted)
    write_atomically(folder / SPACE_FILE, wanted.text.encode(), fsync=False)
    write_atomically(folder / BASE_FILE, scenarios.to_toml(asked).encode(), fsync=False)
    stage = _staged(asked, data, folder / STAGE, shop)
    search = Search(
        folder=folder,
        base=asked,
        stage=stage,
        space=wanted,
        design=design_of(trials, wanted.tuning, asked),
        folds=deal(stage, wanted.tuning.folds, folder),
        metric=metric,
        budget=budget,
        promise=None,
        site_kind=shop.site_kind,
    )
    if budget is not None:
        search = _afforded(search, budget)
    _write_design(search)
    return search


def design_of(trials: Sequence[Trial], tuning: TuningSpec, base: Scenario) -> Design:
    """The rungs that these trials climb."""
    shortest = min(trial.plan.training.rounds for trial in trials)
    rungs = halving.ladder(trials=len(trials), eta=tuning.eta, rounds=shortest, smallest=tuning.smallest_rounds)
    return Design(base=base.plan, trials=tuple(trials), rungs=rungs, num_folds=tuning.folds, validation=base.simulation.validation)


def find(folder: Path) -> Search:
    """The search that an earlier call prepared here. Raises: DataNotFound."""
    if not (folder / DESIGN_FILE).is_file():
        raise DataNotFound(
            f"'{folder}' holds no search to go on with.", fix="Give the --out folder of an earlier one, or leave --resume away."
        )
    base, wanted = scenarios.load(folder / BASE_FILE), space.load(folder / SPACE_FILE)
    known = json.loads((folder / DESIGN_FILE).read_text())
    stage, trials = find_stage(folder / STAGE), space.draw(wanted, base.plan)
    if [digest_of(trial.plan) for trial in trials] != known["plans"]:
        raise RunFolderTaken(
            f"the search in '{folder}' was begun with other trials.",
            fix="space.toml or plan.toml was changed, or another version reads them: restore them, or begin anew in another --out.",
        )
    return Search(
        folder=folder,
        base=base,
        stage=stage,
        space=wanted,
        design=design_of(trials, wanted.tuning, base),
        folds=deal(stage, wanted.tuning.folds, folder),
        metric=known["metric"],
        budget=known["budget"],
        promise=Promise(**known["promise"]) if known["promise"] else None,
        site_kind=SimulatedSite(unsafe_noise_seed=known["unsafe_noise_seed"], aggregation=known["aggregation"]),
    )


def _staged(asked: Scenario, data: Path | None, folder: Path, shop: Workshop) -> Stage:
    """Everyone whom a site has, to be dealt into folds; who is held out for the final score is out of reach. Made once."""
    if not (folder / STAGE_FILE).exists():
        everyone = replace(asked.plan, evaluation=None, statistics=None)
        set_stage(replace(asked, plan=everyone), data, folder, shop)
    return find_stage(folder)


def _metric(plan: Plan, wanted: Space) -> Metric:
    asked = wanted.tuning.score
    if not isinstance(plan.task, ClassificationSpec):
        if plan.is_private:
            raise PlanConflict(
                f"{wanted.name}: plan '{plan.name}' is private, and patients can be counted by how they are classified only, not for "
                f'the task "{plan.task.kind}".',
                fix="Tune the same network on made data, or on data for which no promise is needed, and train the winner once.",
            )
        return "headline"
    two = len(plan.task.classes) == 2
    if plan.is_private and (asked == "headline" or (asked == "auc" and not two)):
        what = "AUC of more than two classes" if asked == "auc" else "headline"
        raise PlanConflict(f"{wanted.name}: [tuning] score: no {what} can be counted under noise.", fix="Remove score.")
    return asked or ("auc" if two else "balanced_accuracy")


def _budget(plan: Plan, wanted: Space) -> float | None:
    """What tuning may spend: as the space says, else half of the plan's epsilon; None without privacy."""
    asked, whole = wanted.tuning.epsilon, plan.privacy.epsilon
    if whole is None:
        if asked is not None:
            raise PlanConflict(f"{wanted.name}: [tuning] epsilon: the plan promises nothing that could be spent.", fix="Remove it.")
        return None
    if asked is not None and asked >= whole:
        raise TuningBeyondBudget(
            f"tuning may not spend epsilon {asked:g}: the plan promises {whole:g} in all, and the winner has to train too.",
            fix=f"Set [tuning] epsilon well below {whole:g}; unset, it is half of it.",
        )
    return whole / 2 if asked is None else asked


def _afforded(search: Search, budget: float) -> Search:
    """The search with its promise. Raises: TuningBeyondBudget, PolicyRefused, TooFewPatients."""
    _check_sites(search, budget)
    evaluation = search.space.tuning.evaluation
    search = replace(search, promise=price.fit(search.design, search.folds, budget=budget, evaluation=evaluation))
    foreseen = search.precision
    assert foreseen is not None
    if foreseen.half_width is None:
        fewest = min(min(fold.judged) for fold in search.folds)
        why = (
            f"every count would have noise of {foreseen.noise_sd:.1f} patients (one standard deviation), in which the {fewest} of the "
            f"rarest class who are judged cannot be seen{_what_would_do(search, budget)}"
        )
        raise price.beyond(search.design, budget, why)
    if search.left is None:
        raise price.beyond(search.design, budget, "nothing would be left for the winner to train by")
    return search


def _what_would_do(search: Search, budget: float) -> str:
    """A number of trials whose scores could be read, if there is one."""
    trials = len(search.trials) // 2
    while trials >= FEWEST_TRIALS:
        fewer = replace(search, design=design_of(search.trials[:trials], search.space.tuning, search.base))
        promise = price.fit(fewer.design, search.folds, budget=budget, evaluation=search.space.tuning.evaluation)
        found = replace(fewer, promise=promise).precision
        if found is not None and found.half_width is not None:
            return f"; {trials} trials could be told apart, to about {found.half_width:.2f}"
        trials //= 2
    return ""


def _check_sites(search: Search, budget: float) -> None:
    """Whether every site has enough patients for every trial, and would allow it at all."""
    promise = Promise(epsilon=budget, evaluation=search.space.tuning.evaluation)
    for trial in search.trials:
        for fold in search.folds:
            plan = of_fold(search.design, trial, fold.number, promise)
            for site, units in fold.units.items():
                try:
                    round_charge(plan, units)
                except TooFewPatients as error:
                    words = f"trial {trial.number} ({space.in_words(trial.keys)}) at site '{site}': {error.message}"
                    raise TooFewPatients(words, fix=f"{error.fix} Or take larger batches out of the space.") from error
                if found := policy.objections(policy_of(plan, budget), plan, units=units):
                    raise PolicyRefused(f"no policy of site '{site}' could allow this search: {'; '.join(found)}.", fix="Change the plan.")


def _write_design(search: Search) -> None:
    known = {
        "plans": [digest_of(trial.plan) for trial in search.trials],
        "metric": search.metric,
        "budget": search.budget,
        "promise": asdict(search.promise) if search.promise else None,
        "aggregation": search.site_kind.aggregation,
        "unsafe_noise_seed": search.site_kind.unsafe_noise_seed,
    }
    write_atomically(search.folder / DESIGN_FILE, json.dumps(known, indent=1).encode(), fsync=False)
