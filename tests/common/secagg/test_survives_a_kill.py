# SPDX-License-Identifier: Apache-2.0
"""A site that is killed after any step goes on from what was written down; a torn or exchanged file is refused."""

from dataclasses import replace

import numpy as np
import pytest

from common import canonical
from common.errors import AlreadyReleased, CheckpointCorrupt, Equivocation
from common.secagg import codec
from common.secagg.coordinator import Inviting, abandon
from common.secagg.durable import living_update, load_record, load_update, save_record, save_update
from common.secagg.messages import Step
from common.secagg.quantise import QuantisedUpdate
from common.secagg.site import Outcome, Record, burn
from common.secagg.stages import Confirmed, GivenUp, Keyed, Listening, MaskedOut, Released, Shared
from common.secagg.terms import Kind
from tests.common.secagg.federation import Federation, federation


class Forgetful(Federation):
    """A federation in which every site is killed and restarted after every step."""

    def keep(self, site_id: str, outcome: Outcome) -> Outcome:
        outcome = super().keep(site_id, outcome)
        self.records[site_id] = revive(outcome.record, self)
        return outcome


def revive(record: Record, f: Federation) -> Record:
    update = living_update(record)
    stored = load_update(b"".join(save_update(update))) if update else None
    return load_record(save_record(record), update=stored)


def forgetful(num_sites: int, num_values: int, *, ring_bits: int = 32) -> Forgetful:
    f = federation(num_sites, num_values, ring_bits=ring_bits)
    return Forgetful(**{name: getattr(f, name) for name in f.__dataclass_fields__})


@pytest.mark.parametrize("ring_bits", [16, 32])
def test_a_round_of_sites_killed_after_every_step_is_exact(ring_bits: int) -> None:
    f = forgetful(5, 33, ring_bits=ring_bits)
    result = f.run(drops={4: ["site-001"]})
    assert np.array_equal(result.body.view(f.terms.grid.signed_word).astype(np.int64), f.plain_sum(result.survivors))


def test_a_site_killed_after_every_step_counts_in_long_words_beside_updates_in_short_ones() -> None:
    f = forgetful(5, 33, ring_bits=16)
    for kind in (Kind.STAT, Kind.UPDATE, Kind.EVAL):
        f.turn_to(kind)
        result = f.run()
        assert result.body.itemsize == (2 if kind is Kind.UPDATE else 4)
        assert np.array_equal(result.body.view(f.terms.grid.signed_word).astype(np.int64), f.plain_sum(f.site_ids))


def test_a_revived_site_answers_every_step_with_the_same_bytes() -> None:
    f = forgetful(5, 12)
    sharing, cohort = f.to_keys()
    masking, deliveries = f.to_shares(sharing, cohort)
    confirming, survivors = f.to_masks(masking, deliveries)
    unmasking, quorum = f.to_confirmations(confirming, survivors)
    vector = f.vectors["site-001"].copy()
    header = Inviting(chair=f.chair, tag=f.tag).header
    requests = {Step.KEYS: header, Step.SHARE: cohort, Step.MASK: deliveries["site-001"], Step.CONFIRM: survivors}
    for step, request in requests.items():
        stored = f.records["site-001"].answer(step)
        assert stored is not None
        assert f.reply("site-001", request) == stored.reply
    assert np.array_equal(f.vectors["site-001"], vector)
    released = f.reply("site-001", quorum)
    assert f.reply("site-001", quorum) == released
    with pytest.raises(AlreadyReleased):
        f.tell("site-001", abandon(f.chair, f.tag))
    assert unmasking.threshold == 4


def test_a_released_site_keeps_no_key() -> None:
    f = federation(5, 12)
    f.to_masks(*f.to_shares(*f.to_keys()))
    secrets = {s: f.records[s].stage.secrets for s in f.site_ids}  # type: ignore[union-attr] # MaskedOut has them
    g = federation(5, 12)
    g.run()
    for site_id, secret in secrets.items():
        assert isinstance(g.records[site_id].stage, Released)
        stored = save_record(g.records[site_id])
        for private in (secret.mask_private, secret.share_private, secret.seed):
            assert private not in stored


