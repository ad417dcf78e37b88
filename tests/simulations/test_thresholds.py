# SPDX-License-Identifier: Apache-2.0
"""A threshold for each of several findings, and a score for boxes, chosen on other patients; and where people see that they were."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from typer.testing import CliRunner

from client.imaging.dataset import Dataset, whole
from client.training import predict
from common.errors import PlanValue, TooFewPatients
from common.models import initial_weights
from common.plan import parse
from common.tasks.scoring.detection import DetectionScores
from common.tasks.scoring.multilabel import MultiLabelScores
from common.tasks.scoring.operating import Rule
from fedward import house
from simulations import judging, thresholds
from simulations.evaluation import Answer
from simulations.judging import BOX_SCORE, judge
from simulations.report import judged
from tests.simulations.test_evaluation import PLAN, YOUDEN, ask, lay_out, saved

FINDINGS = PLAN.replace('kind = "classification"\nclasses = ["normal", "nodule"]', 'kind = "multi-label"\nclasses = ["effusion", "nodule"]')
BOXES = FINDINGS.replace('"multi-label"', '"detection"').replace('family = "cnn"\nwidths = [2]\nhidden = 4', 'family = "centre"')


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("model"), parse(FINDINGS))


def with_findings(folder: Path, *, known: int = 60, **asked: Any) -> Path:
    """An effusion in bright pictures; a nodule in every third patient, of whom only so many are known."""
    return lay_out(
        folder, effusion=lambda owner: owner % 2, nodule=lambda owner: "" if owner % 1000 >= known else int(owner % 3 == 0), **asked
    )


@pytest.fixture(scope="module")
def answer(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Answer:
    folder = tmp_path_factory.mktemp("data")
    return ask(model, with_findings(folder / "here"), rule=YOUDEN, validation=with_findings(folder / "there", first=1000))


def test_each_finding_has_a_threshold_of_its_own(answer: Answer, model: Path, tmp_path: Path) -> None:
    assert [one.name for one in answer.thresholds] == ["effusion", "nodule"]
    assert all(one.chosen is not None and one.chosen.patients == 60 for one in answer.thresholds)
    assert len({one.value for one in answer.thresholds} | {0.5}) == 3
    assert (answer.threshold, answer.chosen) == (None, None)
    found, before = answer.scores, ask(model, with_findings(tmp_path / "here")).scores
    assert isinstance(found, MultiLabelScores)
    assert isinstance(before, MultiLabelScores)
    assert found.auc == before.auc
    youden = [sum((one.recall or 0) + (one.specificity or 0) for one in each.findings) for each in (found, before)]
    assert youden[0] > youden[1]


def test_a_finding_of_which_too_little_is_known_keeps_the_plans(model: Path, tmp_path: Path) -> None:
    here = with_findings(tmp_path / "here")
    found = ask(model, here, rule=YOUDEN, validation=with_findings(tmp_path / "there", first=1000, known=6))
    assert found.thresholds[0].chosen is not None
    assert (found.thresholds[1].value, found.thresholds[1].chosen) == (0.5, None)
    page = judged.render(found)
    assert "the plan: too few validation patients" in page
    with pytest.raises(TooFewPatients):
        ask(
            model, here, rule=YOUDEN, validation=lay_out(tmp_path / "few", patients=4, first=1000, effusion=lambda _: 1, nodule=lambda _: 0)
        )


def test_page_command_and_json_say_whence_they_are(answer: Answer, model: Path, tmp_path: Path) -> None:
    text = re.sub(r"\s+", " ", " ".join(ElementTree.fromstring(judged.render(answer).partition("\n")[2]).itertext()))
    for one in answer.thresholds:
        assert f"{one.name} {one.value:.3g} youden, 60 patients" in text
    assert [one["name"] for one in json.loads(json.dumps(answer.as_dict()))["thresholds"]] == ["effusion", "nodule"]
    here, there = with_findings(tmp_path / "here"), with_findings(tmp_path / "there", first=1000)
    asked = ["evaluate", "--model", str(model), "--data", str(here), "--threshold", "f1", "--validation", str(there), "--resamples", "9"]
    ran = CliRunner().invoke(house(), asked)
    assert ran.exit_code == 0, ran.output
    assert "f1, 60 patients" in ran.stdout


def test_where_there_is_nothing_to_part_there_is_no_threshold() -> None:
    assert [(one.name, one.value) for one in thresholds.of_plan(parse(BOXES))] == [("boxes", BOX_SCORE)]
    areas = parse(
        FINDINGS.replace('"multi-label"', '"segmentation"').replace('family = "cnn"\nwidths = [2]\nhidden = 4', 'family = "unet"')
    )
    assert thresholds.of_plan(areas) == ()
    with pytest.raises(PlanValue, match="has nothing to part"):
        thresholds.check(areas)


def test_a_detector_gets_a_score_from_which_on_its_boxes_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the truth is the surest box that it draws in each picture; an untrained one's are points, and are widened here."""
    plan = parse(BOXES)
    weights = initial_weights(plan)
    data = pictured()
    drawn = predict(weights, data, plan) + np.array([0, 0, 0, 0, 0.3, 0.3], dtype=np.float32)
    for module in (thresholds, judging):
        monkeypatch.setattr(module, "predict", lambda *_: drawn)
    data = replace(data, parts={"boxes": whole(drawn[:, :1, [0, 2, 3, 4, 5]])})
    (found,) = thresholds.chosen_on(weights, data, plan, Rule(aim="sensitivity", least=1.0))
    assert found.chosen is not None
    assert found.value == found.chosen.threshold < BOX_SCORE
    assert (found.chosen.sensitivity, found.chosen.patients) == (1.0, 12)
    shown = (drawn[..., 1] >= found.value).sum()
    assert found.chosen.precision == pytest.approx(12 / shown)
    at_it, as_usual = (judge(weights, data, plan, resamples=0, thresholds=used) for used in ([found.value], []))
    assert isinstance(at_it, DetectionScores)
    assert isinstance(as_usual, DetectionScores)
    assert sum(one.recall or 0 for one in at_it.classes) > sum(one.recall or 0 for one in as_usual.classes)


def pictured() -> Dataset:
    rng, count = np.random.default_rng(0), 12
    return Dataset(
        images=whole(rng.integers(0, 2**16, (count, 1, 8, 8), dtype=np.uint16)),
        labels=np.zeros(count, dtype=np.int64),
        patients=np.arange(count, dtype=np.int32),
        patient_keys=tuple(f"{patient:016x}" for patient in range(count)),
        splits=np.zeros(count, dtype=np.int8),
        unit_source="patient_id",
    )


def test_a_page_about_boxes_names_their_score(answer: Answer) -> None:
    one = replace(answer.thresholds[0], name="boxes")
    assert one.chosen is not None
    of_boxes = replace(one, chosen=replace(one.chosen, specificity=None, precision=0.625))
    page = judged.render(replace(answer, thresholds=(of_boxes,)))
    assert "A box is shown from this score on." in page
    assert "0.625" in page


def test_columns_of_findings_are_read(tmp_path: Path) -> None:
    """What the tests above rest on: an empty cell is not known."""
    with (with_findings(tmp_path / "here", known=6) / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["nodule"] for row in rows[::2]][:8] == ["1", "0", "0", "1", "0", "0", "", ""]
