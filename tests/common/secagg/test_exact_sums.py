# SPDX-License-Identifier: Apache-2.0
"""The sum is the integer sum of the survivors' updates, bit for bit, whoever falls out and whenever; or there is no sum at all."""

import functools
import random
from collections.abc import Collection
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import ConfirmQuorum, FedwardError
from common.secagg import keys, messages
from common.secagg.coordinator import Inviting, abandon, abandons
from common.secagg.masks import Mask, apply
from common.secagg.messages import Step
from common.secagg.stages import Keyed, pair_mask, self_mask
from common.secagg.unmask import AggregateSum
from tests.common.secagg.federation import NOW, Federation, federation, seeded


def assert_exact(f: Federation, result: AggregateSum) -> None:
    expected = f.plain_sum(result.survivors)
    assert np.array_equal(result.body.view(f.terms.grid.signed_word).astype(np.int64), expected)


def random_drops(f: Federation, share: float, rng: random.Random) -> dict[int, list[str]]:
    """Exactly a share of the sites, each at a step of its own."""
    drops: dict[int, list[str]] = {}
    for site_id in rng.sample(f.site_ids, round(share * len(f.site_ids))):
        drops.setdefault(rng.randint(1, 5), []).append(site_id)
    return drops


def survivors_left(f: Federation, drops: dict[int, list[str]]) -> bool:
    """Whether a threshold of U1, which those who fell at step 1 never joined, is left at the end."""
    late = sum(len(sites) for step, sites in drops.items() if step > 1)
    cohort = len(f.site_ids) - len(drops.get(1, ()))
    return cohort - late >= f.terms.threshold(cohort)


def test_two_hundred_rounds_of_ten_sites_with_thirty_percent_dropouts_are_exact() -> None:
    f, rng = federation(10, 64, min_cohort=5), random.Random(7)
    for number in range(1, 201):
        f.next_round(round_number=number)
        drops = random_drops(f, 0.3, rng)
        assert survivors_left(f, drops), "three of ten may fall"
        result = f.run(drops=drops)
        assert_exact(f, result)
        assert set(result.survivors) == set(f.site_ids) - {s for step in (1, 2, 3) for s in drops.get(step, ())}


@pytest.fixture
def remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every site of a cohort checks the same signatures, and two sites agree on the same secret from both ends, to seal, to unseal and to
    mask. Whether a signature holds and what two keys agree on never changes, so here, where sums are the matter, it is worked out once and
    remembered: most of a large round's time. The rounds of ten above, and all attacks, ask each time."""
    monkeypatch.setattr(messages, "signature_holds", functools.lru_cache(maxsize=8192)(keys.signature_holds))
    agree, secrets = keys.AgreementKey.agree, dict[frozenset[bytes], bytes | None]()

    @functools.lru_cache(maxsize=1)  # a loaded key meets one peer after the other
    def public(key: keys.AgreementKey) -> bytes:
        return key._loaded.public_key().public_bytes_raw()

    def agreed(key: keys.AgreementKey, peer_public: bytes) -> bytes | None:
        pair = frozenset((public(key), peer_public))
        if pair not in secrets:
            secrets[pair] = agree(key, peer_public)
        return secrets[pair]

    monkeypatch.setattr(keys.AgreementKey, "agree", agreed)


@pytest.mark.slow
@pytest.mark.usefixtures("remembered")
def test_fifty_rounds_of_fifty_sites_with_thirty_percent_dropouts_are_exact() -> None:
    f, rng = federation(50, 16), random.Random(8)
    for number in range(1, 51):
        f.next_round(round_number=number)
        drops = random_drops(f, 0.3, rng)
        assert survivors_left(f, drops), "fifteen of fifty may fall"
        assert_exact(f, f.run(drops=drops))


@pytest.mark.slow
@pytest.mark.usefixtures("remembered")
def test_five_rounds_of_two_hundred_sites_with_thirty_percent_dropouts_are_exact() -> None:
    f, rng = federation(200, 16), random.Random(10)
    for number in range(1, 6):
        f.next_round(round_number=number)
        drops = random_drops(f, 0.3, rng)
        result = f.run(drops=drops)
        assert_exact(f, result)
        assert set(result.survivors) == set(f.site_ids) - {s for step in (1, 2, 3) for s in drops.get(step, ())}


