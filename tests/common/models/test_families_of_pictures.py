# SPDX-License-Identifier: Apache-2.0
"""Families that answer for each pixel, each cell or each image: shapes, whose gradients are whose, and nobody looks at another."""

import numpy as np
import pytest
import torch

from client.training.by_unit import UnitHooks
from common.errors import PlanConflict
from common.models import build, flatten, layout_of
from common.models.fcn import Fcn
from common.plan import CentreSpec, FcnSpec, InputSpec, SrcnnSpec, UNetSpec, parse

K = 5
FAMILIES = {
    "fcn of images": FcnSpec(family="fcn", answer="image", widths=(4, 8, 8)),
    "fcn of images, pooling": FcnSpec(family="fcn", answer="image", widths=(4, 8, 8), pooling=True),
    "fcn of pixels": FcnSpec(family="fcn", answer="pixel", widths=(4, 8)),
    "fcn of pixels, pooling": FcnSpec(family="fcn", answer="pixel", widths=(4, 8, 8), pooling=True),
    "unet": UNetSpec(family="unet", widths=(4, 8, 8)),
    "centre, 2": CentreSpec(family="centre", widths=(4, 8), hidden=6, stride=2),
    "centre, 4": CentreSpec(family="centre", widths=(4, 8, 8), hidden=6, stride=4),
    "centre, 8": CentreSpec(family="centre", widths=(4, 8, 8), hidden=6, stride=8),
}
SRCNNS = {
    "srcnn": SrcnnSpec(family="srcnn", widths=(6, 4), kernels=(5, 1, 3)),
    "srcnn, residual": SrcnnSpec(family="srcnn", widths=(6, 4), kernels=(5, 1, 3), residual=True),
}


def image(height: int = 20, width: int = 12, channels: int = 1, sequence: int = 1) -> InputSpec:
    return InputSpec(modality="any", height=height, width=width, channels=channels, sequence=sequence)


def noise(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=shape))


