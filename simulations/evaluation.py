# SPDX-License-Identifier: Apache-2.0
"""Scoring a saved model on a folder of labelled images.

The model's card brings the plan, and the plan says everything else: how pixels become input, what the classes are, where the threshold
lies. Weights, card and plan must name each other; a model under another model's card is refused.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as parse_tensors

from client.imaging.identity import load_or_create
from client.imaging.intake import DataSource, open_dataset
from common.errors import CheckpointCorrupt, DataNotFound, ModelHash
from common.models import layout_of_plan
from common.plan import Plan, digest_of, parse
from common.tasks import Scores
from common.update import Weights
from server.export import CARD_FILE, MODEL_FILE
from simulations.observer import score

_AGAIN = "Export the model again, or take it from a whole run folder."


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
    weights = Weights(layout=layout, values=values.astype(np.float32, copy=False))
    if weights.digest.hex() != card["model_digest"] or digest_of(plan) != card["plan_digest"]:
        raise ModelHash(f"weights, card and plan in '{folder}' do not belong together (digests differ).", fix=_AGAIN)
    return weights, plan


def evaluate_folder(
    model: Path, data: Path, *, resamples: int, workers: int, progress: Callable[[str, int, int], None]
) -> tuple[Scores, dict[str, Any]]:
    """Scores per image and per patient, and what became of every file. The decoded images are dropped afterwards.

    Raises: what `load_model` and the intake raise.
    """
    weights, plan = load_model(model)
    with tempfile.TemporaryDirectory(prefix="fedward-") as scratch:
        secret = load_or_create(Path(scratch) / "patient.key")
        images, report = open_dataset(
            DataSource(root=data),
            plan,
            cache=Path(scratch) / "images",
            key=secret,
            workers=workers,
            progress=lambda done, total: progress("reading images", done, total),
        )
        return score(weights, images, plan, resamples=resamples), report.as_dict()
