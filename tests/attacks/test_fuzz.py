# SPDX-License-Identifier: Apache-2.0
"""Structure-aware fuzzing of both roles at every step: 20,000 mutated messages, each refused by a name, and nothing changes.

    make fuzz        # a million, with another seed each time; FUZZ_MESSAGES and FUZZ_SEED say otherwise

A third of the mutations are blind to the format (flipped bits, cut and doubled bytes); the rest parse the message, change one field
deep inside (a length, a type, an order, an extreme integer, another site's bytes) and sign the result again, so that they get past the
signature and to the checks behind it. A mutation that gives an honest message again is skipped.
"""

import dataclasses
import os
import random
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from common.errors import ConfirmQuorum, FedwardError, ShareReconstruct
from common.secagg import codec, messages
from common.secagg.coordinator import Inviting
from common.secagg.durable import save_record
from common.secagg.messages import (
    Cohort,
    Confirmation,
    Deliveries,
    Down,
    Header,
    Keys,
    Masked,
    Nothing,
    Opened,
    Quorum,
    Shares,
    Step,
    Survivors,
    Up,
)
from common.secagg.site import handle
from common.secagg.unmask import open_sum
from tests.common.secagg.federation import NOW, Federation, federation

MESSAGES = int(os.environ.get("FUZZ_MESSAGES", "21000"))
SEED = os.environ.get("FUZZ_SEED", "0")
PER_STEP = MESSAGES * 2 // 21
"""Six steps down, five up, the last of which gets half: opening a sum takes longer."""
VICTIM = "site-001"
DOWN: dict[Step, type] = {
    Step.KEYS: Header,
    Step.SHARE: Cohort,
    Step.MASK: Deliveries,
    Step.CONFIRM: Survivors,
    Step.UNMASK: Quorum,
    Step.ABANDON: Nothing,
}
UP: dict[Step, type] = {Step.KEYS: Keys, Step.SHARE: Shares, Step.MASK: Masked, Step.CONFIRM: Confirmation, Step.UNMASK: Opened}
INTEGERS = (0, 1, 2, 3, 255, 2**31, 2**32 - 1, 2**63, 2**64 - 1)


def bend(value: Any, rng: random.Random) -> Any:
    """One field, somewhere in a message, turned into something else of a type that can be written."""
    if isinstance(value, bool | int):
        return rng.choice(INTEGERS)
    if isinstance(value, bytes):
        choices: list[Callable[[], bytes]] = [
            lambda: rng.randbytes(len(value)),
            lambda: bytes(len(value)),
            lambda: value[:-1],
            lambda: value + b"\x00",
            lambda: b"\xff" * len(value),
            lambda: rng.randbytes(rng.choice((0, 1, 31, 33, 4096))),
        ]
        return rng.choice(choices)()
    if isinstance(value, str):
        return rng.choice(("", "\x00", "site-000", "site-001", "site-999", "é" * 40, value + "x", value.upper(), "a" * 5000))
    if isinstance(value, tuple):
        if not value or rng.random() < 0.5:
            options = [value * 2, value[1:], value[::-1], (), value * 50, (*value, *value[:1])]
            return rng.choice(options)
        at = rng.randrange(len(value))
        return (*value[:at], bend(value[at], rng), *value[at + 1 :])
    if dataclasses.is_dataclass(value) and dataclasses.fields(value):
        name = rng.choice(dataclasses.fields(value)).name
        return dataclasses.replace(value, **{name: bend(getattr(value, name), rng)})  # type: ignore[type-var] # an instance
    return value


def batter(data: bytes, rng: random.Random) -> bytes:
    """Bytes that know nothing of the format."""
    at = rng.randrange(len(data)) if data else 0
    options = [
        data[:at],
        data[:at] + rng.randbytes(1) + data[at + 1 :],
        data[:at] + rng.randbytes(rng.randint(1, 9)) + data[at:],
        data[:at] + b"\xff\xff\xff\xff" + data[at + 4 :],
        data + data[at:],
        rng.randbytes(rng.randint(0, 200)),
    ]
    return rng.choice(options)


def mutated_down(f: Federation, control: bytes, step: Step, rng: random.Random) -> bytes:
    message = codec.read(Down, control)
    draw = rng.random()
    if draw < 0.25:
        return batter(control, rng)
    if draw < 0.4:
        return codec.write(bend(message, rng))
    body = batter(message.body, rng) if draw < 0.55 else codec.write(bend(codec.read(DOWN[step], message.body), rng))
    signature = f.chair.signer.sign(messages._down_digest(message.version, message.ring_bits, message.rt, step, body))
    return codec.write(dataclasses.replace(message, body=body, signature=signature))


def mutated_up(f: Federation, control: bytes, step: Step, rng: random.Random) -> bytes:
    message = codec.read(Up, control)
    draw = rng.random()
    if draw < 0.25:
        return batter(control, rng)
    if draw < 0.4:
        return codec.write(bend(message, rng))
    body = batter(message.body, rng) if draw < 0.55 else codec.write(bend(codec.read(UP[step], message.body), rng))
    signature = f.consortium.sites[VICTIM].sign(messages.up_digest(f.tag, step, VICTIM, body))
    return codec.write(dataclasses.replace(message, body=body, signature=signature))


def differing(honest: bytes, make: Callable[[], bytes]) -> bytes:
    """A mutation; one that has no bytes, or the honest ones, is drawn again."""
    while True:
        try:
            control = make()
        except (TypeError, OverflowError, AttributeError):
            continue
        if control != honest:
            return control


