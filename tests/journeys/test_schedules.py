# SPDX-License-Identifier: Apache-2.0
"""Learning rates that change over the rounds: an auditor who has the sums computes the same models, also after the run was cut off."""

from dataclasses import replace
from pathlib import Path

import pytest

from common.audit.verify import verify
from common.plan.schedule import factor
from server.export import export
from server.recompute import arithmetic
from simulations.engine.nursery import Nursery
from simulations.federation import Federation
from simulations.scenario import Scenario
from tests.attacks.forgers import exported
from tests.journeys.made import Quiet, made_federation, made_scenario, made_stage
from tests.journeys.test_secure_rounds import cut

SCHEDULE = 'schedule = "cosine"\nwarmup_rounds = 1\n'


def scheduled(strategy: str) -> Scenario:
    played = made_scenario(private=False, change=("learning_rate = 0.2", f"learning_rate = 0.2\n{SCHEDULE}"))
    training = replace(played.plan.training, rounds=3, strategy=strategy, local_steps=1, momentum=0.5)  # type: ignore[arg-type] # one of three
    aggregation = replace(played.plan.aggregation, minimum_cohort=3)
    return replace(played, plan=replace(played.plan, training=training, aggregation=aggregation))


@pytest.mark.parametrize("strategy", ["fedsgd", "fedavg"])
def test_the_models_of_a_schedule_follow_from_the_sums(
    tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    played = scheduled(strategy)
    assert [factor(played.plan.training, number) for number in (1, 2, 3)] == pytest.approx([0.5, 1.0, 0.5])
    stage = made_stage(tmp_path / "run", played)
    federation: Federation = replace(made_federation(stage), evidence="vectors")
    cut(monkeypatch, 3, "MASK", "before")
    with pytest.raises(KeyboardInterrupt):
        federation.train(Quiet(), engine="local", workers=1, nursery=nursery)
    monkeypatch.undo()
    weights, committed = federation.train(Quiet(), engine="local", workers=1, nursery=nursery)
    assert [done.round for done in committed] == [1, 2, 3]
    export(stage.folder, weights=weights, plan=played.plan, facts={})
    report = verify(exported(stage, tmp_path / "bundles", with_vectors=True).paths, arithmetic())
    assert report.is_clean, report.findings
    assert ["model" in each.shown for each in report.rounds] == [True] * 3
