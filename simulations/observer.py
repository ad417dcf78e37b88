# SPDX-License-Identifier: Apache-2.0
"""The simulator's eye on a federation: after each round it scores the new global model on patients that no site has.

No site sends a metric, a loss or a count of its own; these figures come from the hold-out alone. What a plan has the sites count together,
noised, goes to `counted.jsonl`. One line a round goes to `metrics.jsonl`. The line is
written after the round is committed, so a run that was killed in between lacks it; on resuming, the last committed round is scored again
if its line is missing.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from client.home import LEDGER_FILE
from client.imaging.dataset import Dataset
from client.ledger.glance import last_sums
from client.training import predict
from common.plan import Plan
from common.tasks import Scores, by_patient, evaluate
from common.update import Weights
from server.aggregation import Silent
from server.counts import CountedRound, as_facts
from server.journal import CommittedRound
from simulations.judging import judge
from simulations.stage import Stage

METRICS_FILE = "metrics.jsonl"
COUNTED_FILE = "counted.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFigures:
    """One line of metrics.jsonl.

    `sites` are in the sum, `missing` are not; `fallen` are, but did not answer to the end. `epsilon` is the largest of all sites so far, as
    seen from outside, `own_share_epsilon` by more colluders than the plan assumes; both None without privacy. Scores are per patient, and
    None between evaluations; `headline` is the figure by which the task is judged first, and its name.
    """

    round: int
    seconds: float
    sites: tuple[str, ...]
    missing: tuple[dict[str, str], ...]
    fallen: tuple[dict[str, str], ...]
    update_norm: float
    epsilon: float | None
    own_share_epsilon: float | None
    auc: float | None
    balanced_accuracy: float | None
    headline: tuple[str, float] | None = None


class HoldOut(Silent):
    """An `Observer` that scores, records and tells. `tell` gets every line as it is written."""

    def __init__(self, stage: Stage, *, record: bool, tell: Callable[[RoundFigures], None]) -> None:
        self._stage = stage
        self._plan = stage.scenario.plan
        self._data = stage.holdout()
        self._file = stage.folder / METRICS_FILE if record else None
        self._tell = tell
        self._last = max((int(line["round"]) for line in _lines(self._file)), default=0)
        counted = _lines(self._file.with_name(COUNTED_FILE) if self._file else None)
        self._counted = {(line["kind"], line["round"]) for line in counted}

    def counted(self, done: CountedRound) -> None:
        if self._file is None or (done.kind.name, done.round) in self._counted:
            return
        self._counted.add((done.kind.name, done.round))
        _append(self._file.with_name(COUNTED_FILE), as_facts(self._plan, done))

    def round_committed(self, done: CommittedRound, weights: Weights) -> None:
        if done.round <= self._last:
            return
        every = self._stage.scenario.simulation.evaluate_every
        due = done.round % every == 0 or done.round in (1, self._plan.training.rounds)
        scores = judge(weights, self._data, self._plan, resamples=0) if due else None
        headline = scores.headline if scores is not None else None
        patients = scores.patients if isinstance(scores, Scores) else None
        figures = RoundFigures(
            round=done.round,
            seconds=done.seconds,
            sites=done.sites,
            missing=tuple(asdict(absence) for absence in done.missing),
            fallen=tuple(asdict(absence) for absence in done.fallen),
            update_norm=done.update_norm,
            **self._spent(),
            auc=patients.auc if patients else None,
            balanced_accuracy=patients.balanced_accuracy if patients else None,
            headline=(headline.name, headline.value) if headline is not None and headline.value is not None else None,
        )
        self._last = done.round
        if self._file is not None:
            _append(self._file, asdict(figures))
        self._tell(figures)

    def _spent(self) -> dict[str, float | None]:
        if not self._plan.is_private:
            return {"epsilon": None, "own_share_epsilon": None}
        sums = [after for site in self._stage.sites if (after := last_sums(self._stage.home(site) / LEDGER_FILE))]
        return {
            "epsilon": max((after.outside for after in sums), default=0.0),
            "own_share_epsilon": max((after.own_share for after in sums), default=0.0),
        }


def _append(file: Path, line: Mapping[str, Any]) -> None:
    with file.open("a", encoding="utf-8") as opened:
        opened.write(json.dumps(line) + "\n")


def _lines(file: Path | None) -> list[dict[str, Any]]:
    """What is on file; a line that a kill cut short is dropped, and will be written again."""
    if file is None or not file.exists():
        return []
    whole, _, fragment = file.read_text(encoding="utf-8").rpartition("\n")
    if fragment:
        file.write_text(whole + "\n" if whole else "", encoding="utf-8")
    return [json.loads(line) for line in whole.splitlines()]


def score(weights: Weights, data: Dataset, plan: Plan, *, resamples: int) -> Scores:
    """Predict and judge, per image and per patient; intervals from that many resamples of patients."""
    probabilities = predict(weights, data, plan)
    return evaluate(plan.classification, probabilities, data.labels, data.patients, resamples=resamples, seed=plan.training.seed)


def predictions(weights: Weights, stage: Stage) -> dict[str, list[Any]]:
    """What ROC and calibration are drawn from: each held-out patient's mean probabilities and label. No key, no name."""
    data = stage.holdout()
    probabilities, labels = by_patient(predict(weights, data, stage.scenario.plan), data.labels, data.patients)
    return {"federated": probabilities.tolist(), "labels": labels.tolist()}
