# SPDX-License-Identifier: Apache-2.0
"""The benchmark of plans under their own privacy: which it takes, one small plan from end to end, and that it goes on where it stopped."""

import json
from dataclasses import replace
from pathlib import Path

from typer import Typer
from typer.testing import CliRunner

from common.plan import digest_of
from simulations import scenario as scenarios
from simulations.benchmarks.own_privacy import main, with_made_data
from simulations.scenario import Scenario, to_toml


def small() -> Scenario:
    """`records`, which has no pictures, at three small hospitals and for two rounds."""
    played = scenarios.load(scenarios.find("records"))
    plan, simulation = played.plan, played.simulation
    assert simulation.made is not None
    return Scenario(
        plan=replace(
            plan,
            training=replace(plan.training, rounds=2, batch=8),
            privacy=replace(plan.privacy, noise_quorum=3, minimum_patients=8),
            aggregation=replace(plan.aggregation, minimum_cohort=3),
        ),
        simulation=replace(simulation, sites=3, folds=4, made=replace(simulation.made, hospitals=3, patients_per_hospital=20)),
    )


def test_it_takes_the_plans_that_promise_something_and_bring_their_data() -> None:
    assert {"default", "organs", "rare-growths", "records"} <= set(with_made_data())
    assert not {"ct-lung", "cell-malaria", "template"} & set(with_made_data())


def test_a_small_plan_gives_figures_and_what_was_spent_and_is_not_run_twice(tmp_path: Path) -> None:
    plan_file, figures = tmp_path / "small.toml", tmp_path / "own.json"
    plan_file.write_text(to_toml(small()))
    app = Typer()
    app.command()(main)
    arguments = [str(plan_file), "--workers", "1", "--json", str(figures)]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    [run] = json.loads(figures.read_text())["runs"]
    assert (run["plan"], run["seed"], run["rounds"], run["patients"]) == (digest_of(small().plan), 0, 2, 45)
    assert (run["figure"], run["untouched"]) == ("AUC", None)
    assert all(0 <= run[which] <= 1 for which in ("untrained", "private", "not_private"))
    assert len({run["untrained"], run["private"], run["not_private"]}) == 3
    assert 0 < run["epsilon"] <= 8
    again = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert again.exit_code == 0
    assert json.loads(figures.read_text())["runs"] == [run], "its noise would have given other figures"
