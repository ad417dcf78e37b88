# SPDX-License-Identifier: Apache-2.0
"""Who works on what: a queue of messages, a few workers, and a thread that brings them together.

Messages go out in the order in which they were pushed, each to whichever worker is free, so a slow site holds up one worker and nobody
else. Two messages to one site never run at once: the second needs the state that the first leaves behind.

Every message ends in exactly one way: a reply, an error reply (the app raised, the worker died, the time to live passed), or `cancel`.
To take a message away from a busy worker means to kill that worker; a new one is forked in its place.

One lock guards everything. The thread holds it for book-keeping only, never while it waits or moves an array out of shared memory.
"""

import heapq
import selectors
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from flwr.app import Error, Message, Metadata, RecordDict
from flwr.app.message.message import make_message
from flwr.common.constant import ErrorCode

from common.errors import EngineError
from simulations.engine.frames import READY, RECORD, Posting, Reply, Request, Site, post_request, read_reply, release
from simulations.engine.memory import Blob, Board, SharedFile
from simulations.engine.nursery import Nursery
from simulations.engine.parcel import Parcel, pack_message

_BIRTHS_WITHOUT_LIFE = 8


@dataclass(slots=True, eq=False, kw_only=True)
class Task:
    """A message on its way. `held` keeps its arrays on the board until it is answered."""

    metadata: Metadata
    site: Site
    parcel: Parcel
    expires: float  # on time.monotonic()
    held: list[Blob] = field(default_factory=list)

    @property
    def message_id(self) -> str:
        return self.metadata.message_id


@dataclass(slots=True, eq=False)
class Worker:
    """The coordinator's end of a worker. `pid` is None until it has reported; `doomed` once it has been told to die."""

    pipe: socket.socket
    outbox: SharedFile
    pid: int | None = None
    task: Task | None = None
    doomed: bool = False

    @property
    def idle(self) -> bool:
        return self.pid is not None and self.task is None and not self.doomed


