# SPDX-License-Identifier: Apache-2.0
"""Gradients by unit, found together, against one backward pass for each unit: every layer, every shape that a formula chooses by."""

import logging

import numpy as np
import pytest
import torch
from opacus.grad_sample import GradSampleModule
from opacus.validators import ModuleValidator
from torch import nn
from torch.nn import functional

from client.training import by_unit
from client.training.by_unit import UnitHooks
from client.training.clipping import Kept, Product
from common.errors import ModelLayout
from common.models import build, seed_dropout
from common.plan import CnnSpec, InputSpec, ResNetSpec, ScatteringSpec

MODELS = [
    CnnSpec(family="cnn", widths=(8, 12, 8), hidden=8),
    CnnSpec(family="cnn", widths=(5,), hidden=3, norm="none"),
    ResNetSpec(family="resnet", widths=(8, 16), blocks=2),
    ScatteringSpec(family="scattering", angles=3),
]


def batch(channels, images=6):
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(images, 16, 20, channels))).permute(0, 3, 1, 2)
    return x, torch.from_numpy(rng.normal(size=images))


def one_backward_for_each(model, x, weights, units):
    parameters, k = list(model.parameters()), len(x) // units
    each = [
        torch.autograd.grad((model(x[i : i + k]).flatten(1).sum(dim=1) * weights[i : i + k]).sum(), parameters) for i in range(0, len(x), k)
    ]
    return [torch.stack(of_all) for of_all in zip(*each, strict=True)]


def together(hooks, model, x, weights, units):
    gradients = hooks.gradients(lambda: model(x).flatten(1).sum(dim=1) * weights, units)
    for gradient in gradients:  # a norm is never measured too small, nor much too large
        measured, whole = gradient.squares().sqrt(), gradient.whole().flatten(1).norm(dim=1)
        assert (measured >= whole * (1 - 2.0**-13)).all()
        assert (measured <= whole * 1.001 + 1e-12).all()
    return [gradient.whole() for gradient in gradients]


def check(model, x, weights, units):
    expected = one_backward_for_each(model, x, weights, units)
    for ours, theirs in zip(together(UnitHooks(model), model, x, weights, units), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("called", [True, False])
@pytest.mark.parametrize("units", [1, 2, 6])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("spec", MODELS)
def test_together_gives_what_one_backward_for_each_unit_gives(spec, channels, units, called, monkeypatch):
    """A convolution by the library's calls, and as one product."""
    monkeypatch.setattr(by_unit, "_CALL", -(10**12) if called else 10**12)
    check(build(spec, InputSpec(modality="CT", height=16, width=20, channels=channels), 3).double(), *batch(channels), units)


class Standardised(nn.Conv2d):
    """A convolution by its class, and not by what it does."""

    def forward(self, x):
        weight = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        return functional.conv2d(x, weight, self.bias, self.stride, self.padding)


LAYERS = {
    "strided": nn.Conv2d(3, 8, 3, stride=2, padding=1),
    "unpadded, oblong": nn.Conv2d(3, 8, (2, 5), stride=(1, 3), padding=(0, 2), bias=False),
    "in groups": nn.Conv2d(3, 9, 3, groups=3),
    "dilated": nn.Conv2d(3, 4, 3, dilation=2),
    "padded by name": nn.Conv2d(3, 4, 3, padding="same"),
    "norm of one group": nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(1, 4)),
    "norm of each channel": nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(4, 4)),
    "instance norm": nn.InstanceNorm2d(3, affine=True),
    "dense on positions": nn.Sequential(nn.Linear(20, 7), nn.Tanh(), nn.Linear(7, 2, bias=False)),
    "standardised": Standardised(3, 4, 3, padding=1),
    "dense on few": nn.Sequential(nn.Linear(20, 60), nn.Tanh(), nn.Flatten(), nn.Linear(60 * 48, 50)),
    "layer norm": nn.Sequential(nn.Linear(20, 6), nn.LayerNorm(6)),
    "upside down": nn.Sequential(nn.ConvTranspose2d(3, 4, 2), nn.PReLU(4)),
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("called", [True, False])
def test_every_kind_of_layer_gives_its_gradient_whoever_knows_it(layer, called, monkeypatch):
    """Ours, Opacus's, or functorch's for those that neither knows."""
    monkeypatch.setattr(by_unit, "_CALL", -(10**12) if called else 10**12)
    torch.manual_seed(0)
    check(LAYERS[layer].double(), *batch(3), 3)


def test_the_log_says_where_each_layers_gradients_come_from(caplog):
    with caplog.at_level(logging.INFO):
        UnitHooks(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.ReLU()))
    assert [record.getMessage() for record in caplog.records] == [
        "layer '0' (Linear): gradients by unit from dense",
        "layer '1' (LayerNorm): gradients by unit from opacus",
    ]


