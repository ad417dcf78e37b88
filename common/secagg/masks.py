# SPDX-License-Identifier: Apache-2.0
"""Masks: a 32-byte key becomes as many ring words as the model has, and is added or taken away.

The generator is AES-256 in counter mode from a zero counter, a key for one use, words little-endian. The first 16-byte block masks the
three words of the tail (weight and canaries, in Z_2^32; four bytes are not used), the blocks after it the body, in Z_2^32 or, in
bandwidth mode, in Z_2^16. Numpy's unsigned integers wrap, which is exactly the ring's addition.

How fast: the keystream costs ten times the addition, so the body is walked in blocks that stay in cache while every mask is added to
them: `update_into` writes into one scratch block, numpy adds it where it lies. Counter mode can start anywhere, so threads take
stretches of their own (the cipher releases the interpreter's lock).
"""

import itertools
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

Body = NDArray[np.uint32] | NDArray[np.uint16]
Tail = NDArray[np.uint32]

TAIL_WORDS: Final = 3
_AES_BLOCK: Final = 16
_CACHE_BLOCK: Final = 256 * 1024
_SMALLEST_STRETCH: Final = 4 * _CACHE_BLOCK


@dataclass(frozen=True, slots=True)
class Mask:
    """A mask's key, and whether it is added or taken away."""

    key: bytes
    negative: bool = False

    def __repr__(self) -> str:
        return f"Mask(negative={self.negative})"


def apply(masks: Iterable[Mask], *, body: Body, tail: Tail, workers: int = 1) -> None:
    """Add every mask to the body and the tail, in place.

    Shapes: body (d,) uint32 or uint16, tail (3,) uint32; both contiguous.
    Guarantees: the result does not depend on `workers`.
    """
    chosen = tuple(masks)
    for mask in chosen:
        words = np.frombuffer(_keystream(mask.key, block=0).update(bytes(_AES_BLOCK)), dtype="<u4")[:TAIL_WORDS]
        _combine(mask)(tail, words, out=tail)
    stretches = _stretches(body.nbytes, workers)
    if len(stretches) == 1:
        _apply_stretch(chosen, body, 0)
        return
    per_word = body.itemsize
    with ThreadPoolExecutor(len(stretches)) as pool:
        parts = [(body[start // per_word : stop // per_word], start) for start, stop in stretches]
        list(pool.map(lambda part: _apply_stretch(chosen, *part), parts))


def _apply_stretch(masks: tuple[Mask, ...], body: Body, offset: int) -> None:
    """Walk one stretch of the body, which begins `offset` bytes into the whole, in blocks that stay in cache."""
    size = min(_CACHE_BLOCK, -(-body.nbytes // _AES_BLOCK) * _AES_BLOCK)
    zeros, scratch = bytes(size), bytearray(size)
    words = np.frombuffer(scratch, dtype=body.dtype.newbyteorder("<"))
    streams = [(_keystream(mask.key, block=1 + offset // _AES_BLOCK).update_into, _combine(mask)) for mask in masks]
    step = max(1, size // body.itemsize)
    for start in range(0, body.size, step):
        block = body[start : start + step]
        source = zeros if block.nbytes == size else zeros[: block.nbytes]
        mask_words = words[: block.size]
        for fill, combine in streams:
            fill(source, scratch)
            combine(block, mask_words, out=block)


def _keystream(key: bytes, *, block: int) -> Any:
    return Cipher(AES(key), CTR(block.to_bytes(_AES_BLOCK, "big"))).encryptor()


def _combine(mask: Mask) -> Any:
    return np.subtract if mask.negative else np.add


def _stretches(num_bytes: int, workers: int) -> list[tuple[int, int]]:
    """At most `workers` stretches of whole cache blocks, none too small to be worth a thread."""
    count = max(1, min(workers, num_bytes // _SMALLEST_STRETCH))
    blocks = -(-num_bytes // _CACHE_BLOCK)
    edges = [min(num_bytes, blocks * i // count * _CACHE_BLOCK) for i in range(count + 1)]
    return list(itertools.pairwise(edges))
