# SPDX-License-Identifier: Apache-2.0
"""A handful of workers kept busy, and replaced when a file kills one.

Each worker has its own pair of pipes and at most two tasks in flight: the next one is there before it asks, and when it dies the first
unanswered task is the guilty one; the other is handed on. Workers are started by exec, not fork (the parent may hold a GPU and threads),
and not by `multiprocessing`, whose children import the caller's main module and speak pickle. Their output is discarded: decoders
write to it what they found in a file.
"""

import json
import os
import selectors
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Any

from client.imaging.dicom import Identity
from client.imaging.pictures import Grid
from client.imaging.rejection import Reason
from client.imaging.worker import READY, TIME_IS_UP, Brief
from common.errors import DiskFull, EngineError

Progress = Callable[[int, int], None]  # files done, files in all

HOUSE = Path(__file__).resolve().parents[2]  # what `client` and `common` are imported from
BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from client.imaging.worker import main; main()"
PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ")
ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    # glibc: keep an image's memory for the next image. Handing it back each time costs more than decoding does (factor 2.6 at 512x512).
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(32 << 20),
}
IN_FLIGHT = 2
FILES_PER_WORKER = 16  # fewer, and starting another process costs more than it brings
LONGEST_LINE = 1 << 24  # of what a segmentation of a thousand frames tells, a sixteenth
LONGEST_EXPORT = 1 << 28  # two million diagnoses (labels.fhir) in one file; time and memory are the policy's to allow
GRACE_S = 2.0  # for a dying process to be gone, so that its status says of what it died


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One file: where it is below the root, which slot of the output its first sample goes to, and for how many there is room."""

    slot: int
    path: str = field(repr=False)
    room: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a task: a reason why not, or whose images now lie at its slot and after, or what the file told.

    `places`: one for each image, how far along its series it lies; `skipped`: frames that showed nothing; `grid`: of pictures and volumes,
    what they lie on.
    """

    slot: int
    reason: Reason | None
    identity: Identity | None
    told: Any = field(default=None, repr=False)
    places: tuple[float | None, ...] = (None,)
    skipped: int = 0
    grid: Grid = ()


def roomy(root: Path, brief: Brief, paths: Sequence[str], *, workers: int | None = None) -> list[Task]:
    """Tasks for these files, each with room for all that it will give: one image, or as many as its header says under frames = "each".

    Raises: EngineError, if no worker starts.
    """
    rooms = [1] * len(paths)
    if brief.input.frames == "each":
        tasks = [Task(slot=slot, path=path) for slot, path in enumerate(paths)]
        with TemporaryFile() as nothing:
            outcomes = read_all(root, nothing.fileno(), replace(brief, counting=True), tasks, workers=workers)
        rooms = [outcome.told if outcome.reason is None else 1 for outcome in outcomes]  # a rejected one is rejected again, for its reason
    slots = [0, *accumulate(rooms)]
    return [Task(slot=slot, path=path, room=room) for slot, path, room in zip(slots, paths, rooms, strict=False)]


