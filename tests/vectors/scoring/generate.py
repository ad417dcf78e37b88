# SPDX-License-Identifier: Apache-2.0
"""Writes scoring.json: inputs, and what other people's programs make of them.

    python -m venv other && other/bin/pip install pycocotools scikit-image scikit-learn dcurves
    other/bin/python tests/vectors/scoring/generate.py

Nothing of fedward is imported: the numbers are scikit-learn's (averages, AUC, Brier, overlap of areas), pycocotools' (boxes),
scikit-image's (restored images) and dcurves' (decision curve, by the authors of the method).
"""

import contextlib
import io
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from dcurves import dca
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn import metrics

LIBRARIES = ("scikit-learn", "pycocotools", "scikit-image", "dcurves")


def classification(classes: int, *, never: int | None, seed: int) -> dict[str, Any]:
    """Probabilities of 80 cases; `never` is a class that occurs and is not answered."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, 80)
    logits = rng.normal(size=(80, classes)) + 1.2 * np.eye(classes)[labels]
    if never is not None:
        logits[:, never] = -4.0
    probabilities = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).round(4)
    probabilities[:, 0] += 1 - probabilities.sum(axis=1)
    said = (probabilities[:, 1] >= 0.5).astype(int) if classes == 2 else probabilities.argmax(axis=1)
    found = {}
    for average in ("macro", "micro", "weighted"):
        precision, recall, f1, _ = metrics.precision_recall_fscore_support(labels, said, average=average, zero_division=0)
        found[average] = {"precision": precision, "recall": recall, "f1": f1}
    positive, score = labels == 1, probabilities[:, 1]
    return {
        "probabilities": probabilities.tolist(),
        "labels": labels.tolist(),
        "averages": found,
        "brier": metrics.brier_score_loss(labels, probabilities[:, 1] if classes == 2 else probabilities, labels=list(range(classes))),
        "average_precision_of_second": metrics.average_precision_score(positive, score),
        "auc": [metrics.roc_auc_score(labels == c, probabilities[:, c]) for c in range(classes)],
    }


def decision() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    ill = rng.random(150) < 0.3
    score = np.clip(1 / (1 + np.exp(-(2.2 * ill - 1.6 + rng.normal(size=150)))), 0.001, 0.999).round(4)
    thresholds = np.array([0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8])
    table = dca(data=pandas.DataFrame({"ill": ill.astype(int), "model": score}), outcome="ill", modelnames=["model"], thresholds=thresholds)
    curve = {name: table[table["model"] == name].sort_values("threshold")["net_benefit"].tolist() for name in ("model", "all")}
    return {
        "scores": score.tolist(),
        "ill": ill.tolist(),
        "thresholds": thresholds.tolist(),
        "model": curve["model"],
        "everyone": curve["all"],
    }


def multilabel() -> dict[str, Any]:
    rng = np.random.default_rng(4)
    there = (rng.random((60, 3)) < [0.5, 0.2, 0.7]).astype(int)
    probabilities = np.clip(0.5 + 0.3 * (2 * there - 1) + 0.35 * rng.normal(size=(60, 3)), 0, 1).round(4)
    said = (probabilities >= 0.5).astype(int)
    return {
        "probabilities": probabilities.tolist(),
        "findings": there.tolist(),
        "auc": metrics.roc_auc_score(there, probabilities, average="macro"),
        "exact": metrics.accuracy_score(there, said),
        "hamming": metrics.hamming_loss(there, said),
        "macro_f1": metrics.f1_score(there, said, average="macro"),
        "micro_f1": metrics.f1_score(there, said, average="micro"),
    }


def areas() -> dict[str, Any]:
    rng = np.random.default_rng(5)
    true = rng.integers(0, 3, (6, 8, 8))
    said = np.where(rng.random(true.shape) < 0.7, true, rng.integers(0, 3, true.shape))
    true[0][true[0] == 2], said[0][said[0] == 2] = 0, 1  # nobody sees the third class in the first image
    true[1][true[1] == 2] = 0  # and in the second one only the model does
    pairs = [[(t.ravel() == c, s.ravel() == c) for c in range(3)] for t, s in zip(true, said, strict=True)]
    dice = [[metrics.f1_score(*pair, zero_division=np.nan) for pair in image] for image in pairs]
    iou = [[metrics.jaccard_score(*pair, zero_division=0) for pair in image] for image in pairs]
    return {"said": said.tolist(), "true": true.tolist(), "dice": [[None if np.isnan(v) else v for v in row] for row in dice], "iou": iou}


def boxes(*, images: int, seed: int) -> dict[str, Any]:
    """Found boxes near to and far from true ones, with scores that are sometimes equal; some images have none of either."""
    rng = np.random.default_rng(seed)
    true, found = [], []
    for _ in range(images):
        corner, size = rng.uniform(0, 80, (rng.integers(0, 5), 2)), rng.uniform(8, 30, 2)
        wanted = np.concatenate([corner, corner + size], axis=1).round(2)
        kinds = rng.integers(0, 2, len(wanted))
        near = np.repeat(wanted, 2, axis=0) + rng.normal(scale=2.5, size=(2 * len(wanted), 4))
        wild = rng.uniform(0, 60, (rng.integers(0, 4), 2))
        drawn = np.concatenate([near, np.concatenate([wild, wild + 20], axis=1)]).round(2)
        said = np.concatenate([np.repeat(kinds, 2), rng.integers(0, 2, len(wild))])
        true.append({"corners": wanted.tolist(), "classes": kinds.tolist()})
        found.append({"corners": drawn.tolist(), "classes": said.tolist(), "scores": rng.uniform(0.05, 1, len(drawn)).round(1).tolist()})
    return {"true": true, "found": found, **coco(true, found)}


def coco(true: list[dict[str, Any]], found: list[dict[str, Any]]) -> dict[str, Any]:
    """AP by class over all levels, and at IoU 0.5."""
    truth, answers = COCO(), COCO()
    shell = {"images": [{"id": number + 1} for number in range(len(true))], "categories": [{"id": 1}, {"id": 2}]}
    for holder, source in ((truth, true), (answers, found)):
        notes = []
        for number, image in enumerate(source):
            for place, ((left, top, right, bottom), kind) in enumerate(zip(image["corners"], image["classes"], strict=True)):
                box = [left, top, right - left, bottom - top]
                note = {
                    "id": len(notes) + 1,
                    "image_id": number + 1,
                    "category_id": kind + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
                notes.append(note | ({"score": image["scores"][place]} if "scores" in image else {}))
        holder.dataset = shell | {"annotations": notes}
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        answers.createIndex()
        judge = COCOeval(truth, answers, "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    precision = judge.eval["precision"][:, :, :, 0, -1]
    return {
        "ap": judge.stats[0],
        "ap50": judge.stats[1],
        "ap_by_class": precision.mean(axis=(0, 1)).tolist(),
        "ap50_by_class": precision[0].mean(axis=0).tolist(),
    }


def restored() -> dict[str, Any]:
    rng = np.random.default_rng(6)
    true = np.clip(
        np.add.outer(np.linspace(0, 0.7, 24), 0.3 * np.sin(np.arange(20) / 3))[None] + 0.02 * rng.normal(size=(3, 24, 20)), 0, 1
    ).round(4)
    ours = np.clip(true + np.array([0.01, 0.05, 0.15])[:, None, None] * rng.normal(size=true.shape), 0, 1).round(4)
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    return {
        "true": true.tolist(),
        "restored": ours.tolist(),
        "psnr": [peak_signal_noise_ratio(t, o, data_range=1.0) for t, o in zip(true, ours, strict=True)],
        "ssim": [structural_similarity(t, o, **gaussian) for t, o in zip(true, ours, strict=True)],
    }


def main() -> None:
    vectors = {
        "made_with": {name: version(name) for name in LIBRARIES},
        "two classes": classification(2, never=None, seed=0),
        "four classes": classification(4, never=None, seed=1),
        "a class that is never answered": classification(3, never=2, seed=2),
        "decision": decision(),
        "multilabel": multilabel(),
        "areas": areas(),
        "boxes": boxes(images=25, seed=7),
        "restored": restored(),
    }
    Path(__file__).with_name("scoring.json").write_text(json.dumps(vectors) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
