# SPDX-License-Identifier: Apache-2.0
"""Families that take more than one image, or none: no case looks at another, what is missing has no say, gradients are by patient."""

import pytest
import torch
from opacus.validators import ModuleValidator

from client.training.by_unit import UnitHooks
from common.models import build, layout_of
from common.models.encoder import grid, places, without
from common.models.fusion import Fusion
from common.plan import FusionSpec, InputSpec, MlpSpec, RecordField, SecondImage, SequenceSpec, TextNetSpec, TextSpec

CASES = 6
RECORD = (RecordField(column="age", mean=60.0, std=10.0), RecordField(column="sex", values=("f", "m")))
TEXT = TextSpec(buckets=32, length=7)
IMAGE = InputSpec(modality="MR", height=8, width=12, channels=1)
SERIES = InputSpec(modality="MR", height=8, width=12, channels=3, sequence=4)
EVERYTHING = InputSpec(modality="CT", height=8, width=12, second=SecondImage(modality="MR"), record=RECORD, text=TEXT)
SMALL = {"widths": (5, 8), "features": 6}
FAMILIES = {
    "gru": (SequenceSpec(family="sequence", how="gru", **SMALL), SERIES),
    "self-attention": (SequenceSpec(family="sequence", how="attention", dropout=0.2, **SMALL), SERIES),
    "mil": (SequenceSpec(family="sequence", how="mil", **SMALL), SERIES),
    "mlp": (MlpSpec(family="mlp", widths=(9, 4), dropout=0.2), InputSpec(modality="none", record=RECORD)),
    "text": (TextNetSpec(family="text", features=5, hidden=4), InputSpec(modality="none", text=TEXT)),
    "late": (FusionSpec(family="fusion", how="late", hidden=9, **SMALL), EVERYTHING),
    "cross-attention": (FusionSpec(family="fusion", how="cross-attention", hidden=9, dropout=0.2, **SMALL), EVERYTHING),
    "image with record": (FusionSpec(family="fusion", how="late", **SMALL), InputSpec(modality="CT", height=8, width=12, record=RECORD)),
    "image with image": (
        FusionSpec(family="fusion", how="cross-attention", **SMALL),
        InputSpec(modality="CT", height=8, width=12, second=SecondImage(modality="any")),
    ),
}


