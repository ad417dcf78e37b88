# SPDX-License-Identifier: Apache-2.0
"""A site's answers, kept until the run has moved on.

The first request for a (session, round, attempt) wins: its answer is stored before it is sent, so that the coordinator may crash, restart
and ask again, and gets the same bytes; nothing is trained twice and no second, differently noised answer exists. A different request for
the same step is refused (E_EQUIVOCATION), an older round too (E_REPLAY).

One file: a line of JSON, then the vector's bytes. Only the newest step is kept.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.durable import write_atomically
from common.errors import Equivocation, Replay
from common.update import ReleasedDelta
from common.wire import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A step that was answered: which request, with what."""

    step: Step
    request: str
    update: ReleasedDelta


class StepStore:
    """The newest answer of one site, on disk."""

    def __init__(self, path: Path, *, power_cut_safe: bool) -> None:
        self._path = path
        self._fsync = power_cut_safe

    def find(self, step: Step, request: str) -> ReleasedDelta | None:
        """The stored answer to this very request, or None if the step is new. Raises: Equivocation, Replay."""
        header = self._header()
        if header is None or header["session"] != step.session.hex():
            return None
        newest = (header["round"], header["attempt"])
        if (step.round, step.attempt) < newest:
            raise Replay(
                f"round {step.round}, attempt {step.attempt} is asked again after round {newest[0]}, attempt {newest[1]} was answered.",
                fix="The coordinator is behind its own journal; resume it from its newest checkpoint.",
            )
        if (step.round, step.attempt) > newest:
            return None
        if header["request"] != request:
            raise Equivocation(
                f"a second, different request for round {step.round}, attempt {step.attempt}.",
                fix="Two coordinators may be running under one session; nothing was trained.",
            )
        return self._update()

    def store(self, answered: Answered) -> None:
        """Keep an answer; the one before is dropped. Raises: DiskFull, and then nothing may be sent."""
        step = answered.step
        header = {"session": step.session.hex(), "round": step.round, "attempt": step.attempt, "request": answered.request}
        content = json.dumps(header).encode() + b"\n" + answered.update.values.astype("<f4", copy=False).tobytes()
        write_atomically(self._path, content, fsync=self._fsync)

    def _header(self) -> dict[str, Any] | None:
        try:
            with self._path.open("rb") as file:
                header: dict[str, Any] = json.loads(file.readline())
        except FileNotFoundError:
            return None
        return header

    def _update(self) -> ReleasedDelta:
        content = self._path.read_bytes()
        return ReleasedDelta(values=np.frombuffer(content, dtype="<f4", offset=content.index(b"\n") + 1))
