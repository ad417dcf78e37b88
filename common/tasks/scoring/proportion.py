# SPDX-License-Identifier: Apache-2.0
"""How sure one can be of a share of patients: Wilson's interval (1927, https://doi.org/10.1080/01621459.1927.10502953).

Sixteen of sixteen found is not certainty, and resampling those sixteen would say that it is: each resample finds all. Where a figure is a
plain share of patients, this interval is taken; it stays inside [0, 1] and says something even where everyone, or no one, is counted.
"""

import math

from common.tasks.bootstrap import Interval

_Z95 = 1.959963984540054


def wilson(hits: int, size: int) -> Interval | None:
    """The 95 % score interval of a share; None of nobody.

    >>> found = wilson(0, 10)
    >>> round(found.low, 3), round(found.high, 3)
    (0.0, 0.278)
    """
    if size == 0:
        return None
    share, z2 = hits / size, _Z95**2
    centre = (share + z2 / (2 * size)) / (1 + z2 / size)
    half = _Z95 * math.sqrt(share * (1 - share) / size + z2 / (4 * size**2)) / (1 + z2 / size)
    return Interval(low=max(0.0, centre - half), high=min(1.0, centre + half))
