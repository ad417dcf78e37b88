# SPDX-License-Identifier: Apache-2.0
"""A whole federation in memory for the tests: real keys, real messages, a seeded source of randomness and no network."""

import hashlib
import itertools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from common.secagg import model, unmask
from common.secagg.coordinator import Confirming, Inviting, Masking, Sharing, Unmasking
from common.secagg.messages import RoundTag
from common.secagg.model import Offer, Reference
from common.secagg.quantise import Grid, QuantisedUpdate, quantise
from common.secagg.site import Outcome, Record, handle, join
from common.secagg.terms import VERSION, Chair, Kind, Seat, Terms
from simulations.consortium import Consortium, found

NOW = 1_800_000_000
LAYOUT = hashlib.sha256(b"layout").digest()
LAYOUTS = {Kind.UPDATE: LAYOUT, Kind.STAT: hashlib.sha256(b"statistic").digest(), Kind.EVAL: hashlib.sha256(b"evaluation").digest()}
PLAN = hashlib.sha256(b"plan").digest()
SESSION = bytes(range(16))


ROUNDS = {Kind.UPDATE: range(1, 1001), Kind.STAT: range(1, 2), Kind.EVAL: range(3, 1002, 2)}
"""The plan of these federations: a statistic at the start, every second model judged."""


def seeded(*key: Any) -> Callable[[int], bytes]:
    """A stream of bytes that looks random and is the same in every run."""
    calls = itertools.count()
    return lambda size: hashlib.shake_256(repr((key, next(calls))).encode()).digest(size)


@dataclass(kw_only=True)
class Federation:
    """n sites and a coordinator. `records` is what each site has on disk."""

    consortium: Consortium
    chair: Chair
    seats: dict[str, Seat]
    weights_now: np.ndarray[Any, Any]
    tag: RoundTag
    records: dict[str, Record] = field(default_factory=dict)
    captured: list[bytes] = field(default_factory=list)
    vectors: dict[str, Any] = field(default_factory=dict)
    updates: dict[str, QuantisedUpdate] = field(default_factory=dict)

    @property
    def site_ids(self) -> list[str]:
        return sorted(self.seats)

    @property
    def terms(self) -> Terms:
        return self.chair.terms

    @property
    def kind(self) -> Kind:
        return self.terms.kind

    def turn_to(self, kind: Kind, *, round_number: int | None = None) -> None:
        """What follows is a sum of this kind, in the first round that has one or the one named."""
        terms = self.seats[self.site_ids[0]].turned_to(kind).terms
        number = terms.rounds[0] if round_number is None else round_number
        self.chair = replace(self.chair, terms=terms)
        self.tag = replace(self.tag, layout=terms.layout, ring_bits=terms.grid.ring_bits, round=number, attempt=0)

    def offer(self, site_id: str = "") -> Offer:
        return Offer(
            values=self.weights_now, initial=np.zeros_like(self.weights_now), reference=Reference(values=self.weights_now, round=0)
        )

    def tell(self, site_id: str, control: bytes, *, now: int = NOW, offer: Offer | None = None) -> Outcome:
        """Hand one message to one site; what it writes down and says is kept."""
        self.captured.append(control)
        outcome = handle(self.seats[site_id], self.records[site_id], control, now=now, offer=offer or self.offer())
        return self.keep(site_id, outcome)

    def keep(self, site_id: str, outcome: Outcome) -> Outcome:
        self.records[site_id] = outcome.record
        if outcome.reply is not None:
            self.captured.append(outcome.reply)
        if outcome.vector is not None:
            self.vectors[site_id] = outcome.vector
            self.captured.append(outcome.vector.tobytes())
        return outcome

    def train(self, site_id: str) -> QuantisedUpdate:
        """Not training, but as good for a sum: a random update inside the bound."""
        seat = self.seats[site_id]
        member = seat.roster.find(site_id)
        assert member is not None
        what = (site_id, self.tag.round) if self.kind is Kind.UPDATE else (site_id, self.tag.round, self.kind)
        random = np.random.default_rng(int.from_bytes(hashlib.sha256(repr(what).encode()).digest()[:8], "big"))
        delta = random.standard_normal(self.terms.num_values).astype(np.float32)
        delta *= np.float32(0.9 * self.terms.max_norm / max(1e-9, float(np.linalg.norm(delta))))
        return quantise(delta, self.terms.grid, weight=member.weight, entropy=seeded("round", site_id))

    def announce(self, site_id: str, header: bytes, *, now: int = NOW) -> bytes:
        """Header, training, keys."""
        outcome = self.tell(site_id, header, now=now)
        if outcome.reply is None:
            self.updates[site_id] = self.train(site_id)
            outcome = self.keep(site_id, join(self.seats[site_id], self.records[site_id], self.updates[site_id]))
        assert outcome.reply is not None
        return outcome.reply

    def reply(self, site_id: str, control: bytes) -> bytes:
        reply = self.tell(site_id, control).reply
        assert reply is not None
        return reply

    # A round, step by step; each takes who answers.

    def to_keys(self, who: Collection[str] | None = None, inviting: Inviting | None = None) -> tuple[Sharing, bytes]:
        inviting = inviting or Inviting(chair=self.chair, tag=self.tag)
        header = inviting.header
        return inviting.agree({s: self.announce(s, header) for s in self._who(who)}, now=NOW)

    def to_shares(self, sharing: Sharing, cohort: bytes, who: Collection[str] | None = None) -> tuple[Masking, Mapping[str, bytes]]:
        return sharing.route({s: self.reply(s, cohort) for s in self._who(who)})

    def to_masks(self, masking: Masking, deliveries: Mapping[str, bytes], who: Collection[str] | None = None) -> tuple[Confirming, bytes]:
        replies = {s: self.reply(s, deliveries[s]) for s in self._who(who) if s in deliveries}
        for site_id, control in replies.items():
            masking.check_vector(site_id, control, self.vectors[site_id].data.cast("B"))
        return masking.survive(replies)

    def to_confirmations(self, confirming: Confirming, survivors: bytes, who: Collection[str] | None = None) -> tuple[Unmasking, bytes]:
        return confirming.quorum({s: self.reply(s, survivors) for s in self._who(who) if s in confirming.masked})

    def to_sum(self, unmasking: Unmasking, quorum: bytes, who: Collection[str] | None = None) -> unmask.AggregateSum:
        replies = {s: self.reply(s, quorum) for s in self._who(who) if s in unmasking.confirming.masked}
        return unmask.open_sum(unmasking, replies, self.vectors.__getitem__)

    def run(self, *, drops: Mapping[int, Collection[str]] | None = None, inviting: Inviting | None = None) -> unmask.AggregateSum:
        """A whole round; `drops[k]` are the sites that fall silent before answering step k."""
        alive = set(self.site_ids)
        gone = drops or {}
        steps: list[Callable[..., Any]] = [self.to_shares, self.to_masks, self.to_confirmations, self.to_sum]
        alive -= set(gone.get(1, ()))
        state = self.to_keys(alive, inviting)
        for number, step in enumerate(steps, start=2):
            alive -= set(gone.get(number, ()))
            state = step(*state, alive)
        assert isinstance(state, unmask.AggregateSum)
        return state

    def plain_sum(self, site_ids: Collection[str]) -> np.ndarray[Any, Any]:
        """What the sum must be: integers, added one by one."""
        total = np.zeros(self.terms.num_values, dtype=np.int64)
        for site_id in site_ids:
            total += self.updates[site_id].body.view(self.terms.grid.signed_word)
        return total

    def next_round(self, *, round_number: int | None = None, attempt: int = 0) -> None:
        self.tag = replace(self.tag, round=self.tag.round + 1 if round_number is None else round_number, attempt=attempt)

    def _who(self, who: Collection[str] | None) -> list[str]:
        return self.site_ids if who is None else sorted(who)