def test_bandwidth_mode_is_exact() -> None:
    f, rng = federation(10, 101, ring_bits=16), random.Random(9)
    for number in range(1, 11):
        f.next_round(round_number=number)
        assert_exact(f, f.run(drops=random_drops(f, 0.3, rng)))


def test_weights_enter_the_mean() -> None:
    f = federation(5, 40, weights={"site-001": 4, "site-003": 2}, max_weight=4)
    result = f.run()
    assert result.total_weight == 1 + 4 + 1 + 2 + 1
    expected = f.plain_sum(f.site_ids) * f.terms.grid.step * 4 / 9
    assert np.allclose(result.mean(f.terms), expected, rtol=1e-6)


# Ten thousand cases: 1500 whole rounds, and of their parts 2500 for masks (below), 3000 for shares (test_mathematics.py,
# test_any_threshold_of_shares_gives_the_secret) and 3000 for integers (test_quantise.py, test_the_sum_of_any_updates_does_not_wrap).


@pytest.mark.slow
@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    num_sites=st.integers(3, 6),
    num_values=st.integers(1, 60),
    ring_bits=st.sampled_from([16, 32]),
    seed=st.integers(0, 2**32),
    share=st.floats(0, 0.5),
)
def test_any_small_cohort_gives_the_exact_sum_or_a_named_error(
    num_sites: int, num_values: int, ring_bits: int, seed: int, share: float
) -> None:
    play_any_cohort(num_sites, num_values, ring_bits, seed, share)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    num_sites=st.integers(3, 12),
    num_values=st.integers(1, 3000),
    ring_bits=st.sampled_from([16, 32]),
    seed=st.integers(0, 2**32),
    share=st.floats(0, 0.5),
)
def test_any_cohort_gives_the_exact_sum_or_a_named_error(num_sites: int, num_values: int, ring_bits: int, seed: int, share: float) -> None:
    play_any_cohort(num_sites, num_values, ring_bits, seed, share)


def play_any_cohort(num_sites: int, num_values: int, ring_bits: int, seed: int, share: float) -> None:
    f = federation(num_sites, num_values, ring_bits=ring_bits, seed=seed)
    drops = random_drops(f, share, random.Random(seed))
    if survivors_left(f, drops):
        assert_exact(f, f.run(drops=drops))
    else:
        with pytest.raises(FedwardError) as refusal:
            f.run(drops=drops)
        assert refusal.value.code in {"E_COHORT_TOO_SMALL", "E_SURVIVOR_SET", "E_CONFIRM_QUORUM"}


@settings(max_examples=2500, deadline=None)
@given(st.integers(2, 5), st.integers(1, 40), st.sampled_from([np.uint16, np.uint32]), st.integers(0, 2**32), st.data())
def test_masks_of_any_survivors_leave_nothing_in_the_sum(
    num_sites: int, num_values: int, word: Any, seed: int, data: st.DataObject
) -> None:
    """The arithmetic alone: self masks of the survivors, and their pair masks with whoever fell, are all there is to remove."""
    entropy, transcript = seeded(seed), bytes(32)
    names = [f"s{i}" for i in range(num_sites)]
    privates = {name: entropy(32) for name in names}
    public = {name: keys.agreement_public(privates[name]) for name in names}
    loaded = {name: keys.AgreementKey.load(privates[name]) for name in names}
    seeds = {name: entropy(32) for name in names}
    updates = {name: np.frombuffer(entropy(num_values * 4), dtype=word)[:num_values] for name in names}
    survivors = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    total, tail = np.zeros(num_values, dtype=word), np.zeros(3, dtype=np.uint32)
    for name in survivors:
        masks = [self_mask(seeds[name], transcript, name)]
        masks += [pair_mask(loaded[name], transcript, name, peer, public[peer]) for peer in names if peer != name]
        body = updates[name].copy()
        apply(masks, body=body, tail=tail)
        total += body
    removed = [Mask(self_mask(seeds[name], transcript, name).key, negative=True) for name in survivors]
    fallen = [name for name in names if name not in survivors]
    removed += [pair_mask(loaded[gone], transcript, gone, name, public[name]) for gone in fallen for name in survivors]
    apply(removed, body=total, tail=tail)
    assert np.array_equal(total, sum((updates[name] for name in survivors), np.zeros(num_values, dtype=word)))
    assert not tail.any()


