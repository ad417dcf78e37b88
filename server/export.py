# SPDX-License-Identifier: Apache-2.0
"""The trained model as two files: `model.safetensors`, one tensor per layer, and `model.json`, its card.

The card says what the weights alone cannot: the plan in full, who trained, how much privacy was promised, what was measured and on
whom. The two name each other by digest, so a model cannot travel under another model's card. What a model started from, and keeps of it
unchanged, lies beside them in `weights/`: without it the model says nothing.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.numpy import save as write_tensors

from common.durable import write_atomically
from common.models import WEIGHTS_FOLDER, find
from common.plan import Plan, digest_of, to_toml
from common.update import Weights
from server.home import CARD_FILE, MODEL_FILE

CARD_VERSION = 1


def export(folder: Path, *, weights: Weights, plan: Plan, facts: Mapping[str, Any]) -> None:
    """Write model and card into `folder`. `facts` are what the caller knows of the run: sites, rounds, epsilon, metrics.

    Raises: DataNotFound, ModelHash, if what the model started from is not here.
    """
    bring_start(plan, folder)
    write_atomically(folder / MODEL_FILE, write_tensors(_named(weights), metadata={"fedward": weights.digest.hex()}), fsync=True)
    card = {
        "card": CARD_VERSION,
        "name": plan.name,
        "purpose": plan.plan.purpose,
        "model_digest": weights.digest.hex(),
        "plan_digest": digest_of(plan),
        "plan": to_toml(plan),
        **facts,
    }
    write_atomically(folder / CARD_FILE, json.dumps(card, indent=2, ensure_ascii=False).encode() + b"\n", fsync=True)


def bring_start(plan: Plan, folder: Path) -> None:
    """A copy in `folder/weights` of the file that the model started from, if it did. Raises: DataNotFound, ModelHash, DiskFull."""
    start = find(plan.model)
    if start is not None and not ((copy := folder / WEIGHTS_FOLDER / start.name).exists() and copy.samefile(start)):
        copy.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(copy, start.read_bytes(), fsync=True)


def _named(weights: Weights) -> dict[str, Any]:
    tensors, start = {}, 0
    for name, shape in zip(weights.layout.names, weights.layout.shapes, strict=True):
        size = math.prod(shape)
        tensors[name] = weights.values[start : start + size].reshape(shape)
        start += size
    return tensors
