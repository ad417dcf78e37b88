# SPDX-License-Identifier: Apache-2.0
"""All families: shapes, gradients, no memory of a batch; and their weights as a flat vector."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from opacus.validators import ModuleValidator
from torch import nn
from torch.nn import functional

from common.errors import ModelLayout
from common.models import build, flatten, initial_weights, layout_of, layout_of_plan, load, read_weights, write_weights
from common.models.layers import every
from common.plan import (
    AggregationSpec,
    ClassificationSpec,
    CnnSpec,
    Identity,
    InputSpec,
    Plan,
    PrivacySpec,
    ResNetSpec,
    ScatteringSpec,
    TrainingSpec,
)
from common.update import Weights

FAMILIES = [
    CnnSpec(family="cnn"),
    CnnSpec(family="cnn", widths=(5, 7), hidden=3, norm="none", dropout=0.3),
    ResNetSpec(family="resnet"),
    ResNetSpec(family="resnet", widths=(4, 6), blocks=2, dropout=0.3),
    ScatteringSpec(family="scattering"),
    ScatteringSpec(family="scattering", scales=1, angles=3),
]


def image(height=16, width=24, channels=1):
    return InputSpec(modality="CT", height=height, width=width, channels=channels)


def plan(seed=0, classes=("a", "b"), model=FAMILIES[0]):
    return Plan(
        plan=Identity(name="small", purpose="a test"),
        input=image(),
        task=ClassificationSpec(kind="classification", classes=classes),
        model=model,
        training=TrainingSpec(rounds=1, local_steps=1, batch=1, learning_rate=0.1, seed=seed),
        privacy=PrivacySpec(unit="none"),
        aggregation=AggregationSpec(),
    )


@pytest.mark.parametrize("spec", FAMILIES)
@pytest.mark.parametrize(("height", "width", "channels", "outputs"), [(8, 8, 1, 1), (17, 33, 3, 5), (64, 40, 1, 2)])
def test_any_image_gives_one_logit_for_each_output(spec, height, width, channels, outputs):
    model = build(spec, image(height, width, channels), outputs)
    assert model(torch.zeros(3, channels, height, width)).shape == (3, outputs)


@pytest.mark.parametrize("spec", FAMILIES)
def test_no_image_looks_at_another(spec):
    model = build(spec, image(), 2).double().eval()
    x = torch.randn(4, 1, 16, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    together, alone = model(x), torch.cat([model(one) for one in x.split(1)])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("spec", FAMILIES)
def test_the_order_in_memory_does_not_change_what_a_model_says(spec):
    model = build(spec, image(channels=3), 2).double().eval()
    x = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(model(x), model(x.to(memory_format=torch.channels_last)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("spec", FAMILIES)
def test_every_weight_takes_part_and_nothing_is_buffered(spec):
    model = build(spec, image(), 2).eval()
    x = torch.randn(4, 1, 16, 24, generator=torch.Generator().manual_seed(0))
    model(x)[:, 0].square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert not list(model.buffers())


def test_pooling_before_the_relu_is_the_textbook_network_bit_for_bit():
    def textbook(model, x):
        for convolution, norm in zip(model.convolutions, model.norms, strict=True):
            x = functional.max_pool2d(functional.relu(norm(convolution(x))), 2)
        return model.head(functional.relu(model.hidden(x.flatten(1))))

    model = build(FAMILIES[0], image(), 1)
    x = torch.randn(4, 1, 16, 24, generator=torch.Generator().manual_seed(0))
    ours = torch.autograd.grad(model(x).sum(), list(model.parameters()))
    theirs = torch.autograd.grad(textbook(model, x).sum(), list(model.parameters()))
    assert torch.equal(model(x), textbook(model, x))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


LEAKY = {
    "BatchNorm1d": lambda: nn.BatchNorm1d(4),
    "BatchNorm2d": lambda: nn.BatchNorm2d(4),
    "BatchNorm3d": lambda: nn.BatchNorm3d(4),
    "BatchNorm2d without weights": lambda: nn.BatchNorm2d(4, affine=False),
    "BatchNorm2d that remembers nothing": lambda: nn.BatchNorm2d(4, track_running_stats=False),
    "LazyBatchNorm2d": nn.LazyBatchNorm2d,
    "SyncBatchNorm": lambda: nn.SyncBatchNorm(4),
    "InstanceNorm2d that remembers": lambda: nn.InstanceNorm2d(4, track_running_stats=True),
}
OVERLOOKED_BY_OPACUS = {"BatchNorm2d without weights", "LazyBatchNorm2d", "InstanceNorm2d that remembers"}
FIT = {
    "GroupNorm": lambda: nn.GroupNorm(2, 4),
    "LayerNorm": lambda: nn.LayerNorm(4),
    "InstanceNorm2d": lambda: nn.InstanceNorm2d(4, affine=True),
}


def with_a_layer(layer):
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential(nn.ReLU(), layer()))


@pytest.mark.parametrize("name", LEAKY)
def test_a_layer_that_mixes_or_remembers_patients_is_refused_by_name(name):
    """The cross-check: what Opacus refuses, we refuse; it looks at trainable layers alone, so it overlooks some that we do not."""
    model = with_a_layer(LEAKY[name])
    with pytest.raises(ModelLayout, match=rf"layer '1\.1' \({name.partition(' ')[0]}\)") as caught:
        layout_of(model)
    assert caught.value.code == "E_MODEL_LAYOUT"
    for door in (read_weights, flatten):
        with pytest.raises(ModelLayout):
            door(model)
    assert bool(ModuleValidator.validate(model, strict=False)) is (name not in OVERLOOKED_BY_OPACUS)


@pytest.mark.parametrize("name", FIT)
def test_a_layer_that_looks_at_one_image_alone_is_taken(name):
    model = with_a_layer(FIT[name])
    assert len(layout_of(model).names) == 4
    assert not ModuleValidator.validate(model, strict=False)


def test_any_buffer_is_refused_whoever_keeps_it():
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].register_buffer("mean_of_patients", torch.zeros(2), persistent=False)
    with pytest.raises(ModelLayout, match=r"layer '0' \(Linear\) keeps the buffer 'mean_of_patients'"):
        layout_of(model)


@pytest.mark.parametrize("spec", FAMILIES)
def test_opacus_finds_nothing_to_refuse_in_our_models(spec):
    assert not ModuleValidator.validate(build(spec, image(), 2), strict=False)


def test_first_weights_come_from_the_seed_and_from_nothing_else():
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    torch.randn(3)
    torch_before = torch.get_rng_state()
    first = initial_weights(plan(seed=1))
    assert np.array_equal(first.values, initial_weights(plan(seed=1)).values)
    assert not np.array_equal(first.values, initial_weights(plan(seed=2)).values)
    assert not np.array_equal(first.values, initial_weights(plan(seed=1 + 2**32)).values)
    assert torch.equal(torch_before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])


@pytest.mark.parametrize("spec", FAMILIES)
def test_first_weights_are_distributed_as_in_pytorch(spec):
    for module in build(spec, image(), 2).modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = 1 / math.sqrt(module.weight[0].numel())
            assert module.weight.abs().max() <= bound
            if module.weight.numel() > 1000:
                assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
        if isinstance(module, nn.GroupNorm):
            assert module.weight.unique().tolist() == [1.0]
            assert module.bias.unique().tolist() == [0.0]


@pytest.mark.parametrize("spec", FAMILIES)
@pytest.mark.parametrize("classes", [("a", "b"), ("a", "b", "c")])
def test_a_plans_layout_is_its_models_layout(spec, classes):
    agreed = plan(classes=classes, model=spec)
    assert layout_of_plan(agreed) == initial_weights(agreed).layout
    assert layout_of_plan(agreed).size == initial_weights(agreed).values.size


@pytest.mark.parametrize("spec", FAMILIES)
def test_weights_come_back_as_they_went_in(spec):
    model = build(spec, image(), 2)
    layout = layout_of(model)
    weights = Weights(layout=layout, values=np.arange(layout.size, dtype=np.float32))
    write_weights(model, weights)
    assert np.array_equal(read_weights(model).values, weights.values)
    first = next(model.parameters())
    assert first.detach().flatten().tolist() == list(range(first.numel()))


def test_the_flat_order_is_canonical_even_in_channels_last_memory():
    model = build(FAMILIES[0], image(channels=3), 2)
    before = read_weights(model).values
    model.to(memory_format=torch.channels_last)
    assert np.array_equal(read_weights(model).values, before)
    write_weights(model, Weights(layout=layout_of(model), values=before))
    assert np.array_equal(read_weights(model).values, before)


def test_what_was_read_does_not_change_when_the_model_trains():
    model = flatten(build(FAMILIES[0], image(), 1))
    weights = read_weights(model.module)
    before = weights.values.copy()
    model.values.add_(1.0)
    assert np.array_equal(weights.values, before)


@pytest.mark.parametrize("spec", FAMILIES)
def test_a_flat_model_is_the_same_model(spec):
    model, x = build(spec, image(), 2).eval(), torch.ones(2, 1, 16, 24)
    said, slopes = model(x).detach(), torch.autograd.grad(model(x).sum(), list(model.parameters()))
    flat = flatten(model)
    assert torch.equal(flat.module(x), said)
    flat.module(x).sum().backward()
    torch.testing.assert_close(flat.gradient, torch.cat([slope.flatten() for slope in slopes]))
    flat.values.zero_()
    assert not flat.module(x).any()


def test_another_models_weights_are_refused():
    flat = flatten(build(FAMILIES[0], image(), 1))
    other = read_weights(build(FAMILIES[1], image(), 1))
    with pytest.raises(ModelLayout, match="another layout"):
        load(flat, other)
    with pytest.raises(ModelLayout, match="another layout"):
        write_weights(flat.module, other)


def test_odd_batches_through_a_narrow_shortcut_write_into_nobodys_memory():
    """A process of its own, since it dies if they do: sharp-edges.md, oneDNN and 1 x 1 convolutions with a stride."""
    steps = (
        "import torch; torch.set_num_threads(2)\n"
        "from common.models import build\n"
        "from common.plan import InputSpec, ResNetSpec\n"
        "model = build(ResNetSpec(family='resnet', widths=(8, 16)), InputSpec(modality='any', height=16, width=16), 1)\n"
        "for _ in range(100):\n"
        "    model(torch.randn(3, 1, 16, 16).to(memory_format=torch.channels_last)).sum().backward()\n"
    )
    assert subprocess.run([sys.executable, "-c", steps], check=False).returncode == 0


def test_every_other_row_and_column_under_one_by_one_is_that_convolution_with_a_stride():
    x, convolution = torch.randn(2, 4, 9, 6), nn.Conv2d(4, 3, 1, bias=False)
    torch.testing.assert_close(convolution(every(2, x)), functional.conv2d(x, convolution.weight, stride=2))
