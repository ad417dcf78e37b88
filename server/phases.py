# SPDX-License-Identifier: Apache-2.0
"""The journal's pages about the open round: what sites answered in each step of secure aggregation.

The coordinator's stages are functions of these answers, so a coordinator that was killed feeds them through again and stands where it
stood, with the same cohort and the same survivors. A step is written down in one transaction, after its answers are in and before the
next step is asked: sites thus never hear two stories. A step that is not here is asked again, and sites answer the same bytes. Whom the
attempts to come go without is here too, written down before the one that failed is given up.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_SCHEMA = """
CREATE TABLE IF NOT EXISTS phases (
    round INTEGER NOT NULL, kind TEXT NOT NULL, site_group INTEGER NOT NULL, attempt INTEGER NOT NULL, step TEXT NOT NULL,
    at INTEGER NOT NULL, missing TEXT NOT NULL,
    PRIMARY KEY (round, kind, site_group, attempt, step)
);
CREATE TABLE IF NOT EXISTS replies (
    round INTEGER NOT NULL, kind TEXT NOT NULL, site_group INTEGER NOT NULL, attempt INTEGER NOT NULL, step TEXT NOT NULL,
    site TEXT NOT NULL, control BLOB NOT NULL,
    PRIMARY KEY (round, kind, site_group, attempt, step, site)
);
CREATE TABLE IF NOT EXISTS complaints (
    round INTEGER NOT NULL, kind TEXT NOT NULL, site_group INTEGER NOT NULL, attempt INTEGER NOT NULL, step TEXT NOT NULL,
    site TEXT NOT NULL, content BLOB NOT NULL,
    PRIMARY KEY (round, kind, site_group, attempt, step, site)
);
CREATE TABLE IF NOT EXISTS left_out (
    round INTEGER NOT NULL, kind TEXT NOT NULL, attempt INTEGER NOT NULL, site TEXT NOT NULL,
    PRIMARY KEY (round, kind, site)
);
CREATE TABLE IF NOT EXISTS sums (
    round INTEGER NOT NULL, kind TEXT NOT NULL, site_group INTEGER NOT NULL, attempt INTEGER NOT NULL,
    weight INTEGER NOT NULL, sites TEXT NOT NULL, missing TEXT NOT NULL, sha256 TEXT NOT NULL,
    PRIMARY KEY (round, kind, site_group)
);
"""
_WHERE = "WHERE round = ? AND kind = ? AND site_group = ? AND attempt = ? AND step = ?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A step of one group's attempt; `kind` is what is summed."""

    round: int
    kind: str
    group: int
    attempt: int
    step: str

    @property
    def key(self) -> tuple[int, str, int, int, str]:
        return self.round, self.kind, self.group, self.attempt, self.step


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What a step brought: control bytes by site, who is missing and why (a code), and when it was closed (Unix seconds).

    `complaints` came with refusals (common.secagg.complaints), unread.
    """

    replies: Mapping[str, bytes]
    missing: Mapping[str, str]
    at: int
    complaints: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedSum:
    """Facts about a sum that is on disk. `missing` are the sites that did not answer to the end."""

    attempt: int
    weight: int
    sites: tuple[str, ...]
    sha256: str
    missing: Mapping[str, str] = field(default_factory=dict)


class Phases:
    """Part of the journal, and in its transactions."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        db.executescript(_SCHEMA)

    def heard(self, phase: Phase) -> Heard | None:
        """What a closed step brought; None, if it has to be asked."""
        row = self._db.execute(f"SELECT at, missing FROM phases {_WHERE}", phase.key).fetchone()  # noqa: S608 - a constant
        if row is None:
            return None
        replies = dict(self._db.execute(f"SELECT site, control FROM replies {_WHERE} ORDER BY site", phase.key))  # noqa: S608 - a constant
        complaints = dict(self._db.execute(f"SELECT site, content FROM complaints {_WHERE} ORDER BY site", phase.key))  # noqa: S608 - as above
        return Heard(replies=replies, missing=json.loads(row[1]), at=row[0], complaints=complaints)

    def hear(self, phase: Phase, heard: Heard) -> None:
        """Close a step."""
        with self._db:
            self._db.execute("INSERT INTO phases VALUES (?, ?, ?, ?, ?, ?, ?)", (*phase.key, heard.at, json.dumps(dict(heard.missing))))
            rows = [(*phase.key, site, control) for site, control in heard.replies.items()]
            self._db.executemany("INSERT INTO replies VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            said = [(*phase.key, site, content) for site, content in heard.complaints.items()]
            self._db.executemany("INSERT INTO complaints VALUES (?, ?, ?, ?, ?, ?, ?)", said)

    def leave_out(self, number: int, kind: str, attempt: int, sites: Iterable[str]) -> None:
        """From the next attempt at this sum on. Who is left out already stays so since when it was."""
        with self._db:
            rows = [(number, kind, attempt, site) for site in sites]
            self._db.executemany("INSERT OR IGNORE INTO left_out VALUES (?, ?, ?, ?)", rows)

    def left_out(self, number: int, kind: str, *, before: int) -> frozenset[str]:
        """Whom an attempt goes without, because of what was found in those before it."""
        query = "SELECT site FROM left_out WHERE round = ? AND kind = ? AND attempt < ?"
        return frozenset(site for (site,) in self._db.execute(query, (number, kind, before)))

    def times_closed(self, number: int, kind: str, group: int, step: str, *, since: int = 0) -> int:
        """In how many attempts of a group, from `since` on, a step was closed."""
        query = "SELECT COUNT(*) FROM phases WHERE round = ? AND kind = ? AND site_group = ? AND step = ? AND attempt >= ?"
        return int(self._db.execute(query, (number, kind, group, step, since)).fetchone()[0])

    def keep_sum(self, number: int, kind: str, group: int, opened: OpenedSum) -> None:
        sites, missing = json.dumps(opened.sites), json.dumps(dict(opened.missing))
        row = (number, kind, group, opened.attempt, opened.weight, sites, missing, opened.sha256)
        with self._db:
            self._db.execute("INSERT OR REPLACE INTO sums VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def sum(self, number: int, kind: str, group: int) -> OpenedSum | None:
        query = "SELECT attempt, weight, sites, missing, sha256 FROM sums WHERE round = ? AND kind = ? AND site_group = ?"
        row = self._db.execute(query, (number, kind, group)).fetchone()
        if row is None:
            return None
        return OpenedSum(attempt=row[0], weight=row[1], sites=tuple(json.loads(row[2])), missing=json.loads(row[3]), sha256=row[4])

    def forget(self, number: int) -> None:
        """Drop the answers of a round that is committed; its sums stay. Within the caller's transaction."""
        self._db.execute("DELETE FROM replies WHERE round <= ?", (number,))
        self._db.execute("DELETE FROM phases WHERE round <= ?", (number,))
        self._db.execute("DELETE FROM complaints WHERE round <= ?", (number,))
        self._db.execute("DELETE FROM left_out WHERE round <= ?", (number,))
