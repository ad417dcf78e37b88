# SPDX-License-Identifier: Apache-2.0
"""Weights that were trained elsewhere: where a process looks for them, and how it knows that they are the right ones.

A plan names a file and its SHA-256. Every party has the file in a folder of its own; nothing is ever fetched. A file is used only if its
bytes hash to what all have agreed to, so it does not matter which folder it came from, and a process that serves several sites may look in
all of their folders. It is safetensors: numbers, and no code.

    model.weights        the file's name      model.weights_digest     its SHA-256, 64 hex digits
    home/weights/        where a site looks, unless its site.toml says otherwise; a coordinator: weights/ in its folder
    weights/             in the folder where a command is run: where everybody looks last
"""

import hashlib
import threading
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as parse_tensors

from common.errors import DataNotFound, ModelHash, ModelLayout
from common.plan import BackboneSpec, ModelSpec

WEIGHTS_FOLDER: Final = "weights"
MOST_BYTES: Final = 2**30
_folders: list[Path] = []
_lock = threading.Lock()


def look_in(folder: Path) -> None:
    """Look here too, from now on, in this process. The newest is looked in first."""
    with _lock:
        if folder in _folders:
            _folders.remove(folder)
        _folders.insert(0, folder)
        del _folders[64:]


def find(spec: ModelSpec) -> Path | None:
    """The file that a plan's model starts from; None, if it starts from nothing. Raises: DataNotFound, ModelHash."""
    if not isinstance(spec, BackboneSpec):
        return None
    with _lock:
        there = [path for folder in (*_folders, Path(WEIGHTS_FOLDER)) if (path := folder / spec.weights).is_file()]
    if not there:
        raise DataNotFound(
            f"the model starts from the file '{spec.weights}' (SHA-256 {spec.weights_digest[:12]}...), which is not here.",
            fix=f"Put it into the folder '{WEIGHTS_FOLDER}' of the site, of the coordinator, or where the command is run; "
            "`fedward model convert` makes such files.",
        )
    first = ""
    for path in there:
        digest = _digest(path, path.stat().st_size, path.stat().st_mtime_ns)
        if digest == spec.weights_digest:
            return path
        first = first or digest
    raise ModelHash(
        f"the file '{spec.weights}' has the SHA-256 {first[:12]}..., the plan says {spec.weights_digest[:12]}...",
        fix="Get the file that the plan was agreed for; another one gives other features, and is not used.",
    )


@lru_cache(maxsize=2)
def tensors_of(spec: BackboneSpec) -> Mapping[str, NDArray[np.float32]]:
    """What the file holds, by name. Raises: DataNotFound, ModelHash, ModelLayout."""
    path = find(spec)
    assert path is not None
    raw = path.read_bytes()
    if hashlib.sha256(raw).hexdigest() != spec.weights_digest:  # what is used is what was hashed
        raise ModelHash(f"the file '{spec.weights}' changed while it was read.", fix="Put it back as it was.")
    try:
        found = parse_tensors(raw)
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise ModelLayout(
            f"the file '{spec.weights}' is no safetensors file ({type(error).__name__}).", fix="Make it: fedward model convert."
        ) from error
    return {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in found.items()}


@lru_cache(maxsize=16)
def _digest(path: Path, size: int, changed_ns: int) -> str:
    del changed_ns  # part of the key alone: a file that was changed is hashed again
    if size > MOST_BYTES:
        raise ModelHash(
            f"the file '{path.name}' has {size} bytes, {MOST_BYTES} at most are expected.", fix="Get the file that the plan was agreed for."
        )
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
