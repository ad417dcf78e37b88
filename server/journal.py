# SPDX-License-Identifier: Apache-2.0
"""The coordinator's memory across crashes: which session this is, which round is open, which rounds are committed.

SQLite in write-ahead mode. A round is committed exactly when its row says so, and the row is written after the checkpoint that it names
is safe on disk; a crash in between leaves an orphan file and an open round, which is asked again. Flower's own run state is disposable,
so nothing here is bound to it.

Two strengths of "safe": a deployment fsyncs (`power_cut_safe=True`), a simulation only has to survive the death of its process, which the
page cache does for free.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from common.errors import DiskFull, JournalLost, RunFolderTaken, StorageError
from server.absences import Absence, parse, spell
from server.counts import Counts
from server.openings import Openings
from server.phases import Phases

_SCHEMA = """
CREATE TABLE IF NOT EXISTS session (id BLOB NOT NULL, plan TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS rounds (
    round INTEGER PRIMARY KEY,
    attempt INTEGER NOT NULL,
    model TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'committed')),
    cohort TEXT NOT NULL,
    missing TEXT NOT NULL DEFAULT '[]',
    fallen TEXT NOT NULL DEFAULT '[]',
    checkpoint TEXT,
    sha256 TEXT,
    seconds REAL,
    update_norm REAL
);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommittedRound:
    """What the journal keeps of a finished round. `update_norm` is the L2 norm of the mean delta.

    `sites` are in the mean and `missing` are not. Those of `sites` who did not answer to the end, after their update was in, are `fallen`.
    """

    round: int
    attempt: int
    sites: tuple[str, ...]
    missing: tuple[Absence, ...]
    checkpoint: str
    sha256: str
    seconds: float
    update_norm: float
    fallen: tuple[Absence, ...] = ()


class Journal:
    """One run's journal. Opened by one coordinator at a time (the file is locked for as long)."""

    def __init__(self, path: Path, *, plan: str, session: bytes, power_cut_safe: bool) -> None:
        """Open or create. `session` is used only when the journal is new. Raises: RunFolderTaken, StorageError, DiskFull."""
        self._db = _open(path, power_cut_safe=power_cut_safe)
        try:
            self._begin(path.parent, plan, session)
        except BaseException:
            self._db.close()  # a journal that could not be opened keeps nobody else out
            raise

    def _begin(self, folder: Path, plan: str, session: bytes) -> None:
        known = self._db.execute("SELECT id, plan FROM session").fetchone()
        self.is_new = known is None
        if known is None:
            with self._db:
                self._db.execute("INSERT INTO session VALUES (?, ?)", (session, plan))
            known = (session, plan)
        if known[1] != plan:
            raise RunFolderTaken(
                f"run folder '{folder}' belongs to plan {known[1][:12]}, not to {plan[:12]}.",
                fix="Choose another --out, or resume with the plan that the run was started with.",
            )
        self.session: bytes = known[0]
        self.phases = Phases(self._db)
        self.counts = Counts(self._db)
        self.openings = Openings(self._db)

    def open_round(self, number: int, *, model: str, cohort: list[str]) -> int:
        """Note that a round begins; returns its attempt. A round already open on the same model keeps it: sites answer again."""
        row = self._db.execute("SELECT attempt, model, state FROM rounds WHERE round = ?", (number,)).fetchone()
        if row is not None and (row[2] == "committed" or row[1] != model):
            raise StorageError(
                f"journal: round {number} is '{row[2]}' on another model than the checkpoint's.",
                fix="Two coordinators may share this folder; stop one, then resume.",
            )
        attempt = 0 if row is None else int(row[0])
        with self._db:
            self._db.execute(
                "INSERT OR REPLACE INTO rounds (round, attempt, model, state, cohort) VALUES (?, ?, ?, 'open', ?)",
                (number, attempt, model, json.dumps(cohort)),
            )
        return attempt

    def open_cohort(self, number: int) -> list[str]:
        """Who was asked in a round that is open; nobody, if it is not."""
        row = self._db.execute("SELECT cohort FROM rounds WHERE round = ? AND state = 'open'", (number,)).fetchone()
        return list(json.loads(row[0])) if row else []

    def attempt(self, number: int) -> int:
        """Which attempt of an open round is the current one."""
        return int(self._db.execute("SELECT attempt FROM rounds WHERE round = ?", (number,)).fetchone()[0])

    def reopen(self, number: int) -> None:
        """Give a failed round a new attempt: sites train it afresh, under a new reservation."""
        with self._db:
            self._db.execute("UPDATE rounds SET attempt = attempt + 1 WHERE round = ? AND state = 'open'", (number,))

    def commit(self, done: CommittedRound) -> None:
        """The moment at which a round exists. Call it when the checkpoint is on disk."""
        with self._db:
            self._db.execute(
                "UPDATE rounds SET state = 'committed', attempt = ?, cohort = ?, missing = ?, fallen = ?, checkpoint = ?, sha256 = ?,"
                " seconds = ?, update_norm = ? WHERE round = ? AND state = 'open'",
                (
                    done.attempt,
                    json.dumps(done.sites),
                    spell(done.missing),
                    spell(done.fallen),
                    done.checkpoint,
                    done.sha256,
                    done.seconds,
                    done.update_norm,
                    done.round,
                ),
            )
            self.phases.forget(done.round)

    def roll_back(self, number: int) -> None:
        """Open a committed round again, its checkpoint being lost. It keeps its attempt, so sites that stored their answer repeat it."""
        with self._db:
            self._db.execute("UPDATE rounds SET state = 'open' WHERE round = ?", (number,))

    def committed(self, *, last: int | None = None) -> list[CommittedRound]:
        """Finished rounds, oldest first; all of them, or the `last` few."""
        return list(self._rows(-1 if last is None else last))[::-1]

    def _rows(self, limit: int) -> Iterator[CommittedRound]:
        query = (
            "SELECT round, attempt, cohort, missing, fallen, checkpoint, sha256, seconds, update_norm"
            " FROM rounds WHERE state = 'committed' ORDER BY round DESC LIMIT ?"
        )
        with closing(self._db.execute(query, (limit,))) as rows:
            for number, attempt, cohort, missing, fallen, checkpoint, sha256, seconds, norm in rows:
                yield CommittedRound(
                    round=number,
                    attempt=attempt,
                    sites=tuple(json.loads(cohort)),
                    missing=parse(missing),
                    fallen=parse(fallen),
                    checkpoint=checkpoint,
                    sha256=sha256,
                    seconds=seconds,
                    update_norm=norm,
                )

    def close(self) -> None:
        self._db.close()


