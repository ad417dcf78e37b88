# SPDX-License-Identifier: Apache-2.0
"""The benchmark of short words: what it changes in a plan, and one small run from end to end."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from common.plan import Plan, PrivacySpec
from common.plan.consistency import broken_rules
from simulations.benchmarks.short_words import main, with_words
from tests.journeys.made import PLAN, made_scenario, pictures


def shared_noise(plan: Plan) -> Plan:
    privacy = PrivacySpec(
        unit="patient", epsilon=8.0, delta=1e-5, clip_norm=1.0, noise="distributed", noise_quorum=5, minimum_patients=plan.training.batch
    )
    return replace(plan, privacy=privacy, training=replace(plan.training, strategy="fedsgd", local_steps=1))


@pytest.mark.parametrize("shared", [False, True], ids=["local noise", "shared noise"])
@pytest.mark.parametrize("share", [None, 1.0, 0.02])
def test_only_the_words_differ_and_the_plan_keeps_its_rules(share: float | None, shared: bool) -> None:
    plan = made_scenario(private=True).plan
    plan = shared_noise(plan) if shared else plan
    assert not list(broken_rules(plan))
    asked = with_words(plan, 10, share)
    assert not list(broken_rules(asked))
    assert asked.aggregation.max_group == 10
    assert asked.aggregation.word_bits == (32 if share is None else 16)
    assert asked.aggregation.coordinate_range == (None if share is None else 10.0 * share)
    assert asked.privacy.noise == "local"
    assert (asked.training, asked.model, asked.privacy.epsilon) == (plan.training, plan.model, plan.privacy.epsilon)


def test_a_run_gives_a_line_for_each_kind_of_words(tmp_path: Path) -> None:
    plan, data, file = tmp_path / "plan.toml", pictures(tmp_path / "pictures"), tmp_path / "figures.json"
    plan.write_text(PLAN.format(privacy='unit = "none"'))
    app = Typer()
    app.command()(main)
    arguments = [str(plan), "--data", str(data), "--seeds", "1", "--rounds", "1", "--ranges", "0.1", "--json", str(file)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    long, short = json.loads(file.read_text())["trained"]
    assert (long["words"]["word_bits"], short["words"]["word_bits"]) == (32, 16)
    assert long["update_bytes"] == 2 * short["update_bytes"]
    assert (long["words"]["bits"], short["words"]["bits"]) == (24, 14)
