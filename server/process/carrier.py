# SPDX-License-Identifier: Apache-2.0
"""What carries the messages, kept up: a SuperLink that answers, a SuperExec that works for it, and the right mailboxes let in.

    the SuperLink is down         start it; with a damaged database, on a new one
    it has lost its database      kill it, which leads to the line above
    it does not answer            the same; if it dies young again and again, its database is put aside
    the SuperExec is down         start it; the ServerApp died with it
    a key or the roster changed   tell the SuperLink which mailboxes may connect (server.process.nodes)

Flower's database may go at any time: what counts is in the journal.
"""

import time
from functools import cached_property
from typing import Final

from common import credentials, failpoints
from common.errors import FedwardError, NodeKey, RosterError, TransportError
from server.home import CoordinatorHome
from server.process.children import Child
from server.process.control import Control
from server.process.logbook import Line, Logbook
from server.process.nodes import Gatekeeper
from server.process.superlink import SuperLinkFiles

_ASKED_EVERY_S: Final = 30.0
_ANSWERS_WITHIN_S: Final = 45.0
_MANY_DEATHS: Final = 3


class Carrier:
    """Flower's two long-lived processes. `look` is called again and again, from the main thread."""

    def __init__(self, home: CoordinatorHome, book: Logbook, environment: dict[str, str]) -> None:
        self._home, self._book, self.files = home, book, SuperLinkFiles(home)
        everything = {**self.files.environment(), **environment}
        self.superlink = Child("superlink", self.files.superlink(), everything, self.files.log("superlink"))
        self.superexec = Child("superexec", self.files.superexec(), dict(everything), self.files.log("superexec"))
        signed = (home.roster_folder / credentials.ROSTER_FILE, home.roster_folder / credentials.ROOTS_FILE)
        self._gatekeeper = Gatekeeper(home.nodes, signed)
        self._answered: float | None = None  # by this SuperLink, on the monotonic clock
        self._works_on: tuple[int, int] | None = None  # the database that it was started on, or the one that it made
        self._asked = 0.0
        self._complaint = ""

    @property
    def children(self) -> tuple[Child, Child]:
        return self.superlink, self.superexec

    @cached_property
    def control(self) -> Control:
        """Raises: CertificateMissing is raised before, by whoever prepares the folder."""
        return Control(self._home.address, None if self._home.file.superlink.insecure else self._home.ca.read_bytes())

    def look(self) -> bool:
        """Do what is due. True, if messages can be carried."""
        self._keep_superlink()
        if not self.superlink.up or not self._answers():
            return False
        self._keep(self.superexec)
        self._attend_nodes()
        return self.superexec.up

    def disarm(self) -> None:
        """A failpoint kills once: the next ServerApp is started by a SuperExec that has none in its environment (`common.failpoints`)."""
        if self.superexec.environment.pop(failpoints.VARIABLE, None):
            self.superexec.kill()

    def _keep_superlink(self) -> None:
        if self.superlink.up:
            found = self.files.database_identity()
            if self._works_on is None:
                self._works_on = found
            elif found != self._works_on:
                self.superlink.kill()
        if not self.superlink.up and self.superlink.backoff.quick_deaths >= _MANY_DEATHS:
            self._put_database_aside()
        self._keep(self.superlink)

    def _keep(self, child: Child) -> None:
        if child.up:
            return
        if child.mourn():
            self._book.write(Line(event="process_died", process=child.name, restarts=child.starts))
        if not child.backoff.due:
            return
        if child is self.superlink:
            self._answered, self._asked = None, 0.0
            if not self.files.is_whole():
                self._put_database_aside()
            self._works_on = self.files.database_identity()
        child.start()
        found = child.identity
        self._book.write(Line(event="process_started", process=child.name, pid=found.pid if found else None, restarts=child.starts - 1))

    def _put_database_aside(self) -> None:
        self.files.put_aside()
        self.superlink.backoff.quick_deaths = 0
        self._book.write(Line(event="database_put_aside"))

    def _answers(self) -> bool:
        """Whether it answered lately. Asked at every look until it does for the first time, and every few seconds from then on."""
        now = time.monotonic()
        if self._answered is not None and now - self._asked < _ASKED_EVERY_S:
            return True
        self._asked = now
        try:
            self.control.nodes()
        except TransportError:
            if now - (self._answered or self.superlink.begun) > _ANSWERS_WITHIN_S:
                self.superlink.kill()
            return False
        if self._answered is None:
            self._gatekeeper.forget()
        self._answered = now
        return True

    def _attend_nodes(self) -> None:
        """Whom the SuperLink lets in. Without a roster that holds nobody is let in or thrown out."""
        try:
            done = self._gatekeeper.attend(self.control, lambda: credentials.load_roster(self._home.roster_folder), self._refuse_key)
        except (RosterError, TransportError) as error:
            self._complain(error.code)
            return
        if done is None:
            return
        self._complaint = ""
        for site in done.registered:
            self._book.write(Line(event="node_registered", site=site))
        for site in done.unregistered:
            self._book.write(Line(event="node_unregistered", site=site))
        for site in done.refused:
            self._book.write(Line(event="node_refused", site=site, code=NodeKey.code))

    def _refuse_key(self, error: FedwardError) -> None:
        self._complain(error.code)

    def _complain(self, code: str) -> None:
        """Once, not at every look."""
        if code != self._complaint:
            self._complaint = code
            self._book.write(Line(event="node_refused", code=code))
