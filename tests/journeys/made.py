# SPDX-License-Identifier: Apache-2.0
"""A small federation for journeys: pictures that a tiny network can tell apart, of patients who do not exist."""

import atexit
import csv
import shutil
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from client import ledger
from client.home import LEDGER_FILE, AggregationName
from client.imaging.dataset import Dataset
from common.plan import Plan
from common.privacy.entries import Spent
from common.update import Weights
from server.aggregation import Silent
from server.journal import CommittedRound
from simulations import scenario
from simulations.engine.nursery import Nursery
from simulations.faults import parse_faults
from simulations.federation import Federation, federation_on
from simulations.judging import judge
from simulations.scenario import Scenario
from simulations.stage import Stage, Workshop, set_stage

PLAN = """\
[plan]
name = "journey"
purpose = "a short federation for the tests"
[input]
modality = "any"
height = 16
width = 16
[task]
kind = "classification"
classes = ["left", "right"]
[model]
family = "cnn"
widths = [4, 8]
hidden = 8
[training]
rounds = 4
local_steps = 2
batch = 8
learning_rate = 0.2
momentum = 0.5
[privacy]
{privacy}
[aggregation]
minimum_cohort = 2
deadline_s = 60
[simulation]
sites = 4
partition = "iid"
folds = 4
"""
PRIVATE = 'unit = "record"\nepsilon = 8\ndelta = 1e-4\nclip_norm = 1'
OPEN = 'unit = "none"'
NOISE_SEED = 7


class Quiet(Silent):
    """An observer that says nothing."""


def pictures(
    folder: Path, *, patients: int = 40, images_each: int = 2, contrast: float = 70, sites: tuple[str, ...] = (), seed: int = 0
) -> Path:
    """An image folder with index.csv: a bar on the left or on the right, brighter by `contrast` than the noise around it (25 wide).

    Patients are dealt to `sites` in turn, pairs of them, so that each has both classes; without sites, nobody says whose they are.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    images, rows = [], []
    for patient in range(patients):
        label = patient % 2
        for _ in range(images_each):
            image = rng.normal(90, 25, (16, 16))
            image[3:13, 10 * label + 1 : 10 * label + 5] += contrast
            site = {"site": sites[patient // 2 % len(sites)]} if sites else {}
            rows.append({"row": len(images), "label": label, "patient_id": f"made {patient}", **site})
            images.append(image.clip(0, 255).astype(np.uint8))
    np.savez(folder / "images.npz", images=np.stack(images))
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def made_scenario(*, private: bool, change: tuple[str, str] = ("", "")) -> Scenario:
    """The journey's plan, with one piece of its text replaced."""
    return scenario.parse(PLAN.format(privacy=PRIVATE if private else OPEN).replace(*change))


def made_stage(folder: Path, played: Scenario, *, aggregation: AggregationName = "fsa1", noise_seed: int | None = NOISE_SEED) -> Stage:
    """A run folder, set and ready; its noise is seeded, unless told otherwise, so that two runs can be compared bit by bit.

    Its patients are those of the folder `pictures` beside it, or else the same as everybody's.
    """
    place = folder.parent if (folder.parent / "pictures").exists() else _everybodys()
    shop = Workshop(cache=place / "cache", workers=1, progress=lambda *_: None, unsafe_noise_seed=noise_seed, aggregation=aggregation)
    return set_stage(played, place / "pictures", folder, shop)


@cache
def _everybodys() -> Path:
    """Pictures and their cache, once for all tests of a process: to read them anew takes a process, and that a second."""
    place = Path(tempfile.mkdtemp(prefix="fedward-made-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    pictures(place / "pictures")
    return place


def reserved_rounds(stage: Stage, site: str) -> list[int]:
    """The rounds that a site paid for, as its ledger says; every signature in it is looked at."""
    _, entries = ledger.read((stage.home(site) / LEDGER_FILE).read_bytes(), name=site)
    return [entry.fact.round for entry in entries if isinstance(entry.fact, Spent)]


def made_federation(stage: Stage, *, faults: tuple[str, ...] = ()) -> Federation:
    """The federation of such a stage, its sites failing as told."""
    return replace(federation_on(stage), unsafe_noise_seed=NOISE_SEED, faults=parse_faults(faults))


def train(stage: Stage, nursery: Nursery, *faults: str) -> tuple[Weights, list[CommittedRound]]:
    """All rounds of such a stage, with nobody watching."""
    return made_federation(stage, faults=faults).train(Quiet(), engine="local", workers=2, nursery=nursery)


def staged(played: Scenario, folder: Path, cache: Path | None = None) -> Stage:
    """A shipped plan's own made data, dealt to its sites; `cache` keeps them for the next test."""
    shop = Workshop(cache=cache or folder / "cache", workers=1, progress=lambda *_: None, unsafe_noise_seed=NOISE_SEED)
    return set_stage(played, None, folder / "run", shop)


def goodness(weights: Weights, data: Dataset, plan: Plan) -> float:
    """The figure by which the task is judged first."""
    value = judge(weights, data, plan, resamples=0).headline.value
    assert value is not None
    return value
