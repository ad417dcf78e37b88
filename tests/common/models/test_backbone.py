# SPDX-License-Identifier: Apache-2.0
"""Networks that were trained elsewhere: torchvision's features, frozen stages that never travel, and files that are the right ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch.nn import functional

from common.errors import DataNotFound, ModelHash, ModelLayout
from common.models import build, flatten, initial_weights, layout_of, layout_of_plan, pretrained
from common.models.conversion import from_torchvision
from common.plan import AggregationSpec, ClassificationSpec, Identity, InputSpec, Plan, PrivacySpec, TrainingSpec
from tests.common.models.pretrained_files import made_backbone, torchvision_features, torchvision_weights


@pytest.fixture
def weights(tmp_path):
    pretrained.look_in(tmp_path)
    pretrained.tensors_of.cache_clear()
    return tmp_path


def image(channels=3):
    return InputSpec(modality="any", height=16, width=24, channels=channels)


def plan(model):
    return Plan(
        plan=Identity(name="small", purpose="a test"),
        input=image(),
        task=ClassificationSpec(kind="classification", classes=("a", "b")),
        model=model,
        training=TrainingSpec(rounds=1, local_steps=1, batch=1, learning_rate=0.1),
        privacy=PrivacySpec(unit="none"),
        aggregation=AggregationSpec(),
    )


def features(model, x):
    """What reaches the head."""
    seen = []
    model.head.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    model(x)
    return seen[0]


@pytest.mark.parametrize(("architecture", "group"), [("resnet18", False), ("resnet50", False), ("resnet50", True)])
def test_features_are_those_of_torchvisions_network(weights, architecture, group):
    spec = made_backbone(weights, architecture, group=group, trained_stages=1)
    x = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    ours = features(build(spec, image(), 1).eval(), x)
    theirs = torchvision_features(torchvision_weights(architecture, group=group), architecture, x)
    torch.testing.assert_close(ours, functional.layer_norm(theirs, theirs.shape[1:]), rtol=1e-3, atol=1e-3)


def test_a_grey_image_is_one_of_three_equal_channels(weights):
    spec = made_backbone(weights)
    x = torch.randn(2, 1, 16, 24, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(build(spec, image(1), 1)(x), build(spec, image(3), 1)(x.expand(-1, 3, -1, -1)))


def test_a_first_convolution_for_grey_images_gives_the_same_map():
    found = torchvision_weights("resnet18")
    found["conv1.weight"] = found["conv1.weight"][:, :1]
    spread = from_torchvision(found).tensors["stem.convolution.0.weight"]
    assert spread.shape[1] == 3
    np.testing.assert_allclose(
        spread.sum(axis=1),
        (found["conv1.weight"][:, 0].T * (found["bn1.weight"] / np.sqrt(found["bn1.running_var"] + 1e-5))).T,
        rtol=1e-5,
    )


def test_only_what_learns_travels(weights):
    frozen, partly = made_backbone(weights), made_backbone(weights, trained_stages=1)
    assert layout_of_plan(plan(frozen)).names == ("head.weight", "head.bias")
    assert layout_of_plan(plan(frozen)).size == 65
    names = layout_of_plan(plan(partly)).names
    assert {name.split(".")[1] for name in names if name.startswith("stages")} == {"stage_4"}
    model = build(partly, image(), 1)
    assert not list(model.buffers())
    assert layout_of(model) == layout_of_plan(plan(partly))


def test_frozen_stages_get_no_gradient_and_do_not_move(weights):
    model = build(made_backbone(weights, trained_stages=1), image(), 1)
    flat = flatten(model)
    x = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    before = [parameter.clone() for part in model._frozen for parameter in part.parameters()]
    model(x).square().sum().backward()
    assert flat.gradient.abs().sum() > 0
    flat.values.add_(flat.gradient)
    after = [parameter for part in model._frozen for parameter in part.parameters()]
    assert all(torch.equal(a, b) and b.grad is None and not b.requires_grad for a, b in zip(before, after, strict=True))


def test_stages_that_learn_start_from_the_file(weights):
    spec = made_backbone(weights, trained_stages=1)
    started = initial_weights(plan(spec))
    stored = load_file(weights / spec.weights)["stage_4.0.convolutions.0.0.weight"]
    size, first = stored.size, started.layout.names[0]
    assert first == "stages.stage_4.0.convolutions.0.0.weight"
    np.testing.assert_array_equal(started.values[:size], stored.reshape(-1))


@pytest.mark.parametrize("stages", [0, 1])
def test_no_image_looks_at_another(weights, stages):
    model = build(made_backbone(weights, trained_stages=stages), image(), 2).eval()
    x = torch.randn(4, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(x), torch.cat([model(one) for one in x.split(1)]), rtol=1e-4, atol=1e-5)


def test_without_the_file_nothing_is_built_and_the_layout_is_known(tmp_path):
    spec = replace(made_backbone(tmp_path), weights="another-name.safetensors")
    assert layout_of_plan(plan(spec)).size == 65
    with pytest.raises(DataNotFound, match=r"another-name\.safetensors") as refused:
        build(spec, image(), 1)
    assert "weights" in refused.value.fix


def test_another_file_under_the_same_name_is_refused_by_name(weights):
    spec = made_backbone(weights, seed=5)
    save_file(from_torchvision(torchvision_weights("resnet18", seed=1)).tensors, weights / spec.weights)
    with pytest.raises(ModelHash, match=r"resnet18-frozen-5\.safetensors"):
        build(spec, image(), 1)


def test_the_right_file_is_found_behind_a_wrong_one(weights, tmp_path):
    spec = made_backbone(weights)
    other = tmp_path / "other"
    other.mkdir()
    (other / spec.weights).write_bytes(b"something else")
    pretrained.look_in(other)
    assert pretrained.find(spec) == weights / spec.weights


@pytest.mark.parametrize(("change", "said"), [({"architecture": "resnet50"}, "do not match"), ({"width": 16}, "has shape")])
def test_a_file_of_another_network_is_refused(weights, change, said):
    with pytest.raises(ModelLayout, match=said):
        build(replace(made_backbone(weights), **change), image(), 1)


def test_a_file_that_is_none_is_refused(weights):
    import hashlib

    (weights / "broken.safetensors").write_bytes(b"not safetensors")
    spec = replace(made_backbone(weights), weights="broken.safetensors", weights_digest=hashlib.sha256(b"not safetensors").hexdigest())
    with pytest.raises(ModelLayout, match="no safetensors"):
        build(spec, image(), 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found.pop("conv1.weight"),
        lambda found: found.pop("layer2.0.bn1.weight"),
        lambda found: found.update({"layer5.0.conv1.weight": found["conv1.weight"]}),
        lambda found: found.update({"bn1.running_var": np.ones(5, dtype=np.float32)}),
    ],
)
def test_what_is_no_resnet_is_not_converted(change):
    found = torchvision_weights("resnet18")
    change(found)
    with pytest.raises(ModelLayout, match="not a ResNet"):
        from_torchvision(found)


def test_a_pass_in_half_the_bits_leaves_the_frozen_stages_as_they_were(weights):
    model = build(made_backbone(weights), image(), 1).eval()
    x = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            model(x)
        assert torch.equal(model(x), before)
