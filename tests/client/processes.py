# SPDX-License-Identifier: Apache-2.0
"""The site's commands as processes of their own, which end with the test that started them."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def fedward(*words: str, log: Path, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """`fedward WORDS`; what it says goes to a file."""
    with log.open("ab") as file:
        command = [sys.executable, "-m", "fedward", *words]
        return subprocess.Popen(command, stdout=file, stderr=file, cwd=ROOT, env={**os.environ, **(environment or {})})


@contextmanager
def site_process(home: Path, *, socket: Path, words: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """`fedward site serve`, answering."""
    log = home.parent / f"{home.name}.log"
    log.unlink(missing_ok=True)  # of a process before this one
    with ending(fedward("site", "serve", "--home", str(home), "--socket", str(socket), "--log-format", "json", *words, log=log)) as process:
        wait_for(lambda: '"started"' in log.read_text() or process.poll() is not None, within_s=60)
        assert process.poll() is None, log.read_text()
        yield process


@contextmanager
def ending(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(is_true: Callable[[], object], *, within_s: float) -> None:
    end = time.monotonic() + within_s
    while not is_true():
        assert time.monotonic() < end, f"not so after {within_s} s"
        time.sleep(0.05)
