# SPDX-License-Identifier: Apache-2.0
"""The instruments of the engine's benchmark: who keeps time, who weighs memory, and what is trained."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from client.home import PREPARED_FOLDER
from client.imaging.prepared import load_prepared
from client.site import Site
from common.errors import EngineError
from simulations.benchmarks import engine
from simulations.benchmarks.footprint import PeakWatch, cpu_s, pss_bytes, tree
from simulations.benchmarks.turnstile import Contender
from simulations.benchmarks.workload import IMAGES_PER_SITE, prepare

MEGABYTE = 2**20
HUNGRY = "import sys; block = bytearray(64 * 2**20); print('fed', flush=True); sys.stdin.read()"
PUNCTUAL = """
import time
from simulations.benchmarks.turnstile import Turnstile
turnstile = Turnstile()
print("chatter that is no answer")
turnstile.ready()
for _ in range(2):
    time.sleep(0.01)
    turnstile.lap()
"""


def test_memory_of_a_tree_counts_the_children() -> None:
    command = [sys.executable, "-c", HUNGRY]
    with PeakWatch(os.getpid()) as watch, subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        assert child.stdout.readline() == "fed\n"
        assert child.pid in tree(os.getpid())
        alone, together = pss_bytes([os.getpid()]), pss_bytes(tree(os.getpid()))
        child.communicate()
    assert together - alone > 60 * MEGABYTE, "at one moment: what another test has left may end in between"
    assert watch.peak_bytes >= 60 * MEGABYTE
    assert pss_bytes([child.pid]) == 0


def test_processor_time_goes_on_with_work() -> None:
    before = cpu_s(os.getpid())
    while cpu_s(os.getpid()) < before + 0.05:
        sum(range(100_000))


def test_a_contender_is_timed_round_by_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    contender = Contender("punctual", ["-c", PUNCTUAL], tmp_path / "log")
    assert contender.startup_s > 0
    assert contender.round_s() >= 0.01
    assert contender.round_s() >= 0.01
    contender.close()
    assert "chatter" in (tmp_path / "log").read_text()


def test_a_contender_that_breaks_says_why(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no such luck"):
        Contender("broken", ["-c", "raise SystemExit('no such luck')"], tmp_path / "log")


def test_every_site_of_the_workload_is_a_site(tmp_path: Path) -> None:
    workload = prepare(tmp_path, num_sites=3, rounds=4)
    assert workload.plan.training.rounds == 4
    assert len(workload.homes) == 3
    for home in workload.homes:
        assert len(load_prepared(home / PREPARED_FOLDER)) == IMAGES_PER_SITE
        assert Site.open(home, workload.plan).name == home.name


def test_memory_per_site_is_a_slope() -> None:
    few, many = (
        engine.Result(name="fedward", num_sites=n, startup_s=1.0, rounds_s=[1.0], cpu_s=1.0, peak_mb=peak)
        for n, peak in ((10, 300.0), (100, 345.0))
    )
    assert engine.megabytes_per_site([many, few], "fedward") == 0.5
    assert engine.megabytes_per_site([few], "fedward") is None


@pytest.mark.slow
def test_every_contender_but_ray_runs_its_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    results = engine.measure(["loop", "limit", "fedward"], num_sites=3, rounds=1, workers=2, console=Console(quiet=True))
    assert [result.name for result in results] == ["loop", "limit", "fedward"]
    for result in results:
        assert len(result.rounds_s) == 1
        assert min(result.rounds_s[0], result.peak_mb, result.startup_s) > 0
