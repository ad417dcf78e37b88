# SPDX-License-Identifier: Apache-2.0
"""What a coordinator, or whoever took its place, may try against one site, and the code with which the site refuses.

Each function brings a fresh federation to the point where the lie is told, and returns the lie. It must not tell it: the test does,
and watches that nothing was answered, nothing changed and no share left.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from common.secagg import codec, keys, messages
from common.secagg.coordinator import Inviting
from common.secagg.messages import (
    Cohort,
    Deliveries,
    Delivery,
    Down,
    Keys,
    Quorum,
    RoundTag,
    Signed,
    Step,
    Survivors,
)
from common.secagg.model import Offer
from common.secagg.quantise import QuantisedUpdate
from tests.common.secagg.federation import NOW, Federation, federation

VICTIM = "site-002"


@dataclass(frozen=True, kw_only=True)
class Lie:
    """The message that must be refused; or the update that must not be joined."""

    control: bytes = b""
    now: int = NOW
    offer: Offer | None = None
    update: QuantisedUpdate | None = None
    victim: str = VICTIM


@dataclass(frozen=True, kw_only=True)
class Attack:
    name: str
    code: str
    prepare: Callable[[Federation], Lie]
    table: dict[str, Any]


ATTACKS: Final[dict[str, Attack]] = {}


def attack(code: str, **table: Any) -> Callable[[Callable[[Federation], Lie]], Callable[[Federation], Lie]]:
    """Register an attack; `table` says how its federation differs from the usual one."""

    def register(prepare: Callable[[Federation], Lie]) -> Callable[[Federation], Lie]:
        name = prepare.__name__
        ATTACKS[name] = Attack(name=name, code=code, prepare=prepare, table=table)
        return prepare

    return register


def make(name: str) -> Federation:
    return federation(**ATTACKS[name].table)


# Words of the coordinator.


def say(f: Federation, step: Step, body: object, *, tag: RoundTag | None = None) -> bytes:
    return messages.down(f.chair.signer, tag or f.tag, step, body)


def invite(f: Federation, **changes: Any) -> bytes:
    """A header that differs from the honest one."""
    return Inviting(chair=f.chair, tag=replace(f.tag, **changes)).header


def cohort_of(control: bytes) -> Cohort:
    return codec.read(Cohort, codec.read(Down, control).body)


def deliveries_of(control: bytes) -> Deliveries:
    return codec.read(Deliveries, codec.read(Down, control).body)


def quorum_of(control: bytes) -> Quorum:
    return codec.read(Quorum, codec.read(Down, control).body)


def as_signed(control: bytes) -> Signed:
    up = codec.read(messages.Up, control)
    return Signed(site_id=up.site_id, body=up.body, signature=up.signature)


def resigned(f: Federation, site_id: str, said: Keys, *, key: keys.SigningKey | None = None, tag: RoundTag | None = None) -> Signed:
    """Keys as a colluding site (or an impostor with `key`) would sign them."""
    signer = key or f.consortium.sites[site_id]
    return as_signed(messages.up(signer, tag or f.tag, Step.KEYS, site_id, said))


def impostor_keys(said: Signed) -> Keys:
    old = codec.read(Keys, said.body)
    return replace(old, mask_key=keys.agreement_public(b"\x07" * 32), share_key=keys.agreement_public(b"\x09" * 32))


def swap(members: Sequence[Any], at: int, new: Any) -> tuple[Any, ...]:
    return (*members[:at], new, *members[at + 1 :])


def masked(f: Federation) -> None:
    f.to_masks(*f.to_shares(*f.to_keys()))


def share(f: Federation, members: Sequence[Signed]) -> Lie:
    return Lie(control=say(f, Step.SHARE, Cohort(members=tuple(members))))


def mask(f: Federation, items: Sequence[Delivery]) -> Lie:
    return Lie(control=say(f, Step.MASK, Deliveries(items=tuple(items))))


def confirm(f: Federation, site_ids: Sequence[str]) -> Lie:
    return Lie(control=say(f, Step.CONFIRM, Survivors(site_ids=tuple(site_ids))))


def unmask(f: Federation, said: Sequence[Signed]) -> Lie:
    return Lie(control=say(f, Step.UNMASK, Quorum(confirmations=tuple(said))))


def confirmed(f: Federation) -> tuple[Signed, ...]:
    _, control = f.to_confirmations(*f.to_masks(*f.to_shares(*f.to_keys())))
    return quorum_of(control).confirmations


def raw(f: Federation, step: Step, body: bytes) -> bytes:
    signature = f.chair.signer.sign(messages._down_digest(f.tag.version, f.tag.ring_bits, f.tag.rt, step, body))
    message = Down(magic=b"FSA1", version=f.tag.version, ring_bits=f.tag.ring_bits, step=step, rt=f.tag.rt, body=body, signature=signature)
    return codec.write(message)
