# SPDX-License-Identifier: Apache-2.0
"""Tasks without classes on a page: every task's figures are tabled, in a run's report and in an evaluation's page."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from common.plan import parse
from common.tasks.scoring.detection import Boxes, score_boxes
from common.tasks.scoring.groups import Groups, GroupScores
from common.tasks.scoring.multilabel import score_findings
from common.tasks.scoring.restoration import Fidelity, score_images
from common.tasks.scoring.segmentation import overlap_of, score_areas
from simulations import report
from simulations.evaluation import Answer
from simulations.report import judged
from simulations.report.scores import model_scores
from simulations.report.tabled import OtherScores, tabled
from tests.simulations.test_report import PLAN, lay_out, parts

PATIENTS = np.repeat(np.arange(12, dtype=np.int32), 2)
SEGMENTATION = re.sub(
    r'kind = "classification".*?threshold = 0.4', 'kind = "segmentation"\nclasses = ["ground", "lesion"]', PLAN, flags=re.DOTALL
)
SEGMENTATION = SEGMENTATION.replace('family = "cnn"', 'family = "unet"').replace(
    'unit = "record"\nepsilon = 3.0\ndelta = 1e-6\nclip_norm = 1.0', 'unit = "none"'
)


def areas() -> OtherScores:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 2, (24, 6, 6))
    return score_areas(
        ("ground", "lesion"), overlap_of(np.where(rng.random(true.shape) < 0.8, true, 1), true, num_classes=2), PATIENTS, resamples=30
    )


def findings() -> OtherScores:
    rng = np.random.default_rng(1)
    there = rng.integers(-1, 2, (24, 2))
    return score_findings(
        ("effusion", "nodule"), np.clip(0.5 + 0.2 * there + 0.1 * rng.normal(size=(24, 2)), 0, 1), there, PATIENTS, resamples=30
    )


def boxes() -> OtherScores:
    rng = np.random.default_rng(2)
    corner = rng.uniform(0, 50, (24, 1, 2))
    corners, kind = np.concatenate([corner, corner + 20], axis=2), np.zeros(1, dtype=np.int64)
    found = [Boxes(one + rng.normal(scale=3, size=(1, 4)), kind, rng.random(1)) for one in corners]
    return score_boxes(("cell",), found, [Boxes(one, kind) for one in corners], PATIENTS, resamples=30)


def images() -> OtherScores:
    rng = np.random.default_rng(3)
    after, before = (Fidelity(level + rng.normal(size=24), np.full(24, level / 40)) for level in (31.0, 25.0))
    return score_images(after, before, PATIENTS, resamples=30)


MADE = {"segmentation": areas, "multi-label": findings, "detection": boxes, "restoration": images}


def answer(scores: OtherScores, groups: Groups[Any] | None = None) -> Answer:
    return Answer(
        plan=parse(SEGMENTATION),
        model_digest="ab" * 32,
        scores=scores,
        curves=None,
        thresholds=(),
        by=None if groups is None else "site",
        groups=groups,
        intake={"seen": 30, "used": 24, "rejected": {"no_mask": 6}},
    )


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", " ".join(ElementTree.fromstring(page.partition("\n")[2]).itertext()))


@pytest.mark.parametrize("task", MADE)
def test_the_figure_judged_first_is_read_first_and_every_row_has_its_cells(task: str) -> None:
    scores = MADE[task]()
    found, headline = tabled(scores), scores.headline
    assert found.first[0].found.value == headline.value
    assert headline.interval is not None
    assert (found.first[0].found.low, found.first[0].found.high) == (headline.interval.low, headline.interval.high)
    for table in found.tables:
        assert all(len(row) == len(table.headings) for row in table.rows)
    assert json.loads(json.dumps(scores.as_dict()))["count"] == scores.count


@pytest.mark.parametrize("task", MADE)
def test_an_evaluation_of_any_task_has_a_page(task: str) -> None:
    scores = MADE[task]()
    groups = Groups(shown=(GroupScores(name="north", patients=12, scores=scores),), hidden=3)
    text = text_of(judged.render(answer(scores, groups)))
    assert f"{scores.headline.name} of {scores.headline.value:.3f}" in text
    for reading in tabled(scores).first:
        assert reading.label in text
    assert "north 12" in text
    assert "Not shown: 3 groups" in text
    assert "AUC" not in text or task == "multi-label"


@pytest.mark.parametrize("task", MADE)
def test_a_run_of_any_task_has_a_report(task: str, tmp_path: Path) -> None:
    content = parts()
    for classes_only in ("comparison.json", "predictions.json", "membership.json", "inversion.json"):
        del content[classes_only]
    scores = MADE[task]()
    said = {**scores.as_dict(), "headline": asdict(scores.headline)}
    content["judgement.json"] = {"federated": said, "pooled": said, "local": {"north": said}}
    content["run.json"]["plan"]["toml"] = SEGMENTATION
    for line in content["metrics.jsonl"]:
        line.update(auc=None, balanced_accuracy=None, headline=[scores.headline.name, scores.headline.value])
    text = text_of(report.render(lay_out(tmp_path, content)))
    assert f"{scores.headline.name} of {scores.headline.value:.3f}" in text
    assert f"By {scores.headline.name}, training with all images in one place does the same" in text
    assert "Balanced accuracy" not in text
    assert "not in the run folder" not in text
    for table in tabled(scores).tables:
        assert all(cell in text for row in table.rows for cell in row)


def test_what_was_written_is_read_as_what_it_was() -> None:
    for make in MADE.values():
        scores = make()
        assert model_scores(scores).tabled is not None
        assert model_scores(scores).measure == scores.headline.name
