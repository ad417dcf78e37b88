# SPDX-License-Identifier: Apache-2.0
"""The whole way: DICOM files of several hospitals in; a model, its card, a report out; and the model scored again elsewhere."""

import csv
import json
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from client import ledger
from common.errors import CheckpointCorrupt, DataNotFound, ModelHash
from common.plan import digest_of
from common.privacy.entries import Spent
from simulations import scenario
from simulations.engine.nursery import Nursery
from simulations.evaluation import Question, evaluate_folder, load_model
from simulations.phantoms import PhantomSpec
from simulations.run import Options, simulate
from simulations.show import Show
from simulations.stage import Stage, Workshop, find_stage, set_stage
from tests.journeys.made import made_scenario, pictures

HOSPITALS = 3


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Stage:
    """A small private federation on made DICOM, compared with everything it can be compared with."""
    folder = tmp_path_factory.mktemp("whole")
    shipped = scenario.load(scenario.find("default"))
    small = PhantomSpec(hospitals=HOSPITALS, patients_per_hospital=16, slices_per_patient=2, size_px=48)
    training = replace(shipped.plan.training, rounds=3, batch=8)
    privacy = replace(shipped.plan.privacy, noise_quorum=HOSPITALS, minimum_patients=8)
    aggregation = replace(shipped.plan.aggregation, minimum_cohort=HOSPITALS)
    plan = replace(shipped.plan, training=training, privacy=privacy, aggregation=aggregation)
    played = replace(shipped, plan=plan, simulation=replace(shipped.simulation, sites=HOSPITALS, phantoms=small, evaluate_every=1))
    shop = Workshop(cache=folder / "cache", workers=2, progress=lambda *_: None)
    stage = set_stage(played, None, folder / "run", shop)
    simulate(stage, Options(workers=2), Show(Console(quiet=True)), nursery)
    return stage


def test_every_slice_is_accounted_for(finished: Stage) -> None:
    counts = finished.counts
    assert counts["intake"] == {"seen": 96, "used": 96, "rejected": {}}
    assert sum(site["images"] for site in counts["sites"]) + counts["holdout"]["images"] == 96
    assert sum(site["patients"] for site in counts["sites"]) + counts["holdout"]["patients"] == 48


def test_no_patient_is_on_both_sides(finished: Stage) -> None:
    held = {finished.holdout().patient_keys[index].split("/")[-1] for index in np.unique(finished.holdout().patients)}
    for site in finished.sites:
        columns = json.loads((finished.home(site) / "data" / "columns.json").read_text())
        assert not held & {columns["patient_keys"][index].split("/")[-1] for index in set(columns["patients"])}


def test_the_run_folder_is_complete(finished: Stage) -> None:
    names = {path.name for path in finished.folder.iterdir()}
    assert {"run.json", "metrics.jsonl", "model.safetensors", "model.json", "report.html", "comparison.json", "ledgers"} <= names
    assert {"membership.json", "inversion.json"} <= names
    lines = [json.loads(line) for line in (finished.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [1, 2, 3]
    assert all(line["auc"] is not None for line in lines)
    assert lines[0]["epsilon"] < lines[2]["epsilon"] <= 8


def test_everyone_is_compared_on_the_same_patients(finished: Stage) -> None:
    comparison = json.loads((finished.folder / "comparison.json").read_text())
    assert set(comparison) >= {"federated", "pooled", "not_private", "local"}
    assert set(comparison["local"]) == set(finished.sites)
    everyone = [comparison["federated"], comparison["pooled"], comparison["not_private"], *comparison["local"].values()]
    assert {scores["patients"]["count"] for scores in everyone} == {finished.counts["holdout"]["patients"]}


def test_every_site_paid_for_every_round(finished: Stage) -> None:
    for site in finished.sites:
        _, entries = ledger.read((finished.folder / "ledgers" / f"{site}.jsonl").read_bytes(), name=site)
        spent = [entry.fact for entry in entries if isinstance(entry.fact, Spent)]
        assert [fact.round for fact in spent] == [1, 2, 3]
        assert {fact.plan for fact in spent} == {digest_of(finished.scenario.plan)}
        assert spent[-1].after.outside <= 8


class _Reader(HTMLParser):
    text = ""

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_names_what_matters_and_nobody(finished: Stage) -> None:
    page = (finished.folder / "report.html").read_text(encoding="utf-8")
    reader = _Reader()
    reader.feed(page)
    for site in finished.sites:
        assert site in reader.text
    assert digest_of(finished.scenario.plan)[:12] in reader.text
    assert "for each patient" in reader.text
    for key in finished.holdout().patient_keys:
        assert key.split("/")[-1] not in page


def test_a_finished_run_can_be_resumed_without_training(finished: Stage, nursery: Nursery) -> None:
    before = (finished.folder / "model.safetensors").read_bytes()
    simulate(find_stage(finished.folder), Options(workers=2, compare=False), Show(Console(quiet=True)), nursery)
    assert (finished.folder / "model.safetensors").read_bytes() == before


def test_the_saved_model_scores_the_same_elsewhere(tmp_path: Path, nursery: Nursery) -> None:
    data = pictures(tmp_path / "pictures")
    played = made_scenario(private=False, change=("rounds = 4", "rounds = 12"))
    stage = set_stage(played, data, tmp_path / "run", Workshop(cache=tmp_path / "cache", workers=1, progress=lambda *_: None))
    result = simulate(stage, Options(workers=2, compare=False), Show(Console(quiet=True)), nursery)
    # A folder with the held-out patients alone must give the very scores of the run.
    keys = _held_out_rows(data, stage)
    answer = evaluate_folder(tmp_path / "run", Question(data=keys, resamples=0), workers=1, progress=lambda *_: None)
    scores = answer.scores
    assert answer.intake["used"] == result["federated"]["images"]["count"]
    assert scores.images.auc == pytest.approx(result["federated"]["images"]["auc"], abs=1e-6)
    assert scores.images.confusion == tuple(map(tuple, result["federated"]["images"]["confusion"]))


def _held_out_rows(data: Path, stage: Stage) -> Path:
    """A copy of the pictures whose index lists only the images that were held out, found by their pixels."""
    held = {image.tobytes() for image in stage.holdout().images[:]}
    folder = data.parent / "elsewhere"
    folder.mkdir()
    shutil.copy(data / "images.npz", folder)
    images = np.load(data / "images.npz")["images"].astype(np.uint16) * 257
    with (data / "index.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if images[int(row["row"])][None].tobytes() in held]
    assert len(rows) == len(held)
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def test_a_model_under_another_card_is_refused(finished: Stage, tmp_path: Path) -> None:
    shutil.copy(finished.folder / "model.safetensors", tmp_path)
    card = json.loads((finished.folder / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**card, "model_digest": "0" * 64}))
    with pytest.raises(ModelHash, match="do not belong together"):
        load_model(tmp_path)


def test_a_damaged_model_is_refused(finished: Stage, tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match=r"model\.safetensors"):
        load_model(tmp_path)
    shutil.copy(finished.folder / "model.json", tmp_path)
    (tmp_path / "model.safetensors").write_bytes((finished.folder / "model.safetensors").read_bytes()[:-9])
    with pytest.raises(CheckpointCorrupt):
        load_model(tmp_path)