def federation(
    num_sites: int = 5,
    num_values: int = 8,
    *,
    min_cohort: int = 3,
    ring_bits: Any = 32,
    kinds: Collection[Kind] = tuple(Kind),
    weights: Mapping[str, int] | None = None,
    max_weight: int = 1,
    seed: Any = 0,
    **changes: Any,
) -> Federation:
    names = [f"site-{i:03d}" for i in range(num_sites)]
    consortium = found(names, entropy=seeded("consortium", seed), now=NOW, weights=weights)
    weights_now = np.zeros(num_values, dtype=np.float32)
    terms = Terms(
        plan=PLAN,
        layout=LAYOUT,
        num_values=num_values,
        model_layout=LAYOUT,
        model_size=num_values,
        initial_model=model.digest(weights_now, LAYOUT),
        members=frozenset(names),
        grid=Grid.for_cohort(max(8, num_sites), coordinate_range=1.0, ring_bits=ring_bits, max_weight=max_weight),
        max_norm=1.0,
        step_norm=1.0,
        max_cohort=max(8, num_sites),
        rounds=ROUNDS[Kind.UPDATE],
        min_cohort=min_cohort,
    )
    terms = replace(terms, **changes)
    beside = tuple(_beside(terms, kind) for kind in kinds if kind is not Kind.UPDATE)
    seats = {
        name: Seat(
            site_id=name, signer=consortium.sites[name], terms=terms, roster=consortium.roster, entropy=seeded(name, seed), beside=beside
        )
        for name in names
    }
    tag = RoundTag(
        version=VERSION,
        ring_bits=ring_bits,
        plan=PLAN,
        roster=consortium.roster.digest,
        session=SESSION,
        round=1,
        attempt=0,
        model=terms.initial_model,
        layout=LAYOUT,
    )
    return Federation(
        consortium=consortium,
        chair=Chair(signer=consortium.coordinator, terms=terms, roster=consortium.roster),
        seats=seats,
        weights_now=weights_now,
        tag=tag,
        records={name: Record() for name in names},
    )


def _beside(terms: Terms, kind: Kind) -> Terms:
    """The same agreement for a short vector of counts, in words of 32 bits whatever updates have."""
    grid = Grid.for_cohort(terms.max_cohort, coordinate_range=64.0)
    return replace(terms, kind=kind, layout=LAYOUTS[kind], num_values=5, grid=grid, max_norm=64.0, rounds=ROUNDS[kind])
