# SPDX-License-Identifier: Apache-2.0
"""One question to many nodes, over a network that loses messages.

Flower delivers a message at most once: a SuperLink killed just after handing it out never hands it out again, and a mailbox killed after
taking it has taken it along. So a node that is silent is asked the same again, under a new message id, and all ids stay good: a site
answers identical bytes to identical requests, so the first reply that arrives counts, whichever question it is to, and any other is the
same. An idle link is retried, a moving one is left alone:

    silent            asked again after `silence_s`, or after the time that the answer is expected to take if that is longer; each time
                      after twice as long
    the network was   (a look for a reply failed, or took long and found nothing) whoever was asked before that is asked again after
    away              `silence_s`: what had been handed out may be lost
    reply lost        asked again at once, each time after twice as long
    offline           not asked until it is online again: a killed node is let in again after 45 to 63 s. Given up when it has been away
                      for `return_s` and nobody else is awaited either
    moving            its reply has been announced and is being uploaded: not asked again, and waited for beyond the group's patience

What can be seen of a moving reply: that it was announced, that its node sends heartbeats, and each piece of it that has come
(`server.transport.replies`), so that an upload of which nothing came for `stalled_s` does not count as moving. Less than a piece cannot be
seen, and on another grid than Flower's own no piece: there an upload that stalls looks like one that moves until Flower's upload session
runs out, three minutes after its last piece; then its reply counts as lost. The deadline ends all of this.

All ids that are due are looked for in one call (`server.transport.looks`), soon after asking and then every half second. A grid that is
asked in Flower's own way is asked for each by itself, less often where there are many. So is any for whose SuperLink a look for several
failed: it may be one reply that it chokes on. What is announced in pieces is taken in a thread of its own, so many at once. Questions go
whole to whoever answers whole (`server.transport.questions`), but only once: asked again, they go in pieces.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Final

import httpx
from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError

from common.whole import is_small
from server.transport.looks import Looks
from server.transport.questions import HandedIn, giver_of
from server.transport.replies import Announced, Found, ReplyLost, ReplyTooLarge, taker_of

LOST: Final = frozenset({ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE})
OFFLINE: Final = ErrorCode.NODE_UNAVAILABLE
CRASHED: Final = ErrorCode.CLIENT_APP_CRASHED
PASSING: Final = (httpx.HTTPError,)
"""What a call fails with while the SuperLink is not well; the next one may succeed."""
_SLOWER: Final = 1.25
_OWN_FAULT: Final = 5
"""After so many looks for one reply alone that failed while others succeeded, it counts as lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one node said: `content`, or `failure` in the transport's words (never shown to other sites)."""

    node: int
    content: RecordDict | None
    failure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often a node is asked and a reply looked for: seconds, for hospitals and a SuperLink that spends 5 ms a look."""

    silence_s: float = 15.0
    longest_silence_s: float = 240.0
    lost_s: float = 1.0
    first_look_s: float = 0.05
    look_s: float = 0.5
    looks_per_s: float = 40.0
    moving_s: float = 3.0
    stalled_s: float = 75.0
    return_s: float = 120.0
    roll_s: float = 2.0
    crashes: int = 2
    at_once: int = 16
    in_all: int = 64


@dataclass(slots=True, eq=False)
class _Sent:
    """One message on its way: when its reply is looked for next, or since when that look has lasted and something of it came last.

    `came`: so many of its pieces. `whole`: it went whole. `announced`: its reply is to be taken in pieces. `alone`: a look for several
    failed, so this one has its own, of which so many have `failed`.
    """

    message_id: str
    node: int
    look_at: float
    every_s: float
    since: float | None = None
    moved_at: float = 0.0
    came: int = 0
    whole: bool = False
    announced: Announced | None = None
    alone: bool = False
    failed: int = 0


@dataclass(slots=True, eq=False)
class _Awaited:
    """One node: what it is asked, when it is asked again, and what is on its way to it."""

    node: int
    content: RecordDict
    silence_s: float
    doubt_s: float
    lost_s: float
    asked_at: float = 0.0
    ask_at: float = 0.0
    away_since: float | None = None
    crashes: int = 0
    sent: dict[str, _Sent] = field(default_factory=dict)


Key = tuple[str, ...]
Replies = Mapping[str, Found]
"""What one look is for, and what it finds: by the messages that are answered."""


class Inquiry:
    """A question until it is answered by all or its time is up. One use; `answers` is its life."""

    def __init__(
        self,
        grid: Grid,
        question: str,
        *,
        group: str,
        deadline_s: float,
        expected_s: float,
        looks: Looks[Key, Replies],
        pace: Pace,
        most_bytes: int,
        readers: set[int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._grid, self._question, self._group = grid, question, group
        self._giver, self._taker, self._is_done = giver_of(grid), taker_of(grid, most_bytes=most_bytes), False
        self._readers = set() if readers is None else readers
        self._looks, self._pace, self._clock = looks, pace, clock
        self._last = clock() + deadline_s
        self._expected_s = expected_s
        self._awaited: dict[int, _Awaited] = {}
        self._looking: dict[Key, list[_Sent]] = {}
        self._well_at = -math.inf
        self._online: frozenset[int] = frozenset()
        self._rolled_at = -math.inf

    def answers(self, contents: Mapping[int, RecordDict], *, until: Callable[[], float]) -> Iterator[Answer]:
        """Ask each node its own content; yield one answer for each, in order of arrival. Who is silent to the end yields nothing.

        The end is the deadline, or the time that `until` gives as soon as no reply is moving.
        """
        silence_s = max(self._pace.silence_s, self._expected_s)
        for node, content in contents.items():
            self._awaited[node] = _Awaited(node, content, silence_s, self._pace.silence_s, self._pace.lost_s)
        try:
            while self._awaited and not self._is_over(until()):
                self._ask(each for each in self._awaited.values() if each.ask_at <= self._clock())
                self._roll()
                yield from self._given_up()
                self._look()
                yield from self._hear(self._idle_s(until()))
        finally:
            self._is_done = True

    # Asking.

    def _ask(self, due: Iterable[_Awaited]) -> None:
        """Whoever is due, and is not about to answer."""
        now = self._clock()
        asked = []
        for each in due:
            if self._is_moving(each, now):
                each.ask_at = now + self._pace.silence_s
            else:
                asked.append(each)
        if not asked:
            return
        ttl = max(1.0, self._last - now)
        label = self._giver.label(self._group)
        messages = [Message(each.content, each.node, self._question, ttl=ttl, group_id=label) for each in asked]
        unsure = False
        self._readers.difference_update(each.node for each in asked if each.asked_at)
        try:
            handed_in = self._giver.give(messages, readers=self._readers)
        except ObjectPushError:
            # A node was quicker than we: it took, answered and confirmed its message while we still handed in the last parts of it. All are
            # known there by now, and those that are whole will be answered.
            handed_in, unsure = HandedIn(frozenset(message.metadata.message_id for message in messages)), True
        except PASSING:
            handed_in = HandedIn(frozenset())
        now = self._clock()
        for each, message in zip(asked, messages, strict=True):
            if each.asked_at:
                each.silence_s, each.doubt_s = min(each.silence_s * 2, self._longest_s), min(each.doubt_s * 2, self._longest_s)
            each.asked_at = now
            if message.metadata.message_id not in handed_in.taken:
                self._lose(each)
                continue
            each.ask_at = now + (each.lost_s if unsure else each.silence_s)
            first = self._pace.first_look_s
            whole = message.metadata.message_id in handed_in.whole
            each.sent[message.metadata.message_id] = _Sent(message.metadata.message_id, each.node, now + first, first, whole=whole)

    @property
    def _longest_s(self) -> float:
        return max(self._pace.longest_silence_s, self._expected_s)

    def _lose(self, each: _Awaited) -> None:
        """A question or its reply is gone: ask again soon, but not in a tight circle."""
        each.ask_at = min(each.ask_at, self._clock() + each.lost_s) if each.sent else self._clock() + each.lost_s
        each.lost_s = min(each.lost_s * 2, self._pace.silence_s)

    def _doubt(self) -> None:
        """The network was away; what was handed out before may be lost."""
        now = self._clock()
        for each in self._awaited.values():
            if each.away_since is None:
                each.ask_at = min(each.ask_at, now + each.doubt_s)

    # Who is there.

    def _roll(self) -> None:
        """Look who is online, where that decides something."""
        now = self._clock()
        away = [each for each in self._awaited.values() if each.away_since is not None]
        if now < self._rolled_at + self._pace.roll_s or not (
            away or any(self._is_slow(sent, now) for batch in self._looking.values() for sent in batch)
        ):
            return
        self._rolled_at = now
        try:
            self._online = frozenset(self._grid.get_node_ids())
        except PASSING:
            return
        for each in away:
            if each.node in self._online:
                each.away_since = None
                self._lose(each)

    def _given_up(self) -> Iterator[Answer]:
        if any(each.away_since is None for each in self._awaited.values()):
            return
        now = self._clock()
        for each in list(self._awaited.values()):
            if each.away_since is not None and now - each.away_since >= self._pace.return_s:
                yield self._answered(each, Answer(node=each.node, content=None, failure="the node is offline"))

    def _is_slow(self, sent: _Sent, now: float) -> bool:
        return sent.since is not None and now - sent.since >= self._pace.moving_s

    def _is_moving(self, each: _Awaited, now: float) -> bool:
        return each.node in self._online and any(self._is_slow(sent, now) and self._is_alive(sent, now) for sent in each.sent.values())

    def _is_alive(self, sent: _Sent, now: float) -> bool:
        return not self._taker.shows_progress or now - sent.moved_at < self._pace.stalled_s

    def _is_over(self, end: float) -> bool:
        now = self._clock()
        if now >= self._last:
            return True
        return now >= end and not any(self._is_moving(each, now) for each in self._awaited.values())

    # Looking for replies.

    def _look(self) -> None:
        """Begin the looks that are due, for as many at once as the grid knows how; and take what is announced."""
        now = self._clock()
        unseen = [sent for each in self._awaited.values() for sent in each.sent.values() if sent.since is None]
        due = sorted((sent for sent in unseen if sent.look_at <= now), key=lambda sent: sent.look_at)
        for sent in due:
            if sent.announced is not None and not self._is_full:
                self._take(sent, sent.announced)
        due = [sent for sent in due if sent.announced is None]
        for batch in (*_batches([sent for sent in due if not sent.alone], self._taker.at_once), *([sent] for sent in due if sent.alone)):
            if self._is_busy:
                return
            ids = tuple(sent.message_id for sent in batch)
            self._begin(batch, lambda ids=ids: self._taker.look(ids))  # type: ignore[misc] # bound here

    def _take(self, sent: _Sent, announced: Announced) -> None:
        """Begin to take a reply that comes in pieces; given up, for now, when nothing more of it comes."""
        began, came = self._clock(), count(1)

        def moved() -> None:
            if (number := next(came)) > sent.came:
                sent.came, sent.moved_at = number, self._clock()

        def is_over() -> bool:
            return self._is_done or self._clock() - max(began, sent.moved_at) >= self._pace.stalled_s

        def take() -> Replies:
            arrived = self._taker.take(announced, moved=moved, is_over=is_over)
            return {} if arrived is None else {sent.message_id: arrived}

        self._begin([sent], take)

    def _begin(self, batch: list[_Sent], look: Callable[[], Replies]) -> None:
        now = self._clock()
        for sent in batch:
            sent.since = now
        key = tuple(sent.message_id for sent in batch)
        self._looking[key] = batch
        self._looks.begin(key, look)

    @property
    def _is_full(self) -> bool:
        """As many replies are being taken in pieces as may be at once."""
        return sum(batch[0].announced is not None for batch in self._looking.values()) >= self._pace.in_all

    @property
    def _is_busy(self) -> bool:
        """Enough looks are under way. One that waits for an upload is no work, and counts up to a higher number; taking is no look."""
        now, looks = self._clock(), [batch[0] for batch in self._looking.values() if batch[0].announced is None]
        quick = sum(not self._is_slow(sent, now) for sent in looks)
        return quick + self._looks.unread >= self._pace.at_once or len(looks) >= self._pace.in_all

    def _hear(self, timeout_s: float) -> Iterator[Answer]:
        """What looks found, first waiting for one of them."""
        seen = self._looks.next(timeout_s)
        while seen is not None and self._clock() < self._last:
            if seen.error is not None and not isinstance(seen.error, (ReplyLost, ReplyTooLarge, *PASSING)):
                raise seen.error
            batch = self._looking.pop(seen.key)
            if seen.error is None:
                self._well_at = self._clock()
            for sent in batch:
                sent.alone = isinstance(seen.error, PASSING) and (sent.alone or len(batch) > 1)
                since, sent.since = sent.since or 0.0, None
                each = self._awaited.get(sent.node)
                if each is not None and sent.message_id in each.sent:
                    found = seen.found.get(sent.message_id) if seen.found is not None else None
                    yield from self._saw(each, sent, found, seen.error, since)
            seen = self._looks.next(0)

    def _saw(self, each: _Awaited, sent: _Sent, found: Found | None, error: Exception | None, since: float) -> Iterator[Answer]:
        if isinstance(error, ReplyLost):
            del each.sent[sent.message_id]
            self._lose(each)
        elif isinstance(error, ReplyTooLarge):
            yield self._answered(each, Answer(node=each.node, content=None, failure="the reply is larger than any answer is"))
        elif found is None:
            self._look_later(each, sent, since, failed=error is not None)
        elif isinstance(found, Announced):
            sent.announced, sent.look_at, sent.moved_at = found, self._clock(), self._clock()
        elif sent.whole and not found.whole and not found.message.has_error() and is_small(found.message.content):
            # Whoever reads whole messages answers so: another program has this node's place now, and has not understood the question.
            del each.sent[sent.message_id]
            self._readers.discard(each.node)
            self._lose(each)
        else:
            if found.whole:
                self._readers.add(each.node)
            yield from self._read(each, sent, found.message)

    def _look_later(self, each: _Awaited, sent: _Sent, since: float, *, failed: bool) -> None:
        now = self._clock()
        sent.failed = sent.failed + 1 if failed and sent.alone and self._well_at >= since else 0
        if sent.failed >= _OWN_FAULT:
            # Looks for others succeed meanwhile: it is this reply that the SuperLink cannot hand out.
            del each.sent[sent.message_id]
            self._lose(each)
            return
        if sent.failed == 0 and (failed or now - since >= self._pace.moving_s):
            self._doubt()
        slowest = max(self._pace.look_s, len(self._awaited) / self._pace.looks_per_s / self._taker.at_once)
        sent.every_s = min(sent.every_s * _SLOWER, slowest)
        sent.look_at = now + sent.every_s

    def _read(self, each: _Awaited, sent: _Sent, reply: Message) -> Iterator[Answer]:
        del each.sent[sent.message_id]
        if not reply.has_error():
            yield self._answered(each, Answer(node=each.node, content=reply.content))
            return
        code = reply.error.code
        each.crashes += code == CRASHED
        if code == OFFLINE:
            each.away_since, each.ask_at = each.away_since or self._clock(), math.inf
        elif code in LOST or (code == CRASHED and each.crashes <= self._pace.crashes):
            self._lose(each)
        else:
            failure = reply.error.reason or f"transport error {code}"
            yield self._answered(each, Answer(node=each.node, content=None, failure=failure))

    def _answered(self, each: _Awaited, answer: Answer) -> Answer:
        del self._awaited[each.node]
        return answer

    def _idle_s(self, end: float) -> float:
        """Until something is due."""
        now = self._clock()
        times = [self._last, *(each.ask_at for each in self._awaited.values())]
        unseen = [sent for each in self._awaited.values() for sent in each.sent.values() if sent.since is None]
        if not self._is_busy:
            times += [sent.look_at for sent in unseen if sent.announced is None]
        if not self._is_full:
            times += [sent.look_at for sent in unseen if sent.announced is not None]
        if end > now:
            times.append(end)
        if any(each.away_since is not None for each in self._awaited.values()) or self._looking:
            times.append(max(now, self._rolled_at) + self._pace.roll_s)
        return min(self._pace.look_s, max(0.0, min(times) - now))


def _batches(sent: list[_Sent], most: int) -> list[list[_Sent]]:
    return [sent[start : start + most] for start in range(0, len(sent), most)]
