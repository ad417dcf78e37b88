# SPDX-License-Identifier: Apache-2.0
"""What the federation is measured against must not be held back: the pooled plan's share of work, and the momentum of a rival alone."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from common import wire
from common.plan import Plan, digest_of
from common.update import ReleasedDelta
from simulations import scenario as scenarios
from simulations.comparison import Chain, pooled_plan


def _plan(**training: object) -> Plan:
    plan = scenarios.load(scenarios.find("ct-lung")).plan
    return replace(plan, training=replace(plan.training, local_steps=1, local_epochs=None, **training))  # type: ignore[arg-type]


def _message(reply: wire.TrainReply) -> Any:
    """As much of a Flower message as a chain looks at; a real one cannot be made outside a run."""
    return SimpleNamespace(has_error=lambda: False, content=wire.encode_train_reply(reply))


def test_pooled_training_sees_as_many_images_a_round_as_all_sites_and_keeps_the_optimiser() -> None:
    plan = _plan(batch=16)
    assert pooled_plan(plan, 6).training == replace(plan.training, batch=96)


def test_pooled_training_makes_as_many_passes_where_the_plan_counts_passes() -> None:
    plan = _plan(batch=16)
    plan = replace(plan, training=replace(plan.training, local_steps=None, local_epochs=2))
    assert pooled_plan(plan, 6).training == plan.training


def test_one_local_step_a_round_with_momentum_at_the_server_is_sgd_with_momentum() -> None:
    plan = _plan(strategy="fedavgm", server_momentum=0.9, momentum=0.0, learning_rate=0.1)
    chain = Chain("alone", plan)
    weights = nn.Parameter(torch.from_numpy(chain.weights.values.copy()))
    sgd = torch.optim.SGD([weights], lr=0.1, momentum=0.9)
    rng = np.random.default_rng(0)
    for number in range(1, 6):
        gradient = rng.normal(size=weights.shape).astype(np.float32)
        weights.grad = torch.from_numpy(gradient)
        sgd.step()
        step = wire.Step(session=bytes(16), round=number, attempt=0, plan=digest_of(plan))
        reply = wire.TrainReply(step=step, site="alone", update=ReleasedDelta(values=np.float32(-0.1) * gradient))
        chain.take(_message(reply))
    np.testing.assert_allclose(chain.weights.values, weights.detach().numpy(), atol=1e-5)
