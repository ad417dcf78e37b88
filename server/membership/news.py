# SPDX-License-Identifier: Apache-2.0
"""Telling the sites what is new: the signed roster, a signed plan. What each answers shows who has yet to approve.

Between rounds, not within one: a site that takes a new roster in the middle of a round drops out of it, since everything that is said in
a round is bound to one roster. To tell the same again is harmless, so whoever is unsure tells again.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from common import news, wire
from common.errors import MessageFormat
from common.news import News
from common.secagg.keys import SigningKey
from common.wire import NewsReply, Refusal
from server.transport.exchange import Line

PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What one node said: where its site stands, a refusal, or nothing that could be read (None)."""

    node: int
    said: NewsReply | Refusal | None


def tell(line: Line, nodes: Iterable[int], told: News, *, coordinator: SigningKey, deadline_s: float = PATIENCE_S) -> Iterator[Heard]:
    """Tell each node, and yield what they say as it comes; who is silent to the deadline yields nothing."""
    content = wire.encode_news(news.signed(told, coordinator))
    for answer in line.ask(wire.NEWS, dict.fromkeys(nodes, content), group="news", deadline_s=deadline_s):
        yield Heard(node=answer.node, said=None if answer.content is None else _read(answer.content))


def _read(content: wire.Content) -> NewsReply | Refusal | None:
    try:
        return wire.decode_news_reply(content)
    except MessageFormat:
        return None
