# SPDX-License-Identifier: Apache-2.0
"""Shell scripts and pages of deploy/: no trap that shellcheck knows; a page for each part, which names a smoke test that exists."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.units import ROOT

DEPLOY = ROOT / "deploy"
SCRIPTS = sorted(DEPLOY.rglob("*.sh"))
PARTS = sorted(path for path in DEPLOY.iterdir() if path.is_dir())
LONGEST_PAGE = 80


def test_there_are_scripts_and_each_can_be_run() -> None:
    assert len(SCRIPTS) >= 5
    for path in SCRIPTS:
        assert path.stat().st_mode & 0o111, path.name
        assert "set -euo pipefail" in path.read_text(), path.name


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs the Debian package shellcheck")
def test_shellcheck_has_nothing_against_any_script() -> None:
    done = subprocess.run(["shellcheck", *SCRIPTS], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("part", PARTS, ids=[part.name for part in PARTS])
def test_every_part_has_a_page_and_a_smoke_test(part: Path) -> None:
    page = (part / "README.md").read_text(encoding="utf-8")
    assert len(page.splitlines()) <= LONGEST_PAGE
    named = re.findall(r"(tests/[\w/]+\.py)", page)
    assert named, part.name
    assert all((ROOT / test).exists() for test in named), part.name
    assert f"[{part.name}/]({part.name}/README.md)" in (DEPLOY / "README.md").read_text()


def test_nobody_imports_anything_from_here() -> None:
    assert not list(DEPLOY.rglob("*.py"))
