# SPDX-License-Identifier: Apache-2.0
"""The site process: it answers at a socket, and has no network.

    mailbox --(gRPC over a Unix-domain socket, pieces of 4 MB)--> Service -> client.process.handler -> client.site

It is the one process that reads pixels, keys and ledger, and it takes in nothing but envelopes (`common.envelope`): no code, no pickle, no
port. What it may answer is what `client.process.handler` calls deployed, under the plan that this site's operator approved.

Steps of secure aggregation are answered one at a time. Whether the site lives (hello) and what the coordinator announces (news) are not
made to wait for training, so that a coordinator can tell a site that works from one that is gone. A step's vector is taken off the socket
only when its turn has come: what waits is at the sender's expense.

The process dies without harm at any moment: every answer is on disk before it leaves (`client.fsa1`). So SIGTERM waits for a step that is
nearly done, and gives up on one that is not; training that is cut short was paid for all the same, which `docs/operations.md` says.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc

from client import audit
from client.home import SiteFile, read_site_file
from client.membership.approval import approved_plan
from client.process import handler, place
from client.process.door import METHOD, OPTIONS
from client.process.events import Event, Log
from client.process.handler import DEPLOYED, Desk
from client.process.standing import agreed, spent_so_far, standing
from client.process.status import Board
from client.site import Site
from client.training import choose
from common import envelope, failpoints, wire
from common.audit.entries import Stopped
from common.envelope import Head
from common.errors import FedwardError, MessageFormat, SimulatedSite
from common.plan import digest_of
from common.records import FIELDS, to_content, to_envelope
from common.wire import Content

LOCK_FILE: Final = "serve.lock"
_WAITING_STEPS: Final = 4
_THREADS: Final = 2 * _WAITING_STEPS
MOST_AT_ONCE: Final = 2 * _THREADS
"""Messages that have begun; more are sent away to come again. A mailbox has six threads."""
_STEP_NAMES: Final = {message_type: step for step, message_type in wire.SECURE.items()}
_FLOAT_BYTES: Final = 4
_TRAINS: Final = "KEYS"
_LOOKS_UP_S: Final = 0.5
_HANDED_OVER_S: Final = 10
"""An answer that its mailbox does not take in that time is asked for again, and is the same then."""
_READ_S: Final = 0.25
"""Between the last answer and the end of its connection: one that closes under what a peer still writes takes unread answers with it."""


class Approved:
    """The site under the plan that its operator approved, opened again whenever that is another one."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._opened: tuple[str, Site] | None = None

    def site(self) -> Site:
        """Raises: PlanNotApproved, ApprovalBroken, and whatever else is wrong with the approval."""
        plan = approved_plan(self._home)
        digest = digest_of(plan)
        with self._lock:
            if self._opened is None or self._opened[0] != digest:
                self._opened = (digest, Site.open(self._home, plan))
            return self._opened[1]


