# SPDX-License-Identifier: Apache-2.0
"""`fedward rig`: what it says when there is nothing, and that it hurts whom it was told to."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from common.errors import RunFolderTaken
from simulations.rig.cli import app


def run(*words: str) -> str:
    """What was printed, as one line: where an error's box breaks its lines depends on how long the path in it is."""
    done = CliRunner().invoke(app, list(words))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return " ".join(done.output.replace("│", " ").split())


def test_down_where_nothing_runs_says_so(tmp_path: Path) -> None:
    assert "0 processes ended" in run("down", "--dir", str(tmp_path))


def test_cut_and_mend_change_one_line_and_nothing_else_about_it(tmp_path: Path) -> None:
    file = tmp_path / "h2" / "logs" / "line.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"rate_kbit": 1000, "partition": False}))
    assert "fedward rig mend h2" in run("cut", "h2", "--dir", str(tmp_path))
    assert json.loads(file.read_text()) == {"rate_kbit": 1000, "partition": True}
    run("mend", "h2", "--dir", str(tmp_path))
    assert json.loads(file.read_text()) == {"rate_kbit": 1000, "partition": False}


def test_a_hospital_that_does_not_run_is_no_one_to_cut(tmp_path: Path) -> None:
    assert "no running hospital" in run("cut", "h9", "--dir", str(tmp_path))


def test_an_earlier_rig_is_not_overwritten_unasked(tmp_path: Path) -> None:
    with pytest.raises(RunFolderTaken, match="exists already"):
        run("up", "--dir", str(tmp_path))
