# SPDX-License-Identifier: Apache-2.0
"""What a promise made for one image leaves for a patient who has several.

A plan with `unit = "record"` compares data sets that differ in one image. Those that differ in a patient of m images are m such steps
apart, and each step multiplies what went before by e^epsilon (Dwork and Roth 2014, theorem 2.2, https://doi.org/10.1561/0400000042, gives
m epsilon for delta = 0; with delta: Vadhan 2017, lemma 2.2, https://doi.org/10.1007/978-3-319-57048-8_7):

    (epsilon, delta)  ->  (m epsilon,  (1 + e^epsilon + ... + e^((m-1) epsilon)) delta),   at most m e^((m-1) epsilon) delta

The sum is the exact outcome of the m steps; theirs is the rounder bound. At delta >= 1 the statement is empty: it allows everything.
That is why the patient is the unit of this house, and records are for comparison only.
"""

import math

_EXP_MAX = 600.0  # e to more would overflow; delta is 1 long before


def group_privacy(epsilon: float, delta: float, images: int) -> tuple[float, float]:
    """Epsilon and delta for a patient of this many images, 1 or more; delta is cut off at 1, where the statement is empty.

    >>> eps, delta = group_privacy(1.0, 1e-6, 2)
    >>> eps, round(delta * 1e6, 3)
    (2.0, 3.718)
    """
    assert images >= 1
    steps = sum(math.exp(min(step * epsilon, _EXP_MAX)) for step in range(images))
    return images * epsilon, min(steps * delta, 1.0)
