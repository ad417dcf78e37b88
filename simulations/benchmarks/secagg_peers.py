# SPDX-License-Identifier: Apache-2.0
"""What FSA1 is measured against: the hardware's limit, Flower's SecAgg+ helpers, and CKKS where TenSEAL is installed.

The limit is what cannot be avoided: one AES-256-CTR keystream a mask, and one ring addition of each, in blocks that stay in cache, with
no loop overhead worth naming. Flower's figure runs its own client code's helpers on one vector: a mask a neighbour and one of its own,
from `pseudo_rand_gen`, added and reduced as its client does; its key agreement and shares are timed apart, as ours are.
"""

import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from flwr.common.secure_aggregation import ndarrays_arithmetic as arithmetic
from flwr.common.secure_aggregation import quantization
from flwr.common.secure_aggregation.crypto.shamir import create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import encrypt, generate_shared_key
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.supercore.primitives.asymmetric import generate_key_pairs
from numpy.typing import NDArray

from simulations.benchmarks.secagg_round import best

_BLOCK = 256 * 1024
_FLOWER_CLIP, _FLOWER_TARGET, _FLOWER_MODULUS = 8.0, 1 << 22, 1 << 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Seconds that the keystream and the additions of a site's masks cannot do without."""

    keystream_s: float
    addition_s: float

    @property
    def total_s(self) -> float:
        return self.keystream_s + self.addition_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Flower:
    """Seconds of one SecAgg+ client: quantising and masking one vector; keys and shares for its neighbours."""

    quantise_s: float
    masking_s: float
    share_s: float
    bytes_a_value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ckks:
    """Seconds to encrypt one vector, and bytes a parameter."""

    encrypt_s: float
    bytes_a_value: float


def limit(num_masks: int, num_values: int, *, bytes_per_word: int = 4, repeats: int = 5) -> Limit:
    """Measured in this process, now: the same blocks, the same calls, nothing around them."""
    num_bytes = num_values * bytes_per_word
    blocks, rest = divmod(num_bytes, _BLOCK)
    zeros, scratch = bytes(_BLOCK), bytearray(_BLOCK)
    tail, tail_scratch = bytes(rest), bytearray(rest)

    def keystream() -> None:
        for _ in range(num_masks):
            fill = Cipher(algorithms.AES(bytes(32)), modes.CTR(bytes(16))).encryptor().update_into
            for _ in range(blocks):
                fill(zeros, scratch)
            if rest:
                fill(tail, tail_scratch)

    word = np.uint32 if bytes_per_word == 4 else np.uint16
    body = np.zeros(_BLOCK // bytes_per_word, dtype=word)
    mask = np.frombuffer(scratch, dtype=word)
    part, mask_part = body[: rest // bytes_per_word], mask[: rest // bytes_per_word]

    def addition() -> None:
        for _ in range(num_masks):
            for _ in range(blocks):
                np.add(body, mask, out=body)
            if rest:
                np.add(part, mask_part, out=part)

    return Limit(keystream_s=best(keystream, repeats)[0], addition_s=best(addition, repeats)[0])


def flower(num_sites: int, num_values: int, *, threshold: int, repeats: int = 3) -> Flower:
    """One client among `num_sites`, with Flower's own helpers."""
    values = [np.full(num_values, 0.01, dtype=np.float64)]
    quantise_s, quantised = best(lambda: quantization.quantize(values, _FLOWER_CLIP, _FLOWER_TARGET), repeats)
    seeds = [os.urandom(32) for _ in range(num_sites)]

    def mask() -> list[NDArray[Any]]:
        vector = quantised
        for index, seed in enumerate(seeds):
            combine = arithmetic.parameters_subtraction if index % 2 else arithmetic.parameters_addition
            vector = combine(vector, pseudo_rand_gen(seed, _FLOWER_MODULUS, [(num_values,)]))
        return arithmetic.parameters_mod(vector, _FLOWER_MODULUS)

    masking_s, masked = best(mask, repeats)
    return Flower(
        quantise_s=quantise_s,
        masking_s=masking_s,
        share_s=_flower_shares(num_sites, threshold),
        bytes_a_value=masked[0].itemsize,
    )


def _flower_shares(num_sites: int, threshold: int) -> float:
    (own, _), peers = generate_key_pairs(), [generate_key_pairs()[1] for _ in range(num_sites - 1)]
    started = time.process_time()
    shares = create_shares(os.urandom(32), threshold, num_sites), create_shares(os.urandom(241), threshold, num_sites)
    for peer, seed_share, key_share in zip(peers, *shares, strict=False):
        encrypt(generate_shared_key(own, peer), seed_share + key_share)
    return time.process_time() - started


def ckks(num_values: int) -> Ckks | None:
    """TenSEAL at N = 8192, or None where it is not installed."""
    try:
        import tenseal
    except ImportError:
        return None
    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 40, 60])
    context.global_scale = 2**40
    values = np.full(num_values, 0.01)
    started = time.process_time()
    encrypted = [tenseal.ckks_vector(context, values[i : i + 4096]) for i in range(0, num_values, 4096)]
    seconds = time.process_time() - started
    return Ckks(encrypt_s=seconds, bytes_a_value=sum(len(vector.serialize()) for vector in encrypted) / num_values)
