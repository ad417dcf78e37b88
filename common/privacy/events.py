# SPDX-License-Identifier: Apache-2.0
"""What was done to a site's data, in the terms that an accountant understands.

Each unit (a patient, or a record for comparison) is drawn independently with probability `sampling_rate` (Poisson sampling); the clipped
gradients of those drawn are summed; Gaussian noise of `noise_multiplier` times the clip norm is added; and that, `steps` times over. Two
data sets are neighbours when one has a unit more (add or remove).

The rate must not betray how many units there are, so the plan's batch is divided by a public count: the true one rounded down to three
significant bits. Rounding down makes the rate larger than batch / true count, never smaller: what is accounted is what is done.
"""

from dataclasses import dataclass, replace

from common.errors import TooFewPatients

SIGNIFICANT_BITS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """`steps` Poisson-subsampled Gaussian mechanisms."""

    sampling_rate: float
    noise_multiplier: float
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What one release costs the site's patients, twice over.

    `outside`: against everybody who sees sums alone, and up to the plan's colluders among the sites. `own_share`: against more colluders
    than that, whom only this site's own noise is left to keep out. With local noise the two are the same event.
    """

    outside: Event
    own_share: Event

    @classmethod
    def local(cls, event: Event) -> "Charge":
        """Noise that relies on nobody."""
        return cls(outside=event, own_share=event)

    def times(self, number: int) -> "Charge":
        """So many releases like this one."""
        return Charge(
            outside=replace(self.outside, steps=number * self.outside.steps),
            own_share=replace(self.own_share, steps=number * self.own_share.steps),
        )


def public_count(units: int) -> int:
    """The number of units, rounded down to three significant bits: less than a quarter is lost.

    >>> [public_count(units) for units in (7, 8, 15, 1000)]
    [7, 8, 14, 896]
    """
    shift = max(0, units.bit_length() - SIGNIFICANT_BITS)
    return units >> shift << shift


def sampling_rate(*, batch: int, units: int) -> float:
    """The probability with which each unit is drawn: batch / public count. Raises: TooFewPatients, if that is more than 1."""
    count = public_count(units)
    if count < batch:
        raise TooFewPatients(
            f"{count} training units here (rounded down), the plan's batch needs at least {batch}.",
            fix="Lower [training] batch, or let this site leave the plan.",
        )
    return batch / count
