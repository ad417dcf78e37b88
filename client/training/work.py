# SPDX-License-Identifier: Apache-2.0
"""How much a site does in one round: decided, and paid for on the ledger, before training begins."""

from dataclasses import dataclass, field

from client.training.noise import NoiseSource, SystemNoise


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalWork:
    """Steps to take, in which round, and with which noise multiplier (None: without privacy). The round says how long steps are.

    `order_seed` fixes the order of records and the dropout of a plain run. A private run takes its sample, its dropout and its noise from
    `noise` alone: whoever could foresee the sample would undo the amplification that the accountant counts on.
    """

    steps: int
    noise_multiplier: float | None
    order_seed: bytes
    round: int = 1
    noise: NoiseSource = field(default_factory=SystemNoise)