def given(image, cases=CASES, seed=0):
    """What a model of this input is called with, as `client.training.batches.inputs` orders it; some cases lack what they may lack."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    found, size = [], (image.channels, image.height, image.width)
    if image.has_image:
        found.append(normal(cases, *((image.sequence,) if image.sequence > 1 else ()), *size))
    if image.second is not None:
        found += [normal(cases, *size), (torch.arange(cases) % 3 > 0).double().unsqueeze(1)]
    if image.record:
        found.append(normal(cases, image.record_width))
    if image.text is not None:
        tokens = torch.randint(1, 1 + image.text.buckets, (cases, image.text.length), generator=generator)
        found.append(tokens * (torch.arange(image.text.length) < torch.arange(cases).unsqueeze(1)))
    return found


@pytest.fixture(params=FAMILIES)
def family(request):
    spec, image = FAMILIES[request.param]
    return build(spec, image, 3).double().eval(), image


def test_any_case_gives_one_value_for_each_output(family):
    model, image = family
    assert model(*given(image)).shape == (CASES, 3)
    assert model(*given(image, cases=0)).shape == (0, 3)


def test_no_case_looks_at_another(family):
    model, image = family
    inputs = given(image)
    alone = torch.cat([model(*(each[case : case + 1] for each in inputs)) for case in range(CASES)])
    torch.testing.assert_close(model(*inputs), alone, rtol=1e-12, atol=1e-12)


def test_nothing_is_remembered_and_opacus_has_nothing_against_it(family):
    model, _ = family
    assert layout_of(model).size == sum(each.numel() for each in model.parameters())
    assert not ModuleValidator.validate(model.train(), strict=False)


@pytest.mark.parametrize("units", [2, CASES])
def test_gradients_by_unit_are_those_of_one_backward_pass_for_each(family, units):
    model, image = family
    inputs, each = given(image), CASES // units
    weights = torch.linspace(-1, 2, CASES, dtype=torch.float64)

    def losses(rows):
        return model(*(one[rows] for one in inputs)).sum(dim=1) * weights[rows]

    parameters = list(model.parameters())
    alone = [torch.autograd.grad(losses(slice(first, first + each)).sum(), parameters) for first in range(0, CASES, each)]
    together = UnitHooks(model).gradients(lambda: losses(slice(None)), units)
    for found, expected in zip(together, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(found.whole(), torch.stack(expected), rtol=1e-9, atol=1e-11)


def test_every_weight_is_learnt_by_somebody(family):
    model, image = family
    model(*given(image)).square().sum().backward()
    idle = {name for name, parameter in model.named_parameters() if not parameter.grad.any()}
    # A constant added to every score that a softmax sees changes nothing: the paper's keys have one.
    assert idle <= {"together.attention.key.bias", "attention.key.bias"}


@pytest.mark.parametrize("name", ["late", "cross-attention", "image with image"])
def test_the_pixels_of_an_image_that_is_not_there_have_no_say(name):
    spec, image = FAMILIES[name]
    model, inputs = build(spec, image, 2).double().eval(), given(image)
    present = inputs[2].squeeze(1).bool()
    other = [*inputs]
    other[1] = torch.where(present.view(-1, 1, 1, 1), inputs[1], torch.full_like(inputs[1], 7.0))
    assert torch.equal(model(*inputs), model(*other)), "absent: whatever stands there"
    other[1] = inputs[1] + 1
    changed = (model(*inputs) != model(*other)).any(dim=1)
    assert torch.equal(changed, present), "the control: images that are there do count"


@pytest.mark.parametrize("name", ["late", "cross-attention"])
def test_what_stands_for_a_missing_image_is_learnt_from_those_who_lack_it_alone(name):
    spec, image = FAMILIES[name]
    model, inputs = build(spec, image, 2).double().eval(), given(image)
    assert isinstance(model, Fusion)
    assert model.second is not None
    assert model.second.missing is not None
    for case in range(CASES):
        answer = model(*(each[case : case + 1] for each in inputs)).sum()
        (slope,) = torch.autograd.grad(answer, [model.second.missing.weight])
        assert bool(slope.any()) is (not inputs[2][case])


def test_a_gru_sees_the_order_and_multiple_instances_have_none():
    x = given(SERIES)[0]
    for name, ordered in (("gru", True), ("self-attention", True), ("mil", False)):
        model = build(FAMILIES[name][0], SERIES, 1).double().eval()
        same = torch.allclose(model(x), model(x.flip(1)), rtol=1e-12, atol=1e-12)
        assert same is not ordered, name


def test_a_gru_of_dense_layers_is_pytorchs_gru():
    model = build(FAMILIES["gru"][0], SERIES, 1).double()
    theirs = torch.nn.GRU(6, 6, batch_first=True).double()
    theirs.weight_ih_l0, theirs.bias_ih_l0 = model.together.of_image.weight, model.together.of_image.bias
    theirs.weight_hh_l0, theirs.bias_hh_l0 = model.together.of_state.weight, model.together.of_state.bias
    x = torch.randn(3, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.together(x), theirs(x)[1][0], rtol=1e-12, atol=1e-12)


def test_attention_is_pytorchs_attention():
    model = build(*FAMILIES["cross-attention"], 1).double()
    x, y = (torch.randn(2, n, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) for n in (3, 5))
    visible = torch.rand(3, 5, generator=torch.Generator().manual_seed(0)) > 0.4
    ours = model.attention
    expected = torch.nn.functional.scaled_dot_product_attention(ours.query(x), ours.key(y), ours.value(y), attn_mask=visible)
    torch.testing.assert_close(ours(x, y, visible)[0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["self-attention", "mil"])
def test_what_an_answer_rested_on_can_be_read(name):
    model, x = build(FAMILIES[name][0], SERIES, 1).double().eval(), given(SERIES)[0]
    weights = model.weights_of(x)
    assert weights.shape == (CASES, SERIES.sequence)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(CASES, dtype=torch.float64))
    assert weights.std(dim=1).min() > 0


def test_a_gru_does_not_say_what_it_rested_on():
    assert build(FAMILIES["gru"][0], SERIES, 1).weights_of(torch.zeros(1, 4, 3, 8, 12)) is None


def test_padding_is_no_word_and_a_text_without_words_has_a_vector_of_its_own():
    model = build(*FAMILIES["text"], 1).double().eval()
    reader = model.reader
    padded = torch.tensor([[3, 9, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0]])
    torch.testing.assert_close(reader(padded)[0], reader(padded[:1, :2])[0])
    torch.testing.assert_close(reader(padded)[1], reader.table.weight[0])
    assert reader.weights(padded)[0, 2:].eq(0).all()


def test_hidden_places_weigh_nothing_and_none_left_is_no_nan():
    scores = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    weights = torch.softmax(without(scores, torch.tensor([[False, True, False], [True, True, True]])), dim=1)
    assert weights[0, 1] == 0
    torch.testing.assert_close(weights[1], torch.full((3,), 1 / 3))


@pytest.mark.parametrize("features", [1, 5, 8])
def test_places_in_an_order_are_told_apart(features):
    found = places(6, features)
    assert found.shape == (6, features)
    assert torch.pdist(found).min() > 0.01


def test_places_on_a_map_are_told_apart_and_rows_from_columns():
    found = grid(4, 3, 8).view(4, 3, 8)
    assert torch.pdist(found.flatten(0, 1)).min() > 0.01
    assert (found[:, 0, :4] == found[:, 2, :4]).all()
    assert (found[0, :, 4:] == found[3, :, 4:]).all()
