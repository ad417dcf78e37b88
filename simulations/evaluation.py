# SPDX-License-Identifier: Apache-2.0
"""Scoring a saved model on a folder of labelled images.

The model's card brings the plan, and the plan says everything else: how pixels become input, what the classes are, where the threshold
lies. Weights, card and plan must name each other; a model under another model's card is refused.

A threshold can instead be chosen by a rule, on validation patients: those of another folder, or those that the folder's own `split` column
sets apart. Whoever is in both is noticed, and the choice refused: a threshold judged on the patients it was chosen on looks too good.
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as parse_tensors

from client.imaging.columns import column_of, has_splits
from client.imaging.dataset import Dataset
from client.imaging.identity import PatientSecret, load_or_create
from client.imaging.intake import DataSource, open_dataset
from client.imaging.splits import Split
from client.training import predict
from common.errors import CheckpointCorrupt, DataNotFound, LabelsMismatch, ModelHash, PatientStraddles
from common.models import WEIGHTS_FOLDER, layout_of_plan, look_in
from common.plan import ClassificationSpec, Plan, digest_of, parse
from common.tasks import by_patient, evaluate
from common.tasks.scoring.groups import Groups, by_group
from common.tasks.scoring.operating import OperatingPoint, Rule
from common.update import Weights
from server.home import CARD_FILE, MODEL_FILE
from simulations import thresholds
from simulations.judging import AnyScores, judge
from simulations.thresholds import Threshold

_AGAIN = "Export the model again, or take it from a whole run folder."
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of a model: scores on `data`; by a column of it; at a threshold by a rule on validation patients.

    `validation` is a folder of theirs; without it they are those that the data's own `split` column sets apart.
    """

    data: Path
    by: str | None = None
    rule: Rule | None = None
    validation: Path | None = None
    resamples: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predicted:
    """Of each patient the mean probability of each class, (M, C), and the label, (M,): what curves are drawn from."""

    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """What was found; `intake` is what became of every file. Curves are of classes, thresholds of what `simulations.thresholds` says."""

    plan: Plan
    model_digest: str
    scores: AnyScores
    curves: Predicted | None
    thresholds: tuple[Threshold, ...]
    by: str | None
    groups: Groups[AnyScores] | None
    intake: dict[str, Any]

    @property
    def threshold(self) -> float | None:
        """Where there is one alone."""
        return self.thresholds[0].value if len(self.thresholds) == 1 else None

    @property
    def chosen(self) -> OperatingPoint | None:
        """Where there is one alone, and it is not the plan's."""
        return self.thresholds[0].chosen if len(self.thresholds) == 1 else None

    def as_dict(self) -> dict[str, Any]:
        """For `--json`: figures, and no patient's own."""
        return {
            "model": self.model_digest,
            "plan": digest_of(self.plan),
            "images": self.intake,
            "threshold": self.threshold,
            "chosen": None if self.chosen is None else asdict(self.chosen),
            "thresholds": [asdict(one) for one in self.thresholds],
            "scores": self.scores.as_dict(),
            "by": self.by,
            "groups": None if self.groups is None else asdict(self.groups),
        }


def load_model(folder: Path) -> tuple[Weights, Plan]:
    """Weights and plan of an exported model. Raises: DataNotFound, CheckpointCorrupt, ModelHash, PlanError."""
    for name in (MODEL_FILE, CARD_FILE):
        if not (folder / name).is_file():
            raise DataNotFound(f"'{folder}' holds no {name}.", fix="Give the folder of a finished run, or of an exported model.")
    try:
        card = json.loads((folder / CARD_FILE).read_bytes())
        tensors = parse_tensors((folder / MODEL_FILE).read_bytes())
        plan = parse(card["plan"], name=f"{folder / CARD_FILE}, plan")
        layout = layout_of_plan(plan)
        values = np.concatenate([tensors[name].reshape(-1) for name in layout.names])
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointCorrupt(f"the model in '{folder}' cannot be read ({type(error).__name__}).", fix=_AGAIN) from error
    look_in(folder / WEIGHTS_FOLDER)
    weights = Weights(layout=layout, values=values.astype(np.float32, copy=False))
    if weights.digest.hex() != card["model_digest"]:
        raise ModelHash(f"weights and card in '{folder}' do not belong together (digests differ).", fix=_AGAIN)
    if digest_of(plan) != card["plan_digest"]:
        # A version that knows more keys has another digest for the same text.
        raise ModelHash(
            f"the plan in the card of '{folder}' is not the one that was trained, or another version of fedward read it (digests differ).",
            fix=f"Evaluate it with the version that made it ({card.get('fedward', 'not said')}), or export it again.",
        )
    return weights, plan


