# SPDX-License-Identifier: Apache-2.0
"""Which site is behind which node: asked at the start, and again between rounds, but only where something may have changed.

Flower knows nodes; a site says its name when it is greeted. Called between rounds, the roll greets nodes that are new and those whose
site fell silent; a site that was enrolled meanwhile, or has come back under a new node id, is thus in the next round, and a node that is
gone is out of it. Nobody else is disturbed: while all goes well a call costs one look at the list of nodes.

News come before greetings: a site that has yet to hear of its roster or plan refuses to be greeted, and may not after hearing.

A name is only claimed in a greeting. Who claimed another's would get its messages; it could answer none of them, since what counts in a
round is signed, but that site would be out of every round. So a claim counts only from the node that connects with the key of that site's
mailbox (`owners`). Where mailboxes have no keys, in simulations, a site that is there keeps its name, and one that two new nodes claim is
nobody's. A claim that does not count is among the refusals, by the name of the site whose mailbox made it.

How long a greeting is waited for is learnt: a node on a slow line has twice as long as it took the last time, and one that has never
answered is once given as long as at the start. So a slow site that fell silent finds its way back, and a dead one holds up nobody twice.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from common import wire
from common.errors import NodeKey, ProtocolError
from server.absences import Absence
from server.aggregation import FAILED
from server.transport.exchange import Answer, Line
from server.transport.patience import Patience

FIRST_S: Final = 60.0
LATER_S: Final = 10.0
"""How long greetings are waited for: at the start, and between rounds, where nothing else is known of a node."""
_TIMES: Final = 2.0

Owners = Callable[[], Mapping[int, str]]
"""Which site each node is, by the key that it connects with (`server.process.nodes.Owners`)."""


class Herald(Protocol):
    """Whoever tells nodes what is new."""

    def tell(self, nodes: Collection[int]) -> None:
        """Each node once; whoever has heard it all is not disturbed."""
        ...


class NoNews:
    """A herald who has nothing to tell: in simulations, where all files are in place."""

    def tell(self, nodes: Collection[int]) -> None: ...


@dataclass(slots=True, kw_only=True)
class Roll:
    """`sites` are those that are there, by name; one mapping for the whole run, which `call` keeps up to date.

    `owners` is asked whenever somebody is to be greeted; None where nodes have no keys.
    """

    line: Line
    plan: str
    minimum: int
    herald: Herald = field(default_factory=NoNews)
    owners: Owners | None = None
    sites: dict[str, int] = field(default_factory=dict)
    refusals: tuple[Absence, ...] = ()
    _silent: set[str] = field(default_factory=set)
    _took_s: dict[int, float] = field(default_factory=dict)
    _waited_s: dict[int, float] = field(default_factory=dict)

    def call(self, *, patience_s: float = LATER_S, with_news: bool = True) -> None:
        """Greet whoever is new, or fell silent. Within a round without news: a site that takes a new roster drops out of the round."""
        nodes = list(self.line.grid.get_node_ids())
        here = set(nodes)
        known = {site: node for site, node in self.sites.items() if node in here}
        trusted = {node for site, node in known.items() if site not in self._silent}
        if with_news:
            self.herald.tell(nodes)
        asked = [node for node in nodes if node not in trusted]
        patience_s = max((self._due_s(node, patience_s) for node in asked), default=patience_s)
        found = self._greet(asked, needed=self.minimum - len(trusted), patience_s=patience_s)
        kept = {site: node for site, node in known.items() if node in trusted or found.get(node) == site}
        names = self._undisputed({node: site for node, site in found.items() if site not in kept}) | kept
        self._silent.clear()
        self.sites.clear()
        self.sites.update(sorted(names.items()))

    def doubt(self, sites: Iterable[str]) -> None:
        """These fell silent: greet them before they are asked again."""
        self._silent.update(sites)

    @property
    def impostors(self) -> tuple[Absence, ...]:
        """Whose claims did not count in the last call, each name once."""
        return tuple(dict.fromkeys(one for one in self.refusals if one.why == NodeKey.code))

    @property
    def has_refused_only(self) -> bool:
        """Whether every node that is there has answered the last call, and too few as they should."""
        nodes = len(set(self.line.grid.get_node_ids()))
        return bool(self.refusals) and len(self.sites) + len(self.refusals) == nodes

    def _greet(self, nodes: list[int], *, needed: int, patience_s: float) -> dict[int, str]:
        """Which site each node says it is."""
        names: dict[int, str] = {}
        refusals = []
        owners = self.owners() if self.owners and nodes else None
        for answer, note in self._answers(nodes, needed, patience_s):
            said = _name(answer)
            if owners is not None and not isinstance(said, Absence) and owners.get(answer.node) != said:
                said = Absence(site=owners.get(answer.node, f"node {answer.node}"), why=NodeKey.code)
            if isinstance(said, Absence):
                refusals.append(said)
            else:
                names[answer.node] = said
            note(good=not isinstance(said, Absence))
        self.refusals = tuple(refusals)
        return names

    def _due_s(self, node: int, patience_s: float) -> float:
        """How long this node's greeting is worth waiting for."""
        if node in self._took_s:
            return max(patience_s, min(FIRST_S, _TIMES * self._took_s[node]))
        return patience_s if self._waited_s.get(node, 0.0) > FIRST_S / 2 else FIRST_S

    def _undisputed(self, claims: Mapping[int, str]) -> dict[str, int]:
        """Those of the claims by nodes whose names nobody else claims; a name with two claimants is a refusal."""
        claimants = Counter(claims.values())
        disputed = sorted(site for site, count in claimants.items() if count > 1)
        self.refusals += tuple(Absence(site=site, why=NodeKey.code) for site in disputed for _ in range(claimants[site]))
        return {site: node for node, site in claims.items() if claimants[site] == 1}

    def _answers(self, nodes: list[int], needed: int, patience_s: float) -> Iterator[tuple[Answer, Callable[..., None]]]:
        if not nodes:
            return
        started, hello = time.monotonic(), wire.encode_hello(wire.Hello(plan=self.plan))
        patience = Patience(patience_s, asked=len(nodes), needed=max(0, min(needed, len(nodes))) or None)
        for answer in self.line.ask(
            wire.HELLO, dict.fromkeys(nodes, hello), group="hello", deadline_s=patience_s, until=lambda: patience.end
        ):
            if answer.content is not None:
                self._took_s[answer.node] = time.monotonic() - started
            yield answer, patience.note
        waited = time.monotonic() - started
        for node in nodes:
            self._waited_s[node] = max(waited, self._waited_s.get(node, 0.0))


def _name(answer: Answer) -> str | Absence:
    """The site behind a node, or why it is nobody's."""
    node = f"node {answer.node}"
    if answer.content is None:
        return Absence(site=node, why=FAILED)
    try:
        reply = wire.decode_hello_reply(answer.content)
    except ProtocolError as error:
        return Absence(site=node, why=error.code)
    return Absence(site=reply.site or node, why=reply.code) if isinstance(reply, wire.Refusal) else reply.site
