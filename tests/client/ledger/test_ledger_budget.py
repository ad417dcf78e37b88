# SPDX-License-Identifier: Apache-2.0
"""What was spent is remembered, and every cap is kept: across rounds, plans, restarts, processes and kills."""

import json
import multiprocessing
import os
import random
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, rdp
from hypothesis import given, settings
from hypothesis import strategies as st

from client.ledger import Ledger, read
from common.errors import BudgetExceeded
from common.privacy import Charge, Event, calibrate, epsilon
from common.privacy.entries import Caps, Entry, Spent
from tests.client.ledger.ledgers import (
    CHARGE,
    EVENT,
    OTHER_PLAN,
    PLAN,
    founded,
    limits,
    lines,
    opened,
    place,
    reserve,
    shared_noise,
    spend_all,
)

ATTEMPTS = int(os.environ.get("FEDWARD_RESERVATIONS", "1600"))
"""How many reservations the eight processes try; 100,000 is the full size."""


def after(entry: Entry) -> float:
    assert isinstance(entry.fact, Spent)
    return entry.fact.after.outside


def rounds_that_fit(folder: Path, *, reopen: bool = False) -> int:
    ledger = founded(folder)
    for number in range(1, 1000):
        if reopen:
            ledger = opened(folder)
        try:
            reserve(ledger, number)
        except BudgetExceeded:
            return number - 1
    raise AssertionError("the budget never bound")


def test_a_ledger_made_anew_each_round_does_not_forget(tmp_path: Path) -> None:
    assert rounds_that_fit(tmp_path / "a") == rounds_that_fit(tmp_path / "b", reopen=True) > 1


def test_the_sum_is_that_of_all_rounds_together(tmp_path: Path) -> None:
    ledger = founded(tmp_path)
    for number in range(1, 4):
        last = reserve(ledger, number)
    assert after(last) == pytest.approx(epsilon([Event(sampling_rate=0.1, noise_multiplier=1.5, steps=15)], 1e-5))


def test_two_processes_of_one_site_share_one_budget(tmp_path: Path) -> None:
    alone = rounds_that_fit(tmp_path / "alone")
    first, second = founded(tmp_path / "both"), opened(tmp_path / "both")
    for number in range(1, alone + 1):
        reserve(first if number % 2 else second, number)
    for ledger in (first, second):
        with pytest.raises(BudgetExceeded):
            reserve(ledger, 1000)


def test_eight_processes_at_once_do_not_overspend(tmp_path: Path) -> None:
    limit = rounds_that_fit(tmp_path / "alone")
    founded(tmp_path / "all")
    with ProcessPoolExecutor(8, mp_context=multiprocessing.get_context("fork")) as pool:
        made = sum(pool.map(_spend, [tmp_path / "all"] * 8))
    assert made == limit == sum(1 for line in read(place(tmp_path / "all").file.read_bytes(), name="l")[1] if isinstance(line.fact, Spent))


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
    rounds_that_fit(tmp_path / "l")
    before = place(tmp_path / "l").file.read_bytes()
    with pytest.raises(BudgetExceeded, match=r"the plan allows 2, 1\.\d+ is spent") as refusal:
        reserve(opened(tmp_path / "l"), 999)
    assert "Nothing was opened or trained" in refusal.value.fix
    assert place(tmp_path / "l").file.read_bytes() == before


def test_two_plans_share_what_a_patient_may_lose(tmp_path: Path) -> None:
    """Each is within its own promise; together they would not be within the hospital's."""
    caps = Caps(eps_plan=2.3, eps_total=2.5, own_share_plan=2.3, own_share_total=2.5, delta=1e-5)
    ledger = founded(tmp_path, caps)
    first, second = (limits(2.3, plan=plan, caps=caps) for plan in (PLAN, OTHER_PLAN))
    made = [after(reserve(ledger, number, bounds=bounds)) for number in range(1, 4) for bounds in (first, second)]
    with pytest.raises(BudgetExceeded, match=r"over all plans .* this site's policy allows 2.5"):
        spend_all(ledger, bounds=first)
    assert max(made) < 2.3
    assert isinstance(ledger.chain.last.fact, Spent)
    assert ledger.chain.last.fact.after.outside < 2.3 < ledger.chain.last.fact.after.outside_total <= 2.5
    everything = [EVENT] * (len(ledger.chain) - 1)
    assert epsilon(everything, 1e-5) <= 2.5 < epsilon([*everything, EVENT], 1e-5)


