# SPDX-License-Identifier: Apache-2.0
"""A new identity key, with the old one or without: what was spent is the same to the last digit, and no way leads to a fresh ledger."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.ledger import Ledger, read, succession, witness
from client.ledger.chain import Chain
from client.ledger.witness import Witness
from common.errors import LedgerRollback, LedgerTampered
from common.privacy import Charge, Event
from common.privacy.entries import Caps, Excluded, PlanSeen, Snapshotted
from tests.client.ledger.ledgers import OTHER, PLAN, SIGNER, WIDE, founded, newest_head, opened, pen, place, reserve

REASON = "the disk with the key was burnt"
MARK = "d" * 32
GENEROUS = Caps(eps_plan=1e9, eps_total=1e9)


def carry(folder: Path, **changes: object) -> Chain:
    values = {"lost": SIGNER.public, "site": "north", "caps": GENEROUS, "reason": REASON, **changes}
    return succession.carry_over(place(folder), pen(OTHER), **values)  # type: ignore[arg-type]


def as_new(folder: Path) -> Ledger:
    """Opened by the new key, as the site process opens it: chain, seal, signature."""
    return Ledger(place(folder), pen(OTHER))


@pytest.fixture
def spent(tmp_path: Path) -> Path:
    ledger = founded(tmp_path)
    ledger.note(lambda _: Snapshotted(dataset="main", manifest="e" * 64, unit_source="tag", public_patients=10, public_records=20))
    for number in range(3):
        reserve(ledger, number, 1e6)
    ledger.note(lambda _: Excluded(mark=MARK))
    return tmp_path


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=0, max_size=6), st.booleans())
def test_what_was_spent_is_the_same_under_the_new_key(tmp_path_factory: pytest.TempPathFactory, steps: list[int], lost: bool) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    ledger = founded(folder)
    for number, each in enumerate(steps):
        reserve(ledger, number, 1e6, charge=Charge.local(Event(sampling_rate=0.1, noise_multiplier=1.5, steps=each)))
    was = ledger.chain.tally
    if lost:
        carry(folder)
    else:
        succession.hand_over(place(folder), pen(), OTHER)
    now = as_new(folder).chain
    assert (now.tally.beyond(was), was.beyond(now.tally)) == ((), ())
    assert now.caps == WIDE
    reserve(as_new(folder), 99, 1e6)


def test_the_lost_keys_ledger_goes_on_with_its_snapshot_its_caps_and_who_withdrew(spent: Path) -> None:
    before = opened(spent).chain
    carry(spent)
    after = as_new(spent).chain
    assert (after.caps, after.snapshots, after.namespace) == (before.caps, before.snapshots, before.namespace)
    assert set(after.excluded) == set(before.excluded) == {MARK}
    assert after.branch > before.branch
    position = before.position
    assert after.holds(position.branch, position.seq, position.head), "what peers remember of the old ledger is answered for"
    read(place(spent).file.read_bytes(), name="every signature")


def test_the_old_file_stays_beside_the_new_one(spent: Path) -> None:
    was = place(spent).file.read_bytes()
    carry(spent)
    assert (spent / f"ledger.{SIGNER.public.hex()[:16]}.jsonl").read_bytes() == was


def test_where_seal_and_ledger_differ_both_are_charged(spent: Path) -> None:
    """An older ledger came out of the backup: the seal knows of one round more."""
    whole = place(spent).file.read_bytes().splitlines(keepends=True)
    full = opened(spent).chain.tally
    place(spent).file.write_bytes(b"".join(whole[:-2]))
    carry(spent)
    now = as_new(spent).chain
    assert full.beyond(now.tally) == ()
    assert MARK in now.excluded


def test_where_only_the_seal_is_left_it_is_charged(spent: Path) -> None:
    full = opened(spent).chain.tally
    place(spent).file.unlink()
    carry(spent, caps=replace(WIDE, eps_total=5.0))
    now = as_new(spent).chain
    assert (full.beyond(now.tally), now.tally.beyond(full)) == ((), ())
    assert now.caps.eps_total == 5.0, "the policy's caps, where the old ones are lost"


def test_an_empty_ledger_under_a_made_up_key_is_no_way_to_a_fresh_budget(spent: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    made_up = tmp_path_factory.mktemp("made-up")
    place(made_up).head.parent.mkdir()
    Ledger.found(place(made_up), replace(pen(), signer=OTHER), site="north", namespace="north-patients", caps=GENEROUS)
    third = replace(pen(), signer=type(OTHER)(b"\x03" * 32))
    for file in (spent / "apart").iterdir():
        file.unlink()
    place(spent).file.write_bytes(place(made_up).file.read_bytes())
    with pytest.raises(LedgerTampered, match="the roster's key"):
        succession.carry_over(place(spent), third, lost=SIGNER.public, site="north", caps=GENEROUS, reason=REASON)


def test_nothing_to_carry_is_refused(tmp_path: Path) -> None:
    (tmp_path / "apart").mkdir()
    with pytest.raises(LedgerRollback):
        carry(tmp_path)


def test_no_new_ledger_is_begun_beside_what_the_old_key_left(spent: Path) -> None:
    """`ledger open` under the new key: refused with the ledger there, refused with the seal alone."""
    for _ in range(2):
        with pytest.raises((LedgerRollback, LedgerTampered)):
            Ledger.found(place(spent), pen(OTHER), site="north", namespace="north-patients", caps=GENEROUS)
        place(spent).file.unlink(missing_ok=True)


def test_a_line_that_a_peer_has_seen_is_not_left_behind(spent: Path) -> None:
    seen = Witness(branch=0, seq=40, head="f" * 32, peer="south")
    witness.keep(place(spent).witness, seen, power_cut_safe=False)
    with pytest.raises(LedgerRollback, match="south"):
        carry(spent)


def test_a_flipped_byte_of_the_old_ledger_is_not_carried_over(spent: Path) -> None:
    content = bytearray(place(spent).file.read_bytes())
    content[len(content) // 2] ^= 1
    place(spent).file.write_bytes(bytes(content))
    with pytest.raises(LedgerTampered):
        carry(spent)


@pytest.mark.parametrize("stopped", ["before the seal", "after it"])
def test_carrying_over_may_stop_and_be_repeated(spent: Path, monkeypatch: pytest.MonkeyPatch, stopped: str) -> None:
    was = opened(spent).chain.tally
    seal = succession._seal

    def stop(*given: object) -> None:
        if stopped == "after it":
            seal(*given)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(succession, "_seal", stop)
        with pytest.raises(KeyboardInterrupt):
            carry(spent)
    carry(spent)
    now = as_new(spent).chain
    assert (now.tally.beyond(was), was.beyond(now.tally)) == ((), ())
    assert len([line for line in place(spent).file.read_bytes().splitlines() if b'"RESTORE"' in line]) == 1


def test_handing_over_may_stop_between_line_and_seal_and_be_repeated(spent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    was = opened(spent).chain.tally
    sealed = {path.name: path.read_bytes() for path in (spent / "apart").iterdir()}
    succession.hand_over(place(spent), pen(), OTHER)
    for path in (spent / "apart").iterdir():
        path.unlink()
    for name, content in sealed.items():  # the seal as it was before the line that names the new key
        (spent / "apart" / name).write_bytes(content)
    with pytest.raises(LedgerTampered):
        as_new(spent)
    assert succession.hand_over(place(spent), pen(), OTHER) is None
    assert as_new(spent).chain.tally.beyond(was) == ()
    assert succession.hand_over(place(spent), pen(), OTHER) is None


def test_handing_over_does_not_mend_a_seal_that_was_rolled_back(spent: Path) -> None:
    old = newest_head(spent).read_bytes()
    for number in range(3, 6):
        reserve(opened(spent), number, 1e6)
    succession.hand_over(place(spent), pen(), OTHER)
    newest_head(spent).write_bytes(old)
    with pytest.raises(LedgerRollback):
        succession.hand_over(place(spent), pen(), OTHER)


def test_the_plans_words_are_carried_over(tmp_path: Path) -> None:
    ledger = founded(tmp_path)
    words = PlanSeen(plan=PLAN, name="ct", purpose="why", unit="patient", noise="local", epsilon=8.0, delta=1e-6, rounds=10)
    ledger.note(lambda _: words)
    carry(tmp_path)
    assert as_new(tmp_path).chain.plans == {PLAN: words}