def peak_memory_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def to_step(f: Federation, step: Step) -> bytes:
    """Bring the victim to where `step` is due, and return the honest request."""
    if step is Step.KEYS:
        return Inviting(chair=f.chair, tag=f.tag).header
    state: Any = f.to_keys()
    for due, advance in ((Step.SHARE, f.to_shares), (Step.MASK, f.to_masks), (Step.CONFIRM, f.to_confirmations), (Step.UNMASK, f.to_sum)):
        if step is due:
            break
        if step is Step.ABANDON and due is Step.CONFIRM:
            return messages.down(f.chair.signer, f.tag, Step.ABANDON, Nothing())
        state = advance(*state)
    control: bytes = state[1][VICTIM] if step is Step.MASK else state[1]
    return control


@pytest.mark.parametrize("step", DOWN, ids=lambda step: step.name)
def test_a_site_refuses_every_mutated_message_by_name(step: Step) -> None:
    f, rng = federation(4, 6), random.Random(f"{SEED} down {step.name}")
    honest = to_step(f, step)
    seat, record = f.seats[VICTIM], f.records[VICTIM]
    before, memory = save_record(record), peak_memory_mib()
    meaning: Any = codec.read(DOWN[step], codec.read(Down, honest).body)
    accepted, codes = 0, set[str]()
    for _ in range(PER_STEP):
        control = differing(honest, lambda: mutated_down(f, honest, step, rng))
        started = time.process_time()
        try:
            handle(seat, record, control, now=NOW, offer=f.offer())
        except FedwardError as refusal:
            codes.add(refusal.code)
        else:
            accepted += 1
            assert still_means(control, step, meaning), f"seed {SEED}: {control.hex()}"
        assert time.process_time() - started < 1
    assert save_record(record) == before
    assert peak_memory_mib() - memory < 64
    assert accepted < PER_STEP / 2
    assert len(codes) >= 3, codes
    assert "E_FEDWARD" not in codes


def still_means(control: bytes, step: Step, honest: Any) -> bool:
    """Accepted although mutated: only where the change is one that the protocol allows."""
    said: Any = codec.read(DOWN[step], codec.read(Down, control).body)
    match step:
        case Step.KEYS:  # abandons are not looked at by a site that never masked; kinds are all planned here
            return bool(said.tag == honest.tag)
        case Step.UNMASK:  # a quorum may hold nonsense and repetitions beside its threshold of valid confirmations
            return len({each for each in said.confirmations if each in honest.confirmations}) >= 3
        case Step.MASK:  # any threshold of honest deliveries is a set of sharers
            return set(said.items) <= set(honest.items) and len(said.items) >= 2
        case Step.CONFIRM:  # and any threshold of sharers with the victim among them a set of survivors
            return set(said.site_ids) <= set(honest.site_ids) and VICTIM in said.site_ids and len(said.site_ids) >= 3
        case Step.SHARE:  # any cohort of three signed announcements with the victim's own
            return set(said.members) <= set(honest.members) and len(said.members) >= 3
    return bool(said == honest)


@pytest.mark.parametrize("step", UP, ids=lambda step: step.name)
def test_the_coordinator_lays_every_mutated_reply_aside(step: Step) -> None:
    f, rng = federation(4, 6), random.Random(f"{SEED} up {step.name}")
    stages: dict[Step, Any] = {Step.KEYS: Inviting(chair=f.chair, tag=f.tag)}
    stages[Step.SHARE], cohort = f.to_keys()
    stages[Step.MASK], deliveries = f.to_shares(stages[Step.SHARE], cohort)
    stages[Step.CONFIRM], survivors = f.to_masks(stages[Step.MASK], deliveries)
    stages[Step.UNMASK], quorum = f.to_confirmations(stages[Step.CONFIRM], survivors)
    f.to_sum(stages[Step.UNMASK], quorum)
    replies = {}
    for site_id in f.site_ids:
        stored = f.records[site_id].answer(step)
        assert stored is not None
        replies[site_id] = stored.reply
    advance: dict[Step, Callable[[dict[str, bytes]], Any]] = {
        Step.KEYS: lambda said: stages[Step.KEYS].agree(said, now=NOW)[0].rejected,
        Step.SHARE: lambda said: stages[Step.SHARE].route(said)[0].rejected,
        Step.MASK: lambda said: stages[Step.MASK].survive(said)[0].rejected,
        Step.CONFIRM: lambda said: stages[Step.CONFIRM].quorum(said)[0].rejected,
        Step.UNMASK: lambda said: open_sum(stages[Step.UNMASK], said, f.vectors.__getitem__).rejected,
    }
    memory = peak_memory_mib()
    for _ in range(PER_STEP if step is not Step.UNMASK else PER_STEP // 2):
        control = differing(replies[VICTIM], lambda: mutated_up(f, replies[VICTIM], step, rng))
        started = time.process_time()
        try:
            rejected = advance[step](replies | {VICTIM: control})
        except (ShareReconstruct, ConfirmQuorum):
            continue  # the fuzzed site's shares were needed, and were not there
        else:
            assert {each.site_id for each in rejected} <= {VICTIM, *f.site_ids[:1]} or step is Step.KEYS
            assert all(each.reason.code != "E_FEDWARD" for each in rejected)
        assert time.process_time() - started < 1
    assert peak_memory_mib() - memory < 64


def test_a_round_after_the_fuzzing_is_still_exact() -> None:
    f, rng = federation(5, 20), random.Random(3)
    sharing, cohort = f.to_keys()
    for _ in range(50):
        for site_id in f.site_ids:
            with pytest.raises(FedwardError):
                f.tell(site_id, batter(cohort, rng)[:-1])
    result = f.to_sum(*f.to_confirmations(*f.to_masks(*f.to_shares(sharing, cohort))))
    assert np.array_equal(result.body.view(np.int32), f.plain_sum(f.site_ids))
