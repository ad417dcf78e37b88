# SPDX-License-Identifier: Apache-2.0
"""Made weights for a backbone, so that a plan of transfer learning runs on a machine that has no file of trained ones.

Nobody trained them: they are random filters, whose features are nevertheless enough to tell simple things apart (Jarrett et al. 2009,
https://doi.org/10.1109/ICCV.2009.5459469). The file goes by a name of its own, and its digest is in the plans that ship. The same bytes on
every machine: whole numbers from a stream that numpy promises to keep, times a power of two.
"""

import math
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as write_tensors

from common.durable import write_atomically
from common.models import look_in
from common.models.backbone import PARTS, part_of_trunk
from common.plan import BackboneSpec, ModelSpec

PREFIX: Final = "made-"
_STEPS: Final = 2**12
_SEED: Final = 20150


def name_of(spec: BackboneSpec) -> str:
    """What the made file for such a network is called."""
    return f"{PREFIX}{spec.architecture}-{spec.norm}-{spec.width}.safetensors"


def offer(spec: ModelSpec, folder: Path) -> None:
    """Make the file in `folder` and have it found there, if the plan names it."""
    if not isinstance(spec, BackboneSpec) or spec.weights != name_of(spec):
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / spec.weights, made(spec), fsync=False)
    look_in(folder)


def made(spec: BackboneSpec) -> bytes:
    """The file: convolutions uniform about 0, with a variance of about 2 over the inputs (He et al. 2015, section 2.2); biases 0."""
    rng, tensors = np.random.Generator(np.random.PCG64(_SEED)), {}
    for number, part in enumerate(PARTS):
        for name, parameter in part_of_trunk(spec, number).named_parameters():
            tensors[f"{part}.{name}"] = _values(tuple(parameter.shape), is_scale=name.endswith(".1.weight"), rng=rng)
    return bytes(write_tensors(tensors))


def _values(shape: tuple[int, ...], *, is_scale: bool, rng: np.random.Generator) -> NDArray[np.float32]:
    if len(shape) == 1:
        return np.full(shape, float(is_scale), dtype=np.float32)
    bound = 2.0 ** round(math.log2(math.sqrt(6 / math.prod(shape[1:]))))
    steps = rng.integers(-_STEPS, _STEPS, size=shape, endpoint=True, dtype=np.int64)
    values: NDArray[np.float32] = (steps * (bound / _STEPS)).astype(np.float32)
    return values