def test_what_has_its_own_part_of_a_plans_epsilon_is_not_made_more_often_than_that(tmp_path: Path) -> None:
    """Evaluations: cheap beside training, so that the plan's epsilon alone would let a coordinator have hundreds."""
    ledger, judged = founded(tmp_path), Charge.local(Event(sampling_rate=1.0, noise_multiplier=50.0, steps=1))
    bounds = replace(limits(8.0), allowances={judged: 3})
    for number in range(3):
        reserve(ledger, number, bounds=bounds, charge=judged)
    written = lines(tmp_path)
    with pytest.raises(BudgetExceeded, match="the plan does it 3 times"):
        reserve(opened(tmp_path), 3, bounds=bounds, charge=judged)
    assert lines(tmp_path) == written
    reserve(ledger, 4, bounds=bounds)
    other = replace(bounds, plan=OTHER_PLAN)
    reserve(ledger, 5, bounds=other, charge=judged)


def test_shared_noise_is_capped_by_what_colluders_would_see(tmp_path: Path) -> None:
    caps = Caps(eps_plan=8, eps_total=8, own_share_plan=6, own_share_total=1e6, delta=1e-5)
    ledger = founded(tmp_path, caps)
    weak = shared_noise(CHARGE, 1.0)
    with pytest.raises(BudgetExceeded, match="against more colluding sites than it assumes; this site's policy allows 6"):
        spend_all(ledger, bounds=limits(8.0, caps=caps), charge=weak)
    seen = ledger.chain.last.fact
    assert isinstance(seen, Spent)
    assert seen.after.outside < seen.after.own_share <= 6


def test_no_noise_at_all_costs_without_limit_and_is_written_as_such(tmp_path: Path) -> None:
    free = Caps(eps_plan=8, eps_total=8, own_share_plan=float("inf"), own_share_total=float("inf"), delta=1e-5)
    ledger = founded(tmp_path, free)
    entry = reserve(ledger, 1, bounds=limits(8.0, caps=free), charge=shared_noise(CHARGE, 0.0))
    assert isinstance(entry.fact, Spent)
    assert entry.fact.after.own_share == float("inf")
    assert b'"own_share":"inf"' in place(tmp_path).file.read_bytes()
    assert opened(tmp_path).chain.last == entry


def test_a_calibrated_run_spends_its_epsilon_and_no_more(tmp_path: Path) -> None:
    rounds, steps = 20, 4
    noise = calibrate(2.0, 1e-5, 0.1, rounds * steps)
    ledger, charge = founded(tmp_path), Charge.local(Event(sampling_rate=0.1, noise_multiplier=noise, steps=steps))
    for number in range(1, rounds + 1):
        last = reserve(ledger, number, charge=charge)
    assert 0.98 * 2.0 <= after(last) <= 2.0
    with pytest.raises(BudgetExceeded):
        reserve(ledger, rounds + 1, charge=Charge.local(Event(sampling_rate=0.1, noise_multiplier=noise, steps=rounds * steps)))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.01, 0.1]), st.sampled_from([1.0, 2.0]), st.sampled_from([0.8, 1.0]), st.integers(1, 20)),
        min_size=1,
        max_size=8,
    )
)
def test_a_ledger_only_grows(tmp_path_factory: pytest.TempPathFactory, charges: list[tuple[float, float, float, int]]) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    founded(folder)
    spent, written = (0.0, 0.0), b""
    for number, (rate, noise, part, steps) in enumerate(charges):
        charge = Charge.local(Event(sampling_rate=rate, noise_multiplier=noise, steps=steps))
        fact = reserve(opened(folder), number, 1e6, charge=shared_noise(charge, noise * part)).fact
        assert isinstance(fact, Spent)
        assert fact.after.outside >= spent[0]
        assert fact.after.own_share >= max(spent[1], fact.after.outside)
        assert place(folder).file.read_bytes().startswith(written)
        spent, written = (fact.after.outside, fact.after.own_share), place(folder).file.read_bytes()


