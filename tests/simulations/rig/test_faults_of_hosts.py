# SPDX-License-Identifier: Apache-2.0
"""Full disks, wrong clocks, messages that come again: refused by name or without effect, and over when their cause is."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import FedwardError
from common.update import Weights
from server.aggregation import Silent
from server.journal import CommittedRound
from simulations.engine.nursery import Nursery
from simulations.rig import evidence, kill_sweep, struck
from simulations.stage import Stage, find_stage

DAY_S = 24 * 3600
HUGE = 64


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery(struck.APP) as started:
        yield started


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return kill_sweep.made(tmp_path_factory.mktemp("faults") / "template")


@pytest.fixture(scope="module")
def whole(template: Stage, nursery: Nursery) -> bytes:
    """The final model of a run in which nothing went wrong."""
    return train(copy(template, template.folder.parent / "whole"), nursery)[0].digest


def copy(template: Stage, folder: Path) -> Stage:
    shutil.copytree(template.folder, folder)
    return find_stage(folder)


def train(stage: Stage, nursery: Nursery) -> tuple[Weights, list[CommittedRound]]:
    return kill_sweep.federation(stage, faults=()).train(Silent(), engine="local", workers=2, nursery=nursery)


def test_messages_that_come_four_times_change_nothing(tmp_path: Path, template: Stage, whole: bytes, nursery: Nursery) -> None:
    stage = copy(template, tmp_path / "run")
    struck.repeat_messages(stage.folder, 4)
    weights, done = train(stage, nursery)
    assert weights.digest == whole
    assert all(len(each.sites) == kill_sweep.NUM_SITES for each in done)
    assert evidence.complaints(stage, done) == []
    assert len(evidence.trainings(stage.folder)) == kill_sweep.ROUNDS * kill_sweep.NUM_SITES  # once each, however often they were asked


@pytest.mark.parametrize("ahead_s", [DAY_S - 60, -DAY_S + 60])
def test_a_clock_almost_a_day_off_changes_nothing(tmp_path: Path, template: Stage, whole: bytes, nursery: Nursery, ahead_s: int) -> None:
    stage = copy(template, tmp_path / "run")
    struck.set_clocks(stage.folder, {"site_01": ahead_s})
    weights, done = train(stage, nursery)
    assert weights.digest == whole
    assert evidence.complaints(stage, done) == []


def test_a_clock_that_is_days_behind_is_refused_by_name_and_the_round_goes_on(tmp_path: Path, template: Stage, nursery: Nursery) -> None:
    """The roster is not valid yet, says that clock, and the site trains for nobody."""
    stage = copy(template, tmp_path / "run")
    struck.set_clocks(stage.folder, {"site_01": -3 * DAY_S})
    _, done = train(stage, nursery)
    assert {(absent.site, absent.why) for each in done for absent in each.missing} == {("site_01", "E_ROSTER_EXPIRED")}
    assert [line["site"] for line in evidence.trainings(stage.folder)].count("site_01") == 0
    (stage.folder / struck.CLOCKS_FILE).unlink()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """64 MiB of their own."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={HUGE}m", "rig", str(mounted)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no disk of its own can be mounted here: {done.stderr.strip()}")
    yield mounted
    subprocess.run(["umount", "--lazy", str(mounted)], check=True)


def told(stage: Stage, nursery: Nursery) -> tuple[str, list[CommittedRound]]:
    """With what code a run ended, and what it had committed."""
    try:
        return "", train(stage, nursery)[1]
    except FedwardError as error:
        return error.code, evidence.committed(stage.folder, stage.scenario.plan)


@pytest.mark.parametrize("free_kib", [0, 120, 300])
def test_a_disk_that_is_full_is_named_tears_nothing_and_is_over_when_there_is_room(
    small_disk: Path, template: Stage, whole: bytes, nursery: Nursery, free_kib: int
) -> None:
    """Coordinator and sites share it, so that whoever writes next, after so many kilobytes, is the one who finds it full."""
    stage = copy(template, small_disk / "run")
    filler = small_disk / "filler"
    with filler.open("wb") as file:
        usage = shutil.disk_usage(small_disk)
        file.write(bytes(max(0, usage.free - free_kib * 1024)))
    code, before = told(stage, nursery)
    assert code in {"", "E_DISK_FULL", "E_COHORT_TOO_SMALL", "E_STORAGE"}
    assert len(before) < kill_sweep.ROUNDS or any(each.missing for each in before), "the disk was never full"
    filler.unlink()
    weights, done = train(stage, nursery)
    assert evidence.complaints(stage, before) == []
    assert [each.round for each in done] == list(range(1, kill_sweep.ROUNDS + 1))
    if not any(each.missing or each.attempt for each in done):
        assert weights.digest == whole