class _Connection(sqlite3.Connection):
    """SQLite, saying by name that there is no room left; what a transaction had not finished is undone then."""

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        with _full_by_name():
            return super().execute(*arguments)

    def executemany(self, *arguments: Any) -> sqlite3.Cursor:
        with _full_by_name():
            return super().executemany(*arguments)

    def executescript(self, *arguments: Any) -> sqlite3.Cursor:
        with _full_by_name():
            return super().executescript(*arguments)

    def __exit__(self, *ended: Any) -> Literal[False]:
        with _full_by_name():
            return super().__exit__(*ended)


@contextmanager
def _full_by_name() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
            raise
        raise DiskFull(
            "the journal could not be written: there is no room left; what was there before is untouched.",
            fix="Free some space, then go on: fedward server start, or --resume in a simulation.",
        ) from error


def _open(path: Path, *, power_cut_safe: bool) -> sqlite3.Connection:
    with ExitStack() as if_it_fails:
        db = _begun(path, power_cut_safe=power_cut_safe, if_it_fails=if_it_fails)
        if_it_fails.pop_all()
        return db


def _begun(path: Path, *, power_cut_safe: bool, if_it_fails: ExitStack) -> sqlite3.Connection:
    try:
        db = sqlite3.connect(path, timeout=1.0, factory=_Connection)
        if_it_fails.callback(db.close)  # a journal that could not be opened keeps nobody else out
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {'FULL' if power_cut_safe else 'OFF'}")
        db.executescript(_SCHEMA)
        [(found,)] = db.execute("PRAGMA quick_check(1)").fetchall()
        if found != "ok":
            raise _damaged(path, "its pages do not add up")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise RunFolderTaken(
                f"run folder '{path.parent}' is in use by another coordinator.", fix="Stop that one, or choose another --out."
            ) from error
        raise StorageError(f"journal '{path}' cannot be opened: {error}.", fix="Check the folder's permissions and free space.") from error
    except sqlite3.DatabaseError as error:
        raise _damaged(path, str(error)) from error
    return db


def _damaged(path: Path, how: str) -> JournalLost:
    return JournalLost(
        f"journal '{path}' is damaged: {how}.",
        fix="Restore it from a backup. To begin anew, at the sites' expense, move the run folder away.",
    )
