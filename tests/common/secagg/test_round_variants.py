# SPDX-License-Identifier: Apache-2.0
"""Other shapes of a round: an older peer, groups, statistics, a coordinator with little memory, what KEYS carries."""

import gc
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from common.errors import UnknownVersion, UpdateTerms, WrongStage
from common.secagg import codec, groups
from common.secagg.coordinator import Inviting
from common.secagg.messages import Heads, Keys, PeerHead, Step, Up
from common.secagg.site import burn, handle, join
from common.secagg.terms import Kind
from common.secagg.unmask import open_sum
from tests.common.secagg.federation import NOW, federation


def test_one_version_back_is_accepted_where_the_plan_says_so() -> None:
    f = federation(5, versions=frozenset({0, 1}))
    for version in (0, 1):
        f.next_round()
        f.tag = replace(f.tag, version=version)
        result = f.run()
        assert np.array_equal(result.body.view(np.int32), f.plain_sum(f.site_ids))


@pytest.mark.parametrize(("theirs", "ours"), [(2, 1), (0, 1), (1, 2)])
def test_another_version_is_refused_by_name_on_both_sides(theirs: int, ours: int) -> None:
    f = federation(5, versions=frozenset({ours}))
    f.tag = replace(f.tag, version=theirs)
    with pytest.raises(UnknownVersion, match=f"version {theirs}"):
        f.run()
    g = federation(5, versions=frozenset({ours, theirs}))
    g.tag = replace(g.tag, version=theirs)
    replies = {s: g.announce(s, Inviting(chair=g.chair, tag=g.tag).header) for s in g.site_ids}
    mine = Inviting(chair=g.chair, tag=replace(g.tag, version=ours))
    with pytest.raises(Exception, match="announced keys"):
        mine.agree(replies, now=NOW)


def test_a_message_of_one_version_does_not_count_in_a_round_of_another() -> None:
    """The version is part of the round's tag: the same round in another version is another round."""
    f = federation(5)
    assert f.tag.rt != replace(f.tag, version=0).rt != replace(f.tag, ring_bits=16).rt


def test_groups_are_rounds_of_their_own_and_their_means_make_the_whole() -> None:
    f = federation(11, 50)
    parts = groups.partition(f.site_ids, epoch=f.consortium.roster.epoch, max_group=4)
    means, weights, total = [], [], np.zeros(50, np.int64)
    for part in parts:
        terms = replace(f.terms, members=part)
        g = federation(11, 50)
        g.chair = replace(g.chair, terms=terms)
        g.seats = {s: replace(g.seats[s], terms=terms) for s in sorted(part)}
        result = g.run()
        assert set(result.survivors) == part
        total += g.plain_sum(part)
        means.append(result.mean(terms))
        weights.append(result.total_weight)
    whole = groups.weighted_mean(means, weights)
    assert np.allclose(whole, total * f.terms.grid.step / 11, atol=1e-7)
    assert groups.median(means).shape == (50,)


@pytest.mark.parametrize("kind", [Kind.STAT, Kind.EVAL])
def test_statistics_and_evaluations_are_summed_alike(kind: Kind) -> None:
    f = federation(5)
    f.turn_to(kind)
    result = f.run()
    assert np.array_equal(result.body.view(np.int32), f.plain_sum(f.site_ids))


def test_a_round_counts_then_judges_then_trains() -> None:
    """Each has its turn; what is over is not asked again, and the next round begins anew."""
    f = federation(5)
    for kind, number in ((Kind.STAT, 1), (Kind.UPDATE, 1), (Kind.UPDATE, 2), (Kind.EVAL, 3), (Kind.UPDATE, 3)):
        f.turn_to(kind, round_number=number)
        assert np.array_equal(f.run().body.view(np.int32), f.plain_sum(f.site_ids))
        place = f.records["site-000"].memory.mark(f.tag.session)
        assert place is not None
        assert (place.round, place.kind, place.model) == (number, kind, f.tag.model)