def read_all(
    root: Path, output: int, brief: Brief, tasks: Sequence[Task], *, workers: int | None = None, progress: Progress | None = None
) -> list[Outcome]:
    """Read every task's file into `output` (an open file), in parallel; the outcomes come in the order of `tasks`.

    Raises: DiskFull, if a sample could not be written; EngineError, if no worker starts.
    """
    count = min(workers or len(os.sched_getaffinity(0)), -(-len(tasks) // FILES_PER_WORKER))
    outcomes: dict[int, Outcome] = {}
    with _Crew(root, output, brief, tasks, count) as crew:
        for outcome in crew.outcomes():
            outcomes[outcome.slot] = outcome
            if progress is not None:
                progress(len(outcomes), len(tasks))
    return [outcomes[task.slot] for task in tasks]


class _Worker:
    """One child process and what it has not answered yet."""

    def __init__(self, root: int, output: int, brief: str, *, longest: int) -> None:
        tasks_read, self.tasks = os.pipe()
        self.results, results_write = os.pipe()
        descriptors = (tasks_read, results_write, root, output)
        self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and a constant program
            [sys.executable, "-I", "-c", BOOT, str(HOUSE), *map(str, descriptors)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=descriptors,
            env={**ENVIRONMENT, **{name: os.environ[name] for name in PASSED_ON if name in os.environ}},
        )
        os.close(tasks_read)
        os.close(results_write)
        self.pending: deque[Task] = deque()
        self.is_ready = False
        self._partial, self._longest = bytearray(), longest
        self._send(brief)

    def give(self, task: Task) -> None:
        self.pending.append(task)
        self._send(json.dumps([task.slot, task.path, task.room]))

    def lines(self) -> list[bytes] | None:
        """Whole answers that have arrived; None when the worker is gone."""
        received = os.read(self.results, 1 << 16)
        self._partial += received
        lines: list[bytes] = []
        if b"\n" in received:
            *lines, partial = bytes(self._partial).split(b"\n")
            self._partial = bytearray(partial)
        if lines and not self.is_ready:
            self.is_ready = json.loads(lines.pop(0)) == READY
        return lines if received and len(self._partial) < self._longest else None

    def end(self, *, grace_s: float = 0.0) -> int:
        """Close its pipes, let it die of what it is dying of, else kill it; its exit status."""
        os.close(self.tasks)
        os.close(self.results)
        try:
            return self.process.wait(timeout=grace_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def _send(self, line: str) -> None:
        content = memoryview(line.encode("ascii") + b"\n")
        try:
            while content:
                content = content[os.write(self.tasks, content) :]
        except BrokenPipeError:
            pass  # it has died: its end of the results says so too, and the task is still pending


class _Crew:
    """The workers of one pass over `tasks`."""

    def __init__(self, root: Path, output: int, brief: Brief, tasks: Sequence[Task], count: int) -> None:
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._output = output
        self._brief, self._longest = brief.to_json(), LONGEST_EXPORT if brief.kind == "fhir" else LONGEST_LINE
        self._waiting = deque(tasks)
        self._selector = selectors.DefaultSelector()
        self._workers: set[_Worker] = set()
        self._count = count

    def __enter__(self) -> "_Crew":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for worker in self._workers:
            worker.end()
        self._selector.close()
        os.close(self._root)

    def outcomes(self) -> Iterator[Outcome]:
        """Each task's outcome, as they come."""
        for _ in range(self._count):
            self._start()
        while self._workers:
            for ready, _ in self._selector.select():
                worker: _Worker = ready.data
                lines = worker.lines()
                yield from (_answer(worker.pending.popleft(), line) for line in lines or ())
                if lines is None:
                    yield from self._bury(worker)
                else:
                    self._feed(worker)

    def _start(self) -> None:
        worker = _Worker(self._root, self._output, self._brief, longest=self._longest)
        self._workers.add(worker)
        self._selector.register(worker.results, selectors.EVENT_READ, worker)
        self._feed(worker)

    def _feed(self, worker: _Worker) -> None:
        while self._waiting and len(worker.pending) < IN_FLIGHT:
            worker.give(self._waiting.popleft())
        if not worker.pending:
            self._dismiss(worker)

    def _dismiss(self, worker: _Worker, *, grace_s: float = 0.0) -> int:
        self._workers.discard(worker)
        self._selector.unregister(worker.results)
        return worker.end(grace_s=grace_s)

    def _bury(self, worker: _Worker) -> Iterator[Outcome]:
        """The file it was reading is to blame, the others go back to the queue, and another worker takes its place."""
        status = self._dismiss(worker, grace_s=GRACE_S)
        if not worker.is_ready:
            raise EngineError(
                f"imaging: a reader process did not start (exit status {status}).",
                fix=f"Run in '{HOUSE}': {sys.executable} -c 'import client.imaging.worker'.",
            )
        if worker.pending:
            reason = Reason.TIMEOUT if status == -TIME_IS_UP else Reason.CRASHED
            yield Outcome(slot=worker.pending.popleft().slot, reason=reason, identity=None)
        self._waiting.extendleft(reversed(worker.pending))
        if self._waiting:
            self._start()


def _answer(task: Task, line: bytes) -> Outcome:
    """A worker's line about the task it had first. Raises: DiskFull, if that is what it says."""
    slot, reason, *rest = json.loads(line)
    if slot != task.slot:
        raise EngineError("imaging: a reader answered about another file than it was given.", fix="Report this; nothing was used.")
    if reason == "disk":
        raise DiskFull(f"imaging cache: a sample could not be written ({rest[0]}).", fix="Free some room, or move the cache.")
    if reason is not None:
        return Outcome(slot=slot, reason=Reason(reason), identity=None)
    if len(rest) == 1:
        return Outcome(slot=slot, reason=None, identity=None, told=rest[0])
    issuer, patient_id, sop_instance_uid, series_uid, places, skipped, grid = rest
    identity = Identity(issuer=issuer, patient_id=patient_id, sop_instance_uid=sop_instance_uid, series_uid=series_uid)
    return Outcome(slot=slot, reason=None, identity=identity, places=tuple(places), skipped=skipped, grid=tuple(grid))
