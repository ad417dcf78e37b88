# SPDX-License-Identifier: Apache-2.0
"""deploy/grafana: the dashboard and the alerts ask for what is really there, of a real Prometheus that scrapes a real page."""

import http.server
import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from client.process.textfile import exposition
from server.live.processes import PROCESSES_FILE, write_processes
from server.live.reasons import known
from server.live.serve import serve
from server.live.status import STATUS_FILE, Took, write_status
from tests.client.homes import hospital
from tests.client.test_textfile import serving
from tests.server.live.test_metrics import busy, look_at_busy

FOLDER = Path(__file__).parents[2] / "deploy" / "grafana"
DASHBOARD = json.loads((FOLDER / "fedward.json").read_text(encoding="utf-8"))
ALERTS = (FOLDER / "alerts.yml").read_text(encoding="utf-8")
needs_prometheus = pytest.mark.skipif(shutil.which("promtool") is None, reason="Debian package prometheus is not installed")
PATIENCE_S = 60.0
SELDOM = ("Restarts of the coordinator",)
"""Asks for what has not happened here."""


def queries() -> list[tuple[str, str]]:
    """Every expression of the dashboard, with its panel's title."""
    found = [
        (f"{panel['title']} {target['refId']}", target["expr"]) for panel in DASHBOARD["panels"] for target in panel.get("targets", [])
    ]
    return found + [(note["name"], note["expr"]) for note in DASHBOARD["annotations"]["list"]]


def test_grafanas_own_schema_knows_every_key_of_the_dashboard() -> None:
    """What Grafana 11.6 reads and writes back, but for the defaults that it adds, is what the file says."""
    plugins.register_default_plugins()
    back = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(DASHBOARD)))

    def lost(ours: Any, theirs: Any, where: str) -> Iterator[str]:
        if isinstance(ours, dict) and isinstance(theirs, dict):
            for key, value in ours.items():
                yield from lost(value, theirs[key], f"{where}.{key}") if key in theirs else [f"{where}.{key}"]
        elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
            for number, (our, their) in enumerate(zip(ours, theirs, strict=True)):
                yield from lost(our, their, f"{where}[{number}]")
        elif ours != theirs:
            yield where

    assert list(lost(DASHBOARD, back, "")) == []
    assert list(lost({**DASHBOARD, "colour": "red"}, back, "")) == [".colour"], "the control"


def test_panels_are_told_apart_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 25
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, (panel["title"], taken.get((x, y)))
                taken[x, y] = panel["title"]


def test_every_code_that_an_alert_names_exists() -> None:
    codes = set(re.findall(r"E_[A-Z0-9_]+", ALERTS))
    assert len(codes) > 10
    assert codes <= known()


@needs_prometheus
@pytest.mark.debian
def test_the_alerts_are_rules_that_fire_when_they_should_and_not_otherwise() -> None:
    for command in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]):
        done = subprocess.run(["promtool", *command], cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that scrapes a coordinator's page, and a site's file as node_exporter would show it."""
    folder = tmp_path_factory.mktemp("prometheus")
    run, files = folder / "run", folder / "files"
    run.mkdir()
    files.mkdir()
    write_processes(run / PROCESSES_FILE, look_at_busy().processes)
    home = hospital(folder)
    serving(home)
    (files / "metrics").write_bytes(exposition(home) + b'node_textfile_mtime_seconds{file="/var/lib/x/fedward.prom"} 1\n')
    with ExitStack() as stack:
        page = stack.enter_context(serve(run, port=0))
        hospital_port = stack.enter_context(_served(files))
        port = _free_port()
        config = {
            "global": {"scrape_interval": "500ms", "scrape_timeout": "400ms", "evaluation_interval": "1s"},
            "rule_files": [str(FOLDER / "alerts.yml")],
            "scrape_configs": [
                {"job_name": "fedward", "static_configs": [{"targets": [urllib.parse.urlsplit(page).netloc]}]},
                {"job_name": "node", "static_configs": [{"targets": [f"127.0.0.1:{hospital_port}"]}]},
            ],
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
        command = [
            "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        stack.callback(process.wait, 20)
        stack.callback(process.terminate)
        yield _grown(run, f"http://127.0.0.1:{port}", folder / "log")


def _grown(run: Path, url: str, log: Path) -> str:
    """Let the run's counters grow under its eyes, so that rates have something to say."""
    end, number = time.monotonic() + PATIENCE_S, 0
    status = busy()
    while not _answers(url, 'rate(fedward_step_seconds_count{of="update"}[1m]) > 0 and on() increase(fedward_failures_total[1m]) > 0'):
        assert time.monotonic() < end, log.read_text()[-2000:]
        number += 1
        took = {phase: Took(times=each.times + number, seconds=each.seconds + 5 * number) for phase, each in status.took.items()}
        failed = {code: times + number for code, times in status.failed.items()}
        write_status(run / STATUS_FILE, replace(status, written=time.time(), took=took, failed=failed))
        time.sleep(0.5)
    return url


def _answers(url: str, query: str) -> list[Any]:
    try:
        with urllib.request.urlopen(f"{url}/api/v1/query?{urllib.parse.urlencode({'query': query})}", timeout=5) as reply:
            found = json.load(reply)
    except OSError:
        return []
    assert found["status"] == "success", found
    return list(found["data"]["result"])


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None: ...


@contextmanager
def _served(folder: Path) -> Iterator[int]:
    """Its files over HTTP; gives the port."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield int(server.server_address[1])
        server.shutdown()
        thread.join(5)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@needs_prometheus
@pytest.mark.debian
@pytest.mark.slow
def test_every_query_of_the_dashboard_is_answered(prometheus: str) -> None:
    asked = {title: query.replace("$job", "fedward").replace("$__rate_interval", "1m") for title, query in queries() if title not in SELDOM}
    assert len(asked) > 20
    assert "$" not in "".join(asked.values())
    end = time.monotonic() + PATIENCE_S
    while silent := {title: query for title, query in asked.items() if not _answers(prometheus, query)}:
        assert time.monotonic() < end, silent
        time.sleep(0.5)
    assert not _answers(prometheus, "fedward_no_such_family"), "the control"


@needs_prometheus
@pytest.mark.debian
@pytest.mark.slow
def test_every_family_that_an_alert_asks_for_is_there(prometheus: str) -> None:
    names = set(re.findall(r"\b(fedward_[a-z_]+|node_textfile_[a-z_]+)\b", ALERTS))
    assert len(names) > 12
    assert {name for name in names if not _answers(prometheus, name)} == set()
