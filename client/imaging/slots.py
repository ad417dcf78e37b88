# SPDX-License-Identifier: Apache-2.0
"""Samples in one file, each at its slot: how several processes write one NPY without talking to each other.

    | NPY header, 128 bytes | sample 0 | sample 1 | ...

Every file to be read has a slot, in the order of the listing, so the result does not depend on who finished first. Slots of rejected files
stay holes (nothing is written, so nothing is used of the disk) until `close_gaps` moves the others down.
"""

import os
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

HEADER_BYTES = 128
SAMPLE_DTYPE = np.dtype("<u2")

Shape = tuple[int, int, int]  # C, H, W


def sample_bytes(shape: Shape) -> int:
    """The room of one sample."""
    return int(np.prod(shape)) * SAMPLE_DTYPE.itemsize


def write(output: int, slot: int, sample: NDArray[np.uint16]) -> None:
    """Put one sample (C, H, W) at its slot of the open file, whole. Raises: OSError, on a full disk among others."""
    content = sample.astype(SAMPLE_DTYPE, copy=False).data.cast("B")
    _write_at(output, content, HEADER_BYTES + slot * len(content))


def read(output: int, slot: int, shape: Shape) -> NDArray[np.uint16]:
    """One sample of the open file, (C, H, W), before it is finished."""
    size = sample_bytes(shape)
    return np.frombuffer(os.pread(output, size, HEADER_BYTES + slot * size), dtype=SAMPLE_DTYPE).reshape(shape)


def finish(output: int, slots: Sequence[int], shape: Shape) -> None:
    """Make the file a NPY of the samples at `slots` (ascending), in that order, and bring it to the disk."""
    _close_gaps(output, slots, sample_bytes(shape))
    os.ftruncate(output, HEADER_BYTES + len(slots) * sample_bytes(shape))
    _write_at(output, memoryview(header((len(slots), *shape))), 0)
    os.fsync(output)


def _close_gaps(output: int, slots: Sequence[int], size: int) -> None:
    """Slots ascend, so no sample is overwritten before it has moved."""
    for row, slot in enumerate(slots):
        if row != slot:
            _write_at(output, memoryview(os.pread(output, size, HEADER_BYTES + slot * size)), HEADER_BYTES + row * size)


def _write_at(output: int, content: memoryview, position: int) -> None:
    while content:
        written = os.pwrite(output, content, position)
        content, position = content[written:], position + written


def header(shape: tuple[int, ...]) -> bytes:
    """The NPY header (version 1.0) of an array of samples."""
    stream = BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": SAMPLE_DTYPE.str, "fortran_order": False, "shape": shape})
    content = stream.getvalue()
    if len(content) != HEADER_BYTES:
        raise ValueError(f"NPY header of {len(content)} bytes, {HEADER_BYTES} expected")
    return content