def test_an_evaluation_that_failed_keeps_nobody_from_training() -> None:
    """Its masked counts are out, its sum was never opened: the update's header ends it."""
    f = federation(5)
    f.turn_to(Kind.EVAL)
    f.to_masks(*f.to_shares(*f.to_keys()))
    f.turn_to(Kind.UPDATE, round_number=f.tag.round)
    assert np.array_equal(f.run().body.view(np.int32), f.plain_sum(f.site_ids))


def test_keys_carry_the_heads_of_the_ledger_the_audit_log_and_of_peers() -> None:
    f = federation(5)
    seen = PeerHead(site_id="site-001", ledger_head=b"\x03" * 32, audit_head=b"\x04" * 32)
    heads = Heads(ledger=b"\x01" * 32, audit=b"\x02" * 32, peers=(seen,))
    header = Inviting(chair=f.chair, tag=f.tag).header
    record = handle(f.seats["site-000"], f.records["site-000"], header, now=NOW, offer=f.offer()).record
    outcome = join(f.seats["site-000"], record, f.train("site-000"), heads=heads)
    said = codec.read(Keys, codec.read(Up, outcome.reply or b"").body)
    assert said.heads == heads
    again = handle(f.seats["site-000"], outcome.record, header, now=NOW, heads=Heads())
    assert again.reply == outcome.reply


def test_the_coordinator_holds_one_vector_at_a_time() -> None:
    """Loaded from disk, added, forgotten: memory does not grow with the cohort."""
    f = federation(12, 1000)
    unmasking, quorum = f.to_confirmations(*f.to_masks(*f.to_shares(*f.to_keys())))
    opened = {s: f.reply(s, quorum) for s in f.site_ids}
    alive: list[weakref.ref[Any]] = []
    most = 0

    def load(site_id: str) -> Any:
        nonlocal most
        gc.collect()
        most = max(most, sum(ref() is not None for ref in alive) + 1)
        vector = f.vectors[site_id].copy()
        alive.append(weakref.ref(vector))
        return vector

    result = open_sum(unmasking, opened, load)
    assert np.array_equal(result.body.view(np.int32), f.plain_sum(f.site_ids))
    assert len(alive) == 12
    assert most <= 2


def test_a_stage_has_only_the_step_that_is_due() -> None:
    """The types say it, and `handle` says it by name."""
    f = federation(4)
    sharing, cohort = f.to_keys()
    stage = f.records["site-000"].stage
    assert hasattr(stage, "share")
    assert not any(hasattr(stage, step) for step in ("mask", "confirm", "release"))
    with pytest.raises(WrongStage):
        join(f.seats["site-000"], f.records["site-000"], f.updates["site-000"])
    assert sharing.members
    assert codec.read(Up, f.reply("site-000", cohort)).step is Step.SHARE


def test_a_heavier_site_enrolled_between_two_attempts_has_all_train_anew_and_the_mean_is_right() -> None:
    """On the grid of the older roster the same integers would count four times as much."""
    f = federation(5)
    f.to_keys()
    fair = f.plain_sum(f.site_ids) * f.terms.grid.step / 5  # these sites train to the same deltas again
    newcomer = replace(f.consortium.roster.members[0], site_id="site-005", public_key=b"\x07" * 32, weight=4)
    roster = replace(f.consortium.roster, epoch=f.consortium.roster.epoch + 1, members=(*f.consortium.roster.members, newcomer))
    terms = replace(f.terms, grid=replace(f.terms.grid, max_weight=4))
    f.chair = replace(f.chair, terms=terms, roster=roster)
    f.seats = {name: replace(seat, terms=terms, roster=roster) for name, seat in f.seats.items()}
    f.tag = replace(f.tag, attempt=1, roster=roster.digest)
    for site_id in f.site_ids:
        with pytest.raises(UpdateTerms):
            f.announce(site_id, Inviting(chair=f.chair, tag=f.tag).header)
        f.records[site_id] = burn(f.records[site_id])
    opened = f.run()
    assert np.abs(fair).max() > 0.1
    np.testing.assert_allclose(opened.mean(terms), fair, atol=4 * terms.grid.step)
