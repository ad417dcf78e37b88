# SPDX-License-Identifier: Apache-2.0
"""Losses and probabilities, worked out by hand."""

import math
import subprocess
import sys

import pytest
import torch

from common.tasks import Binary, Multiclass


def task(*classes):
    return Binary() if len(classes) == 2 else Multiclass(outputs=len(classes))


def test_two_classes_share_one_logit():
    two = task("a", "b")
    assert two.outputs == 1
    losses = two.loss(torch.tensor([[0.0], [math.log(3)]]), torch.tensor([1, 0]))
    torch.testing.assert_close(losses, torch.tensor([math.log(2), math.log(4)]))
    torch.testing.assert_close(two.predict(torch.tensor([[math.log(3)]])), torch.tensor([[0.25, 0.75]]))


def test_more_classes_have_a_logit_each():
    three = task("a", "b", "c")
    assert three.outputs == 3
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25]]))
    torch.testing.assert_close(three.loss(logits, torch.tensor([2])), torch.tensor([math.log(4)]))
    torch.testing.assert_close(three.predict(logits), torch.tensor([[0.5, 0.25, 0.25]]))


@pytest.mark.parametrize("classes", [("a", "b"), ("a", "b", "c")])
def test_probabilities_stay_finite_and_sum_to_one_at_the_extremes(classes):
    chosen = task(*classes)
    probabilities = chosen.predict(torch.tensor([[-200.0] * chosen.outputs, [200.0] * chosen.outputs]))
    assert probabilities.shape == (2, len(classes))
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(2))


def test_a_process_that_only_trains_does_not_import_the_metrics():
    slow = "'torchmetrics', 'opacus', 'torch._dynamo'"
    code = f"import sys, client.training, common.tasks; sys.exit(any(name in sys.modules for name in ({slow})))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
