# SPDX-License-Identifier: Apache-2.0
"""The benchmark of federated against pooled training in a task's own figure: what it keeps from an earlier run, and one pair end to end."""

import json
import math
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from simulations import scenario as scenarios
from simulations.benchmarks.federated_gap import Pair, as_dict, main, on_file
from simulations.scenario import Scenario
from tests.journeys.made import OPEN, PLAN, pictures

TEXT = PLAN.format(privacy=OPEN)


def _pair(seed: int) -> Pair:
    return Pair(seed=seed, fold=seed, num_training=30, num_holdout=10, figure="AUC", untrained=0.5, federated=0.25, pooled=0.125)


def _write(file: Path, scenario: Scenario, pairs: list[Pair]) -> Path:
    file.write_text(json.dumps(as_dict(scenario, pairs)))
    return file


def test_an_earlier_run_of_the_same_plan_gives_back_its_pairs(tmp_path: Path) -> None:
    scenario = scenarios.parse(TEXT)
    pairs = [_pair(0), _pair(3)]
    assert on_file(_write(tmp_path / "gap.json", scenario, pairs), scenario) == pairs
    assert on_file(None, scenario) == on_file(tmp_path / "none.json", scenario) == []


def test_pairs_of_another_plan_are_trained_again(tmp_path: Path) -> None:
    scenario = scenarios.parse(TEXT)
    assert on_file(_write(tmp_path / "gap.json", scenario, [_pair(0)]), scenario.with_changes(rounds=5)) == []


def test_a_run_goes_on_from_the_pairs_that_are_there(tmp_path: Path) -> None:
    data, plan = pictures(tmp_path / "data"), tmp_path / "small.toml"
    plan.write_text(TEXT)
    file = _write(tmp_path / "gap.json", scenarios.load(plan), [_pair(0)])
    app = Typer()
    app.command()(main)
    arguments = [str(plan), "--data", str(data), "--seeds", "2", "--workers", "1", "--json", str(file)]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    report = json.loads(file.read_text())
    kept, trained = (Pair(**pair) for pair in report["pairs"])
    assert kept == _pair(0)
    assert (trained.seed, trained.fold, trained.num_training, trained.num_holdout) == (1, 1, 30, 10)
    assert min(trained.federated, trained.pooled) > trained.untrained
    assert report["gap"]["mean"] == pytest.approx((0.125 + trained.federated - trained.pooled) / 2)
    assert math.isfinite(report["gap"]["margin"])
    assert f"gap by {kept.figure}: {report['gap']['mean']:+.3f}" in result.output
