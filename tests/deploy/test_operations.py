# SPDX-License-Identifier: Apache-2.0
"""docs/operations.md: the first hours of a coordinator, a custodian and three hospitals, typed as they stand, with real processes.

The test gives what the page says is the reader's: an address that exists, a plan that is small, names. Images are made. What the page sends
by courier is copied. Processes that it puts into the background run until the model is there.
"""

import contextlib
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedward import app
from simulations.rig.first_hour import COORDINATOR, HOSPITAL, HOSPITALS, PAGE, Typist, blocks, play
from tests.deploy.units import ROOT

TOOLS = os.pathsep.join([str(Path(sys.executable).parent), str(ROOT / "deploy" / "pki")])
needs = pytest.mark.skipif(
    not (shutil.which("nginx") and shutil.which("openssl")), reason="needs the Debian packages nginx-light and openssl"
)


class InThisProcess(Typist):
    """Commands of fedward in this process, which has everything loaded; others by the shell."""

    def runs(self, line: str, *, fails: tuple[int, ...] = (0,)) -> str:
        if not line.startswith("fedward "):
            return super().runs(line, fails=fails)
        with contextlib.chdir(self.folder):
            result = CliRunner().invoke(app, shlex.split(line)[1:], input="y\n" * 6, env=self.environment)
        assert result.exit_code in fails, (line, result.output, result.exception)
        return result.stdout


@needs
@pytest.mark.slow
def test_the_first_hours_are_typed_as_they_stand(tmp_path: Path) -> None:
    told = play(short(tmp_path), TOOLS, kind=InThisProcess)
    assert told.model.stat().st_size > 1000
    # All of this is one user's, who is root on some machines, in an environment of developers: that is wrong, and nothing else is.
    assert told.wrong <= {"permissions", "separation", "versions", "socket"}, told.wrong
    assert all(took.seconds > 0 for parts in told.parts.values() for took in parts.values())
    assert set(told.parts) == {"coordinator", "custodian", *HOSPITALS}


def short(tmp_path: Path) -> Path:
    """A socket's path has a hundred bytes at most."""
    assert len(str(tmp_path / "west" / "door" / "site.sock")) < 100, "run pytest with a shorter --basetemp"
    return tmp_path


def test_every_indented_line_of_the_page_is_typed() -> None:
    """The control: no command stands on the page that is in none of the lists."""
    typed = sum(len(block) for heading in (COORDINATOR, HOSPITAL) for block in blocks(heading))
    assert typed == len(re.findall(r"^    \S", PAGE, re.MULTILINE))
    assert typed > 25


def test_every_fenced_command_is_of_a_part_that_has_a_smoke_test() -> None:
    fenced = [line for block in re.findall(r"```sh\n(.+?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    assert len(fenced) >= 5
    known = {
        "deploy/locked/bundle.sh": "deploy/locked/bundle.sh",
        "fedward-bundle/install.sh": "deploy/locked/install.sh",
        "install": "deploy/nginx/nginx.conf",
        "nginx": "deploy/nginx/nginx.conf",
        "systemctl": "deploy/systemd/fedward-site.service",
        "chown": "deploy/systemd/sysusers.d/fedward-hospital.conf",
    }
    for line in fenced:
        assert (ROOT / known[line.split()[0]]).exists()
        for unit in re.findall(r"fedward-[a-z]+(?:\.timer)?", line) if line.startswith("systemctl") else ():
            assert (ROOT / "deploy" / "systemd" / (unit if unit.endswith(".timer") else f"{unit}.service")).exists(), unit
