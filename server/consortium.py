# SPDX-License-Identifier: Apache-2.0
"""The coordinator's view of who takes part: its own key and the newest roster, read anew whenever a round is opened.

A custodian puts a newer roster into the folder while a run goes on, and nothing is restarted. What is read is verified each time; a file
that does not hold is an error by name, and whoever it replaced is not used in its stead. `adopted` is told once of each roster.
"""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from common import credentials, keyfile
from common.credentials import Credentials
from common.errors import RosterNotFound
from common.news import News
from common.roster import Roster
from server import news
from server.exchange import Line

Adopted = Callable[[Roster, bytes], None]
_NEWS_S: Final = 10.0


class Consortium:
    """Two folders, which may be one: of the coordinator's key, and of roster and roots. Called, it reads them."""

    def __init__(self, *, key: Path, roster: Path, adopted: Adopted = lambda *_: None) -> None:
        self._key, self._roster = key / credentials.KEY_FILE, roster
        self.adopted = adopted
        self._last = b""

    def __call__(self) -> Credentials:
        """Raises: SecretFile, RosterError."""
        mine = self.read()
        if mine.roster.digest != self._last:
            self.adopted(mine.roster, self.signed_roster())
            self._last = mine.roster.digest
        return mine

    def read(self) -> Credentials:
        """The same, without telling anybody."""
        return Credentials(signer=keyfile.load(self._key, "coordinator"), roster=credentials.load_roster(self._roster))

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


class Crier:
    """`server.roll.Herald`: tells each node of the newest roster and of the plan, once for each that is new.

    `plan` and `endorsement` are the files as the custodians signed them; empty where a plan is not brought to the sites this way.
    """

    def __init__(self, line: Line, consortium: Consortium, *, plan: bytes = b"", endorsement: bytes = b"") -> None:
        self._line, self._consortium = line, consortium
        self._plan, self._endorsement = (plan, endorsement) if endorsement else (b"", b"")
        self._told: dict[int, bytes] = {}

    def tell(self, nodes: Collection[int]) -> None:
        """Who does not answer is told again the next time. Raises: SecretFile, RosterError."""
        told = News(roster=self._consortium.signed_roster(), plan=self._plan, endorsement=self._endorsement)
        due = [node for node in nodes if self._told.get(node) != told.statement]
        if not due:
            return
        signer = self._consortium.read().signer
        for heard in news.tell(self._line, due, told, coordinator=signer, deadline_s=_NEWS_S):
            if heard.said is not None:
                self._told[heard.node] = told.statement
