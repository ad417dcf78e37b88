# SPDX-License-Identifier: Apache-2.0
"""A plan for the planner's tests, and changes to it."""

from dataclasses import replace
from typing import Any

from common.plan import Plan
from simulations import scenario
from simulations.planner import Hospitals, Outlook
from simulations.planner.forecast import forecast

TEXT = """
[plan]
name = "planned"
purpose = "a plan for tests"
[input]
modality = "CT"
height = 32
width = 32
[task]
kind = "classification"
classes = ["a", "b"]
[model]
family = "cnn"
widths = [4]
hidden = 4
[training]
strategy = "fedsgd"
rounds = 40
local_steps = 1
batch = 32
learning_rate = 0.1
momentum = 0.9
[privacy]
unit = "patient"
epsilon = 8.0
delta = 1e-5
clip_norm = 1.0
noise = "distributed"
noise_quorum = 4
colluders = 1
minimum_patients = 128
[aggregation]
minimum_cohort = 3
"""


def shared(**privacy: Any) -> Plan:
    """Noise that five hospitals share, four of which are enough."""
    plan = scenario.parse(TEXT).plan
    return replace(plan, privacy=replace(plan.privacy, **privacy))


def local(*, strategy: str = "fedavgm", steps: int = 2, **privacy: Any) -> Plan:
    """The same with local noise, several steps a round and momentum at the server."""
    plan = shared(noise="local", noise_quorum=None, minimum_patients=None, **privacy)
    momentum = {"momentum": 0.0, "server_momentum": 0.9} if strategy == "fedavgm" else {}
    training = replace(plan.training, strategy=strategy, local_steps=steps, **momentum)  # type: ignore[arg-type]  # one of the three
    return replace(plan, training=training)


def outlook_without_alternatives(plan: Plan, *patients: int, images_each: int = 1) -> Outlook:
    """Those are most of the work."""
    return Outlook(forecast=forecast(plan, Hospitals(patients=patients, images_each=images_each)), others={})
