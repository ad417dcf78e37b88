# SPDX-License-Identifier: Apache-2.0
"""`fedward site metrics`: a site's own figures for the hospital's own monitoring, as a file, since the site process has no network.

node_exporter's textfile collector picks the file up; a timer writes it anew. It says what the site's operator can read in `fedward site
status` as well: what was spent of the privacy budget and what is allowed, whether the process runs, when it last answered, what it refused
last, how full the disk is. Nothing of a patient, no count of them, and no path. The coordinator never gets it.
"""

import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final, get_args

import typer
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from client.home import ledger_place, read_site_file
from client.ledger.cli import HERE, AsJson, HomeOption
from client.membership import pause
from client.process import place, status
from client.process.serve import LOCK_FILE
from client.process.status import State, Status
from client.telling import tell
from common.durable import write_atomically

_STATES: Final = get_args(State)
_READABLE: Final = 0o644
"""For node_exporter, which is another user."""


class SiteMetrics(Collector):
    """All families, from one look at the home."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def collect(self) -> Iterator[Metric]:
        file, found = read_site_file(self._home), status.read(self._home)
        name = file.site.name
        yield _gauge("fedward_home_up", "1 while the site process runs.", name, float(place.is_taken(self._home, LOCK_FILE)))
        yield _gauge("fedward_home_paused", "1 while the operator has paused the site.", name, float(pause.is_paused(self._home)))
        yield _gauge("fedward_home_left", "1 if the site has left the federation.", name, float(pause.has_left(self._home)))
        free = GaugeMetricFamily("fedward_home_disk_free_bytes", "Free space where the site writes.", labels=["site", "holds"])
        for holds, folder in (("home", self._home), ("ledger", ledger_place(self._home, file).file.parent)):
            if folder.is_dir():
                free.add_metric([name, holds], shutil.disk_usage(folder).free)
        yield free
        if found is not None:
            yield from _of_process(name, found)


def metrics(
    textfile: Annotated[
        Path | None, typer.Option(help="Write it there, whole or not at all: a name ending in .prom in node_exporter's textfile folder.")
    ] = None,
    home: HomeOption = HERE,
    as_json: AsJson = False,
) -> None:
    """This site's own figures for Prometheus: privacy spent and allowed, last answer, last refusals, disk. Printed, or put in a file.

    Run it from a timer every few minutes; docs/monitoring.md has one. It reads small files and asks nobody.
    """
    content = exposition(home)
    if textfile is not None:
        write(textfile, content)
    if as_json or textfile is not None:
        facts = {"at": int(time.time()), "textfile": str(textfile) if textfile else None}
        found = status.read(home)
        tell({**facts, "spent": [asdict(each) for each in found.spent] if found else []}, f"wrote '{textfile}'", as_json=as_json)
    else:
        typer.echo(content.decode(), nl=False)


def exposition(home: Path) -> bytes:
    """The text. Raises: DataNotFound, where there is no site; StatusUnreadable."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SiteMetrics(home))
    return generate_latest(registry)


def write(path: Path, content: bytes) -> None:
    """Put it where a collector that runs as another user reads it. Raises: DiskFull."""
    write_atomically(path, content, fsync=False, mode=_READABLE)


def _of_process(name: str, found: Status) -> Iterator[Metric]:
    yield _info(name, found)
    states = GaugeMetricFamily("fedward_home_state", "1 for what the site does.", labels=["site", "state"])
    for state in _STATES:
        states.add_metric([name, state], float(state == found.state))
    yield states
    answered = CounterMetricFamily("fedward_home_answered", "Messages answered since the site process was started.", labels=["site"])
    answered.add_metric([name], found.answered)
    yield answered
    if found.heard is not None:
        yield _gauge("fedward_home_last_heard_timestamp_seconds", "When the coordinator last asked anything.", name, found.heard)
    if found.round is not None:
        yield _gauge("fedward_home_round", "The newest round that the site was asked in.", name, found.round)
    refused = GaugeMetricFamily(
        "fedward_home_last_refusal_timestamp_seconds", "When a code was last refused with.", labels=["site", "code"]
    )
    for code, at in sorted({each.code: each.at for each in found.refused}.items()):
        refused.add_metric([name, code], at)
    yield refused
    yield from _spent(name, found)


def _info(name: str, found: Status) -> Metric:
    info = InfoMetricFamily("fedward_home", "Which plan is approved here, and by which version it is trained.", labels=["site"])
    info.add_metric([name], {"plan": found.plan_name, "digest": found.plan, "version": found.version})
    return info


def _spent(name: str, found: Status) -> Iterator[Metric]:
    spent = GaugeMetricFamily("fedward_home_epsilon_spent", "Privacy spent over all plans, seen from outside.", labels=["site", "unit"])
    cap = GaugeMetricFamily("fedward_home_epsilon_cap", "The most that may be spent over all plans.", labels=["site", "unit"])
    for each in found.spent:
        spent.add_metric([name, each.unit], each.epsilon)
        cap.add_metric([name, each.unit], each.cap)
    yield from (spent, cap)


def _gauge(name: str, words: str, site: str, value: float) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, words, labels=["site"])
    family.add_metric([site], value)
    return family