@pytest.mark.parametrize("step", [2, 3, 4, 5])
def test_one_drop_too_many_is_a_named_error_and_the_retry_succeeds(step: int) -> None:
    """n - t + 1 sites fall silent: no sum. They come back, the attempt is given up, and the next one is exact."""
    f = federation(7, 20)
    gone = f.site_ids[:3]
    with pytest.raises(FedwardError) as refusal:
        f.run(drops={step: gone})
    assert refusal.value.code in {"E_COHORT_TOO_SMALL", "E_SURVIVOR_SET", "E_CONFIRM_QUORUM"}
    if step == 5:
        return  # the others have released: this update may join no other sum, see the next test
    said = abandons(f.chair, f.tag, {s: f.reply(s, abandon(f.chair, f.tag)) for s in f.site_ids})
    f.next_round(round_number=1, attempt=1)
    result = f.run(inviting=Inviting(chair=f.chair, tag=f.tag, abandons=said))
    assert_exact(f, result)
    assert set(result.survivors) == set(f.site_ids)


def test_an_attempt_that_waits_for_its_sites_ends_in_its_sum() -> None:
    """Too few shares came back; when the missing sites return, the same attempt goes on: nobody trains or masks again."""
    f = federation(7, 20)
    unmasking, quorum = f.to_confirmations(*f.to_masks(*f.to_shares(*f.to_keys())))
    with pytest.raises(ConfirmQuorum):
        f.to_sum(unmasking, quorum, f.site_ids[:4])
    assert_exact(f, f.to_sum(unmasking, quorum, f.site_ids))


def test_a_retry_before_masking_is_free_and_keeps_the_update() -> None:
    f = federation(5, 20)
    f.to_shares(*f.to_keys())
    trained = dict(f.updates)
    f.next_round(round_number=1, attempt=1)
    assert_exact(f, f.run())
    assert f.updates == trained


def test_a_restarted_coordinator_says_the_same_again_and_gets_the_same_sum() -> None:
    """It keeps no secret: the journalled replies give the same messages, and sites answer repeated requests with the same bytes."""
    f = federation(5, 30)
    first = f.run()
    heard = list(f.captured)
    inviting = Inviting(chair=f.chair, tag=f.tag)
    stored = {s: {a.step: a.reply for a in f.records[s].answers} for s in f.site_ids}
    sharing, cohort = inviting.agree({s: stored[s][Step.KEYS] for s in f.site_ids}, now=NOW)
    masking, deliveries = sharing.route({s: stored[s][Step.SHARE] for s in f.site_ids})
    confirming, survivors = masking.survive({s: stored[s][Step.MASK] for s in f.site_ids})
    unmasking, quorum = confirming.quorum({s: stored[s][Step.CONFIRM] for s in f.site_ids})
    assert {inviting.header, cohort, survivors, quorum, *deliveries.values()} <= set(heard)
    again = f.to_sum(unmasking, quorum)
    assert np.array_equal(again.body, first.body)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_order_of_arrival_is_irrelevant(order: int) -> None:
    def shuffled(replies: dict[str, bytes]) -> dict[str, bytes]:
        names: Collection[str] = random.Random(order).sample(sorted(replies), len(replies))
        return {name: replies[name] for name in names}

    f = federation(5, 30)
    header = Inviting(chair=f.chair, tag=f.tag).header
    said = {s: f.announce(s, header) for s in f.site_ids}
    _, plain = Inviting(chair=f.chair, tag=f.tag).agree(said, now=NOW)
    sharing, mixed = Inviting(chair=f.chair, tag=f.tag).agree(shuffled(said), now=NOW)
    assert plain == mixed
    result = f.to_sum(*f.to_confirmations(*f.to_masks(*f.to_shares(sharing, mixed))))
    assert_exact(f, result)


def test_every_message_may_arrive_four_times() -> None:
    f = federation(5, 30)
    original = f.tell

    def fourfold(site_id: str, control: bytes, **kwargs: object) -> object:
        answers = [original(site_id, control) for _ in range(4)]
        if isinstance(answers[-1].record.stage, Keyed) or answers[0].reply is None:
            return answers[0]
        assert all(answer.reply == answers[0].reply for answer in answers)
        return answers[0]

    f.tell = fourfold  # type: ignore[method-assign,assignment] # the one wire of this federation, made to stutter
    assert_exact(f, f.run())
