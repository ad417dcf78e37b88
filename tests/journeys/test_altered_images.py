# SPDX-License-Identifier: Apache-2.0
"""`rare-growths`, which learns from altered images: what it learnt, that it goes on after a death, and that nothing else is altered."""

import csv
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.counting import judged
from client.imaging.dataset import Dataset, whole
from client.imaging.prepared import load_prepared
from client.training import predict
from common.models import initial_weights
from common.plan import CnnSpec
from common.update import Weights
from server.export import export
from server.journal import CommittedRound
from simulations import scenario
from simulations.engine.nursery import Nursery
from simulations.evaluation import load_model
from simulations.made.folder import Grey, disc
from simulations.scenario import Scenario
from simulations.stage import Stage, Workshop, find_stage, set_stage
from tests.journeys.made import NOISE_SEED, Quiet, goodness, made_federation, reserved_rounds

SIDE = 16
PATIENTS = 180
SITES = 3
ROUNDS = 56
CLASSES = ("vessel", "smooth", "spiked")


def one_sided(folder: Path) -> Path:
    """Spots of three classes, each of which always lies at the same side: where it lies tells what it is, as long as nobody turns it."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    rows = []
    for patient in range(PATIENTS):
        pixels = rng.normal(90, 12, (SIDE, SIDE)) + 120 * _spot(patient % 3, rng)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{patient}.png")
        rows.append({"file": f"{patient}.png", "patient_id": f"made {patient}", "label": CLASSES[patient % 3]})
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def _spot(kind: int, rng: np.random.Generator) -> Grey:
    side, turn = 2 * np.pi * kind / 3, rng.uniform(0, np.pi)
    place = SIDE / 2 - 0.5 + 3.2 * np.array([np.sin(side), np.cos(side)]) + rng.uniform(-0.5, 0.5, 2)
    drawn = partial(disc, SIDE, tuple(place))
    match CLASSES[kind]:
        case "vessel":
            return drawn((4.7, 0.9), turn)
        case "smooth":
            return drawn((2.4, 2.4))
    spikes: Grey = np.max([drawn((4.5, 0.6), turn + spike * np.pi / 3) for spike in range(3)], axis=0)
    return spikes


def shortened(*, altered: bool, rounds: int = ROUNDS) -> Scenario:
    """`rare-growths` as it ships, with its alterations or without, for three small hospitals and a promise that so few can keep."""
    played = scenario.load(scenario.find("rare-growths"))
    plan = played.plan
    assert isinstance(plan.model, CnnSpec)
    assert plan.augmentation is not None
    assert plan.evaluation is not None
    return Scenario(
        plan=replace(
            plan,
            input=replace(plan.input, height=SIDE, width=SIDE),
            model=replace(plan.model, dropout=0.0),  # it takes longer than these few rounds
            training=replace(plan.training, rounds=rounds, batch=24, learning_rate=0.03, warmup_rounds=1),
            privacy=replace(plan.privacy, epsilon=900.0, delta=1e-3, noise_quorum=SITES, minimum_patients=24, images_per_patient=1),
            evaluation=replace(plan.evaluation, every=rounds // 2, epsilon=20.0, patience=None),
            augmentation=plan.augmentation if altered else None,
            aggregation=replace(plan.aggregation, minimum_cohort=SITES),
        ),
        simulation=replace(played.simulation, sites=SITES, partition="iid", made=None),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("altered")
    one_sided(found / "pictures")
    return found


def staged(folder: Path, name: str, played: Scenario) -> Stage:
    shop = Workshop(cache=folder / "cache", workers=1, progress=lambda *_: None, unsafe_noise_seed=NOISE_SEED)
    return set_stage(played, folder / "pictures", folder / name, shop)


class Watch(Quiet):
    """Keeps the model of the last round, whichever is given out; pulls the plug when all sites have answered in a round, once."""

    def __init__(self, *, dies_in: int = 0) -> None:
        self._dies_in, self._answers = dies_in, 0
        self.last: Weights | None = None
        self.told: list[tuple[int, int]] = []

    def round_opened(self, number: int, cohort: list[str]) -> None:
        self._answers = 0

    def site_answered(self, number: int, site: str, *, refused: bool) -> None:
        self._answers += 1
        if (number, self._answers) == (self._dies_in, SITES):
            self._dies_in = 0
            raise KeyboardInterrupt

    def round_committed(self, done: CommittedRound, weights: Weights) -> None:
        self.last = weights

    def chosen(self, number: int, *, trained: int) -> None:
        self.told.append((number, trained))


def train(stage: Stage, nursery: Nursery, watch: Watch) -> Weights:
    weights, _ = made_federation(stage).train(watch, engine="local", workers=2, nursery=nursery)
    return weights


def trained(folder: Path, name: str, played: Scenario, nursery: Nursery) -> tuple[Stage, Weights]:
    """A whole training, and the model of its last round."""
    stage, watch = staged(folder, name, played), Watch()
    train(stage, nursery, watch)
    assert watch.last is not None
    return stage, watch.last


@pytest.fixture(scope="module")
def altered(folder: Path, nursery: Nursery) -> tuple[Stage, Weights]:
    """The plan with its alterations, trained to its end."""
    return trained(folder, "altered", shortened(altered=True), nursery)


def turned(data: Dataset) -> Dataset:
    """The same pictures upside down: no spot lies where the hospitals had its like."""
    return replace(data, images=whole(np.ascontiguousarray(data.images[:][..., ::-1, ::-1])))


@pytest.mark.slow
def test_where_a_spot_lies_is_learnt_by_who_trains_on_images_as_they_are_and_not_by_who_trains_on_altered_ones(
    folder: Path, nursery: Nursery, altered: tuple[Stage, Weights], tmp_path: Path
) -> None:
    """Both know pictures like those of the hospitals. Upside down, what was known by its side is taken for another; what was known by its
    outline is not."""
    stage, weights = altered
    plan, held_out = stage.scenario.plan, stage.holdout()
    _, plain = trained(folder, "plain", shortened(altered=False), nursery)
    assert goodness(plain, held_out, plan) > 0.9
    assert goodness(plain, turned(held_out), plan) < 0.3
    assert min(goodness(weights, held_out, plan), goodness(weights, turned(held_out), plan)) > 0.75
    assert goodness(weights, held_out, plan) > goodness(initial_weights(plan), held_out, plan) + 0.1
    export(tmp_path, weights=weights, plan=plan, facts={})
    again, of_card = load_model(tmp_path)
    assert of_card == plan
    np.testing.assert_array_equal(predict(again, held_out, of_card), predict(weights, held_out, plan))


def test_after_a_death_in_the_middle_of_a_round_the_same_bits_are_learnt(folder: Path, nursery: Nursery) -> None:
    played, unbroken = shortened(altered=True, rounds=4), Watch()
    whole_stage = staged(folder, "unbroken", played)
    weights = train(whole_stage, nursery, unbroken)
    stage, watch = staged(folder, "dies", played), Watch(dies_in=3)
    with pytest.raises(KeyboardInterrupt):
        train(stage, nursery, watch)
    assert train(find_stage(stage.folder), nursery, watch).digest == weights.digest
    assert watch.told == unbroken.told
    assert [reserved_rounds(stage, site) for site in stage.sites] == [reserved_rounds(whole_stage, site) for site in whole_stage.sites]


def test_what_a_site_prepares_predicts_and_counts_is_of_its_images_as_they_are(folder: Path, altered: tuple[Stage, Weights]) -> None:
    stage, weights = altered
    plan = stage.scenario.plan
    unaltered = replace(plan, augmentation=None)
    other = staged(folder, "as they are", shortened(altered=False))
    for site in stage.sites:
        data, same = (load_prepared(each.home(site) / "data") for each in (stage, other))
        np.testing.assert_array_equal(data.images[:], same.images[:])
        np.testing.assert_array_equal(data.splits, same.splits)
        np.testing.assert_array_equal(judged(weights, data, plan), judged(weights, data, unaltered))
        np.testing.assert_array_equal(predict(weights, data, plan), predict(weights, data, unaltered))
