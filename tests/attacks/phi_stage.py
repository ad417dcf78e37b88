# SPDX-License-Identifier: Apache-2.0
"""What the journey of the planted patients is performed on: ears for what is said, a tap on the engine, a nursery on loan, a full disk."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from flwr.app import ArrayRecord, Message
from flwr.common.serde import message_to_proto

import fedward
import simulations.engine.nursery
import simulations.federation
import simulations.run  # before the nursery is lent: modules take its type when they are imported
from simulations.engine import LocalEngine
from simulations.engine.nursery import Nursery

SMALL_DISK = 4_000  # bytes that a file may have: fewer than a site's images take


class _Lent:
    """A nursery that outlives the commands that borrow it: each would import for three seconds."""

    def __init__(self, nursery: Nursery) -> None:
        self._nursery = nursery

    def __call__(self, client_app: str) -> Self:
        return self

    def __enter__(self) -> Nursery:
        return self._nursery

    def __exit__(self, *_: object) -> None: ...


def lend(nursery: Nursery) -> None:
    simulations.engine.nursery.Nursery = _Lent(nursery)  # type: ignore[assignment,misc]


def tap(folder: Path) -> None:
    """Write down every message that passes between coordinator and engine."""
    shapes = (folder / "messages.jsonl").open("w")
    content = (folder / "messages.bin").open("wb")

    def note(message: Message, *, up: bool) -> None:
        content.write(message_to_proto(message).SerializeToString())
        content.flush()
        shapes.write(json.dumps({"up": up, "type": message.metadata.message_type, **_shape(message), **_control(message)}) + "\n")
        shapes.flush()

    class Tapped(LocalEngine):
        def push_messages(self, messages: Iterable[Message]) -> list[str]:
            sent = list(messages)
            ids = super().push_messages(sent)
            for message in sent:
                note(message, up=False)
            return ids

        def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
            received = super().pull_messages(message_ids)
            for message in received:
                note(message, up=True)
            return received

    simulations.federation.LocalEngine = Tapped  # type: ignore[misc]


def _shape(message: Message) -> dict[str, Any]:
    """Which records and fields a message has, and how long each is."""
    if message.has_error():
        return {"error": message.error.reason}
    return {
        "records": {
            name: {"array": {key: len(array.data) for key, array in record.items()}}
            if isinstance(record, ArrayRecord)
            else {
                type(record).__name__: {key: value if key in ("type", "code", "site") else _length(value) for key, value in record.items()}
            }
            for name, record in message.content.items()
        }
    }


def _control(message: Message) -> dict[str, str]:
    """The signed bytes of a message of secure aggregation."""
    fields = {} if message.has_error() else dict(message.content["fedward"].items())
    return {"control": fields["control"].hex()} if "control" in fields else {}


def _length(value: Any) -> int:
    return len(value) if isinstance(value, bytes | str) else 8


@contextmanager
def heard(file: Path) -> Iterator[None]:
    """All that this process and the children that it starts meanwhile write to standard output and error goes to a file."""
    kept = [os.dup(stream) for stream in (1, 2)]
    with file.open("ab") as said:
        for stream in (1, 2):
            os.dup2(said.fileno(), stream)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream, before in zip((1, 2), kept, strict=True):
            os.dup2(before, stream)
            os.close(before)


def exit_code(argv: list[str]) -> int:
    before, sys.argv = sys.argv, argv
    try:
        fedward.main()
    except SystemExit as exit_:
        return int(exit_.code or 0)
    finally:
        sys.argv = before
    return 0


@contextmanager
def small_disk() -> Iterator[None]:
    """No file of this process and its children may grow beyond SMALL_DISK."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_DISK, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def kill_when(process: "subprocess.Popen[bytes]", due: Callable[[], bool]) -> None:
    """Kill -9 a command and its children as soon as it has come so far. Fails, if it ended by itself."""
    while not due():
        if process.poll() is not None:
            raise RuntimeError(f"ended with {process.returncode} before it could be killed")
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
