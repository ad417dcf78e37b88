# SPDX-License-Identifier: Apache-2.0
"""One message after another: fetch its content, ask the site, push the answer; each step again and again until it is done or pointless.

    taken --> fetched --> asked --> answered --> pushed
               objects     socket     reply       objects

What is small comes and goes whole (`common.whole`), and nothing is fetched or pushed.

Nothing here decides what a site may answer. What is decided is what is carried at all: the message types of `common.wire`, in the one form
that has an envelope. Anything else is answered with a refusal in nobody's name, and the site hears nothing of it.

A coordinator that hears nothing asks again, and the same content has the same digest: a second copy of a message that is on its way joins
the first, so a model of 40 MB is fetched once, and the answer goes to both. The newest small answers are kept for the same reason: the site
would say the same again. Refusals are not kept, since tomorrow the site may think otherwise.

Whether a site lives (hello), and news for it, have threads of their own, and do not wait behind a model that is on its way.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from threading import BoundedSemaphore, Event, Lock
from typing import Any, Final, TypeVar

from client.mailbox.flower import Link, LinkDown, NotAccepted, NotKnown, Reply, RunOver, Taken, content_of, reply_to
from client.mailbox.pending import MOST, Pending
from client.mailbox.retrying import Pace, delays
from client.mailbox.settings import Settings
from client.mailbox.tally import Tally
from client.process import door, events
from common import wire
from common.errors import FedwardError, MessageFormat, SiteAway
from common.records import FIELDS, VECTOR, to_content, to_envelope
from common.wire import Content

STEPS: Final = frozenset(wire.SECURE.values())
CARRIED: Final = STEPS | {wire.HELLO, wire.NEWS}
_STEP_THREADS: Final = 4
_QUICK_THREADS: Final = 2
_PARTS_AT_ONCE: Final = 4
_LARGE_PARTS_AT_ONCE: Final = 2
"""All that is under way when a link drops is sent again: at 1 Mbit/s four pieces take half of the minute between two drops."""
_SMALL: Final = 1 << 16
_SMALL_IN_PARTS: Final = 6
"""A small part has so many bytes, a small message so many parts."""
_KEPT_ANSWERS: Final = 16
_SITE_PATIENCE_S: Final = 24 * 3600.0
_REFUSED_TRIES: Final = 20

T = TypeVar("T")


class Pointless(Exception):
    """Nobody waits for this answer any more."""


@dataclass(slots=True)
class Job:
    """One content on its way, and everybody who asked for what comes of it."""

    key: tuple[str, str]
    asked: list[Taken] = field(default_factory=list)

    @property
    def newest(self) -> Taken:
        """Whoever asked last waits longest."""
        return self.asked[-1]


class Carrier:
    """Carries on threads of its own until it is told to stop."""

    def __init__(self, settings: Settings, link: Link, tally: Tally, pace: Pace, log: events.Log) -> None:
        self._socket, self._link, self._tally, self._pace, self._log = settings.socket, link, tally, pace, log
        self._pending = Pending(settings.folder)
        self._stopping = Event()
        self._steps = ThreadPoolExecutor(_STEP_THREADS, thread_name_prefix="step")
        self._quick = ThreadPoolExecutor(_QUICK_THREADS, thread_name_prefix="quick")
        self._parts = ThreadPoolExecutor(_PARTS_AT_ONCE, thread_name_prefix="part")
        self._few = BoundedSemaphore(_LARGE_PARTS_AT_ONCE)
        self._lock = Lock()
        self._jobs: dict[tuple[str, str], Job] = {}
        self._answers: OrderedDict[tuple[str, str], Content] = OrderedDict()

    def take(self, taken: Taken) -> None:
        """Begin with a message, or let it join the one that it repeats; drop it where so many wait that nobody honest sent them."""
        self._tally.add(messages=1)
        key = (taken.message_type, taken.content_id or taken.message_id)
        with self._lock:
            if sum(len(job.asked) for job in self._jobs.values()) >= MOST:
                self._tally.add(dropped=1)
                return
            self._pending.keep(taken.message_id, taken.raw)
            if (under_way := self._jobs.get(key)) is not None:
                if all(each.message_id != taken.message_id for each in under_way.asked):  # or it is taken up again
                    under_way.asked.append(taken)
                    self._tally.add(joined=1)
                return
            job = self._jobs[key] = Job(key=key, asked=[taken])
        (self._steps if taken.message_type in STEPS else self._quick).submit(self._run, job)

    def take_up(self) -> None:
        """Go on with what a process before this one had taken."""
        for message_id, raw, age_s in self._pending.left():
            taken = Taken(node=self._link.node, raw=raw, since=time.monotonic() - age_s)
            try:
                known = taken.message_id == message_id and taken.message.metadata.dst_node_id == taken.node
            except Exception:  # a torn or foreign file
                known = False
            self.take(taken) if known else self._pending.drop(message_id)

    def stop(self, *, within_s: float) -> None:
        """Let what is being pushed arrive, if that is soon; the rest is pending."""
        self._stopping.set()
        for pool in (self._steps, self._quick, self._parts):
            pool.shutdown(wait=False, cancel_futures=True)
        until = time.monotonic() + within_s
        while self._jobs and time.monotonic() < until:
            time.sleep(0.05)

    def _run(self, job: Job) -> None:
        started = time.monotonic()
        try:
            content = self._answer(job)
            self._hand_over(job, content, started)
        except Pointless:
            self._give_up(job)
        except Exception as error:  # a fault of ours must not end the thread in silence
            self._log.write(events.Event(event="dropped", type=_type_of(job), code=type(error).__name__[:32]))
            self._give_up(job)

    def _answer(self, job: Job) -> Content:
        taken = job.asked[0]
        if taken.message_type not in CARRIED:
            return self._refuse(MessageFormat.code)
        with self._lock:
            kept = self._answers.get(job.key)
        if kept is not None:
            return kept
        try:
            envelope = to_envelope(taken.message_type, self._content(job))
            answer = to_content(self._ask(job, envelope))
        except SiteAway:
            raise
        except FedwardError as error:
            return self._refuse(error.code)
        if taken.message_type in STEPS and VECTOR not in answer and answer[FIELDS].get("type") != "refusal":
            with self._lock:
                self._answers[job.key] = answer
                while len(self._answers) > _KEPT_ANSWERS:
                    self._answers.popitem(last=False)
        return answer

    def _refuse(self, code: str) -> Content:
        self._tally.add(refused_here=1)
        return wire.encode_refusal(wire.Refusal(site="", code=code))

    def _content(self, job: Job) -> Content:
        """It came with one of the copies, or is fetched as the newest says. Raises: MessageFormat, Pointless."""
        asked = list(job.asked)
        came = next((each for each in asked if each.came_with is not None), None)
        return content_of(asked[-1], self._fetch(job, asked[-1].objects())) if came is None else content_of(came, {})

    def _fetch(self, job: Job, ids: list[str]) -> dict[str, bytes]:
        def fetch(each: str) -> bytes:
            with self._few if len(ids) > _SMALL_IN_PARTS else nullcontext():
                return self._persist(job, lambda: self._link.fetch(job.newest.run_id, each))

        return dict(zip(ids, self._parts.map(fetch, ids), strict=True))

    def _ask(self, job: Job, envelope: Any) -> Any:
        for delay in delays():
            self._check(job.newest)
            try:
                answer = door.ask(self._socket, envelope, patience_s=_SITE_PATIENCE_S)
            except SiteAway:
                self._away(away=True)
                self._stopping.wait(delay)
            else:
                self._away(away=False)
                return answer
        raise AssertionError("delays never end")

    def _hand_over(self, job: Job, content: Content, started: float) -> None:
        while True:
            with self._lock:
                if not job.asked:
                    del self._jobs[job.key]
                    return
                taken = job.asked[0]
            try:
                self._push(taken, reply_to(taken, content))
            except Pointless:
                self._tally.add(dropped=1)
            else:
                self._tally.add(replies=1)
                if taken.came_with is None:
                    self._link.confirm(taken)
                fields = content[FIELDS]
                refused = str(fields.get("code", "")) if fields.get("type") == "refusal" else ""
                what: events.What = "refused" if refused else "answered"
                seconds = time.monotonic() - started
                self._log.write(events.Event(event=what, type=_type_of(job), round=taken.round, code=refused, seconds=seconds))
            if not self._stopping.is_set():
                self._pending.drop(taken.message_id)
            self._pace.answered(_type_of(job))
            with self._lock:
                job.asked.remove(taken)

    def _push(self, taken: Taken, reply: Reply) -> None:
        """Announce, push what is wanted, and again where the session was lost on the way."""
        while True:
            wanted, session = self._persist(taken, lambda: self._link.announce(reply))
            if not wanted:
                return

            def push(each: str, session: str = session) -> bool:
                content = reply.objects[each].deflate()
                with self._few if len(content) > _SMALL else nullcontext():
                    return self._persist(taken, lambda: self._link.push(taken.run_id, session, each, content))

            if all(list(self._parts.map(push, [each for each in reply.objects if each in wanted]))):
                return

    def _persist(self, wanted: Job | Taken, call: Callable[[], T]) -> T:
        """Try until it is done. Raises: Pointless."""
        refused = 0
        for number, delay in enumerate(delays()):
            self._check(wanted.newest if isinstance(wanted, Job) else wanted)
            try:
                if number == 0:
                    return call()
                with self._link.again():
                    return call()
            except (LinkDown, NotKnown):
                self._stopping.wait(delay)
            except RunOver:
                raise Pointless from None
            except NotAccepted:
                refused += 1
                if refused > _REFUSED_TRIES:
                    raise Pointless from None
                self._stopping.wait(delay)
        raise AssertionError("delays never end")

    def _check(self, taken: Taken) -> None:
        """Raises: Pointless, for a message that has expired or whose node the SuperLink has forgotten, and when this process is to end."""
        if self._stopping.is_set() or taken.node != self._link.node or taken.is_over:
            raise Pointless

    def _give_up(self, job: Job) -> None:
        with self._lock:
            self._jobs.pop(job.key, None)
        self._tally.add(dropped=len(job.asked))
        if not self._stopping.is_set():
            self._forget(job.asked)

    def _forget(self, messages: Iterable[Taken]) -> None:
        for taken in messages:
            self._pending.drop(taken.message_id)

    def _away(self, *, away: bool) -> None:
        if away != self._tally.counts.site_away:
            self._tally.note(site_away=away, code=SiteAway.code if away else "")
            if away:
                self._log.write(events.Event(event="site_away", code=SiteAway.code))


def _type_of(job: Job) -> str:
    return job.key[0] if job.key[0] in CARRIED else ""