@settings(max_examples=8, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.002, 0.05, 0.3]), st.floats(0.5, 8), st.floats(0.3, 1), st.integers(1, 40), st.booleans()),
        min_size=1,
        max_size=4,
    )
)
def test_the_ledgers_epsilon_is_never_below_an_independent_sum_of_its_own_lines(
    tmp_path_factory: pytest.TempPathFactory, charges: list[tuple[float, float, float, int, bool]]
) -> None:
    """The sum is dp-accounting's own, made from the file's text alone, event by event and unmerged."""
    folder = tmp_path_factory.mktemp("ledger")
    ledger = founded(folder)
    for number, (rate, noise, part, steps, other) in enumerate(charges):
        charge = shared_noise(Charge.local(Event(sampling_rate=rate, noise_multiplier=noise, steps=steps)), noise * part)
        reserve(ledger, number, bounds=limits(1e6, plan=OTHER_PLAN if other else PLAN), charge=charge)
    facts = [json.loads(line)["fact"] for line in place(folder).file.read_text().splitlines()][1:]
    last = facts[-1]
    for view in ("outside", "own_share"):
        for scope, delta, chosen in (
            ("", last["after"]["delta"], [fact for fact in facts if fact["plan"] == last["plan"]]),
            ("_total", last["after"]["delta_total"], facts),
        ):
            accountant = rdp.RdpAccountant()
            for fact in chosen:
                event = fact["charge"][view]
                gaussian = GaussianDpEvent(event["noise_multiplier"])
                accountant.compose(PoissonSampledDpEvent(event["sampling_rate"], gaussian), event["steps"])
            assert last["after"][view + scope] >= accountant.get_epsilon(delta) * (1 - 1e-9)


def test_processes_that_are_killed_at_random_never_overspend(tmp_path: Path) -> None:
    """Eight processes reserve small, mixed charges; one is killed and replaced again and again; at the end the caps are counted anew.

    FEDWARD_RESERVATIONS=100000 makes it the full size.
    """
    rng = random.Random(4)
    cap = _cap_for(ATTEMPTS)
    caps = Caps(eps_plan=cap, eps_total=cap, own_share_plan=1e6, own_share_total=1e6, delta=1e-5)
    founded(tmp_path, caps)
    fork = multiprocessing.get_context("fork")
    tried = fork.Value("q", 0)

    def start(number: int) -> multiprocessing.process.BaseProcess:
        process = fork.Process(target=_try_until_enough, args=(tmp_path, caps, tried, number))
        process.start()
        return process

    crew = [start(number) for number in range(8)]
    kills, due = 0, ATTEMPTS // 40
    while tried.value < ATTEMPTS:
        if tried.value >= due:
            victim = rng.randrange(8)
            assert crew[victim].pid is not None
            os.kill(crew[victim].pid, signal.SIGKILL)  # type: ignore[arg-type]
            crew[victim].join()
            crew[victim] = start(8 + kills)
            kills, due = kills + 1, due + ATTEMPTS // 40
        time.sleep(0.002)
    for process in crew:
        process.join()
    assert kills >= 20
    events = [line.fact.charge.outside for line in read(place(tmp_path).file.read_bytes(), name="l")[1] if isinstance(line.fact, Spent)]
    assert ATTEMPTS // 10 < len(events) < ATTEMPTS, "the caps must bind, and not at once"
    assert epsilon(events, caps.delta) <= cap
    opened(tmp_path)  # chain, signature and sealed head agree


def _cap_for(attempts: int) -> float:
    """About half of the attempts fit."""
    return epsilon([Event(sampling_rate=0.01, noise_multiplier=2.0, steps=attempts)], 1e-5)


def _try_until_enough(folder: Path, caps: Caps, tried: "multiprocessing.sharedctypes.Synchronized[int]", number: int) -> None:
    rng = random.Random(number)
    ledger = Ledger(place(folder), opened(folder)._pen)
    while tried.value < ATTEMPTS:
        event = Event(sampling_rate=0.01, noise_multiplier=rng.choice([1.5, 2.0, 3.0]), steps=rng.choice([1, 2, 4]))
        plan = rng.choice([PLAN, OTHER_PLAN])
        with suppress(BudgetExceeded):
            reserve(ledger, tried.value, bounds=limits(1e6, plan=plan, caps=caps), charge=Charge.local(event))
        with tried.get_lock():
            tried.value += 1