def test_a_vector_cannot_be_made_again_after_release() -> None:
    f = federation(5, 12)
    masking, deliveries = f.to_shares(*f.to_keys())
    f.to_sum(*f.to_confirmations(*f.to_masks(masking, deliveries)))
    with pytest.raises(Exception, match="not due") as refusal:
        f.tell("site-001", deliveries["site-001"])
    assert refusal.value.code == "E_STATE"  # type: ignore[attr-defined] # FedwardError


@pytest.mark.parametrize("stage", [Keyed, Shared, MaskedOut, Confirmed, GivenUp])
def test_every_flipped_byte_of_a_record_is_noticed(stage: type) -> None:
    f = federation(4, 6)
    steps = [f.to_keys, f.to_shares, f.to_masks, f.to_confirmations]
    state: tuple[object, ...] = ()
    for step in steps[: {Keyed: 1, Shared: 2, MaskedOut: 3, Confirmed: 4, GivenUp: 3}[stage]]:
        state = step(*state)  # type: ignore[operator] # the steps of a round, each fed by the one before
    if stage is GivenUp:
        f.tell("site-000", abandon(f.chair, f.tag))
    record = f.records["site-000"]
    assert isinstance(record.stage, stage)
    data, update = save_record(record), living_update(record)
    assert load_record(data, update=update) == record
    for at in range(0, len(data), 7):
        torn = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(CheckpointCorrupt):
            load_record(torn, update=update)
        with pytest.raises(CheckpointCorrupt):
            load_record(data[:at], update=update)


def before(record: Record) -> bytes:
    """As the version before wrote it: no stage said on which grid its update lies."""
    stage, title = codec.write(record.stage), b"FSA1 site record 2\n"
    grid = getattr(record.stage, "grid", None)
    if grid is not None:
        assert stage.count(grid) == 1
        stage = stage.replace(grid, b"")
    kind = save_record(record)[len(title) + 32 + 4]
    body = canonical.length_prefixed(bytes([kind]), codec.write(record.memory), stage, codec.write(record.answers))
    return title + canonical.digest(title, body) + body


def test_a_record_of_the_version_before_is_read() -> None:
    f = federation(5, 6)
    f.run()
    record = f.records["site-000"]
    assert isinstance(record.stage, Released)
    assert load_record(before(record)) == record


def test_an_update_of_the_version_before_is_forgotten_and_its_round_is_not() -> None:
    f = federation(4, 6)
    f.to_keys()
    record = f.records["site-000"]
    found = load_record(before(record), update=living_update(record))
    assert found == Record(memory=record.memory)
    f.records["site-000"] = found
    with pytest.raises(Equivocation):
        f.tell("site-000", Inviting(chair=f.chair, tag=f.tag).header)
    assert f.tell("site-000", Inviting(chair=f.chair, tag=replace(f.tag, attempt=1)).header).reply is None, "it trains anew"


def test_another_update_than_the_committed_one_is_refused() -> None:
    f = federation(4, 6)
    f.to_keys()
    record = f.records["site-000"]
    update = f.updates["site-000"]
    other = QuantisedUpdate(body=update.body + np.uint32(1), weight=update.weight)
    for wrong in (other, replace(update, weight=2), None):
        with pytest.raises(CheckpointCorrupt):
            load_record(save_record(record), update=wrong)


def test_burning_forgets_the_update_and_the_round_can_be_trained_again() -> None:
    f = federation(5, 12)
    f.to_masks(*f.to_shares(*f.to_keys()))
    header = Inviting(chair=f.chair, tag=replace(f.tag, attempt=1)).header
    first = f.updates["site-000"]
    f.records = {s: burn(f.records[s]) for s in f.site_ids}
    assert all(isinstance(record.stage, Listening) for record in f.records.values())
    f.next_round(round_number=1, attempt=1)
    assert f.tell("site-000", header).reply is None
    result = f.run()
    assert len(result.survivors) == 5
    assert f.updates["site-000"] is not first


def test_a_refused_request_changes_nothing_that_is_stored() -> None:
    f = federation(5, 12)
    _, cohort = f.to_keys()
    before = save_record(f.records["site-000"])
    other = Inviting(chair=f.chair, tag=replace(f.tag, model=bytes(32))).header
    with pytest.raises(Equivocation):
        f.tell("site-000", other)
    assert save_record(f.records["site-000"]) == before
    assert cohort
