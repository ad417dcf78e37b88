# SPDX-License-Identifier: Apache-2.0
"""How long a round's steps are: the plan's learning rate, times a number from 0 to 1 that follows from the round alone.

    warm-up     r / (w + 1) for the first w rounds: 1/(w+1), 2/(w+1), ...
    constant    1 from then on
    cosine      (1 + cos(pi t)) / 2 from then on, t the part of the rounds after the warm-up that is over: 1 at first, nearly 0 at the end
                (Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983, equation 5, without restarts)

Everybody who needs it works it out from the plan, so it is sent to nobody and cannot be lied about; and since it is never more than 1, how
far a round may move the model stays what it was (`common.agreement.step_limit`). It depends on no patient and costs no privacy.

    >>> spec = TrainingSpec(rounds=6, batch=1, learning_rate=0.1, schedule="cosine", warmup_rounds=1)
    >>> [round(factor(spec, number), 2) for number in range(1, 7)]
    [0.5, 1.0, 0.9, 0.65, 0.35, 0.1]
"""

import math
from dataclasses import replace

from common.plan.spec import TrainingSpec


def factor(spec: TrainingSpec, number: int) -> float:
    """What the learning rate is multiplied by in round `number`, from 1 on. Guarantees: above 0, at most 1, within the plan's rounds."""
    warm = spec.warmup_rounds
    if number <= warm:
        return number / (warm + 1)
    if spec.schedule == "constant":
        return 1.0
    return (1 + math.cos(math.pi * (number - 1 - warm) / (spec.rounds - warm))) / 2


def at_round(spec: TrainingSpec, number: int) -> TrainingSpec:
    """The training of one round: the plan's own, with that round's learning rate."""
    scale = factor(spec, number)
    return spec if scale == 1.0 else replace(spec, learning_rate=spec.learning_rate * scale)