class Pool:
    """Persistent workers, forked from a nursery that may serve other pools too. Thread-safe; `close` ends the workers."""

    def __init__(self, nursery: Nursery, workers: int, env: Mapping[str, str]) -> None:
        self._nursery, self._env = nursery, env
        self._board = Board()
        self._queue: dict[str, Task] = {}
        self._replies: dict[str, Parcel] = {}
        self._states: dict[int, Parcel] = {}
        self._busy: set[int] = set()
        self._deadlines: list[tuple[float, str]] = []
        self._changed = threading.Condition()
        self._news = self._closing = False
        self._failure: EngineError | None = None
        self._stillborn = 0
        self._selector = selectors.DefaultSelector()
        self._alarm, self._bell = socket.socketpair()
        self._watch(self._alarm, lambda: self._alarm.recv(4096))
        self._workers: list[Worker] = []
        for _ in range(workers):
            self._hire()
        self._thread = threading.Thread(target=self._run, name="fedward-engine", daemon=True)
        self._thread.start()

    # What the grid asks for.

    def submit(self, tasks: Iterable[Task]) -> None:
        with self._changed:
            self._check()
            for task in tasks:
                task.held = [self._board.reserve(data) for data in task.parcel.blobs]
                self._queue[task.message_id] = task
                heapq.heappush(self._deadlines, (task.expires, task.message_id))
            self._dispatch()
        self._ring()

    def take(self, message_ids: Collection[str]) -> list[Parcel]:
        """The replies that are there, each handed out once."""
        with self._changed:
            self._check()
            return [self._replies.pop(message_id) for message_id in message_ids if message_id in self._replies]

    def cancel(self, message_ids: Collection[str]) -> None:
        """Forget messages: no reply to them will come, and a worker busy with one is replaced."""
        with self._changed:
            for message_id in message_ids:
                self._replies.pop(message_id, None)
                self._withdraw(message_id)
        self._ring()

    def wait(self, timeout_s: float | None) -> bool:
        """Sleep until a reply has arrived that was not there at the last call. False: none did."""
        with self._changed:
            self._changed.wait_for(lambda: self._news or self._failure or self._closing, timeout_s)
            self._check()
            news, self._news = self._news, False
            return news

    def pids(self) -> list[int]:
        """The nursery and the workers that have reported."""
        with self._changed:
            return [self._nursery.pid, *(worker.pid for worker in self._workers if worker.pid)]

    def close(self) -> None:
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify_all()
        self._ring()
        self._thread.join()
        self._selector.close()
        for worker in self._workers:
            if worker.pid and worker.task:
                self._nursery.kill(worker.pid)
            worker.pipe.close()  # which ends an idle one
            worker.outbox.close()
        self._board.file.close()
        self._alarm.close()
        self._bell.close()

    def _check(self) -> None:
        if self._failure:
            raise self._failure
        if self._closing:
            raise EngineError("the simulation engine is closed.", fix="Use it inside its `with` block.")

    def _ring(self) -> None:
        self._bell.send(b"!")

    # The thread.

    def _run(self) -> None:
        try:
            while not self._closing:
                for key, _ in self._selector.select(self._patience_s()):
                    key.data()
                with self._changed:
                    self._expire()
                    self._dispatch()
        except EngineError as error:
            self._fail(error)
        except Exception as error:
            self._fail(EngineError(f"the simulation engine stopped: {type(error).__name__}: {error}.", fix="This is a bug: report it."))
            raise

    def _fail(self, error: EngineError) -> None:
        with self._changed:
            self._failure = error
            self._changed.notify_all()

    def _patience_s(self) -> float | None:
        with self._changed:
            return max(0.0, self._deadlines[0][0] - time.monotonic()) if self._deadlines else None

    def _watch(self, source: socket.socket, react: Callable[[], object]) -> None:
        self._selector.register(source, selectors.EVENT_READ, react)

    def _dispatch(self) -> None:
        """Give each idle worker the first message whose site is not busy."""
        for worker in self._workers:
            if worker.idle:
                task = next((task for task in self._queue.values() if task.site.node_id not in self._busy), None)
                if task is None:
                    return
                self._hand(worker, task)

    def _hand(self, worker: Worker, task: Task) -> None:
        del self._queue[task.message_id]
        try:
            request = Request(task.site, task.parcel, self._states.get(task.site.node_id))
            posting: Posting = post_request(self._board, request)
        except OSError as error:
            self._settle(task, _error(task, ErrorCode.UNKNOWN, f"no memory for the message: {error}"))
            return
        try:
            worker.pipe.sendall(posting.record)
        except OSError:  # already dead: it never saw the message, which goes back to the head of the queue
            worker.doomed = True
            release(self._board, posting.blobs)
            self._queue = {task.message_id: task, **self._queue}
            return
        task.held += posting.blobs
        worker.task = task
        self._busy.add(task.site.node_id)

    def _settle(self, task: Task, reply: Parcel | None) -> None:
        """The message is over; with a reply, unless it was cancelled."""
        release(self._board, task.held)
        task.held = []
        if reply is not None:
            self._replies[task.message_id] = reply
            self._news = True
            self._changed.notify_all()

    def _expire(self) -> None:
        while self._deadlines and self._deadlines[0][0] <= time.monotonic():
            _, message_id = heapq.heappop(self._deadlines)
            if task := self._withdraw(message_id):
                reason = f"the message's time to live, {task.metadata.ttl:.1f} s, passed without an answer"
                self._settle(task, _error(task, ErrorCode.MESSAGE_UNAVAILABLE, reason))
        if not self._queue and not self._busy:
            self._deadlines.clear()

    def _withdraw(self, message_id: str) -> Task | None:
        """Take a message out of the queue, or out of a worker's hands by killing the worker."""
        if task := self._queue.pop(message_id, None):
            self._settle(task, None)
            return task
        for worker in self._workers:
            if (task := worker.task) and task.message_id == message_id:
                worker.task, worker.doomed = None, True
                self._busy.discard(task.site.node_id)
                self._settle(task, None)
                if worker.pid:
                    self._nursery.kill(worker.pid)
                return task
        return None

    # Workers come and go.

    def _hire(self) -> None:
        ours, theirs = socket.socketpair()
        worker = Worker(ours, SharedFile.create())
        with theirs:
            self._nursery.fork(theirs, self._board.file, worker.outbox, self._env)
        self._workers.append(worker)
        self._watch(ours, lambda: self._hear(worker))

    def _hear(self, worker: Worker) -> None:
        try:
            record = worker.pipe.recv(RECORD.size, socket.MSG_WAITALL)
        except ConnectionError:
            record = b""
        if not record:
            self._bury(worker)
            return
        kind, value = RECORD.unpack(record)
        if kind == READY:
            worker.pid = value
            return
        reply = read_reply(worker.outbox, value)
        with self._changed:
            self._answered(worker, reply)

    def _answered(self, worker: Worker, reply: Reply) -> None:
        self._stillborn = 0
        task, worker.task = worker.task, None
        if task is None:
            return  # cancelled: the worker was killed as it answered
        self._busy.discard(task.site.node_id)
        if reply.state is not None:
            self._states[task.site.node_id] = reply.state
        self._settle(task, reply.message)

    def _bury(self, worker: Worker) -> None:
        self._selector.unregister(worker.pipe)
        worker.pipe.close()
        worker.outbox.close()
        with self._changed:
            self._workers.remove(worker)
            if task := worker.task:
                self._busy.discard(task.site.node_id)
                self._settle(task, _error(task, ErrorCode.CLIENT_APP_CRASHED, "the worker process died"))
            self._stillborn += worker.pid is None
            if self._stillborn >= _BIRTHS_WITHOUT_LIFE:
                module = self._nursery.client_app.partition(":")[0]
                raise EngineError(
                    f"{self._stillborn} simulation workers in a row died before their first message.",
                    fix=f"Import '{module}' in Python to see why; it may need more memory than there is.",
                )
            self._hire()


def _error(task: Task, code: int, reason: str) -> Parcel:
    """Flower's error reply, as the SuperLink would make it for a site that cannot."""
    request = make_message(metadata=task.metadata, content=RecordDict())
    return pack_message(Message(Error(code=code, reason=reason), reply_to=request))
