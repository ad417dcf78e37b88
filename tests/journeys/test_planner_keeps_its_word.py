# SPDX-License-Identifier: Apache-2.0
"""What the planner foretells is what the ledgers hold when a plan is over, for either noise, and with evaluations."""

from pathlib import Path

import pytest

from client.home import LEDGER_FILE
from client.ledger.glance import last_sums
from simulations import scenario
from simulations.engine.nursery import Nursery
from simulations.planner import Hospitals
from simulations.planner.forecast import Cost, forecast
from simulations.scenario import Scenario
from tests.journeys.made import PLAN, made_stage, train

PATIENT = 'unit = "patient"\nepsilon = 8\ndelta = 1e-4\nclip_norm = 1'
RECORD = 'unit = "record"\nepsilon = 4\ndelta = 1e-4\nclip_norm = 1'
SHARED = PATIENT + '\nnoise = "distributed"\nnoise_quorum = 3\nminimum_patients = 6'
ONE_STEP = 'strategy = "fedsgd"\nlocal_steps = 1\nbatch = 4'
SEVERAL_STEPS = "local_steps = 2\nbatch = 4"
EVALUATED = "[evaluation]\nevery = 2\nepsilon = 1.0\n"


def played(privacy: str, steps: str, more: str = "") -> Scenario:
    text = PLAN.format(privacy=privacy).replace("local_steps = 2\nbatch = 8", steps)
    return scenario.parse(text.replace("[simulation]", more + "[simulation]"))


@pytest.mark.parametrize(
    ("privacy", "steps", "more"),
    [(PATIENT, SEVERAL_STEPS, ""), (RECORD, SEVERAL_STEPS, ""), (SHARED, ONE_STEP, EVALUATED)],
    ids=["local", "record", "shared and evaluated"],
)
def test_the_ledgers_hold_what_was_foretold(tmp_path: Path, nursery: Nursery, privacy: str, steps: str, more: str) -> None:
    stage = made_stage(tmp_path / "run", played(privacy, steps, more))
    patients = tuple(site["patients"] - site.get("validation", {"patients": 0})["patients"] for site in stage.counts["sites"])
    foretold = forecast(stage.scenario.plan, Hospitals(patients=patients, images_each=2)).asked
    train(stage, nursery)
    for name, site in zip(stage.sites, foretold.sites, strict=True):
        held = last_sums(stage.home(name) / LEDGER_FILE)
        assert held is not None
        assert isinstance(site.outcome, Cost)
        assert held.outside == pytest.approx(site.outcome.epsilon, rel=0.01)
        assert held.own_share == pytest.approx(site.outcome.own_share, rel=0.01)
        assert held.outside <= site.outcome.reserved
