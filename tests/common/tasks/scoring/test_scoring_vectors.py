# SPDX-License-Identifier: Apache-2.0
"""Figures against those of scikit-learn, pycocotools, scikit-image and dcurves, as recorded in tests/vectors/scoring."""

import json
from pathlib import Path

import numpy as np
import pytest

from common.tasks import evaluate
from common.tasks.scoring.benefit import decision_curve
from common.tasks.scoring.detection import Boxes, score_boxes
from common.tasks.scoring.multilabel import score_findings
from common.tasks.scoring.restoration import fidelity_of, score_images
from common.tasks.scoring.segmentation import joined, overlap_of, score_areas
from tests.common.tasks.scoring.made import spec

VECTORS = json.loads((Path(__file__).parents[3] / "vectors" / "scoring" / "scoring.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["two classes", "four classes", "a class that is never answered"])
def test_averages_and_brier_are_those_of_scikit_learn(name):
    vector = VECTORS[name]
    probabilities = np.array(vector["probabilities"], dtype=np.float32)
    level = evaluate(spec(probabilities.shape[1]), probabilities, np.array(vector["labels"])).images
    for average, wanted in vector["averages"].items():
        found = getattr(level.averages, average)
        assert {"precision": found.precision, "recall": found.recall, "f1": found.f1} == pytest.approx(wanted, abs=1e-9)
    assert level.calibration.brier == pytest.approx(vector["brier"], abs=1e-6)
    assert [one.auc for one in level.classes] == pytest.approx(vector["auc"], abs=1e-6)
    assert level.classes[1].average_precision == pytest.approx(vector["average_precision_of_second"], abs=1e-6)


def test_the_decision_curve_is_that_of_its_authors():
    vector = VECTORS["decision"]
    curve = decision_curve(np.array(vector["scores"]), np.array(vector["ill"]), thresholds=vector["thresholds"])
    assert [point.model for point in curve] == pytest.approx(vector["model"], abs=1e-9)
    assert [point.everyone for point in curve] == pytest.approx(vector["everyone"], abs=1e-9)


def test_findings_are_judged_as_scikit_learn_judges_them():
    vector = VECTORS["multilabel"]
    probabilities, findings = np.array(vector["probabilities"], dtype=np.float32), np.array(vector["findings"])
    found = score_findings(("a", "b", "c"), probabilities, findings)
    assert found.auc == pytest.approx(vector["auc"], abs=1e-6)
    assert found.exact == pytest.approx(vector["exact"])
    assert found.hamming == pytest.approx(vector["hamming"])
    assert (found.averages.macro.f1, found.averages.micro.f1) == pytest.approx((vector["macro_f1"], vector["micro_f1"]))


def test_areas_overlap_as_scikit_learn_says():
    vector = VECTORS["areas"]
    said, true = np.array(vector["said"]), np.array(vector["true"])
    found = score_areas(
        ("ground", "organ", "lesion"), joined([overlap_of(s[None], t[None], num_classes=3) for s, t in zip(said, true, strict=True)])
    )
    dice, iou = np.array(vector["dice"], dtype=float), np.array(vector["iou"])
    iou[np.isnan(dice)] = np.nan
    assert [one.dice for one in found.classes] == pytest.approx(np.nanmean(dice, axis=0).tolist())
    assert [one.iou for one in found.classes] == pytest.approx(np.nanmean(iou, axis=0).tolist())
    assert found.dice == pytest.approx(np.nanmean(dice, axis=0)[1:].mean())
    lesion = found.classes[2]
    assert (lesion.patients, lesion.invented, lesion.missed) == (5, 1, 0)


def test_average_precision_is_that_of_pycocotools():
    vector = VECTORS["boxes"]
    found = score_boxes(("a", "b"), boxes(vector["found"]), boxes(vector["true"]))
    assert found.ap50 == pytest.approx(vector["ap50"], abs=1e-12)
    assert found.ap == pytest.approx(vector["ap"], abs=1e-12)
    assert [one.ap50 for one in found.classes] == pytest.approx(vector["ap50_by_class"], abs=1e-12)
    assert [one.ap for one in found.classes] == pytest.approx(vector["ap_by_class"], abs=1e-12)


def test_restored_images_are_as_near_as_scikit_image_says():
    vector = VECTORS["restored"]
    true, ours = (np.array(vector[name], dtype=np.float64)[:, None] for name in ("true", "restored"))
    found = fidelity_of(ours, true)
    assert found.psnr.tolist() == pytest.approx(vector["psnr"], abs=1e-9)
    assert found.ssim.tolist() == pytest.approx(vector["ssim"], abs=1e-4)
    assert score_images(found).psnr == pytest.approx(np.mean(vector["psnr"]))


def boxes(images):
    return [
        Boxes(
            np.array(image["corners"], dtype=np.float64).reshape(-1, 4),
            np.array(image["classes"], dtype=np.int64),
            np.array(image["scores"]) if "scores" in image else None,
        )
        for image in images
    ]
