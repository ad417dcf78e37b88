# SPDX-License-Identifier: Apache-2.0
"""One trial in one fold: its homes, and its federation, taken on to the end of a rung.

    tune/trials/03/fold-0/plan.toml  sites/north/ (site.toml, policy.toml, keys, data -> the fold)  journal.sqlite  checkpoints/
    tune/ledgers/north/              the site's one ledger, which all its homes share

The federation is the deployed one; it stops where a rung ends, after the model is judged and before the next round trains, and goes on from
there if the trial is taken to the next rung. What was answered is in its journal, so a search that is killed goes on with the round in
which it was, and no site pays again for what it has answered.

Trials of a private plan are judged by what the sites count, noised. Without privacy there is nothing to keep to oneself, and the simulator
judges by the same patients exactly.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from client.home import PREPARED_FOLDER, SITE_FILE, DataSection, LedgerSection, SimulatedSite, WeightsSection, read_site_file
from client.imaging.dataset import Dataset
from client.policy import POLICY_FILE, PlansAllowed, Policy
from common.counting import evaluation, form_of
from common.counting.form import read
from common.credentials import KEY_FILE, ROOTS_FILE, ROSTER_FILE
from common.durable import write_atomically
from common.errors import FedwardError, ProtocolError, RoundError, RunStopped, UpdateError
from common.plan import Plan, dump, to_toml
from common.privacy.entries import Caps
from common.secagg.terms import Kind
from common.tasks import Scores
from common.tasks.scoring.headline import Headline, TaskScores
from common.update import Weights
from server.aggregation import Silent
from server.counts import CountedRound
from server.journal import CommittedRound
from simulations.engine.nursery import Nursery
from simulations.federation import Federation
from simulations.judging import judge
from simulations.stage import PLAN_FILE, SITES, Stage
from simulations.tuning.book import NO_SCORE, Book, Score
from simulations.tuning.folds import Fold
from simulations.tuning.precision import figure
from simulations.tuning.space import Metric

LEDGERS = "ledgers"
TRIALS = "trials"
_RESAMPLES = 400
_ROUND_DONE = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """Where trials run: the stage, the search's folder, what all tuning may cost (None: not private), how many workers."""

    stage: Stage
    folder: Path
    budget: float | None
    site_kind: SimulatedSite
    workers: int | None
    metric: Metric
    book: Book


@dataclass(frozen=True, kw_only=True)  # no slots: the patients who are judged are brought together once
class Run:
    """One trial in one fold. `stops`: after which rounds it is judged."""

    track: Track
    trial: int
    fold: Fold
    plan: Plan
    stops: tuple[int, ...]

    @property
    def folder(self) -> Path:
        return self.track.folder / TRIALS / f"{self.trial:02d}" / f"fold-{self.fold.number}"

    @cached_property
    def judged(self) -> Dataset:
        return self.fold.judged_data()

    def go_on(self, until: int, nursery: Nursery, tell: _ROUND_DONE) -> None:
        """Train up to a round, unless that was done, and write down how the model does. What a trial breaks by is written down too.

        Raises: what is no fault of the trial's, such as DiskFull or EngineError.
        """
        track = self.track
        if track.book.find(self.trial, self.fold.number, until) is not None:
            return
        self._furnish()
        referee = _Referee(self, until, tell)
        try:
            self._federation().train(referee, engine="local", workers=track.workers, nursery=nursery)
        except RunStopped:
            pass
        except (RoundError, UpdateError, ProtocolError) as error:
            track.book.note(Score(trial=self.trial, fold=self.fold.number, round=until, failure=_why(error)))

    def _federation(self) -> Federation:
        track = self.track
        return Federation(
            plan=self.plan,
            plan_file=self.folder / PLAN_FILE,
            sites=self.folder / SITES,
            num_sites=len(track.stage.sites),
            folder=self.folder,
            coordinator=track.stage.coordinator,
            aggregation=track.site_kind.aggregation,
            unsafe_noise_seed=track.site_kind.unsafe_noise_seed,
        )

    def _furnish(self) -> None:
        """The homes of all sites, unless they are there; the plan comes last."""
        if (self.folder / PLAN_FILE).exists():
            return
        for site in self.track.stage.sites:
            self._furnish_home(site)
        write_atomically(self.folder / PLAN_FILE, to_toml(self.plan).encode(), fsync=False)

    def _furnish_home(self, site: str) -> None:
        track, home, source = self.track, self.folder / SITES / site, self.track.stage.home(site)
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        file = read_site_file(source)
        assert file.data is not None, "a stage gives every home a namespace"
        data = DataSection(namespace=file.data.namespace, dataset=f"fold-{self.fold.number}")
        ledgers = ledger_folder(track.folder, site)
        weights = WeightsSection(folder=str((source / file.weights.folder).resolve()))
        ledger = LedgerSection(folder=str(ledgers.resolve()))
        file = replace(file, data=data, ledger=ledger, weights=weights, simulation=track.site_kind)
        write_atomically(home / SITE_FILE, dump(file).encode(), fsync=False)
        for name in (KEY_FILE, ROSTER_FILE, ROOTS_FILE):
            shutil.copy(source / name, home / name)
        (home / PREPARED_FOLDER).symlink_to(self.fold.data_of(site).resolve())
        if track.budget is not None:
            ledgers.mkdir(parents=True, exist_ok=True)
            write_atomically(home / POLICY_FILE, dump(policy_of(self.plan, track.budget)).encode(), fsync=False)