def evaluate_folder(model: Path, question: Question, *, workers: int, progress: Progress) -> Answer:
    """Judge a model. The decoded images are dropped afterwards.

    Raises: what `load_model`, the intake and the choice of a threshold raise; PatientStraddles for a patient in both folders.
    """
    weights, plan = load_model(model)
    if question.rule is not None:
        thresholds.check(plan)
    with tempfile.TemporaryDirectory(prefix="fedward-") as scratch:
        opened = Folders(Path(scratch), load_or_create(Path(scratch) / "patient.key"), plan, workers, progress)
        data, intake = opened.open(question.data, "reading images")
        judged, validation = _sides(opened, question, data)
        used = thresholds.of_plan(plan)
        if question.rule is not None and validation is not None:
            used = thresholds.chosen_on(weights, validation, plan, question.rule)
        score, predicted = _judge(weights, judged, _at(plan, used), question.resamples, [one.value for one in used])
        groups = None
        if question.by is not None:
            groups = by_group(_groups(judged, question.data, question.by, opened.secret), judged.patients, score)
        return Answer(
            plan=plan,
            model_digest=weights.digest.hex(),
            scores=score(np.arange(len(judged))),
            curves=predicted,
            thresholds=used,
            by=question.by,
            groups=groups,
            intake=intake,
        )


def _judge(
    weights: Weights, data: Dataset, plan: Plan, resamples: int, at: list[float]
) -> tuple[Callable[[NDArray[np.int64]], AnyScores], Predicted | None]:
    """How to score any rows of the data, and of classes what curves are drawn from; probabilities are then computed once for all groups."""
    if not isinstance(plan.task, ClassificationSpec):
        return lambda rows: judge(weights, data.subset(rows), plan, resamples=resamples, thresholds=at), None
    task, probabilities = plan.task, predict(weights, data, plan)

    def score(rows: NDArray[np.int64]) -> AnyScores:
        found = probabilities[rows], data.labels[rows], data.patients[rows]
        return evaluate(task, *found, resamples=resamples, seed=plan.training.seed)

    of_patients, labels = by_patient(probabilities, data.labels, data.patients)
    return score, Predicted(probabilities=of_patients, labels=labels)


def _at(plan: Plan, used: tuple[Threshold, ...]) -> Plan:
    """The plan with a threshold of its two classes that was chosen here."""
    if not isinstance(plan.task, ClassificationSpec) or not used or used[0].chosen is None:
        return plan
    return replace(plan, task=replace(plan.task, threshold=used[0].value))


@dataclass(frozen=True, slots=True)
class Folders:
    """Opens folders under one secret, so that a patient of two of them has one key."""

    scratch: Path
    secret: PatientSecret
    plan: Plan
    workers: int
    progress: Progress

    def open(self, root: Path, said: str) -> tuple[Dataset, dict[str, Any]]:
        data, report = open_dataset(
            DataSource(root=root),
            self.plan,
            cache=self.scratch / "images",
            key=self.secret,
            workers=self.workers,
            progress=lambda done, total: self.progress(said, done, total),
        )
        return _in_order(data), report.as_dict()


def _sides(opened: Folders, question: Question, data: Dataset) -> tuple[Dataset, Dataset | None]:
    """Who is judged, and who chooses the threshold, if it is to be chosen."""
    if question.rule is None:
        return data, None
    if question.validation is not None:
        other, _ = opened.open(question.validation, "reading validation images")
        both = set(_patients(data)) & set(_patients(other))
        if both:
            raise PatientStraddles(
                f"{len(both)} patients are in the data and in the validation folder.",
                fix="Take them out of one of the two: a threshold may not be judged on the patients that it was chosen on.",
            )
        return data, other
    if not has_splits(question.data):
        raise LabelsMismatch(
            f"'{question.data}' has no column 'split', so it is not known whose images may choose a threshold.",
            fix="Name a folder of other patients with --validation, or leave --threshold out to keep the plan's.",
        )
    sides = data.subset(data.rows_of(Split.TEST)), data.subset(data.rows_of(Split.VALIDATION))
    if not all(map(len, sides)):
        raise LabelsMismatch(
            f"'{question.data}': column 'split' names {len(sides[0])} images for the test and {len(sides[1])} for validation.",
            fix="Name images of both, or name a folder of other patients with --validation.",
        )
    return sides


def _in_order(data: Dataset) -> Dataset:
    """Patients numbered by their first image: the folder's own order, so that it draws the same resamples under any secret."""
    unique, first = np.unique(data.patients, return_index=True)
    order = unique[np.argsort(first, kind="stable")]
    place = np.zeros(len(data.patient_keys), dtype=np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    return replace(data, patients=place[data.patients], patient_keys=tuple(data.patient_keys[patient] for patient in order))


def _patients(data: Dataset) -> list[str]:
    return [data.patient_keys[patient] for patient in np.unique(data.patients)]


def _groups(data: Dataset, root: Path, column: str, secret: PatientSecret) -> tuple[str, ...]:
    if column == "site" and data.sites is not None and data.site_index is not None:
        return tuple(data.sites[index] for index in data.site_index)
    return column_of(root, column, data.items, secret)
