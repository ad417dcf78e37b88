# SPDX-License-Identifier: Apache-2.0
"""Which mailboxes may connect: those whose keys lie in nodes/, of sites that the roster trusts.

    nodes/north.pub    the public half of the key that site north's mailbox proves itself with

The SuperLink's own list is made equal to that, whenever one of the two changed or the SuperLink lost its memory: what is missing is
registered, what is not wanted any more is unregistered. The key opens the transport, and says whose messages a node may be given: a
node that answers a greeting with another site's name is believed by nobody. What counts in a round, the site's identity key says.

Flower never takes a key again that was unregistered once; a mailbox that comes back needs a new key, or the SuperLink a new database.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from common import transport_key
from common.errors import FedwardError, NodeKey, RosterKey, TransportError
from common.roster import Roster
from server.process.control import Node

KEY_SUFFIX: Final = ".pub"


class NodeList(Protocol):
    """A SuperLink's list of nodes (`server.process.control.Control`)."""

    def nodes(self) -> list[Node]: ...

    def register(self, name: str, key: bytes) -> None: ...

    def unregister(self, node: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Changes:
    """What a reconciliation did: names of sites."""

    registered: tuple[str, ...]
    unregistered: tuple[str, ...]
    refused: tuple[str, ...]


def wanted(folder: Path, roster: Roster, *, now: int, complain: Callable[[FedwardError], None]) -> dict[str, bytes]:
    """Site by site the key of its mailbox. What cannot be read is complained of and left out; one key for two sites is nobody's."""
    trusted = {member.site_id for member in roster.members if not member.revoked and member.not_after >= now}
    keys: dict[str, bytes] = {}
    for path in sorted(folder.glob(f"*{KEY_SUFFIX}")):
        site = path.name.removesuffix(KEY_SUFFIX)
        if site not in trusted:
            continue
        try:
            key = transport_key.as_pem(transport_key.read_public(path))
            if owner := next((other for other, known in keys.items() if known == key), None):
                raise NodeKey(
                    f"'{path.name}' is the key of '{owner}' too.", fix="Each mailbox makes a key of its own: ask the site for it."
                )
            keys[site] = key
        except (NodeKey, RosterKey) as error:
            complain(error)
    return keys


def reconcile(control: NodeList, keys: dict[str, bytes]) -> Changes:
    """Make the SuperLink's list equal to `keys`. Raises: TransportError, if it does not answer."""
    known = {node.key: node for node in control.nodes()}
    mine = {key: site for site, key in keys.items()}
    registered, refused = [], []
    for site, key in keys.items():
        node = known.get(key)
        if node is None:
            control.register(site, key)
            registered.append(site)
        elif node.gone:
            refused.append(site)
    gone = [node for key, node in known.items() if key not in mine and not node.gone]
    for node in gone:
        control.unregister(node.node)
    return Changes(tuple(registered), tuple(sorted(node.name for node in gone)), tuple(refused))


class Owners:
    """Which site each node is, by the key that it connects with: what `server.membership.roll` believes a greeting by.

    A SuperLink that does not answer leaves what it said last: a node of which it has not spoken is nobody's until it does.
    """

    def __init__(self, control: NodeList, folder: Path, roster: Callable[[], Roster], complain: Callable[[FedwardError], None]) -> None:
        self._control, self._folder, self._roster, self._complain = control, folder, roster, complain
        self._last: list[Node] = []

    def __call__(self) -> dict[int, str]:
        """Raises: RosterError."""
        keys = wanted(self._folder, self._roster(), now=int(time.time()), complain=self._complain)
        try:
            self._last = self._control.nodes()
        except TransportError as error:
            self._complain(error)
        mine = {key: site for site, key in keys.items()}
        return {node.node: mine[node.key] for node in self._last if node.key in mine and not node.gone}


class Gatekeeper:
    """Reconciles when there is a reason to: a file changed, the SuperLink is new, or the last try failed."""

    def __init__(self, folder: Path, roster_files: tuple[Path, ...]) -> None:
        self._folder, self._roster_files = folder, roster_files
        self._seen: tuple[object, ...] | None = None

    def forget(self) -> None:
        """The SuperLink may have lost what it knew."""
        self._seen = None

    def attend(self, control: NodeList, roster: Callable[[], Roster], complain: Callable[[FedwardError], None]) -> Changes | None:
        """None, if there was no reason. Raises: RosterError, TransportError; then there is a reason again."""
        stamp = self._stamp()
        if stamp == self._seen:
            return None
        self._seen = None
        done = reconcile(control, wanted(self._folder, roster(), now=int(time.time()), complain=complain))
        self._seen = stamp
        return done

    def _stamp(self) -> tuple[object, ...]:
        files = [*sorted(self._folder.glob(f"*{KEY_SUFFIX}")), *self._roster_files]
        return tuple((str(path), status.st_mtime_ns, status.st_ino) for path in files if path.exists() for status in [path.stat()])
