# SPDX-License-Identifier: Apache-2.0
"""A plan's family and its input fit each other, or the plan is refused."""

import pytest

from common.errors import PlanConflict, PlanValue
from common.plan import parse, to_toml

SHELL = """\
[plan]
name = "sources"
purpose = "a test"
[input]
{input}
[task]
kind = "{task}"
classes = ["no", "yes"]
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
IMAGE = 'modality = "any"\nheight = 16\nwidth = 16'
NO_IMAGE = 'modality = "none"'
SECOND = '\nsecond = { modality = "MR" }'
RECORD = '\n[[input.record]]\ncolumn = "age"\nmean = 60.0\nstd = 10.0'
TEXT = "\n[input.text]\nbuckets = 64"
SEQUENCE = "\nsequence = 4"
GRU = 'family = "sequence"\nhow = "gru"'
FUSION = 'family = "fusion"\nhow = "late"'
MLP, TEXTS, CNN = 'family = "mlp"', 'family = "text"', 'family = "cnn"'


def text(given, model, task="classification"):
    return SHELL.format(input=given, model=model, task=task)


FIT = {
    "a sequence": (IMAGE + SEQUENCE, GRU),
    "a record": (NO_IMAGE + RECORD, MLP),
    "a text": (NO_IMAGE + TEXT, TEXTS),
    "two images": (IMAGE + SECOND, FUSION),
    "an image with a record": (IMAGE + RECORD, FUSION),
    "everything": (IMAGE + SECOND + RECORD + TEXT, FUSION),
}
UNFIT = {
    "a sequence of one": (IMAGE, GRU, "needs more"),
    "a sequence of nothing": (NO_IMAGE + SEQUENCE + RECORD, GRU, "does not take all"),
    "a record for a text": (NO_IMAGE + RECORD, TEXTS, "does not take all"),
    "an image left over": (IMAGE + RECORD, MLP, "does not take all"),
    "a text left over": (NO_IMAGE + RECORD + TEXT, MLP, "does not take all"),
    "nothing to fuse": (IMAGE, FUSION, "needs more"),
    "no image to fuse": (NO_IMAGE + RECORD + TEXT, FUSION, "needs more"),
    "a sequence to fuse": (IMAGE + SEQUENCE + RECORD, FUSION, "does not take all"),
    "a record for a cnn": (IMAGE + RECORD, CNN, "does not take all"),
    "a second image without a first": (NO_IMAGE + SECOND + RECORD, FUSION, "no first one"),
    "nothing at all": (NO_IMAGE, MLP, "no text to learn from"),
    "a cnn without an image": (NO_IMAGE + RECORD, CNN, "does not take all"),
    "a size without an image": ('modality = "none"\nheight = 16\nwidth = 16' + RECORD, MLP, "at least 8 pixels"),
    "halved away": ('modality = "any"\nheight = 8\nwidth = 8\nsequence = 3', GRU + "\nwidths = [4, 4, 4, 4]", "halved away"),
}


@pytest.mark.parametrize("task", ["classification", "multi-label"])
@pytest.mark.parametrize("name", FIT)
def test_a_family_takes_what_it_is_for_and_the_plan_reads_back(name, task):
    plan = parse(text(*FIT[name], task))
    assert parse(to_toml(plan)) == plan


@pytest.mark.parametrize("name", UNFIT)
def test_what_a_family_cannot_take_or_do_without_is_refused(name):
    given, model, says = UNFIT[name]
    with pytest.raises(PlanConflict, match=says):
        parse(text(given, model))


def test_these_families_answer_for_a_case_and_not_for_a_pixel():
    with pytest.raises(PlanConflict, match="does not answer"):
        parse(text(IMAGE + SEQUENCE, GRU, "segmentation"))


def test_how_images_come_together_has_to_be_said():
    with pytest.raises(PlanValue, match="how"):
        parse(text(IMAGE + SEQUENCE, 'family = "sequence"'))
