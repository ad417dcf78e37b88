# SPDX-License-Identifier: Apache-2.0
"""The coordinator's view of who takes part: its own key and the newest roster, read anew whenever a round is opened.

A custodian puts a newer roster into the folder while a run goes on, and nothing is restarted. What is read is verified each time; a file
that does not hold is an error by name, and whoever it replaced is not used in its stead.

When does the next round follow the newer roster? At once, if it takes trust from anybody (a site revoked or removed, a key changed), or
only renews: sites take such a roster without asking, or take part in nothing until they have. If it adds sites and no more, each hospital's
operator has to approve of the newcomers first, and a round binds all to one roster; so rounds stay with the one before until at least as
many sites hold the newer. What sites hold, they say when they are told the news.
"""

import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from common import credentials, keyfile
from common import roster as rosters
from common.credentials import Credentials
from common.errors import RosterExpired, RosterNotFound
from common.news import News
from common.roster import Roster
from common.wire import NewsReply
from server.membership import news
from server.transport.exchange import Line

Adopted = Callable[[Roster, bytes], None]
_NEWS_S: Final = 10.0
_AGAIN_S: Final = 60.0


class Consortium:
    """Two folders, which may be one: of the coordinator's key, and of roster and roots.

    `epochs`: which epoch is in force at each node, as far as they have said. `adopted` is told when a roster comes into force here.
    """

    def __init__(self, *, key: Path, roster: Path, adopted: Adopted = lambda *_: None) -> None:
        self._key, self._roster = key / credentials.KEY_FILE, roster
        self.adopted = adopted
        self.epochs: dict[int, int] = {}

    def read(self) -> Credentials:
        """The key and the newest roster. Raises: SecretFile, RosterError."""
        return Credentials(signer=keyfile.load(self._key, "coordinator"), roster=self.read_roster())

    def read_roster(self) -> Roster:
        """Raises: RosterError."""
        return credentials.load_roster(self._roster)

    def signed_roster(self) -> bytes:
        """The roster's file as it is. Raises: RosterNotFound."""
        path = self._roster / credentials.ROSTER_FILE
        try:
            return path.read_bytes()
        except OSError as error:
            raise RosterNotFound(f"'{path}' cannot be read: {error.strerror}.", fix="Put the consortium's roster there.") from error

    def is_due(self, newer: Roster, held: Roster, *, now: int | None = None) -> bool:
        """Whether the next round follows `newer`, where the last one followed `held`."""
        found = rosters.changes(held, newer)
        if found.takes_trust or not (found.added or found.reinstated or found.reweighted):
            return True
        try:
            rosters.check_valid(held, now=int(time.time()) if now is None else now)
        except RosterExpired:
            return True
        return sum(epoch >= newer.epoch for epoch in self.epochs.values()) >= sum(epoch == held.epoch for epoch in self.epochs.values())

    def adopt(self, roster: Roster) -> None:
        """A round was opened under it."""
        if self.read_roster().digest == roster.digest:
            self.adopted(roster, self.signed_roster())


class Crier:
    """`server.membership.roll.Herald`: tells each node of the newest roster and of the plan, once for each that is new.

    `plan` and `endorsement` are the files as the custodians signed them; empty where a plan is not brought to the sites this way.
    """

    def __init__(
        self,
        line: Line,
        consortium: Consortium,
        *,
        plan: bytes = b"",
        endorsement: bytes = b"",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._line, self._consortium, self._clock = line, consortium, clock
        self._plan, self._endorsement = (plan, endorsement) if endorsement else (b"", b"")
        self._told: dict[int, tuple[bytes, float]] = {}

    def tell(self, nodes: Collection[int]) -> None:
        """Who did not answer, or has yet to approve, is told again after a minute. Raises: SecretFile, RosterError."""
        mine, epochs = self._consortium.read(), self._consortium.epochs
        told = News(roster=self._consortium.signed_roster(), plan=self._plan, endorsement=self._endorsement)
        for gone in set(epochs).difference(nodes):
            del epochs[gone]
        now = self._clock()
        due = [node for node in nodes if self._is_due(node, told.statement, mine.roster.epoch, now)]
        self._told |= dict.fromkeys(due, (told.statement, now))
        for heard in news.tell(self._line, due, told, coordinator=mine.signer, deadline_s=_NEWS_S) if due else ():
            if isinstance(heard.said, NewsReply):
                epochs[heard.node] = heard.said.epoch

    def _is_due(self, node: int, statement: bytes, epoch: int, now: float) -> bool:
        last, at = self._told.get(node, (b"", 0.0))
        return last != statement or (self._consortium.epochs.get(node) != epoch and now - at >= _AGAIN_S)
