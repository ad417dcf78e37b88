# SPDX-License-Identifier: Apache-2.0
"""After an older copy was put back the ledger goes on, and costs at least what was really spent; there is no way on that costs less."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.ledger import Ledger, Place, echo, read, recovery, witness
from client.ledger.echo import TokenKey
from common.errors import BudgetExceeded, LedgerRollback
from common.privacy import Charge, Event
from common.privacy.entries import Caps, Excluded, Restored, Tallied
from common.privacy.tally import View
from common.secagg.messages import NO_HEAD, Heads, PeerHead
from tests.client.ledger.ledgers import CHARGE, PLAN, SIGNER, WIDE, founded, limits, newest_head, opened, pen, place, reserve, spend_all

KEY = TokenKey.of(SIGNER)


def spent(ledger: Ledger) -> float:
    return ledger.chain.tally.epsilon(View(unit="patient"), 1e-5)


def rounds(times: int, charge: Charge = CHARGE) -> Tallied:
    return Tallied(unit="patient", plan=PLAN, charge=charge, times=times)


def see(folder: Path, token: bytes) -> None:
    """A peer shows a token, as in a round."""
    heads = Heads(peers=(PeerHead(site_id="north", ledger_head=token, audit_head=NO_HEAD),))
    found = echo.lost(KEY, opened(folder).chain, "north", [("south", heads)])
    if found is not None:
        witness.keep(place(folder).witness, found, power_cut_safe=False)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=5), st.integers(0, 4))
def test_with_its_sealed_head_a_ledger_is_made_good_to_the_last_event(
    tmp_path_factory: pytest.TempPathFactory, charges: list[tuple[int, bool]], kept: int
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    ledger, copies = founded(folder), []
    for number, (steps, withdrawn) in enumerate(charges):
        copies.append(place(folder).file.read_bytes())
        reserve(ledger, number, 1e6, charge=Charge.local(Event(sampling_rate=0.1, noise_multiplier=1.5, steps=steps)))
        if withdrawn:
            ledger.note(lambda chain, number=number: Excluded(mark=f"{number:032x}"))
    was, excluded = spent(ledger), set(ledger.chain.excluded)
    place(folder).file.write_bytes(copies[min(kept, len(copies) - 1)])
    with pytest.raises(LedgerRollback):
        opened(folder)
    recovery.restore(place(folder), pen(), reason="the disk was replaced")
    assert spent(opened(folder)) == pytest.approx(was, rel=1e-12)
    assert set(opened(folder).chain.excluded) == excluded


@pytest.fixture
def restored_machine(tmp_path: Path) -> tuple[Path, list[bytes], float]:
    """Ledger and head put back by three rounds; the tokens that peers had seen; what had been spent."""
    folder = tmp_path / "site"
    ledger = founded(folder)
    reserve(ledger, 1, 1e6)
    shutil.copytree(folder, tmp_path / "image")
    tokens = []
    for number in range(2, 5):
        reserve(ledger, number, 1e6)
        tokens.append(KEY.seal(ledger.chain.position))
    was = spent(ledger)
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "image", folder)
    return folder, tokens, was


def test_what_only_a_peer_has_seen_must_be_stated_and_not_less(restored_machine: tuple[Path, list[bytes], float]) -> None:
    folder, tokens, was = restored_machine
    see(folder, tokens[-1])
    loss = recovery.assess(place(folder), pen())
    assert loss is not None
    assert loss.unknown_lines == 3
    for too_few in ([], [rounds(2)]):
        with pytest.raises(LedgerRollback, match="peers have seen 3 line"):
            recovery.restore(place(folder), pen(), reason="restored", stated=too_few)
    recovery.restore(place(folder), pen(), reason="restored", stated=[rounds(3)])
    ledger = opened(folder)
    assert spent(ledger) == pytest.approx(was)
    assert not place(folder).witness.exists()
    for token in tokens:
        see(folder, token)
    reserve(ledger, 5, 1e6)


def test_more_lost_than_was_stated_is_noticed_again(restored_machine: tuple[Path, list[bytes], float]) -> None:
    """The first peer had seen one line, another had seen all three; meanwhile the ledger has grown past their numbers."""
    folder, tokens, was = restored_machine
    see(folder, tokens[0])
    recovery.restore(place(folder), pen(), reason="restored", stated=[rounds(1)])
    for number in range(5, 12):
        reserve(opened(folder), number, 1e6)
    made_since = spent(opened(folder))
    see(folder, tokens[2])
    with pytest.raises(LedgerRollback, match="remembers line 5"):
        reserve(opened(folder), 12, 1e6)
    recovery.restore(place(folder), pen(), reason="two more, says the coordinator", stated=[rounds(2)])
    assert spent(opened(folder)) > max(made_since, was)
    see(folder, tokens[2])
    reserve(opened(folder), 12, 1e6)


def test_a_fork_that_a_peer_has_seen_costs_at_least_a_line(restored_machine: tuple[Path, list[bytes], float]) -> None:
    """Nobody told for a while: the restored ledger went on by itself and is as long as the lost one was."""
    folder, tokens, _ = restored_machine
    for number in range(10, 14):
        reserve(opened(folder), number, 1e6)
    see(folder, tokens[-1])
    with pytest.raises(LedgerRollback, match="peers have seen 1 line"):
        recovery.restore(place(folder), pen(), reason="restored")
    recovery.restore(place(folder), pen(), reason="restored", stated=[rounds(3)])
    see(folder, tokens[-1])
    reserve(opened(folder), 14, 1e6)


def test_a_head_that_belongs_to_another_past_is_charged_whole(restored_machine: tuple[Path, list[bytes], float], tmp_path: Path) -> None:
    folder, _, _ = restored_machine
    for number in range(10, 13):
        reserve(opened(folder), number, 1e6)
    shutil.copytree(folder / "apart", tmp_path / "head of another past")
    lost = newest_head(folder).read_bytes()
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "image", folder)
    for number in range(20, 24):
        reserve(opened(folder), number, 1e6)
    newest_head(folder).write_bytes(lost)
    was = spent_of(folder)
    recovery.restore(place(folder), pen(), reason="the newest head was found elsewhere")
    assert spent(opened(folder)) > was


def spent_of(folder: Path) -> float:
    return read(place(folder).file.read_bytes(), name="l")[0].tally.epsilon(View(unit="patient"), 1e-5)


def test_rounds_that_nobody_saw_can_be_stated(restored_machine: tuple[Path, list[bytes], float]) -> None:
    folder, tokens, was = restored_machine
    with pytest.raises(LedgerRollback, match="has lost nothing"):
        recovery.restore(place(folder), pen(), reason="to be sure")
    recovery.restore(place(folder), pen(), reason="three rounds, says the coordinator", stated=[rounds(3)])
    assert spent(opened(folder)) == pytest.approx(was)
    see(folder, tokens[-1])
    reserve(opened(folder), 5, 1e6)


def test_a_ledger_that_is_gone_is_begun_anew_at_what_it_had_spent(tmp_path: Path) -> None:
    ledger = founded(tmp_path)
    for number in range(1, 4):
        reserve(ledger, number, 1e6)
    was = spent(ledger)
    place(tmp_path).file.unlink()
    Ledger.found(place(tmp_path), pen(), site="north", namespace="north-patients", caps=WIDE, after_loss=True)
    with pytest.raises(LedgerRollback):
        opened(tmp_path)
    recovery.restore(place(tmp_path), pen(), reason="the disk is gone, there was no backup")
    assert spent(opened(tmp_path)) == pytest.approx(was)


def test_what_a_restored_ledger_has_spent_counts_against_its_caps(tmp_path: Path) -> None:
    caps = Caps(eps_plan=2.0, eps_total=2.0, own_share_plan=2.0, own_share_total=2.0, delta=1e-5)
    ledger = founded(tmp_path, caps)
    empty = place(tmp_path).file.read_bytes()
    with pytest.raises(BudgetExceeded):
        spend_all(ledger, bounds=limits(2.0, caps=caps))
    place(tmp_path).file.write_bytes(empty)
    entry = recovery.restore(place(tmp_path), pen(), reason="an older copy was put back")
    assert isinstance(entry.fact, Restored)
    with pytest.raises(BudgetExceeded):
        reserve(opened(tmp_path), 99, bounds=limits(2.0, caps=caps))


def test_a_folder_that_is_not_mounted_is_named_and_nothing_is_begun_elsewhere(tmp_path: Path) -> None:
    away = Place(file=tmp_path / "not-mounted" / "ledger.jsonl", head=tmp_path / "head")
    with pytest.raises(LedgerRollback, match=r"the folder of ledger .* cannot be opened: No such file"):
        Ledger.found(away, pen(), site="north", namespace="north-patients", caps=WIDE)
    assert list(tmp_path.iterdir()) == []
