# SPDX-License-Identifier: Apache-2.0
"""How many patients a hospital needs, by a rule of thumb.

Clipped to one norm and drowned in noise, a step's gradient is worth the ratio of patients to noise. At equal epsilon a hospital's noise
falls as one over its patients, and the noise of n hospitals' mean as one over the square root of n: with local noise n hospitals are worth
sqrt(n) times their patients, and with distributed noise, of which each adds 1 / (m - c) of the variance, sqrt(n (m - c)) times. So

    patients needed for each hospital = N* f(epsilon) / sqrt(n)    or    N* f(epsilon) / sqrt(n (m - c))

N*, what a hospital would need by itself, was measured in one study: chest X-rays, 28 x 28, one image a patient, 5 and 10 sites, loss of at
most 0.03 in AUC at epsilon 8 and delta 1e-5; a linear model on scattering features, and a network of 15,000 weights. f(epsilon) was
measured at 8, 3 and 1 and is drawn straight between them on logarithmic paper, and on beyond them.

What this does not know: your images. A larger network needs more (noise has a length that grows as the root of its weights), a harder task
or fewer rounds too. It tells hundreds from thousands; `sweep` measures, though on made images.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from common.plan import Plan, ScatteringSpec
from simulations.planner.forecast import ModeForecast

LOSS: Final = 0.03
LINEAR: Final = (500, 900)
NETWORK: Final = (3000, 6000)
"""N* at epsilon 8: the lowest and the highest that the study found."""
_FACTORS: Final = ((1.0, 5.3), (3.0, 2.1), (8.0, 1.0))

Verdict = Literal["enough", "borderline", "too few"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """Patients that each hospital should have: below `low` there are too few, from `high` on enough."""

    low: int
    high: int

    def verdict(self, patients: int) -> Verdict:
        return "too few" if patients < self.low else "enough" if patients >= self.high else "borderline"


def needed(found: ModeForecast, *, linear: bool) -> Needed:
    """For as many hospitals as the forecast has, all alike, with this mode's noise."""
    epsilon, sites = found.plan.privacy.epsilon, len(found.sites)
    assert epsilon is not None
    honest = found.plan.noise_quorum - found.plan.privacy.colluders if found.mode == "distributed" else 1
    low, high = (alone * factor(epsilon) / math.sqrt(sites * honest) for alone in (LINEAR if linear else NETWORK))
    return Needed(low=math.ceil(low), high=math.ceil(high))


def is_linear(plan: Plan) -> bool:
    return isinstance(plan.model, ScatteringSpec)


def factor(epsilon: float) -> float:
    """How many times more patients than at epsilon 8.

    >>> [round(factor(epsilon), 2) for epsilon in (1.0, 2.0, 3.0, 8.0)]
    [5.3, 2.96, 2.1, 1.0]
    """
    (low, at_low), (high, at_high) = next((pair for pair in pairwise(_FACTORS) if epsilon <= pair[1][0]), _FACTORS[-2:])
    slope = math.log(at_high / at_low) / math.log(high / low)
    return float(at_low * (epsilon / low) ** slope)
