# SPDX-License-Identifier: Apache-2.0
"""The front door: what stands on its signs is behind it, and nobody waits for a room that was not asked for."""

import subprocess
import sys
from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from fedward import ROOMS, door


@pytest.mark.parametrize("room", ROOMS)
def test_behind_each_sign_are_commands(room: str) -> None:
    ran = CliRunner().invoke(door([room, "--help"]), [room, "--help"])
    assert ran.exit_code == 0, ran.output
    assert "Commands" in ran.output


def test_the_list_of_commands_names_every_room_and_what_it_is_for() -> None:
    said = " ".join(CliRunner().invoke(door(["--help"]), ["--help"], env={"COLUMNS": "200"}).output.replace("│", " ").split())
    for name, (_, sign) in ROOMS.items():
        assert f"{name} {sign}" in said


def test_it_says_which_version_it_is() -> None:
    ran = CliRunner().invoke(door(["--version"]), ["--version"])
    assert ran.exit_code == 0
    assert ran.output.startswith(f"fedward {version('fedward')} (flwr ")


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], ["roster", "--help"], ["plan", "check", "--help"], ["server", "start", "--help"], ["simulate", "--help"]],
)
def test_what_computes_nothing_loads_no_torch(words: list[str]) -> None:
    code = "import sys, fedward; app = fedward.door(sys.argv[1:])\ntry: app()\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
