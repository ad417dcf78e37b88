# SPDX-License-Identifier: Apache-2.0
"""One FSA1 round with real keys and real messages, timed from one site's seat and from the coordinator's.

Both roles are pure, so a step can be repeated on the same state as often as a steady figure needs. All sites take part in full where
their vectors fit in memory; where they do not, only the measured site has the full length, and the coordinator's sum is not timed.
"""

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np

from common.secagg import masks, model, stages
from common.secagg.coordinator import Inviting
from common.secagg.messages import RoundTag
from common.secagg.model import Offer
from common.secagg.quantise import Grid, quantise
from common.secagg.site import Outcome, Record, handle, join
from common.secagg.terms import VERSION, Chair, Seat, Terms
from common.secagg.unmask import open_sum
from simulations.consortium import found

T = TypeVar("T")
NOW = 1_800_000_000
MEASURED = "s000"
_LARGEST_SUM_BYTES = 2_100_000_000
_LAYOUT = hashlib.sha256(b"benchmark").digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Seconds by step, best of the repeats; bytes of one site. `masking_s` is keystream and ring addition alone, of all its masks.

    `num_masks` counts the measured site's masks. `sum_s` is None where the vectors of all sites do not fit in memory.
    """

    num_sites: int
    num_values: int
    ring_bits: int
    workers: int
    num_masks: int
    num_dropped: int
    quantise_s: float
    keys_s: float
    share_s: float
    masking_s: float
    mask_step_s: float
    confirm_s: float
    unmask_s: float
    coordinator_messages_s: float
    coordinator_sum_s: float | None
    bytes_up: int
    bytes_down: int

    @property
    def site_s(self) -> float:
        """Share, mask and unmask: what the protocol adds to a round at a site."""
        return self.share_s + self.mask_step_s + self.confirm_s + self.unmask_s


class _Table:
    """Everybody at one table: seats, records, vectors."""

    def __init__(self, num_sites: int, num_values: int, ring_bits: Literal[16, 32], workers: int, *, full: bool) -> None:
        names = [f"s{i:03d}" for i in range(num_sites)]
        consortium = found(names, entropy=os.urandom, now=NOW)
        self.full, self.names = full, names
        self.terms = Terms(
            plan=bytes(32),
            layout=_LAYOUT,
            num_values=num_values,
            model_layout=_LAYOUT,
            model_size=num_values,
            initial_model=bytes(32),
            members=frozenset(names),
            grid=Grid.for_cohort(max(3, num_sites), coordinate_range=1.0, ring_bits=ring_bits),
            max_norm=1.0,
            step_norm=1.0,
            max_cohort=num_sites,
            rounds=range(1, 2),
            min_cohort=3,
        )
        self.seats = {
            name: Seat(
                site_id=name,
                signer=consortium.sites[name],
                terms=self._terms_of(name),
                roster=consortium.roster,
                entropy=os.urandom,
                workers=workers if name == MEASURED else 2,
            )
            for name in names
        }
        self.chair = Chair(signer=consortium.coordinator, terms=self.terms, roster=consortium.roster, workers=workers)
        self.tag = RoundTag(
            version=VERSION,
            ring_bits=ring_bits,
            plan=bytes(32),
            roster=consortium.roster.digest,
            session=bytes(16),
            round=1,
            attempt=0,
            model=bytes(32),
            layout=_LAYOUT,
        )
        self.records = {name: Record() for name in names}
        self.vectors: dict[str, masks.Body] = {}

    def _terms_of(self, name: str) -> Terms:
        return self.terms if self.full or name == MEASURED else replace(self.terms, num_values=8)

    def answer(self, name: str, control: bytes) -> Outcome:
        outcome = handle(self.seats[name], self.records[name], control, now=NOW)
        self.records[name] = outcome.record
        if outcome.vector is not None:
            self.vectors[name] = outcome.vector
        return outcome


def best(run: Callable[[], T], repeats: int, *, clock: Callable[[], float] = time.process_time) -> tuple[float, T]:
    """The shortest of several runs, and its result: what the work takes when nothing else is in the way.

    By default in processor seconds of this process, which other work on the machine disturbs least; with threads, use the wall's clock.
    """
    shortest = float("inf")
    for _ in range(repeats):
        started = clock()
        result = run()
        shortest = min(shortest, clock() - started)
    return shortest, result


def play(num_sites: int, num_values: int, *, ring_bits: Literal[16, 32] = 32, workers: int = 1, repeats: int = 5) -> Costs:
    """One round. A tenth of the sites, as far as the threshold allows, falls silent after sharing."""
    bytes_per_word = ring_bits // 8
    full = num_sites * num_values * bytes_per_word <= _LARGEST_SUM_BYTES
    table = _Table(num_sites, num_values, ring_bits, workers, full=full)
    costs: dict[str, Any] = {}
    inviting = _invite(table)
    costs["quantise_s"], costs["keys_s"] = _announce(table, inviting.header, repeats)
    started = time.process_time()
    sharing, cohort = inviting.agree({s: table.records[s].answers[0].reply for s in table.names}, now=NOW)
    coordinating = time.process_time() - started
    costs["share_s"] = _timed_step(table, cohort, repeats)
    shares = {s: _reply(table.answer(s, cohort)) for s in table.names}
    started = time.process_time()
    masking, deliveries = sharing.route(shares)
    coordinating += time.process_time() - started
    costs["masking_s"], costs["num_masks"] = _timed_masks(table, num_sites, repeats)
    costs["mask_step_s"] = _timed_step(table, deliveries[MEASURED], repeats)
    dropped = min(num_sites // 10, num_sites - table.terms.threshold(num_sites))
    alive = table.names[: num_sites - dropped]
    masked = {s: _reply(table.answer(s, deliveries[s])) for s in alive}
    started = time.process_time()
    confirming, survivors = masking.survive(masked)
    coordinating += time.process_time() - started
    costs["confirm_s"] = _timed_step(table, survivors, repeats)
    confirmed = {s: _reply(table.answer(s, survivors)) for s in alive}
    started = time.process_time()
    unmasking, quorum = confirming.quorum(confirmed)
    coordinating += time.process_time() - started
    costs["unmask_s"] = _timed_step(table, quorum, repeats)
    opened = {s: _reply(table.answer(s, quorum)) for s in alive}
    costs["coordinator_sum_s"] = None
    if full:
        costs["coordinator_sum_s"], _ = best(
            lambda: open_sum(unmasking, opened, table.vectors.__getitem__), min(repeats, 3), clock=_clock(workers)
        )
    up = sum(len(answer.reply) for answer in table.records[MEASURED].answers) + num_values * bytes_per_word
    down = sum(map(len, (inviting.header, cohort, deliveries[MEASURED], survivors, quorum))) + 4 * num_values
    return Costs(
        num_sites=num_sites,
        num_values=num_values,
        ring_bits=ring_bits,
        workers=workers,
        num_dropped=dropped,
        coordinator_messages_s=coordinating,
        bytes_up=up,
        bytes_down=down,
        **costs,
    )


def _invite(table: _Table) -> Inviting:
    """The header; sites of a shorter vector are excused from the model, which is not what is measured here."""
    weights = np.zeros(table.terms.num_values, dtype=np.float32)
    digest = model.digest(weights, _LAYOUT)
    table.tag = replace(table.tag, model=digest)
    inviting = Inviting(chair=table.chair, tag=table.tag)
    for name in table.names:
        seat = table.seats[name]
        table.seats[name] = seat = replace(seat, terms=replace(seat.terms, initial_model=digest))
        if seat.terms.num_values == table.terms.num_values:
            offer = Offer(values=weights, initial=weights, reference=None)
            table.records[name] = handle(seat, Record(), inviting.header, now=NOW, offer=offer).record
        else:
            table.records[name] = _excused(table, name, inviting)
    return inviting


def _excused(table: _Table, name: str, inviting: Inviting) -> Record:
    measured = table.records[MEASURED]
    assert isinstance(measured.stage, stages.Invited)
    return replace(measured, stage=stages.Invited(tag=inviting.tag, kind=inviting.kind))


def _announce(table: _Table, header: bytes, repeats: int) -> tuple[float, float]:
    seconds = (0.0, 0.0)
    for name in table.names:
        seat = table.seats[name]
        delta = np.full(seat.terms.num_values, 0.5 / seat.terms.num_values**0.5, dtype=np.float32)
        times = repeats if name == MEASURED else 1
        quantising, update = best(lambda seat=seat, delta=delta: quantise(delta, seat.terms.grid, weight=1, entropy=os.urandom), times)  # type: ignore[misc] # bound here
        record = table.records[name]
        joining, outcome = best(lambda seat=seat, record=record, update=update: join(seat, record, update), times)  # type: ignore[misc] # bound here
        table.records[name] = outcome.record
        if name == MEASURED:
            seconds = (quantising, joining)
    assert header
    return seconds


def _timed_step(table: _Table, control: bytes, repeats: int) -> float:
    seat, record = table.seats[MEASURED], table.records[MEASURED]
    return best(lambda: handle(seat, record, control, now=NOW), repeats, clock=_clock(seat.workers))[0]


def _timed_masks(table: _Table, num_masks: int, repeats: int) -> tuple[float, int]:
    """Keystream and ring addition of as many masks as the measured site has: one for each peer, one of its own."""
    chosen = [masks.Mask(os.urandom(32), negative=bool(i % 2)) for i in range(num_masks)]
    body: masks.Body = np.zeros(table.terms.num_values, dtype=table.terms.grid.word)
    tail = np.zeros(3, dtype=np.uint32)
    workers = table.seats[MEASURED].workers
    return best(lambda: masks.apply(chosen, body=body, tail=tail, workers=workers), repeats, clock=_clock(workers))[0], num_masks


def _clock(workers: int) -> Callable[[], float]:
    return time.process_time if workers == 1 else time.perf_counter


def _reply(outcome: Outcome) -> bytes:
    assert outcome.reply is not None
    return outcome.reply
