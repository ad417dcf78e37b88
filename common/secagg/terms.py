# SPDX-License-Identifier: Apache-2.0
"""What both ends agreed on before a round begins, and who sits at this end.

`Terms` come from the plan and are the same everywhere; nothing in them is ever taken from a message. Each kind of sum that the plan has is
under terms of its own: updates, and where the plan asks for them statistics and evaluations, which are added in the same way.

The threshold is computed here by each party for itself: t = max(floor(2n/3) + 1, minimum cohort, noise quorum). Two quorums of t then
overlap in 2t - n > n/3 sites, more than the colluders that are assumed, so no two survivor sets of one round can both be confirmed
(Bonawitz et al. 2017, theorem 6.5).

    >>> [threshold(n, minimum=3) for n in (3, 4, 5, 7, 10, 20, 50, 200)]
    [3, 3, 4, 5, 7, 14, 34, 134]
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Final

from common.roster import Roster
from common.secagg.keys import SigningKey
from common.secagg.quantise import Grid
from common.secagg.shamir import Entropy

FLOOR: Final = 3
"""No policy goes below: with two sites, each reads the other's update off the sum."""
VERSION: Final = 1
SPOKEN: Final = frozenset({VERSION})
"""Versions in which a plan's rounds can be held here: the newest and, once there is one, the one before."""


class Kind(IntEnum):
    """What is being summed: updates of the model, a statistic of the data, or how many patients the model judges how."""

    UPDATE = 1
    STAT = 2
    EVAL = 3

    @property
    def turn(self) -> int:
        """When its time comes in a round: statistics first, then the model is judged, then trained."""
        return (Kind.STAT, Kind.EVAL, Kind.UPDATE).index(self)

    @property
    def has_model(self) -> bool:
        """Whether the global model comes with the header."""
        return self is not Kind.STAT


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The plan as the protocol sees it, for one kind of sum.

    `layout` and `num_values` are those of the vector that is summed; an update's are the model's own, and no two kinds have the same
    layout, which is in every round's tag. `max_norm` bounds one site's vector (C_update, plus the public noise bound where noise is
    added before masking); `step_norm` bounds how far the global model may move in a round (C_update / (1 - momentum), plus the same).
    `members` are the sites that may share a cohort with this one: its group, where the plan groups large cohorts. `rounds` are those in
    which the plan has this sum, and they end: a coordinator that could name any round could also claim that the model had any number of
    rounds to move in.
    """

    kind: Kind = Kind.UPDATE
    plan: bytes
    layout: bytes
    num_values: int
    model_layout: bytes
    model_size: int
    initial_model: bytes
    members: frozenset[str]
    grid: Grid
    max_norm: float
    step_norm: float
    max_cohort: int
    rounds: Sequence[int]
    min_cohort: int = 5
    noise_quorum: int = 0
    versions: frozenset[int] = frozenset({VERSION})

    @property
    def version(self) -> int:
        """In which a coordinator holds rounds: the newest of those that are accepted."""
        return max(self.versions)

    @property
    def smallest_cohort(self) -> int:
        return smallest_cohort(self.min_cohort, self.noise_quorum)

    def does_without(self, left_out: Collection[str]) -> frozenset[str]:
        """Those members that an attempt goes without. Nobody, if the rest would be too few: a group cannot wait for others."""
        out = self.members.intersection(left_out)
        return out if len(self.members - out) >= self.smallest_cohort else frozenset()

    def threshold(self, cohort_size: int) -> int:
        return threshold(cohort_size, minimum=self.smallest_cohort)

    @property
    def largest_message(self) -> int:
        """Control bytes that the largest cohort can honestly need; the vector travels beside them."""
        return 64 * 1024 + 4096 * self.max_cohort


def smallest_cohort(min_cohort: int, noise_quorum: int = 0) -> int:
    """How many sites a sum needs at least, whatever anybody says."""
    return max(FLOOR, min_cohort, noise_quorum)


def threshold(cohort_size: int, *, minimum: int = FLOOR) -> int:
    """How many sites must stand behind every step after the first."""
    return max(2 * cohort_size // 3 + 1, minimum)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A site at the table: its name, its key, the terms it approved, the roster it verified, its source of randomness.

    `beside` are the terms of what the plan sums beside updates. `workers` is how many threads may make masks; the result does not depend
    on it.
    """

    site_id: str
    signer: SigningKey
    terms: Terms
    roster: Roster
    entropy: Entropy = field(repr=False)
    beside: tuple[Terms, ...] = ()
    workers: int = 1

    @property
    def words(self) -> frozenset[int]:
        """The sizes of ring words that are spoken here."""
        return frozenset(terms.grid.ring_bits for terms in (self.terms, *self.beside))

    def turned_to(self, kind: Kind) -> "Seat":
        """The same seat under the terms of another kind; as it is, if the plan has no such sum."""
        return next((replace(self, terms=terms) for terms in self.beside if terms.kind is kind), self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chair:
    """The coordinator at the table, for one kind of sum. It needs no randomness: everything it says follows from what it heard."""

    signer: SigningKey
    terms: Terms
    roster: Roster
    workers: int = 1
