# SPDX-License-Identifier: Apache-2.0
"""A plan says what it says, or is refused with the line and the fix."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DataNotFound, PlanConflict, PlanError, PlanSyntax, PlanUnknownKey, PlanValue
from common.plan import Plan, digest_of, load, parse, to_toml

GOOD = """\
[plan]
name = "chest"
purpose = "find nodules"
[input]
modality = "CT"
height = 64
width = 64
channels = 1
window = { centre = -600, width = 1500 }
[task]
kind = "classification"
classes = ["normal", "nodule"]
threshold = 0.5
[model]
family = "cnn"
widths = [8, 16, 32]
hidden = 32
norm = "group"
dropout = 0.1
[training]
rounds = 3
local_steps = 2
batch = 4
learning_rate = 0.1
[privacy]
unit = "record"
epsilon = 8
delta = 1e-5
clip_norm = 1
[aggregation]
minimum_cohort = 3
"""

# (name, replace this, by that, error, a piece of the message, the line it must name)
MALFORMED = [
    ("open bracket", "[input]", "[input", PlanSyntax, "not valid TOML", None),
    ("the same key twice", "rounds = 3", "rounds = 3\nrounds = 4", PlanSyntax, "not valid TOML", None),
    ("a bare word", 'name = "chest"', "name = chest", PlanSyntax, "not valid TOML", None),
    ("misspelt section", "[task]", "[taks]", PlanUnknownKey, "Did you mean 'task'", 10),
    ("misspelt key", "rounds = 3", "round = 3", PlanUnknownKey, "Did you mean 'rounds'", 21),
    ("a key of another section", "hidden = 32", "hidden = 32\nepsilon = 8", PlanUnknownKey, "epsilon is not a key", 18),
    ("a key of another family", 'family = "cnn"', 'family = "cnn"\nblocks = 2', PlanUnknownKey, "blocks is not a key", 16),
    ("a key of the window", "width = 1500", "width = 1500, center = 3", PlanUnknownKey, "Did you mean 'centre'", 9),
    ("no name", 'name = "chest"\n', "", PlanValue, "name is missing", 1),
    ("no section", "[aggregation]\nminimum_cohort = 3\n", "", PlanValue, "[aggregation] is missing", None),
    ("no model family", 'family = "cnn"\n', "", PlanValue, "family is missing", 14),
    ("a name with blanks", '"chest"', '"my chest plan"', PlanValue, "name", 2),
    ("no purpose", '"find nodules"', '""', PlanValue, "purpose", 3),
    ("unknown modality", '"CT"', '"PET"', PlanValue, "modality", 5),
    ("height in quotes", "height = 64", 'height = "64"', PlanValue, "height: input should be a valid integer, found '64'", 6),
    ("a fraction of a pixel", "height = 64", "height = 64.5", PlanValue, "height", 6),
    ("no image at all", "height = 64", "height = 0", PlanConflict, "at least 8 pixels", 6),
    ("two channels", "channels = 1", "channels = 2", PlanValue, "channels", 8),
    ("a window of no width", "width = 1500", "width = 0", PlanValue, "window.width", 9),
    ("a task that nobody knows", '"classification"', '"cooking"', PlanValue, "kind", 11),
    ("another task's key", '"classification"', '"segmentation"', PlanUnknownKey, "it belongs to another kind", 13),
    ("one class", '["normal", "nodule"]', '["nodule"]', PlanValue, "classes", 12),
    ("a class twice", '["normal", "nodule"]', '["nodule", "nodule"]', PlanConflict, "named twice", 12),
    ("classes as text", '["normal", "nodule"]', '"nodule"', PlanValue, "classes", 12),
    ("a threshold of one", "threshold = 0.5", "threshold = 1.0", PlanValue, "threshold", 13),
    (
        "a threshold for three",
        '"nodule"]\nthreshold = 0.5',
        '"nodule", "mass"]\nthreshold = 0.4',
        PlanConflict,
        "more than two classes",
        13,
    ),
    ("tissue in a chest", "channels = 1", "channels = 1\ntissue = 0.3", PlanConflict, "tiles of whole slides", 9),
    ("frames of another kind", "channels = 1", 'channels = 1\nframes = "all"', PlanValue, "frames", 9),
    ("unknown family", '"cnn"', '"vgg"', PlanValue, "'cnn', 'resnet'", 15),
    ("widths of wavelets", '"cnn"', '"scattering"', PlanUnknownKey, "widths is not a key", 16),
    ("batch norm", 'norm = "group"', 'norm = "batch"', PlanValue, "norm", 18),
    ("dropping everything", "dropout = 0.1", "dropout = 1.0", PlanValue, "dropout", 19),
    ("no rounds", "rounds = 3", "rounds = 0", PlanValue, "rounds", 21),
    ("a learning rate of nan", "learning_rate = 0.1", "learning_rate = nan", PlanValue, "learning_rate", 24),
    ("a date for a number", "learning_rate = 0.1", "learning_rate = 2026-11-20", PlanValue, "learning_rate", 24),
    ("a falling learning rate", "learning_rate = 0.1", "learning_rate = -0.1", PlanValue, "learning_rate", 24),
    ("steps and epochs", "local_steps = 2", "local_steps = 2\nlocal_epochs = 1", PlanConflict, "exactly one", 22),
    ("neither steps nor epochs", "local_steps = 2\n", "", PlanConflict, "exactly one", 20),
    ("private epochs", "local_steps = 2", "local_epochs = 2", PlanConflict, "must not show", 22),
    (
        "momentum for adam",
        "learning_rate = 0.1",
        'learning_rate = 0.1\noptimiser = "adam"\nmomentum = 0.9',
        PlanConflict,
        "adam has its own",
        26,
    ),
    ("server momentum for fedavg", "rounds = 3", "rounds = 3\nserver_momentum = 0.9", PlanConflict, "belong to fedavgm", 22),
    ("an unknown unit", '"record"', '"hospital"', PlanValue, "unit", 26),
    ("no epsilon", "epsilon = 8\n", "", PlanConflict, "needs an epsilon", 25),
    ("no delta", "delta = 1e-5\n", "", PlanConflict, "needs a delta", 25),
    ("no clip norm", "clip_norm = 1\n", "", PlanConflict, "needs a clip_norm", 25),
    ("a clip norm at which nothing is clipped", "clip_norm = 1", "clip_norm = 1e-12", PlanValue, "clip_norm", 29),
    ("a delta that promises nothing", "delta = 1e-5", "delta = 0.1", PlanConflict, "next to nothing", 28),
    ("epsilon without privacy", '"record"', '"none"', PlanConflict, "nothing is private", 26),
    ("epsilon of zero", "epsilon = 8", "epsilon = 0", PlanValue, "epsilon", 27),
    ("endless epsilon", "epsilon = 8", "epsilon = inf", PlanValue, "epsilon", 27),
    ("fewer asked than needed", "minimum_cohort = 3", "minimum_cohort = 3\nsites_per_round = 2", PlanConflict, "fewer sites are asked", 32),
    ("groups below the cohort", "minimum_cohort = 3", "minimum_cohort = 5\nmax_group = 4", PlanConflict, "smaller than minimum_cohort", 32),
    ("a group of two", "minimum_cohort = 3", "minimum_cohort = 2\nmax_group = 2", PlanValue, "max_group", 32),
    ("bits that overflow", "minimum_cohort = 3", "max_group = 300\nbits = 24", PlanConflict, "could overflow", 32),
    ("bits too few to round by", "minimum_cohort = 3", "bits = 7", PlanValue, "bits", 31),
    ("several steps of one", "rounds = 3", 'rounds = 3\nstrategy = "fedsgd"', PlanConflict, "one global step", 22),
    ("shared noise over local steps", "clip_norm = 1", 'clip_norm = 1\nnoise = "distributed"', PlanConflict, "one global step", 30),
    ("minimum patients alone", "clip_norm = 1", "clip_norm = 1\nminimum_patients = 9", PlanConflict, "has no other meaning", 30),
    ("a quorum of local noise", "clip_norm = 1", "clip_norm = 1\nnoise_quorum = 3", PlanConflict, "not shared", 30),
    ("short words for a crowd", "minimum_cohort = 3", "word_bits = 16\nmax_group = 300", PlanConflict, "fewer than 8 bits", 31),
    ("a range of long words", "minimum_cohort = 3", "coordinate_range = 0.1", PlanConflict, "belongs to words of 16 bits", 31),
    ("a range beyond the norm", "minimum_cohort = 3", "word_bits = 16\ncoordinate_range = 11.0", PlanConflict, "wider", 32),
    ("a median of two groups", "minimum_cohort = 3", 'sites_per_round = 8\ncombine = "median"', PlanConflict, "three groups", 32),
    ("an unknown combination", "minimum_cohort = 3", 'combine = "krum"', PlanValue, "combine", 31),
    ("an empty cohort", "minimum_cohort = 3", "minimum_cohort = 0", PlanValue, "minimum_cohort", 31),
]


SHARED = (
    GOOD.replace("local_steps = 2", 'local_steps = 1\nstrategy = "fedsgd"')
    .replace('"record"', '"patient"')
    .replace("clip_norm = 1", 'clip_norm = 1\nnoise = "distributed"\nminimum_patients = 9')
)
MALFORMED_SHARED = [
    ("for no site", "minimum_patients = 9", "minimum_patients = 3", "less than the batch"),
    ("for any site", "minimum_patients = 9\n", "", "has no other meaning"),
    ("with nobody honest", "minimum_patients = 9", "minimum_patients = 9\ncolluders = 3", "nobody honest"),
    ("of a quorum beyond the group", "minimum_patients = 9", "minimum_patients = 9\nnoise_quorum = 65", "smaller than the noise quorum"),
    ("on a coarser lattice", "minimum_cohort = 3", "minimum_cohort = 3\nbits = 20", "own lattice"),
    ("in short words", "minimum_cohort = 3", "minimum_cohort = 3\nword_bits = 16", "do not fit"),
    ("after local steps", 'strategy = "fedsgd"', 'strategy = "fedavg"', "one global step"),
]


@pytest.mark.parametrize(("old", "new", "says"), [case[1:] for case in MALFORMED_SHARED], ids=[case[0] for case in MALFORMED_SHARED])
def test_shared_noise_is_refused(old: str, new: str, says: str) -> None:
    assert parse(SHARED).shares_noise
    with pytest.raises(PlanConflict, match=says):
        parse(SHARED.replace(old, new, 1))


@pytest.mark.parametrize(("old", "new", "error", "says", "line"), [case[1:] for case in MALFORMED], ids=[case[0] for case in MALFORMED])
def test_a_malformed_plan_is_refused_by_name(old: str, new: str, error: type[PlanError], says: str, line: int | None) -> None:
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    with pytest.raises(error) as refusal:
        parse(text, name="chest.toml")
    assert type(refusal.value) is error
    assert says in str(refusal.value)
    assert str(refusal.value).startswith("chest.toml")
    assert refusal.value.fix
    if line is not None:
        assert f"line {line}:" in str(refusal.value)


def test_an_image_that_scattering_averages_away_is_refused() -> None:
    text = GOOD.replace(
        'family = "cnn"\nwidths = [8, 16, 32]\nhidden = 32\nnorm = "group"\ndropout = 0.1', 'family = "scattering"\nscales = 5'
    )
    assert parse(text).model.scales == 5
    with pytest.raises(PlanConflict, match=r"line 16: \[model\] scales: the image is averaged away"):
        parse(text.replace("height = 64", "height = 63"))


def test_every_refusal_reads_differently() -> None:
    messages = set()
    for _, old, new, _, _, _ in MALFORMED:
        with pytest.raises(PlanError) as refusal:
            parse(GOOD.replace(old, new, 1))
        messages.add(str(refusal.value))
    assert len(messages) == len(MALFORMED)
    assert len(MALFORMED) >= 25


def test_all_problems_of_a_file_are_named_at_once() -> None:
    with pytest.raises(PlanUnknownKey) as refusal:
        parse(GOOD.replace("rounds = 3", "round = 3").replace("batch = 4", 'batch = "four"'))
    assert "'rounds'" in str(refusal.value)
    assert "batch" in str(refusal.value)


def test_an_image_that_is_halved_away_is_refused() -> None:
    shrunk = GOOD.replace("height = 64\nwidth = 64", "height = 16\nwidth = 16").replace("[8, 16, 32]", "[8, 8, 8, 8, 8]")
    with pytest.raises(PlanConflict, match="halved away"):
        parse(shrunk)


@pytest.mark.parametrize(
    "value", ["3" * 5000, f"0x{'3' * 5000}", "[" * 5000, "{a = " * 3000], ids=["digits", "hexadecimal", "lists", "tables"]
)
def test_what_python_itself_will_not_read_is_refused_by_name(value: str) -> None:
    with pytest.raises(PlanSyntax, match="thousands of"):
        parse(GOOD.replace("rounds = 3", f"rounds = {value}"))


HIDDEN = {
    "a line that begins a page of its own": "\n\nWhat it costs our patients\n  nothing",
    "an escape that hides the rest": "\x1b[8m",
    "a carriage return": "\r",
    "an escape in one character": "\x9b8m",
    "text that runs backwards": "\u202eyldneirf",
    "nothing that can be seen": "\u200b",
    "a line of Unicode's own": "\u2028",
}


@pytest.mark.parametrize("hidden", HIDDEN.values(), ids=HIDDEN)
@pytest.mark.parametrize("place", ["find nodules", "nodule", "[plan]"])
def test_a_plan_cannot_show_another_than_it_is(hidden: str, place: str) -> None:
    """Whoever approves or signs it reads it on a terminal, which acts upon such characters."""
    escaped = "".join(f"\\U{ord(each):08X}" for each in hidden)
    text = f'"odd{escaped}" = 1\n{GOOD}' if place == "[plan]" else GOOD.replace(place, place + escaped, 1)
    with pytest.raises(PlanValue, match=r"a text holds U\+[0-9A-F]{4}") as refusal:
        parse(text)
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    "purpose",
    ["Trouver des nodules : c\u00f4t\u00e9\u00a0gauche", "\u80ba\u7d50\u7bc0", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"],
)
def test_a_purpose_is_in_any_language(purpose: str) -> None:
    """The control: with a space that does not break, in Chinese, in Persian with its joiner."""
    assert parse(GOOD.replace("find nodules", purpose)).plan.purpose == purpose


def test_a_missing_plan_file_is_named(tmp_path) -> None:
    with pytest.raises(DataNotFound, match=r"nowhere\.toml"):
        load(tmp_path / "nowhere.toml")


def test_a_plan_survives_being_written_and_read() -> None:
    plan = parse(GOOD)
    assert parse(to_toml(plan)) == plan


def test_the_digest_forgets_spelling_and_order() -> None:
    spelt = GOOD.replace("epsilon = 8", "epsilon = 8.00").replace("clip_norm = 1", "clip_norm = 1.0 # per image")
    swapped = spelt.replace("rounds = 3\nlocal_steps = 2", "local_steps = 2\nrounds = 3")
    assert digest_of(parse(swapped)) == digest_of(parse(GOOD))


def test_the_digest_writes_defaults_out() -> None:
    assert digest_of(parse(GOOD)) == digest_of(parse(GOOD + "deadline_s = 600.0\n"))


def _leaves(value: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not dataclasses.is_dataclass(value):
        return [path]
    return [leaf for field in dataclasses.fields(value) for leaf in _leaves(getattr(value, field.name), (*path, field.name))]


def _changed(value: object, path: tuple[str, ...]) -> object:
    if not path:
        match value:
            case bool() | None:
                return "x"
            case int() | float():
                return value + 1
            case str():
                return value + "x"
            case tuple():
                return (*value, value[-1] if value else "x")
    return dataclasses.replace(value, **{path[0]: _changed(getattr(value, path[0]), path[1:])})  # type: ignore[type-var]


NAMES = {
    "": "9675b8a268a7fbb2d5b36b9712a8b3024875c95c9b3cbedf9a6ab64a80cc28e0",
    "[evaluation]\nevery = 1\nepsilon = 1\n": "de6bd176a812826702064667d28abbe3da9520a959a08b80ae8b7edd3fe8c194",
}
"""What is added to a plan, and its digest: recorded once, and to be the same in every later version, whatever keys it has learnt."""


@pytest.mark.parametrize("more", NAMES)
def test_a_version_that_knows_more_keys_has_the_same_name_for_a_plan(more: str) -> None:
    assert digest_of(parse(GOOD + more)) == NAMES[more]


@given(st.sampled_from(_leaves(parse(GOOD))))
def test_the_digest_changes_with_every_single_field(leaf: tuple[str, ...]) -> None:
    plan = parse(GOOD)
    other = _changed(plan, leaf)
    assert isinstance(other, Plan)
    assert digest_of(other) != digest_of(plan)


COUNTED = GOOD + "[evaluation]\nevery = 1\nepsilon = 1\n[statistics]\nepsilon = 0.5\n"
MALFORMED_COUNTS = [
    ("no epsilon to judge by", "every = 1\nepsilon = 1", "every = 1", PlanValue, "[evaluation] epsilon is missing", 32),
    ("a misspelt key", "every = 1", "evry = 1", PlanUnknownKey, "Did you mean 'every'", 33),
    ("judged never", "every = 1", "every = 0", PlanValue, "[evaluation] every", 33),
    ("judged after the end", "every = 1", "every = 4", PlanConflict, "fewer rounds", 33),
    ("one bin", "every = 1", "every = 1\nbins = 1", PlanValue, "bins", 34),
    ("no budget left", "epsilon = 8", "epsilon = 1.5", PlanConflict, "none to train by", 27),
    ("nothing asked", "epsilon = 0.5", "epsilon = 0.5\nclasses = false\nintensity = false", PlanConflict, "neither classes nor", 37),
    ("groups too large to count", "minimum_cohort = 3", "minimum_cohort = 3\nmax_group = 300", PlanConflict, "could overflow", 32),
]


@pytest.mark.parametrize(
    ("old", "new", "error", "says", "line"), [case[1:] for case in MALFORMED_COUNTS], ids=[case[0] for case in MALFORMED_COUNTS]
)
def test_a_plan_that_counts_wrongly_is_refused_by_name(old: str, new: str, error: type[PlanError], says: str, line: int) -> None:
    assert parse(COUNTED).evaluation is not None
    text = COUNTED.replace(old, new, 1)
    assert text != COUNTED
    with pytest.raises(error) as refusal:
        parse(text)
    assert says in str(refusal.value)
    assert f"line {line}:" in str(refusal.value)


@pytest.mark.parametrize("section", ["evaluation", "statistics"])
def test_a_plan_that_promises_nobody_anything_counts_nobody(section: str) -> None:
    """Counts leave noised or not at all, and there is no unit to noise them for."""
    everything = GOOD.replace('unit = "record"\nepsilon = 8\ndelta = 1e-5\nclip_norm = 1', 'unit = "none"')
    assert not parse(everything).is_private
    asked = {"evaluation": "every = 1\n", "statistics": ""}[section]
    with pytest.raises(PlanConflict, match="noised only"):
        parse(everything + f"[{section}]\n{asked}epsilon = 1\n")


def test_bins_belong_to_two_classes() -> None:
    three = COUNTED.replace('"nodule"]\nthreshold = 0.5', '"nodule", "mass"]')
    assert parse(three).evaluation is not None
    with pytest.raises(PlanConflict, match="second of two classes"):
        parse(three.replace("every = 1", "every = 1\nbins = 12"))


def test_a_plan_that_counts_survives_being_written_and_read() -> None:
    plan = parse(COUNTED)
    assert parse(to_toml(plan)) == plan
    assert digest_of(plan) != digest_of(parse(GOOD))


@pytest.mark.parametrize(("every", "rounds"), [(1, [2, 3, 4]), (2, [2, 4]), (3, [4])])
def test_the_last_model_is_always_judged(every: int, rounds: list[int]) -> None:
    assert [*parse(COUNTED.replace("every = 1", f"every = {every}")).evaluation_rounds] == rounds


@pytest.mark.parametrize(("after", "rounds"), [([1], (2, 4)), ([2, 1], (2, 3, 4)), ([3], (4,)), ([2, 2], (3, 4))])
def test_models_are_judged_after_the_rounds_that_are_named_and_after_the_last(after: list[int], rounds: tuple[int, ...]) -> None:
    assert parse(COUNTED.replace("every = 1", f"after = {after}")).evaluation_rounds == rounds


@pytest.mark.parametrize(
    ("asked", "why"),
    [("", "exactly one of every and after"), ("every = 1\nafter = [2]", "exactly one of every and after"), ("after = [4]", "fewer rounds")],
)
def test_which_models_are_judged_is_said_once_and_of_rounds_that_there_are(asked: str, why: str) -> None:
    with pytest.raises(PlanConflict, match=why):
        parse(COUNTED.replace("every = 1", asked))
