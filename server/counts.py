# SPDX-License-Identifier: Apache-2.0
"""The journal's page about what was counted: statistics and evaluations, each asked once.

A row is opened before sites are asked and closed when there is a sum, or when there is none and why. What is closed is not asked again,
after a failure neither: noised counts of the same patients twice say more than once, and have to be paid for twice. What is open after a
crash goes on where it stood.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from common.counting import evaluation, form_of, statistics
from common.counting.form import Counted, read
from common.plan import Plan
from common.secagg.terms import Kind
from server.absences import Absence, parse, spell

_SCHEMA = """
CREATE TABLE IF NOT EXISTS counts (
    round INTEGER NOT NULL, kind TEXT NOT NULL, attempt INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'closed')),
    sites TEXT NOT NULL DEFAULT '[]', missing TEXT NOT NULL DEFAULT '[]', fallen TEXT NOT NULL DEFAULT '[]',
    steps TEXT NOT NULL DEFAULT '[]', failure TEXT NOT NULL DEFAULT '', seconds REAL NOT NULL DEFAULT 0,
    PRIMARY KEY (round, kind)
);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedRound:
    """What came of one question: the noised sum over `sites`, in steps of its form; or nothing, and the code of why not.

    An evaluation of round r judges the model that round r starts from.
    """

    round: int
    kind: Kind
    attempt: int
    sites: tuple[str, ...] = ()
    missing: tuple[Absence, ...] = ()
    fallen: tuple[Absence, ...] = ()
    steps: tuple[int, ...] = ()
    failure: str = ""
    seconds: float = 0.0


class Counts:
    """Part of the journal, and in its transactions."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        db.executescript(_SCHEMA)

    def open(self, number: int, kind: Kind) -> None:
        """Note that something is about to be asked; what is open already stays as it is."""
        with self._db:
            self._db.execute("INSERT OR IGNORE INTO counts (round, kind, attempt, state) VALUES (?, ?, 0, 'open')", (number, kind.name))

    def attempt(self, number: int, kind: Kind) -> int:
        """Which attempt is the current one, where the coordinator counts them itself (without masks)."""
        return int(self._db.execute("SELECT attempt FROM counts WHERE round = ? AND kind = ?", (number, kind.name)).fetchone()[0])

    def reopen(self, number: int, kind: Kind) -> None:
        """The next attempt: sites count afresh, under a new reservation."""
        with self._db:
            self._db.execute("UPDATE counts SET attempt = attempt + 1 WHERE round = ? AND kind = ? AND state = 'open'", (number, kind.name))

    def close(self, done: CountedRound) -> None:
        """The moment at which an answer exists, or will not."""
        with self._db:
            self._db.execute(
                "UPDATE counts SET state = 'closed', attempt = ?, sites = ?, missing = ?, fallen = ?, steps = ?, failure = ?, seconds = ?"
                " WHERE round = ? AND kind = ? AND state = 'open'",
                (
                    done.attempt,
                    json.dumps(done.sites),
                    spell(done.missing),
                    spell(done.fallen),
                    json.dumps(done.steps),
                    done.failure,
                    done.seconds,
                    done.round,
                    done.kind.name,
                ),
            )

    def closed(self) -> list[CountedRound]:
        """All that was asked, in order."""
        return sorted(self._rows(), key=lambda done: (done.round, done.kind.turn))

    def _rows(self) -> Iterator[CountedRound]:
        query = "SELECT round, kind, attempt, sites, missing, fallen, steps, failure, seconds FROM counts WHERE state = 'closed'"
        with closing(self._db.execute(query)) as rows:
            for number, kind, attempt, sites, missing, fallen, steps, failure, seconds in rows:
                yield CountedRound(
                    round=number,
                    kind=Kind[kind],
                    attempt=attempt,
                    sites=tuple(json.loads(sites)),
                    missing=parse(missing),
                    fallen=parse(fallen),
                    steps=tuple(json.loads(steps)),
                    failure=failure,
                    seconds=seconds,
                )


def worths(plan: Plan, counts: Iterable[CountedRound]) -> dict[int, float]:
    """What each judged model is worth, by the round that made it; those of which the counts say nothing are left out."""
    judged = {done.round - 1: evaluation.worth(plan, _read(plan, done)) for done in counts if done.kind is Kind.EVAL and not done.failure}
    return {number: worth for number, worth in judged.items() if worth is not None}


def _read(plan: Plan, done: CountedRound) -> Counted:
    return read(form_of(plan, done.kind), np.array(done.steps, dtype=np.int64), num_sites=len(done.sites))


def as_facts(plan: Plan, done: CountedRound) -> dict[str, Any]:
    """A question and its answer for people and files: figures with intervals, and that they are noised and were charged."""
    facts: dict[str, Any] = {
        "kind": done.kind.name,
        "round": done.round,
        "after_round": done.round - 1,
        "sites": list(done.sites),
        "missing": [asdict(absence) for absence in done.missing],
        "seconds": done.seconds,
        "noised": True,
        "charged": True,
    }
    if done.failure:
        return {**facts, "failure": done.failure}
    counted = _read(plan, done)
    if done.kind is Kind.EVAL:
        return {**facts, "evaluation": asdict(evaluation.figures(plan, counted))}
    return {**facts, "statistic": asdict(statistics.figures(plan, counted))}
