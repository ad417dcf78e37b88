# SPDX-License-Identifier: Apache-2.0
"""What a site looks at when it decides: a case is something that arrived, beside where the site stands.

Each case is one moment of the protocol, with exactly the facts that its checks may use.
"""

from dataclasses import dataclass

from common.secagg.memory import Memory
from common.secagg.messages import Cohort, Deliveries, Down, Header, Keys, Quorum, RoundTag, Survivors
from common.secagg.model import Offer
from common.secagg.quantise import QuantisedUpdate
from common.secagg.stages import Confirmed, Keyed, MaskedOut, Peer, Shared
from common.secagg.terms import Seat


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """Bytes, before they are read."""

    control: bytes
    seat: Seat


@dataclass(frozen=True, slots=True, kw_only=True)
class Addressed:
    """A message, before it is believed."""

    message: Down
    seat: Seat


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """1 down: a round begins. The seat is turned to the header's kind, if the plan has it."""

    message: Down
    header: Header
    seat: Seat
    memory: Memory
    now: int

    @property
    def tag(self) -> RoundTag:
        return self.header.tag


@dataclass(frozen=True, slots=True, kw_only=True)
class InvitedBefore:
    """1 down, once more: the header that was accepted, and that this site has not answered, since it stopped before it had trained."""

    header: Header
    seat: Seat
    now: int

    @property
    def tag(self) -> RoundTag:
        return self.header.tag


@dataclass(frozen=True, slots=True, kw_only=True)
class Continued:
    """A later step of an attempt that this site is in."""

    tag: RoundTag
    seat: Seat


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOffered:
    """The global model that came with it."""

    header: Header
    offer: Offer
    seat: Seat
    memory: Memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """1 down, again, for an update that lives: another attempt of the same round. `grid` is the digest of the update's."""

    header: Header
    seat: Seat
    earlier: RoundTag
    grid: bytes
    masked_with: tuple[Peer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """This site's own update, before it is committed to."""

    update: QuantisedUpdate
    seat: Seat


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortNamed:
    """2 down: U1."""

    cohort: Cohort
    announcements: tuple[Keys, ...]
    stage: Keyed
    seat: Seat
    now: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SharesDelivered:
    """3 down: U2, before the shares are unsealed."""

    deliveries: Deliveries
    stage: Shared
    seat: Seat


@dataclass(frozen=True, slots=True, kw_only=True)
class SharesOpened:
    """3 down, unsealed: (sender, plaintext)."""

    opened: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SurvivorsNamed:
    """4 down: U3."""

    survivors: Survivors
    stage: MaskedOut
    seat: Seat


@dataclass(frozen=True, slots=True, kw_only=True)
class QuorumShown:
    """5 down: who confirmed."""

    quorum: Quorum
    stage: Confirmed
    seat: Seat