def ledger_folder(folder: Path, site: str) -> Path:
    """Where a search keeps the ledger of a site."""
    return folder / LEDGERS / site


def policy_of(plan: Plan, budget: float) -> Policy:
    """What a site allows a search: the unit of its promise, training and judging, and in all no more than is set apart for it."""
    assert plan.privacy.delta is not None
    infinite = float("inf")
    caps = Caps(eps_plan=budget, eps_total=budget, own_share_plan=infinite, own_share_total=infinite, delta=plan.privacy.delta)
    return Policy(budget=caps, plans=PlansAllowed(units=(plan.privacy.unit,), releases=("training", "evaluation")))


class _Referee(Silent):
    """Judges a model where a rung ends, and stops the federation at the one it was told."""

    def __init__(self, run: Run, until: int, tell: _ROUND_DONE) -> None:
        self._run, self._until, self._tell = run, until, tell

    def counted(self, done: CountedRound) -> None:
        if done.kind is Kind.EVAL:
            self._judge(done.round - 1, lambda: self._noised(done))

    def round_committed(self, done: CommittedRound, weights: Weights) -> None:
        self._tell(done.round)
        if not self._run.plan.is_private and done.round in self._run.stops:
            self._judge(done.round, lambda: self._exact(done.round, weights))

    def _judge(self, number: int, score_of: Callable[[], Score]) -> None:
        run = self._run
        if run.track.book.find(run.trial, run.fold.number, number) is None:
            run.track.book.note(score_of())
        if number == self._until and number < run.plan.training.rounds:
            raise RunStopped("the trial has come to the end of its rung.")

    def _noised(self, done: CountedRound) -> Score:
        run, number = self._run, done.round - 1
        if done.failure:
            return Score(trial=run.trial, fold=run.fold.number, round=number, failure=done.failure)
        counted = read(form_of(run.plan, Kind.EVAL), np.array(done.steps, dtype=np.int64), num_sites=len(done.sites))
        found = figure(evaluation.figures(run.plan, counted), run.track.metric)
        if found is None:
            return Score(trial=run.trial, fold=run.fold.number, round=number, failure=NO_SCORE)
        return Score(trial=run.trial, fold=run.fold.number, round=number, value=found.value, low=found.low, high=found.high)

    def _exact(self, number: int, weights: Weights) -> Score:
        run, metric = self._run, self._run.track.metric
        found = _headline(judge(weights, run.judged, run.plan, resamples=_RESAMPLES), metric)
        if found.value is None:
            return Score(trial=run.trial, fold=run.fold.number, round=number, failure="nobody of one class is judged")
        low, high = (found.interval.low, found.interval.high) if found.interval else (None, None)
        return Score(trial=run.trial, fold=run.fold.number, round=number, value=found.value, low=low, high=high)


def _headline(scores: TaskScores, metric: Metric) -> Headline:
    """The figure by which trials are chosen."""
    if metric == "headline" or not isinstance(scores, Scores):
        return scores.headline
    level = scores.patients or scores.images
    value = level.auc if metric == "auc" else level.balanced_accuracy
    return Headline(name=metric, value=value, interval=(scores.intervals or {}).get(metric))


def _why(error: FedwardError) -> str:
    return f"{error.code}: {error.message}"
