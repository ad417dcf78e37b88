# SPDX-License-Identifier: Apache-2.0
"""Losses and probabilities, worked out by hand."""

import math
import subprocess
import sys

import pytest
import torch
from torch.nn import functional

from common.tasks import Binary, Multiclass, MultiLabel, Segmentation


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


# Weights, and truth that is smoothed


def test_a_class_counts_as_much_as_its_weight_says():
    logits, labels = torch.tensor([[0.3], [-1.2], [2.0]]), torch.tensor([0, 1, 1])
    plain, weighted = Binary().loss(logits, labels), Binary(weights=(0.5, 3.0)).loss(logits, labels)
    torch.testing.assert_close(weighted, plain * torch.tensor([0.5, 3.0, 3.0]))
    logits = torch.tensor([[0.3, 0.1, -1.0], [1.0, 2.0, 0.0]])
    plain, weighted = (Multiclass(outputs=3, weights=each).loss(logits, torch.tensor([2, 0])) for each in ((), (1.0, 2.0, 5.0)))
    torch.testing.assert_close(weighted, plain * torch.tensor([5.0, 1.0]))


@pytest.mark.parametrize("weights", [(), (1.0, 4.0)])
def test_a_cases_loss_does_not_depend_on_who_else_is_in_the_batch(weights):
    logits, labels = torch.tensor([[0.3], [-1.2], [2.0]]), torch.tensor([0, 1, 1])
    chosen = Binary(weights=weights, smoothing=0.1)
    alone = torch.cat([chosen.loss(logits[i : i + 1], labels[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(chosen.loss(logits, labels), alone)


def test_two_smoothed_classes_are_the_same_by_one_logit_and_by_two():
    logits, labels = torch.tensor([[0.7], [-2.0]]), torch.tensor([1, 0])
    two = Multiclass(outputs=2, smoothing=0.2).loss(functional.pad(logits, (1, 0)), labels)
    torch.testing.assert_close(Binary(smoothing=0.2).loss(logits, labels), two)
    certain = Binary(smoothing=0.2).loss(torch.tensor([[math.log(9)]]), torch.tensor([1]))
    more_than_certain = Binary(smoothing=0.2).loss(torch.tensor([[20.0]]), torch.tensor([1]))
    assert certain < more_than_certain  # nine to one is all that is asked


def test_a_finding_that_is_there_counts_more_and_one_that_is_not_does_not():
    logits, findings = torch.tensor([[0.4, -0.3]]), torch.tensor([[1, 0]])
    plain, weighted = MultiLabel(outputs=2), MultiLabel(outputs=2, weights=(3.0, 7.0))
    there, absent = (functional.binary_cross_entropy_with_logits(logits[0, i], torch.tensor(1.0 - i)) for i in (0, 1))
    torch.testing.assert_close(plain.loss(logits, findings), ((there + absent) / 2).reshape(1))
    torch.testing.assert_close(weighted.loss(logits, findings), ((3 * there + absent) / 2).reshape(1))


def test_pixels_of_a_rare_class_count_as_much_as_the_plan_says():
    logits, masks = torch.zeros(1, 2, 2, 2), torch.tensor([[[0, 0], [0, 1]]])
    entropy = Segmentation(outputs=2, dice=0, weights=(1.0, 5.0)).loss(logits, masks)
    torch.testing.assert_close(entropy, torch.tensor([math.log(2) * (3 + 5) / 4]))
