# SPDX-License-Identifier: Apache-2.0
"""A site's answers that are not masked, kept until the run has moved on: in simulations only.

The first request for a (session, round, kind, attempt) wins: its answer is stored before it is sent, so that the coordinator may crash,
restart and ask again, and gets the same bytes; nothing is trained twice and no second, differently noised answer exists. A different
request for the same step is refused (E_EQUIVOCATION), an older round too (E_REPLAY). What is kept is what is sent: floats, or the ring
words after they were rounded, since rounding may be random.

One file a step: a line of JSON, then the vector's bytes. A new answer gets a name of its own and the one before is removed after it is
there: renaming over an old file would make some file systems flush both to disk at once. Only the newest step is kept.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.durable import OWNER_ONLY, write_atomically
from common.errors import Equivocation, PlanMismatch, Replay
from common.secagg.memory import place
from common.secagg.terms import Kind
from common.update import QuantisedDelta, ReleasedDelta
from common.wire import Step

Update = ReleasedDelta | QuantisedDelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A step that was answered: which request, with what."""

    step: Step
    request: str
    update: Update


class StepStore:
    """The newest answer of one site, in a folder that holds nothing else."""

    def __init__(self, folder: Path, *, power_cut_safe: bool) -> None:
        self._folder = folder
        self._fsync = power_cut_safe
        folder.mkdir(exist_ok=True)

    def find(self, step: Step, request: str) -> Update | None:
        """The stored answer to this very request, or None if the step is new. Raises: Equivocation, Replay."""
        path = self._newest()
        if path is None:
            return None
        header = _header(path)
        if header["session"] != step.session.hex():
            return None
        asked = place(step.round, _kind(step.kind), step.attempt)
        newest = place(header["round"], _kind(header["kind"]), header["attempt"])
        if asked < newest:
            raise Replay(
                f"{step.kind} of round {step.round}, attempt {step.attempt} is asked again after {header['kind']} of round "
                f"{header['round']}, attempt {header['attempt']} was answered.",
                fix="The coordinator is behind its own journal; resume it from its newest checkpoint.",
            )
        if asked > newest:
            return None
        if header["request"] != request:
            raise Equivocation(
                f"a second, different request for round {step.round}, attempt {step.attempt}.",
                fix="Two coordinators may be running under one session; nothing was trained.",
            )
        return _update(path)

    def store(self, answered: Answered) -> None:
        """Keep an answer; the one before is dropped. Raises: DiskFull, and then nothing may be sent."""
        step = answered.step
        header = {**asdict(step), "session": step.session.hex(), "request": answered.request}
        content = _spelt(header, answered.update)
        before = self._newest()
        path = self._folder / f"answer-{step.session.hex()[:8]}-{step.round}-{step.kind}-{step.attempt}.bin"
        write_atomically(path, content, fsync=self._fsync, mode=OWNER_ONLY)
        if before is not None and before != path:
            before.unlink(missing_ok=True)

    def _newest(self) -> Path | None:
        """Looked up each time: on a machine of several simulated sites the last answer may have been another process's."""
        return max(self._folder.glob("answer-*.bin"), key=lambda path: path.stat().st_mtime_ns, default=None)


def _kind(name: str) -> Kind:
    if name not in Kind.__members__:
        raise PlanMismatch(f"a kind of sum '{name[:16]}' is not known here.", fix="Bring both ends to the same version of fedward.")
    return Kind[name]


def _header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        header: dict[str, Any] = json.loads(file.readline())
    return header


def _spelt(header: dict[str, Any], update: Update) -> bytes:
    vector = update.values if isinstance(update, ReleasedDelta) else update.words
    kind = {"type": vector.dtype.name, "weight": None if isinstance(update, ReleasedDelta) else update.weight}
    return json.dumps({**header, **kind}).encode() + b"\n" + vector.astype(vector.dtype.newbyteorder("<"), copy=False).tobytes()


def _update(path: Path) -> Update:
    content = path.read_bytes()
    start = content.index(b"\n") + 1
    header = json.loads(content[:start])
    vector = np.frombuffer(content, dtype=np.dtype(header["type"]).newbyteorder("<"), offset=start)
    if header["weight"] is None:
        return ReleasedDelta(values=vector)
    return QuantisedDelta(words=vector, weight=header["weight"])
