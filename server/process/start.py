# SPDX-License-Identifier: Apache-2.0
"""`fedward server start` becomes this process: it supervises, shows the log and serves the live page, and has never loaded what computes.

Before anything is started it looks whether a start can come to anything: plan, key, roster, certificate. Exit codes as `server.cli` says.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated

# Flower reads these once, when it is imported.
os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1")

import typer

from common import credentials, failpoints, keyfile
from common.credentials import KEY_FILE
from common.ending import run_to_the_end
from common.plan import load
from server.home import (
    COORDINATOR_VARIABLE,
    EVIDENCE_VARIABLE,
    LOG_FILE,
    MAILBOXES_VARIABLE,
    MODEL_FILE,
    PLAN_VARIABLE,
    ROSTER_VARIABLE,
    RUN_VARIABLE,
    CoordinatorHome,
)
from server.live.serve import serve
from server.process import tls
from server.process.logbook import Reader, in_words
from server.process.outcome import Outcome
from server.process.processes import keep_to_oneself
from server.process.supervise import Supervisor


class LogFormat(StrEnum):
    """How the run's log is shown on standard output; the file holds JSON in either case."""

    text = "text"
    json = "json"


def start(
    folder: Annotated[Path, typer.Option()],
    log_format: Annotated[LogFormat, typer.Option()] = LogFormat.text,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """See `fedward server start --help`. With `--json` the log's lines are JSON too, and the last line is how it ended."""
    keep_to_oneself()
    home = CoordinatorHome.open(folder)
    check_ready(home)
    word = _supervised(home, Reader(home.run / LOG_FILE), LogFormat.json if as_json else log_format)
    if word.end != "done":
        raise word.as_error()
    model = str(home.run / MODEL_FILE)
    told = json.dumps({"end": word.end, "model": model}) if as_json else f"done: the model is '{model}'. Next: fedward server export"
    sys.stdout.write(f"{told}\n")


def check_ready(home: CoordinatorHome) -> None:
    """Whether a start can come to anything, before anything is started. Raises: FedwardError, by what is missing or does not fit."""
    load(home.plan_file)
    keyfile.load(home.folder / KEY_FILE, "coordinator")
    credentials.load_roster(home.roster_folder)
    if not home.file.superlink.insecure:
        tls.renew(tls.Place(ca=home.ca, certificate=home.certificate, key=home.certificate_key), now=tls.now())
    if armed := failpoints.armed():
        sys.stderr.write(f"{failpoints.VARIABLE} is set: a process will kill itself at {armed.name}. This is for tests.\n")


def environment(home: CoordinatorHome) -> dict[str, str]:
    """Where the ServerApp's process finds what is its."""
    return {
        PLAN_VARIABLE: str(home.plan_file),
        RUN_VARIABLE: str(home.run),
        COORDINATOR_VARIABLE: str(home.folder),
        ROSTER_VARIABLE: str(home.roster_folder),
        EVIDENCE_VARIABLE: home.file.run.evidence,
        MAILBOXES_VARIABLE: "" if home.file.superlink.insecure else "keys",
    }


def _supervised(home: CoordinatorHome, reader: Reader, log_format: LogFormat) -> Outcome:
    def show() -> None:
        with suppress(BrokenPipeError):  # nobody looks on any more; the file has it
            for line in reader.news():
                sys.stdout.write((line if log_format is LogFormat.json else in_words(line)) + "\n")
            sys.stdout.flush()

    supervisor = Supervisor(home, environment(home), tick=show)
    try:
        with _page(home):
            return supervisor.run()
    finally:
        show()


@contextmanager
def _page(home: CoordinatorHome) -> Iterator[None]:
    """The live page and the metrics, if they are wanted. Raises: AddressTaken."""
    if home.file.live.port == 0:
        yield
        return
    with serve(home.run, host=home.file.live.host, port=home.file.live.port, names=home.file.live.names) as address:
        sys.stderr.write(f"live page: {address}   metrics: {address}metrics\n")
        yield


if __name__ == "__main__":
    run_to_the_end(lambda: typer.run(start))
