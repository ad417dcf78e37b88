# SPDX-License-Identifier: Apache-2.0
"""The journal's page about rosters: under which one each sum was opened.

Everything that is said in an attempt is bound to one roster, and a consortium issues a new one whenever a site joins or is revoked. So a
sum that is half done is finished under the roster that it was opened with, also by a coordinator that was restarted with a newer one; the
next round, or an attempt in which nobody has been heard, is opened under the newest. Attempts go on counting across that: sites never
see one number twice.

Rosters are kept as they were verified, without signatures: this file is the coordinator's own. It never goes back to an older epoch.
"""

import sqlite3
from dataclasses import dataclass
from functools import lru_cache

from common import roster
from common.errors import StorageError
from common.roster import Roster

_SCHEMA = """
CREATE TABLE IF NOT EXISTS rosters (digest BLOB PRIMARY KEY, epoch INTEGER NOT NULL, content BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS openings (
    round INTEGER NOT NULL, kind TEXT NOT NULL, first_attempt INTEGER NOT NULL, roster BLOB NOT NULL,
    PRIMARY KEY (round, kind, first_attempt)
);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """A sum under one roster: attempts from `first_attempt` on."""

    roster: Roster
    first_attempt: int


class Openings:
    """Part of the journal, and in its transactions."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        db.executescript(_SCHEMA)

    def of(self, number: int, kind: str) -> tuple[Opening, ...]:
        """A sum's openings, oldest first; the last is in force."""
        query = (
            "SELECT openings.first_attempt, rosters.digest, rosters.content FROM openings JOIN rosters ON rosters.digest = openings.roster"
            " WHERE openings.round = ? AND openings.kind = ? ORDER BY openings.first_attempt"
        )
        rows = self._db.execute(query, (number, kind)).fetchall()
        return tuple(Opening(roster=_parsed(content, digest), first_attempt=first) for first, digest, content in rows)

    def newest(self) -> Roster | None:
        """The roster of the highest epoch that anything was opened with."""
        row = self._db.execute("SELECT content, digest FROM rosters ORDER BY epoch DESC LIMIT 1").fetchone()
        return None if row is None else _parsed(*row)

    def open(self, number: int, kind: str, opening: Opening) -> None:
        """Note it before anybody is asked."""
        found = opening.roster
        with self._db:
            row = (found.digest, found.epoch, roster.render(found))
            self._db.execute("INSERT OR IGNORE INTO rosters VALUES (?, ?, ?)", row)
            self._db.execute("INSERT INTO openings VALUES (?, ?, ?, ?)", (number, kind, opening.first_attempt, found.digest))


@lru_cache(maxsize=8)
def _parsed(content: bytes, digest: bytes) -> Roster:
    found, _ = roster.parse(content)
    if found.digest != digest:
        raise StorageError("the journal: a roster in it is not the one that was written down.", fix="Restore the journal from a backup.")
    return found
