# SPDX-License-Identifier: Apache-2.0
"""How long a step waits for whoever has not answered.

Training waits until the plan's deadline: that is what the plan gives a hospital to train in, and the patients of the slowest count as much
as those of the fastest. Every step after it is a matter of seconds at a site, so there a silent site should not cost the others minutes:
once as many have answered as the step needs, the others have a grace of

    max(deadline / 10, 3 * how long that took)

and never longer than the deadline. A tenth of the deadline (a minute, of the usual ten) is for a slow link, three times what the others
took for a large model on slow links all around. A site that is given up here is not lost to the sum if its masked update was in before.

    >>> grace_s(600.0, 0.5), grace_s(600.0, 90.0)
    (60.0, 270.0)
"""

import time
from collections.abc import Callable

_SHARE: float = 0.1
_TIMES: float = 3.0


def grace_s(deadline_s: float, took_s: float) -> float:
    """How much longer a step waits, when what it needs came in after `took_s`."""
    return max(_SHARE * deadline_s, _TIMES * took_s)


class Patience:
    """One step's patience with one group: `end` is when it runs out, on the monotonic clock, and moves with the answers."""

    def __init__(self, deadline_s: float, *, asked: int, needed: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        """`needed`: how many good answers the step can do with; None, if everybody is waited for."""
        self._clock, self._deadline_s = clock, deadline_s
        self._started = clock()
        self._outstanding, self._needed = asked, needed
        self.end = self._started + deadline_s
        self._settle()

    def note(self, *, good: bool) -> None:
        """Somebody answered; `good`, if the step can use it."""
        self._outstanding -= 1
        if good and self._needed is not None:
            self._needed -= 1
        self._settle()

    def _settle(self) -> None:
        now = self._clock()
        if self._outstanding <= 0:
            self.end = min(self.end, now)
        elif self._needed is not None and self._needed <= 0:
            self.end = min(self.end, now + grace_s(self._deadline_s, now - self._started))