class Service:
    """Answers whoever may open the socket."""

    def __init__(self, home: Path, file: SiteFile, board: Board, log: Log) -> None:
        self._home, self._file, self._board, self._log = home, file, board, log
        self._desk = Desk(home, Approved(home).site)
        self._turn = threading.Lock()
        self._room = threading.BoundedSemaphore(_WAITING_STEPS)
        self._closing = threading.Event()

    def converse(self, arriving: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """One message in, one out; gRPC's handler."""
        started = time.monotonic()
        if self._closing.is_set():
            context.abort(grpc.StatusCode.UNAVAILABLE, "closing")
        first = next(arriving, b"")
        try:
            head = envelope.open_head(first)
        except FedwardError as error:
            yield from self._out("", handler.refusal_from(self._home, error.code))
            return
        if head.message_type not in _STEP_NAMES:
            reply = self._told(head, arriving, started)
            self._board.change(heard=_now(), **(agreed(self._home) if head.message_type == wire.NEWS else {}))
            yield from self._out(head.message_type, reply)
            return
        if not self._room.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy")
        try:
            if not self._has_turn():
                context.abort(grpc.StatusCode.UNAVAILABLE, "closing")
            try:
                reply = self._step(head, arriving, started)
            finally:
                self._turn.release()
            yield from self._out(head.message_type, reply)
        finally:
            self._room.release()

    def close(self, *, within_s: float) -> bool:
        """Begin nothing new, and see answers out. False, if a step is still being answered after that time."""
        self._closing.set()
        if not self._turn.acquire(timeout=within_s):
            return False
        end = time.monotonic() + _HANDED_OVER_S
        if all(self._room.acquire(timeout=max(0.0, end - time.monotonic())) for _ in range(_WAITING_STEPS)):
            time.sleep(_READ_S)
        return True

    def _has_turn(self) -> bool:
        """Wait for the step before this one. False, if this process is to end."""
        while not self._turn.acquire(timeout=_LOOKS_UP_S):
            if self._closing.is_set():
                return False
        if self._closing.is_set():
            self._turn.release()
            return False
        return True

    def _step(self, head: Head, arriving: Iterator[bytes], started: float) -> Content:
        training = _STEP_NAMES[head.message_type] == _TRAINS
        self._board.change(state="training" if training else "answering", type=head.message_type, round=_round_of(head), heard=_now())
        reply = self._told(head, arriving, started)
        spent = spent_so_far(self._home, self._file) if training else self._board.now.spent
        self._board.change(state="waiting", spent=spent, **agreed(self._home))
        return reply

    def _told(self, head: Head, arriving: Iterator[bytes], started: float) -> Content:
        reply = handler.guarded(lambda: self._reply(head, arriving), lambda: self._home)
        code = reply[FIELDS].get("code")
        number, seconds = _round_of(head), time.monotonic() - started
        known = head.message_type if head.message_type in DEPLOYED else ""
        if code is not None:
            self._board.refuse(str(code), message_type=known, number=number)
            self._log.write(Event(event="refused", site=self._board.now.site, type=known, round=number, code=str(code), seconds=seconds))
        elif known != wire.HELLO:  # which a coordinator may ask many times a minute
            self._board.change(answered=self._board.now.answered + 1)
            self._log.write(Event(event="answered", site=self._board.now.site, type=known, round=number, seconds=seconds))
        return reply

    def _reply(self, head: Head, arriving: Iterator[bytes]) -> Content:
        answer = handler.answer_to(head.message_type, DEPLOYED)
        largest = self._desk.site().layout.size * _FLOAT_BYTES if head.message_type in _STEP_NAMES else 0
        data = envelope.vector_of(head, _unbroken(arriving), largest=largest)
        return answer(self._desk, to_content(envelope.Envelope(head=head, data=data)))

    def _out(self, message_type: str, content: Content) -> Iterator[bytes]:
        return envelope.pieces(to_envelope(message_type, content))


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """How to serve: for how long a step may go on after SIGTERM."""

    home: Path
    socket: Path
    log: Log
    grace_s: float


def serve(serving: Serving, *, version: str, stopping: threading.Event | None = None) -> None:
    """Answer until `stopping` is set, or SIGTERM or SIGINT comes.

    Raises: before the socket exists DataNotFound, SecretFile, SimulatedSite, GpuMissing, PlanNotApproved, ApprovalBroken, RosterError,
    SiteRunning and Exposed: a site that could not answer does not pretend to be there.
    """
    place.keep_to_oneself()
    home = serving.home
    place.check_home(home)
    file = read_site_file(home)
    check_deployed(file)
    device = choose(file.training.device)
    plan = approved_plan(home)
    with place.alone(home, LOCK_FILE, what="site process"):
        group = file.serve.group
        place.prepare_socket(serving.socket, group=group)
        board = Board(home, standing(home, file, plan, version=version), clock=_now)
        service = Service(home, file, board, serving.log)
        server = listen(service.converse, serving.socket)
        place.open_to_group(serving.socket, group=group)
        serving.log.write(Event(event="started", site=file.site.name, device=str(device.where)))
        if failpoints.armed():  # for tests: this process may be told to kill itself
            serving.log.write(Event(event="failpoint", site=file.site.name))
        _wait(stopping)
        _wind_down(service, server, board, serving)
        with suppress(FedwardError):  # a log that cannot be written holds up no end
            audit.note(home, Stopped())


def check_deployed(file: SiteFile) -> None:
    """Raises: SimulatedSite."""
    if file.simulation is not None:
        raise SimulatedSite(
            f"site '{file.site.name}' is one of a simulation ([simulation] in its site.toml); it may skip what protects patients.",
            fix="Serve a home that was made by: fedward site init. A simulated site trains in fedward simulate.",
        )


def listen(converse: Callable[[Iterator[bytes], Any], Iterator[bytes]], socket: Path) -> Any:
    """A gRPC server at a Unix-domain socket, and nowhere else."""
    server = grpc.server(ThreadPoolExecutor(max_workers=_THREADS), options=OPTIONS, maximum_concurrent_rpcs=MOST_AT_ONCE)
    _, _, name = METHOD.partition("/")
    whose, _, method = name.partition("/")
    handlers = {method: grpc.stream_stream_rpc_method_handler(converse)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(whose, handlers),))
    server.add_insecure_port(f"unix:{socket.absolute()}")
    server.start()
    return server


def _wait(stopping: threading.Event | None) -> None:
    asked = stopping or threading.Event()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: asked.set())
    asked.wait()


def _wind_down(service: Service, server: Any, board: Board, serving: Serving) -> None:
    """Take nothing new; let a step that is being written end; then be gone."""
    board.change(state="stopping")
    ended = service.close(within_s=serving.grace_s)
    server.stop(grace=0)
    serving.socket.unlink(missing_ok=True)
    board.change(state="stopped")
    if not ended:
        serving.log.write(Event(event="abandoned", site=board.now.site, type=board.now.type, round=board.now.round))
    serving.log.write(Event(event="stopped", site=board.now.site))
    if not ended and threading.current_thread() is threading.main_thread():
        # A thread that trains cannot be stopped, only left behind; what it had reserved stays spent.
        os._exit(0)


def _unbroken(arriving: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from arriving
    except grpc.RpcError:
        raise MessageFormat("a message broke off before it was whole.", fix="Its sender will send it again.") from None


def _round_of(head: Head) -> int | None:
    number = head.fields.get("round")
    return number if isinstance(number, int) else None


def _now() -> int:
    return int(time.time())
