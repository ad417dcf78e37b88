# SPDX-License-Identifier: Apache-2.0
"""Per-record gradients: Opacus's hooks, with our convolution, against one backward pass for each record."""

import numpy as np
import pytest
import torch
from opacus.grad_sample import GradSampleModule
from opacus.validators import ModuleValidator
from torch import nn

from client.training.per_record import RecordHooks
from common.errors import ModelLayout
from common.models import build, seed_dropout
from common.plan import CnnSpec, InputSpec, ResNetSpec, ScatteringSpec

MODELS = [
    CnnSpec(family="cnn", widths=(8, 12, 8), hidden=8),
    CnnSpec(family="cnn", widths=(5,), hidden=3, norm="none"),
    ResNetSpec(family="resnet", widths=(8, 16), blocks=2),
    ScatteringSpec(family="scattering", angles=3),
]


def batch(channels, records=5):
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(records, 16, 20, channels))).permute(0, 3, 1, 2)
    return x, torch.from_numpy(rng.normal(size=records))


def one_backward_for_each(model, x, weights):
    parameters = list(model.parameters())
    each = [torch.autograd.grad((model(x[i : i + 1]) * weights[i]).sum(), parameters) for i in range(len(x))]
    return [torch.stack(of_all) for of_all in zip(*each, strict=True)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("spec", MODELS)
def test_hooks_give_what_one_backward_for_each_record_gives(spec, channels):
    x, weights = batch(channels)
    model = build(spec, InputSpec(modality="CT", height=16, width=20, channels=channels), 3).double()
    expected = one_backward_for_each(model, x, weights)
    got = RecordHooks(model).gradients(model(x).sum(dim=1) * weights)
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_a_second_batch_has_nothing_of_the_first():
    x, weights = batch(1)
    model = build(MODELS[0], InputSpec(modality="CT", height=16, width=20), 1).double()
    expected = one_backward_for_each(model, x[:2], weights[:2])
    hooks = RecordHooks(model)
    hooks.gradients(model(x).squeeze(1) * weights)
    second = hooks.gradients(model(x[:2]).squeeze(1) * weights[:2])
    for ours, theirs in zip(second, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    assert not any(getattr(module, "activations", []) for module in model.modules())


def test_a_layer_used_twice_adds_up():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.again = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.again(self.again(self.first(x)).tanh())

    model, x = Twice().double(), torch.arange(12, dtype=torch.float64).view(3, 4) / 10
    expected = one_backward_for_each(model, x, torch.ones(3, dtype=torch.float64))
    got = RecordHooks(model).gradients(model(x).sum(dim=1))
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_weight_that_takes_no_part_is_named():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(4, 1), nn.Linear(4, 1)

        def forward(self, x):
            return self.used(x)

    model = Unused()
    with pytest.raises(ModelLayout, match=r"idle\.weight"):
        RecordHooks(model).gradients(model(torch.ones(2, 4)).squeeze(1))


def test_opacus_own_convolution_is_still_wrong_on_channels_last_images():
    """Why `convolution_gradients` exists. When this fails, Opacus has been repaired and ours may go."""
    x, weights = batch(3)
    model = build(MODELS[1], InputSpec(modality="CT", height=16, width=20, channels=3), 1).double()
    expected = one_backward_for_each(model, x, weights)[0]
    theirs = GradSampleModule(model, loss_reduction="sum")
    with pytest.warns(UserWarning, match="Full backward hook is firing"):
        (theirs(x).squeeze(1) * weights).sum().backward()
    assert (model.convolutions[0].weight.grad_sample - expected).abs().max() > 0.1 * expected.abs().max()


@pytest.mark.parametrize("spec", MODELS)
def test_opacus_finds_nothing_to_object_to(spec):
    assert ModuleValidator.validate(build(spec, InputSpec(modality="CT", height=16, width=20), 1), strict=False) == []


def test_dropout_masks_go_by_seed_and_position():
    model = build(CnnSpec(family="cnn", widths=(8,), hidden=64, dropout=0.5), InputSpec(modality="CT", height=16, width=16), 1)
    x = torch.ones(4, 1, 16, 16)
    outputs = []
    for seed in (b"a", b"a", b"b"):
        seed_dropout(model, seed)
        outputs.append(model(x).detach())
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    assert len(set(outputs[0].flatten().tolist())) == 4
    assert len(set(model.eval()(x).flatten().tolist())) == 1
