# SPDX-License-Identifier: Apache-2.0
"""How a deployed coordinator waits where a simulation gives up.

Hospitals go away, for a night or for an upgrade, and come back. A run that stops whenever too few are there needs a person to start it
again; so a deployed one waits, says why, and tries again, each time after twice as long up to `longest_s`. It does so only where a retry
can help: too few sites, or a roster that cannot be read yet. Where sites fell away after they had trained, trying again may make them
train, and pay, again, so that is done `costly` times in a row and no more. A sum that did not come out right is never tried again: its
updates are spent, and somebody has to look.

Within a round it waits longer still. Once sites have trained, their updates are worth more than time: the secrets that mask them are at
the sites, on disk, so the same attempt can go on whenever enough of them are back. It is given up after `hold_s`; and only after
`hold_shares_s` once shares are being opened, since there giving up means that sites train, and pay, again.
"""

from dataclasses import dataclass
from typing import Final

from common.errors import CohortTooSmall, ConfirmQuorum, FedwardError, RosterError, SurvivorSet
from common.secagg.messages import Step

_FREE: Final = (CohortTooSmall, RosterError)
_COSTLY: Final = (SurvivorSet, ConfirmQuorum)
"""What may happen after sites have trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Persistence:
    """Times are in seconds."""

    first_s: float = 15.0
    longest_s: float = 600.0
    hold_s: float = 900.0
    hold_shares_s: float = 86_400.0
    costly: int = 2

    def pause_s(self, failures: int) -> float:
        """Before a round is tried again, after so many failures in a row.

        >>> [Persistence().pause_s(n) for n in (1, 2, 3, 9)]
        [15.0, 30.0, 60.0, 600.0]
        """
        return float(min(self.longest_s, self.first_s * 2 ** min(failures - 1, 16)))

    def hold_of(self, step: Step) -> float:
        """How long a step is asked again and again, once fewer have answered than it needs."""
        return self.hold_shares_s if step is Step.UNMASK else self.hold_s

    def may_mend(self, error: FedwardError, failures: int) -> bool:
        """Whether to try the round again, which has failed so often before this error."""
        return isinstance(error, _FREE) or (isinstance(error, _COSTLY) and failures < self.costly)
