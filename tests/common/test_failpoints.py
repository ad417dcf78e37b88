# SPDX-License-Identifier: Apache-2.0
"""A failpoint kills at its name and count and nowhere else; every name that is declared is placed, and none is placed undeclared."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from common import failpoints
from common.errors import FailpointUnknown

ROOT = Path(__file__).parents[2]
WALK = """
from common.failpoints import reach
for step in range(5):
    reach("after_reserve")
    reach("after_training")
    print(step, flush=True)
"""


def walk(value: str) -> "subprocess.CompletedProcess[str]":
    environment = {"PYTHONPATH": str(ROOT), failpoints.VARIABLE: value}
    return subprocess.run([sys.executable, "-c", WALK], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("value", "steps"), [("after_reserve", 0), ("after_training:1", 0), ("after_training:4", 3)])
def test_a_process_dies_when_it_comes_to_its_failpoint_for_that_time(value: str, steps: int) -> None:
    done = walk(value)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split() == [str(step) for step in range(steps)]


def test_a_failpoint_that_is_never_reached_kills_nobody() -> None:
    done = walk("after_mask_stored")
    assert (done.returncode, len(done.stdout.split())) == (0, 5)


@pytest.mark.parametrize("value", ["after_lunch", "", "after_reserve:0", "after_reserve:-1", "after_reserve:", "after_reserve:two"])
def test_a_failpoint_that_is_none_is_refused_by_name(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(failpoints.VARIABLE, value)
    with pytest.raises(FailpointUnknown, match="no failpoint") as refusal:
        failpoints.armed()
    assert refusal.value.code == "E_FAILPOINT"
    with pytest.raises(FailpointUnknown):
        failpoints.reach("after_reserve")


def test_a_name_that_code_reaches_and_nobody_declared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(failpoints.VARIABLE, "after_reserve:1000000")
    with pytest.raises(FailpointUnknown):
        failpoints.reach("after_lunch")


def test_without_the_variable_nothing_is_armed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(failpoints.VARIABLE, raising=False)
    assert failpoints.armed() is None
    failpoints.reach("after_reserve")


def test_every_declared_name_is_placed_in_its_room_and_every_placed_name_declared() -> None:
    for room, declared in {"client": failpoints.SITE, "server": failpoints.COORDINATOR}.items():
        text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / room).rglob("*.py"))
        placed = set(re.findall(r'"((?:after|coordinator|before)_\w+)"', text))
        assert set(declared) <= placed
        assert {name for name in placed if name in failpoints.NAMES} == set(declared)
    assert len(failpoints.NAMES) >= 20