def test_a_second_batch_has_nothing_of_the_first():
    x, weights = batch(1)
    model = build(MODELS[0], InputSpec(modality="CT", height=16, width=20), 1).double()
    hooks = UnitHooks(model)
    together(hooks, model, x, weights, 6)
    second = together(hooks, model, x[:4], weights[:4], 2)
    for ours, theirs in zip(second, one_backward_for_each(model, x[:4], weights[:4], 2), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_hooks_sleep_unless_they_are_asked():
    x, weights = batch(1)
    model = build(MODELS[0], InputSpec(modality="CT", height=16, width=20), 1).double()
    hooks = UnitHooks(model)
    (model(x).squeeze(1) * weights).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with pytest.raises(ZeroDivisionError):
        hooks.gradients(lambda: model(x).squeeze(1) / (1 // 0), 6)
    model(x)
    assert (hooks._units, hooks._ends, hooks._collected) == (0, [], {})


def test_plain_gradients_are_left_alone():
    x, weights = batch(1)
    model = build(MODELS[2], InputSpec(modality="CT", height=16, width=20), 1).double()
    together(UnitHooks(model), model, x, weights, 6)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_layer_used_twice_adds_up():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.again = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.again(self.again(self.first(x)).tanh())

    check(Twice().double(), torch.arange(24, dtype=torch.float64).view(6, 4) / 10, torch.ones(6, dtype=torch.float64), 3)


def test_two_ways_in_are_both_walked():
    class Forked(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right, self.head = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(3, 1)

        def forward(self, x):
            return self.head(self.left(x).tanh() * self.right(x))

    check(Forked().double(), torch.arange(24, dtype=torch.float64).view(6, 4) / 10, torch.ones(6, dtype=torch.float64), 2)


def test_a_weight_that_takes_no_part_is_named():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(4, 1), nn.Linear(4, 1)

        def forward(self, x):
            return self.used(x)

    model = Unused()
    with pytest.raises(ModelLayout, match=r"idle\.weight"):
        UnitHooks(model).gradients(lambda: model(torch.ones(2, 4)).squeeze(1), 2)


def test_images_that_cancel_are_measured_as_what_is_summed():
    """Two images of one patient, nearly opposite, a million times longer than their sum: float32 loses more than the clip allows."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(50, 1, 300, generator=generator).repeat(1, 2, 1)
    slopes = torch.randn(50, 1, 40, generator=generator).repeat(1, 2, 1) * 1e3
    slopes[:, 1] *= -1
    inputs[:, 1] += torch.randn(50, 300, generator=generator) * 1e-5
    product = Product(slopes, inputs)
    measured, whole = product.squares().sqrt(), product.whole().flatten(1).double().norm(dim=1)
    assert (measured >= whole * (1 - 2.0**-13)).all()
    naive = ((slopes @ slopes.mT) * (inputs @ inputs.mT)).sum(dim=(1, 2)).clamp(min=0).sqrt()
    assert (naive < whole * (1 - 2.0**-10)).any(), "the control: Gram matrices in float32 would let units past the clip"


def test_norms_over_millions_of_values_keep_their_bound():
    values = torch.rand(2, 3_000_001, generator=torch.Generator().manual_seed(0)) + 1
    torch.testing.assert_close(Kept(values).squares(), values.double().square().sum(dim=1), rtol=2.0**-14, atol=0)


def test_opacus_own_convolution_is_still_wrong_on_channels_last_images():
    """Why ours exists, and why Opacus's other layers get contiguous images. When this fails, Opacus has been repaired."""
    x, weights = batch(3)
    model = build(MODELS[1], InputSpec(modality="CT", height=16, width=20, channels=3), 1).double()
    expected = one_backward_for_each(model, x, weights, 6)[0]
    theirs = GradSampleModule(model, loss_reduction="sum")
    with pytest.warns(UserWarning, match="Full backward hook is firing"):
        (theirs(x).squeeze(1) * weights).sum().backward()
    assert (model.convolutions[0].weight.grad_sample - expected).abs().max() > 0.1 * expected.abs().max()


@pytest.mark.parametrize("spec", MODELS)
def test_our_records_are_opacus_records(spec):
    """unit = "record" is what Opacus would compute, on images in the order of memory that it reads rightly."""
    x, weights = batch(3)
    ours, theirs = (build(spec, InputSpec(modality="CT", height=16, width=20, channels=3), 1).double() for _ in range(2))
    got = together(UnitHooks(ours), ours, x, weights, 6)
    wrapped = GradSampleModule(theirs, loss_reduction="sum")
    with pytest.warns(UserWarning, match="Full backward hook is firing"):
        (wrapped(x.contiguous()).squeeze(1) * weights).sum().backward()
    for each, parameter in zip(got, theirs.parameters(), strict=True):
        torch.testing.assert_close(each, parameter.grad_sample, rtol=1e-9, atol=1e-11)


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
