# SPDX-License-Identifier: Apache-2.0
"""The live page of a deployed run: served by `fedward server start`, it stays while the coordinator's program is killed and comes back."""

import json
import os
import signal
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.journeys.deployed import Federation, hospitals
from tests.server.coordinators import Running, free_port, started


class Page:
    """What a browser and a Prometheus would be told."""

    def __init__(self, federation: Federation) -> None:
        self._url = f"http://127.0.0.1:{free_port()}"
        path = federation.home.folder / "coordinator.toml"
        text = path.read_text()
        live = text.index("[live]")
        path.write_text(text[:live] + text[live:].replace("port = 0", f"port = {self._url.rpartition(':')[2]}", 1))

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self._url + path, timeout=10) as reply:
            return bytes(reply.read())

    def view(self) -> dict[str, Any]:
        return dict(json.loads(self.get("/status.json")))

    def sample(self, name: str, **labels: str) -> float | None:
        for family in text_string_to_metric_families(self.get("/metrics").decode()):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return float(sample.value)
        return None

    def until(self, holds: Callable[[dict[str, Any]], bool], running: Running, *, within_s: float) -> dict[str, Any]:
        end = time.monotonic() + within_s
        while True:
            seen = self.view()
            if holds(seen):
                return seen
            assert time.monotonic() < end, (seen["headline"], running.words())
            assert running.process.poll() is None, running.words()
            time.sleep(0.1)


@pytest.mark.slow
def test_the_page_stays_while_the_coordinator_is_killed_and_shows_it_come_back(federation: Federation) -> None:
    page = Page(federation)
    with hospitals(federation.hospitals), started(federation.home) as running:
        running.wait_for("phase_opened", round=1, phase="KEYS")
        seen = page.until(lambda seen: bool(seen["run"]) and seen["run"]["round"] >= 1, running, within_s=60)
        assert [site["name"] for site in sorted(seen["run"]["sites"], key=lambda site: site["name"])] == list(federation.stage.sites)
        running.wait_for("phase_opened", round=2, phase="SHARE")
        os.kill(running.app_pid(), signal.SIGKILL)
        back = page.until(lambda seen: bool(seen["run"]) and seen["run"]["starts"] == 2, running, within_s=90)
        assert back["run"]["committed"] >= 1, "a committed round stays committed"
        assert {each["name"]: each["state"] for each in back["processes"]}.keys() == {"superlink", "superexec", "serverapp"}
        assert page.sample("fedward_coordinator_starts_total") == 2
        assert page.sample("fedward_process_restarts_total", process="serverapp") == 1
        assert (page.sample("fedward_journal_bytes") or 0) > 0
        assert (page.sample("fedward_site_received_bytes_total", site=federation.stage.sites[0]) or 0) > 1000
        assert running.process.wait(timeout=180) == 0, running.words()
    told = json.loads((federation.home.run / "status.json").read_text())
    assert (told["state"], told["committed"], told["starts"]) == ("finished", 2, 2)
    assert {site["rounds"] for site in told["sites"]} == {2}
    assert not told["failures"], told["failures"]