def answer_of(name: str, height: int, width: int) -> tuple[int, ...]:
    if "images" in name:
        return (K,)
    if "centre" in name:
        stride = int(name[-1])
        return (K, -(-height // stride), -(-width // stride))
    return (K, height, width)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("height", "width", "channels"), [(16, 16, 1), (17, 33, 3), (40, 20, 1)])
def test_any_image_has_an_answer_of_the_size_that_is_asked_for(name: str, height: int, width: int, channels: int) -> None:
    model = build(FAMILIES[name], image(height, width, channels), K)
    assert model(torch.zeros(2, channels, height, width)).shape == (2, *answer_of(name, height, width))


@pytest.mark.parametrize("name", FAMILIES)
def test_neighbouring_slices_are_seen_together(name: str) -> None:
    model = build(FAMILIES[name], image(sequence=3), K).double().eval()
    x = noise(2, 3, 1, 20, 12)
    said = model(x)
    assert said.shape == (2, *answer_of(name, 20, 12))
    x[:, 2] += 1  # a slice beside the one that is asked about
    assert not torch.allclose(model(x), said)


@pytest.mark.parametrize("spec", [*FAMILIES.values(), *SRCNNS.values()], ids=[*FAMILIES, *SRCNNS])
def test_no_image_looks_at_another(spec: FcnSpec | CentreSpec | SrcnnSpec | UNetSpec) -> None:
    model, x = build(spec, image(), 1).double().eval(), noise(3, 1, 20, 12)
    torch.testing.assert_close(model(x), torch.cat([model(one) for one in x.split(1)]), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("spec", [*FAMILIES.values(), *SRCNNS.values()], ids=[*FAMILIES, *SRCNNS])
@pytest.mark.parametrize("units", [2, 4])
def test_gradients_by_unit_are_those_of_one_backward_pass_for_each(spec: FcnSpec | CentreSpec | SrcnnSpec | UNetSpec, units: int) -> None:
    model, x = build(spec, image(), 1).double(), noise(4, 1, 20, 12)
    parameters, k = list(model.parameters()), 4 // units
    weights = noise(4)

    def losses(rows: slice) -> torch.Tensor:
        return model(x[rows]).flatten(1).square().sum(dim=1) * weights[rows]

    alone = [torch.autograd.grad(losses(slice(i, i + k)).sum(), parameters) for i in range(0, 4, k)]
    together = UnitHooks(model).gradients(lambda: losses(slice(0, 4)), units)
    for ours, *theirs in zip(together, *alone, strict=True):
        torch.testing.assert_close(ours.whole(), torch.stack(theirs), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("spec", [*FAMILIES.values(), *SRCNNS.values()], ids=[*FAMILIES, *SRCNNS])
def test_weights_are_one_vector_and_nothing_is_remembered(spec: FcnSpec | CentreSpec | SrcnnSpec | UNetSpec) -> None:
    model = build(spec, image(), 1)
    assert layout_of(model).size == sum(parameter.numel() for parameter in model.parameters()) == flatten(model).values.numel()
    assert not list(model.buffers())


def test_a_network_of_convolutions_takes_a_whole_slide_with_the_weights_of_patches() -> None:
    model = build(FAMILIES["fcn of images, pooling"], image(16, 16), 2).double().eval()
    assert isinstance(model, Fcn)
    slide = noise(1, 1, 64, 48)
    assert model(slide).shape == (1, 2)
    torch.testing.assert_close(model(slide), model.votes(slide).mean(dim=(2, 3)))
    assert model.votes(slide).shape == (1, 2, 16, 12)


def test_dilated_convolutions_see_as_far_as_pooled_ones_and_keep_every_pixel() -> None:
    """What changes when one pixel does: 1 + 2 (1 + 2 + 4) wide after three convolutions."""
    spec = FcnSpec(family="fcn", answer="pixel", widths=(4, 4, 4))
    model = build(spec, image(40, 40), 1).double().eval()
    for norm in model.norms:
        norm.forward = lambda x: x  # a norm looks at the whole image
    before = torch.zeros(1, 1, 40, 40, dtype=torch.float64)
    after = before.clone()
    after[..., 20, 20] = 3
    changed = (model(after) != model(before))[0, 0].nonzero()
    assert changed.min(dim=0).values.tolist() == [13, 13]
    assert changed.max(dim=0).values.tolist() == [27, 27]


def test_a_residual_network_without_weights_gives_the_image_back() -> None:
    flat, x = flatten(build(SRCNNS["srcnn, residual"], image(), 1)), torch.rand(2, 1, 20, 12)
    flat.values.zero_()
    assert torch.equal(flat.module(x), x)


SHELL = """\
[plan]
name = "pictures"
purpose = "a test"
[input]
modality = "any"
height = 32
width = 32
{input}
[task]
{task}
[model]
{model}
[training]
rounds = 1
local_steps = 1
batch = 1
learning_rate = 0.1
[privacy]
unit = "none"
[aggregation]
"""
SEGMENTATION = 'kind = "segmentation"\nclasses = ["a", "b"]'
DETECTION = 'kind = "detection"\nclasses = ["a"]'
RESTORATION = 'kind = "restoration"\ndegradation = "noise"\nstrength = 0.1'
CLASSIFICATION = 'kind = "classification"\nclasses = ["a", "b"]'
REFUSED = {
    "pixels for a class of the image": ("", CLASSIFICATION, 'family = "fcn"\nanswer = "pixel"', "answer at each pixel"),
    "one class for areas": ("", SEGMENTATION, 'family = "fcn"\nanswer = "image"', "answer at each pixel"),
    "boxes from a classifier": ("", DETECTION, 'family = "cnn"', "does not answer in the way"),
    "areas from a detector": ("", SEGMENTATION, 'family = "centre"', "does not answer in the way"),
    "an image added to classes": ("", SEGMENTATION, 'family = "unet"\nresidual = true', "restoration only"),
    "a map coarser than the last stage": ("", DETECTION, 'family = "centre"\nwidths = [4]\nstride = 4', "coarser than the last stage"),
    "an even kernel": ("", RESTORATION, 'family = "srcnn"\nwidths = [4]\nkernels = [4, 3]', "odd side"),
    "a kernel too few": ("", RESTORATION, 'family = "srcnn"\nwidths = [4, 4]\nkernels = [3, 3]', "odd side"),
    "nobody in the middle": ("sequence = 4", SEGMENTATION, 'family = "unet"\nwidths = [4, 4]', "in the middle"),
    "several images restored": ("sequence = 3", RESTORATION, 'family = "unet"\nwidths = [4, 4]', "restored by itself"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused(name: str) -> None:
    given, task, model, why = REFUSED[name]
    with pytest.raises(PlanConflict, match=why):
        parse(SHELL.format(input=given, task=task, model=model))
