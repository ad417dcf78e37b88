# SPDX-License-Identifier: Apache-2.0
"""A federation as it is deployed, with real deaths, ends where nobody had died. The long one: make e2e."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed (apt-get install nginx)")
def test_three_hospitals_a_killed_superlink_and_a_killed_site_end_with_the_same_bits(open_folder: Path) -> None:
    command = [sys.executable, "-m", "simulations.rig.journey", "--short", "--json", "--folder", str(open_folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    told = json.loads(done.stdout)
    assert told["complaints"] == []
    assert [each["round"] for each in told["rounds"]] == [1, 2]
    assert all(len(each["sites"]) >= 3 for each in told["rounds"])
    assert all(each["looks"] > 3 for each in told["hosts"])
    assert "kill -9 superlink" in done.stderr
    assert "kill -9 site h2" in done.stderr
