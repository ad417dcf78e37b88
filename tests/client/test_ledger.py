# SPDX-License-Identifier: Apache-2.0
"""What was spent is remembered, and the budget is kept, across rounds and restarts."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.ledger import Ledger, last_epsilon
from common.errors import BudgetExceeded, LedgerTampered
from common.plan import PrivacySpec
from common.privacy import Event, calibrate, epsilon

SPEC = PrivacySpec(unit="record", epsilon=2.0, delta=1e-5, clip_norm=1.0)
EVENT = Event(sampling_rate=0.1, noise_multiplier=1.5, steps=5)


def opened(folder: Path) -> Ledger:
    return Ledger(folder / "ledger.jsonl", power_cut_safe=False)


def reserve(ledger: Ledger, number: int, *, plan: str = "p", event: Event = EVENT) -> float:
    return ledger.reserve(event, spec=SPEC, plan=plan, session="s", number=number, attempt=0).epsilon_after


def spend_all(folder: Path, *, reopen: bool) -> int:
    ledger = opened(folder)
    for number in range(1, 1000):
        if reopen:
            ledger = opened(folder)
        try:
            reserve(ledger, number)
        except BudgetExceeded:
            return number - 1
    raise AssertionError("the budget never bound")


def test_a_ledger_made_anew_each_round_does_not_forget(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert spend_all(tmp_path / "a", reopen=False) == spend_all(tmp_path / "b", reopen=True) > 1


def test_the_sum_is_that_of_all_rounds_together(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    for number in range(1, 4):
        after = reserve(ledger, number)
    assert after == pytest.approx(epsilon([Event(sampling_rate=0.1, noise_multiplier=1.5, steps=15)], 1e-5))
    assert last_epsilon(tmp_path / "ledger.jsonl") == after


def test_two_processes_of_one_site_share_one_budget(tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    first, second = opened(tmp_path), opened(tmp_path)
    for number in range(1, spend_all(tmp_path / "alone", reopen=False) + 1):
        reserve(first if number % 2 else second, number)
    for ledger in (first, second):
        with pytest.raises(BudgetExceeded):
            reserve(ledger, 1000)


def test_eight_processes_at_once_do_not_overspend(tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    limit = spend_all(tmp_path / "alone", reopen=False)
    with ProcessPoolExecutor(8, mp_context=multiprocessing.get_context("fork")) as pool:
        made = sum(pool.map(_spend, [tmp_path] * 8))
    assert made == limit == len(opened(tmp_path).entries())


def _spend(folder: Path) -> int:
    ledger, made = opened(folder), 0
    for number in range(1, 50):
        try:
            reserve(ledger, number)
        except BudgetExceeded:
            return made
        made += 1
    return made


def test_a_refusal_names_the_numbers_and_writes_nothing(tmp_path: Path) -> None:
    spend_all(tmp_path, reopen=False)
    before = (tmp_path / "ledger.jsonl").read_bytes()
    with pytest.raises(BudgetExceeded, match=r"the plan allows 2, 1\.\d+ is spent") as refusal:
        reserve(opened(tmp_path), 999)
    assert "Nothing was trained" in refusal.value.fix
    assert (tmp_path / "ledger.jsonl").read_bytes() == before


def test_plans_are_counted_apart(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    assert reserve(ledger, 1, plan="p") == reserve(ledger, 1, plan="q")
    assert ledger.spent("r", 1e-5) == 0


def test_a_calibrated_run_spends_its_epsilon_and_no_more(tmp_path: Path) -> None:
    rounds, steps = 20, 4
    noise = calibrate(2.0, 1e-5, 0.1, rounds * steps)
    ledger = opened(tmp_path)
    for number in range(1, rounds + 1):
        after = reserve(ledger, number, event=Event(sampling_rate=0.1, noise_multiplier=noise, steps=steps))
    assert 0.98 * 2.0 <= after <= 2.0
    with pytest.raises(BudgetExceeded):
        reserve(ledger, rounds + 1, event=Event(sampling_rate=0.1, noise_multiplier=noise, steps=rounds * steps))


def test_a_line_torn_by_a_power_cut_is_dropped(tmp_path: Path) -> None:
    reserve(opened(tmp_path), 1)
    whole = (tmp_path / "ledger.jsonl").read_bytes()
    (tmp_path / "ledger.jsonl").write_bytes(whole + b'{"plan": "p", "rou')
    assert len(opened(tmp_path).entries()) == 1
    assert (tmp_path / "ledger.jsonl").read_bytes() == whole


@pytest.mark.parametrize("line", ["not json", "{}", '{"plan": "p"}', "[]", "1"])
def test_a_line_that_is_no_reservation_is_refused(tmp_path: Path, line: str) -> None:
    reserve(opened(tmp_path), 1)
    with (tmp_path / "ledger.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(LedgerTampered, match="line 2"):
        opened(tmp_path)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.01, 0.1]), st.sampled_from([1.0, 2.0]), st.integers(1, 20)), min_size=1, max_size=8))
def test_a_ledger_only_grows(tmp_path_factory: pytest.TempPathFactory, events: list[tuple[float, float, int]]) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    spent = 0.0
    generous = PrivacySpec(unit="record", epsilon=1e6, delta=1e-5, clip_norm=1.0)
    for number, (rate, noise, steps) in enumerate(events):
        event = Event(sampling_rate=rate, noise_multiplier=noise, steps=steps)
        after = opened(folder).reserve(event, spec=generous, plan="p", session="s", number=number, attempt=0).epsilon_after
        assert after >= spent
        spent = after
