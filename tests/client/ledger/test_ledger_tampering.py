# SPDX-License-Identifier: Apache-2.0
"""Whatever is done to a ledger's file, or to its sealed head, is noticed before anything else is charged."""

import itertools
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from client.ledger import Ledger, read
from client.ledger import head as sealed
from common.errors import BudgetExceeded, DiskFull, FedwardError, LedgerFormat, LedgerRollback, LedgerTampered
from common.privacy import entries
from common.privacy.entries import Excluded, Opened, Rekeyed, Restored, Voided
from tests.client.ledger.ledgers import OTHER, SIGNER, founded, lines, newest_head, opened, pen, place, reserve, spend_all

NOTICED = (LedgerTampered, LedgerRollback, LedgerFormat)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Four lines: opened, two rounds, a withdrawn consent."""
    ledger = founded(tmp_path)
    reserve(ledger, 1)
    ledger.note(lambda chain: Excluded(mark="0" * 32))
    reserve(ledger, 2)
    return tmp_path


def noticed(folder: Path, data: bytes) -> bool:
    """Whether a ledger of these bytes is refused, and left as it was. A fresh file each: cutting one short flushes it to the disk."""
    edited = folder / "edited.jsonl"
    edited.write_bytes(data)
    try:
        Ledger(replace(place(folder), file=edited), pen())
    except NOTICED:
        assert edited.read_bytes() == data, "evidence was changed"
        return True
    finally:
        edited.unlink()
    return False


def test_an_untouched_ledger_is_not_suspected(written: Path) -> None:
    assert not noticed(written, place(written).file.read_bytes())


@pytest.mark.parametrize(
    "edit",
    [
        lambda data, at: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :],
        lambda data, at: data[:at] + data[at + 1 :],
        lambda data, at: data[:at] + data[at : at + 1] * 2 + data[at + 1 :],
    ],
    ids=["flipped", "deleted", "doubled"],
)
def test_every_single_byte_that_is(written: Path, edit: Callable[[bytes, int], bytes]) -> None:
    data = place(written).file.read_bytes()
    for at in range(len(data)):
        assert noticed(written, edit(data, at)), at


def test_every_value_of_a_byte(written: Path) -> None:
    """All 255 others, at places drawn at random from the whole file."""
    data = place(written).file.read_bytes()
    for at in random.Random(1).sample(range(len(data)), 8):
        for value in set(range(256)) - {data[at]}:
            assert noticed(written, data[:at] + bytes([value]) + data[at + 1 :]), (at, value)


def test_every_truncation(written: Path) -> None:
    """Also to a whole number of lines, which is a good chain as far as it goes."""
    data = place(written).file.read_bytes()
    for length in range(len(data)):
        assert noticed(written, data[:length]), length


def test_every_order_and_every_omission_of_lines(written: Path) -> None:
    whole = lines(written)
    tried = 0
    for count in range(len(whole) + 1):
        for order in itertools.permutations(whole, count):
            if list(order) != whole:
                assert noticed(written, b"".join(line + b"\n" for line in order))
                tried += 1
    assert tried == 64


def test_every_line_said_twice(written: Path) -> None:
    whole = lines(written)
    for at, line in enumerate(whole):
        for to in range(len(whole) + 1):
            doubled = [*whole[:to], line, *whole[to:]]
            assert noticed(written, b"".join(each + b"\n" for each in doubled)), (at, to)


def test_every_byte_of_the_sealed_head(written: Path) -> None:
    ledger, head = place(written).file.read_bytes(), newest_head(written)
    data = head.read_bytes()
    for at in range(len(data)):
        for edited in (data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], data[:at]):
            head.unlink()
            head.write_bytes(edited)
            assert noticed(written, ledger), at


def test_an_older_copy_of_the_file_and_its_loss_are_rollbacks(written: Path) -> None:
    older = place(written).file.read_bytes()
    reserve(opened(written), 3)
    place(written).file.write_bytes(older)
    with pytest.raises(LedgerRollback, match="ends at line 4; its sealed head has seen line 5"):
        opened(written)
    place(written).file.unlink()
    with pytest.raises(LedgerRollback, match="cannot be opened"):
        opened(written)
    with pytest.raises(LedgerRollback, match="opened once"):
        Ledger.found(place(written), pen(), site="north", namespace="north-patients", caps=entries.Caps())


def test_a_rollback_under_a_running_process_is_noticed_at_its_next_round(written: Path) -> None:
    older, running = place(written).file.read_bytes(), opened(written)
    reserve(running, 3)
    place(written).file.write_bytes(older)
    with pytest.raises(LedgerRollback, match="shorter"):
        reserve(running, 4)


def test_a_lost_or_older_head_is_a_rollback_too(written: Path) -> None:
    kept = newest_head(written)
    shutil.copy(kept, written / "older")
    for number in (3, 4):
        reserve(opened(written), number)
    newest = newest_head(written)
    shutil.copy(written / "older", newest)
    with pytest.raises(LedgerRollback, match="2 lines behind"):
        opened(written)
    newest.unlink()
    with pytest.raises(LedgerRollback, match="is gone"):
        opened(written)


def test_a_head_that_a_crash_left_one_line_behind_is_brought_up(written: Path) -> None:
    shutil.copy(newest_head(written), written / "older")
    reserve(opened(written), 3)
    shutil.copy(written / "older", newest_head(written))
    assert len(opened(written).chain) == 5
    head = sealed.parse(newest_head(written).read_bytes(), public=SIGNER.public, name="head")
    assert head.seq == 4


def test_a_head_that_cannot_be_written_costs_one_reservation_however_often_a_coordinator_asks(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise DiskFull("no room", fix="")

    before = len(lines(written))
    monkeypatch.setattr(sealed, "write", full)
    for number in range(3, 8):
        with pytest.raises(DiskFull):
            reserve(opened(written), number)
    assert len(lines(written)) == before + 1


def test_a_line_torn_by_a_power_cut_is_dropped(written: Path) -> None:
    file = place(written).file
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"code":"fedward 0.1.0 so')
    assert len(opened(written).chain) == 4
    assert file.read_bytes() == whole


def test_another_sites_ledger_is_not_ones_own(written: Path) -> None:
    with pytest.raises(LedgerTampered, match="signed by key"):
        Ledger(place(written), pen(OTHER))


def test_a_line_of_another_key_is_not_believed(written: Path) -> None:
    """Linked and numbered rightly, by somebody who can write the file but has not the key."""
    chain, found = read(place(written).file.read_bytes(), name="l")
    forged = replace(found[-1], seq=len(chain), prev=chain.prev, fact=Voided(entry=1, reason="never happened"), sig="")
    line = entries.render(replace(forged, sig=OTHER.sign(entries.signed_text(forged)).hex()))
    with place(written).file.open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(LedgerTampered, match="line 5 is not signed by this ledger's key"):
        opened(written)


def test_a_whole_ledger_made_up_under_another_key_is_not_taken_over(tmp_path: Path) -> None:
    """An empty one by a stranger's key, who then names this site's key: it has not consented."""
    founded(tmp_path / "real")
    (tmp_path / "false" / "apart").mkdir(parents=True)
    false = Ledger.found(place(tmp_path / "false"), pen(OTHER), site="north", namespace="north-patients", caps=entries.Caps())
    with pytest.raises(LedgerTampered, match="did not consent"):
        false.note(lambda chain: Rekeyed(key=SIGNER.public.hex(), consent=OTHER.sign(b"I am you").hex()))


def test_a_new_identity_key_goes_on_with_the_ledger(written: Path) -> None:
    opened(written).take_key(OTHER)
    with pytest.raises(LedgerTampered):
        opened(written)
    ledger = Ledger(place(written), pen(OTHER))
    reserve(ledger, 3)
    chain, found = read(place(written).file.read_bytes(), name="l")
    assert chain.key == OTHER.public.hex()
    assert isinstance(found[0].fact, Opened)
    assert found[0].fact.key == SIGNER.public.hex()


def test_a_fact_that_would_spoil_the_ledger_is_not_written(written: Path) -> None:
    before = place(written).file.read_bytes()
    spoilers = [
        Voided(entry=99, reason="a line that is not there"),
        Restored(branch=0, lost_branch=0, lost_through=9, charges=(), excluded=(), reason="a branch that there is"),
        Excluded(mark="no hash"),
    ]
    for fact in spoilers:
        with pytest.raises((LedgerTampered, ValueError)):
            opened(written).note(lambda chain, fact=fact: fact)
    assert place(written).file.read_bytes() == before
    opened(written)


def test_a_remark_gives_nothing_back(written: Path) -> None:
    ledger = opened(written)
    spent = ledger.chain.tally.items()
    ledger.note(lambda chain: Voided(entry=1, reason="the coordinator's disk failed"))
    assert opened(written).chain.tally.items() == spent
    assert opened(written).chain.voided == {1: "the coordinator's disk failed"}
    with pytest.raises(BudgetExceeded):
        spend_all(ledger)


OLD = b'{"attempt": 0, "epsilon_after": 1.2, "event": {"sampling_rate": 0.1}, "plan": "p", "round": 1, "session": "s", "unit": "record"}'


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (OLD, "of fedward 0.1, without chain and signature"),
        (b"", "of format 2"),
    ],
    ids=["older", "newer"],
)
def test_another_versions_ledger_is_refused_by_name(written: Path, line: bytes, named: str) -> None:
    line = line or lines(written)[0].replace(b'"v":1}', b'"v":2}')
    place(written).file.write_bytes(line + b"\n")
    with pytest.raises(LedgerFormat, match=named):
        opened(written)


@pytest.mark.parametrize("line", [b"not json", b"{}", b"[]", b"1", b""])
def test_a_line_that_is_no_entry_is_refused(written: Path, line: bytes) -> None:
    with place(written).file.open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(LedgerTampered, match="line 5 is no entry"):
        opened(written)


def test_one_entry_has_one_spelling(written: Path) -> None:
    """The same value with a space, another order, or 1 for 1.0 is refused: no two texts say the same."""
    for line in lines(written):
        table = json.loads(line)
        for other in (json.dumps(table).encode(), json.dumps(dict(reversed(table.items())), separators=(",", ":")).encode()):
            with pytest.raises(ValueError, match="spelling"):
                entries.parse(other)
        assert entries.render(entries.parse(line)) == line


def test_files_are_for_the_site_alone(written: Path) -> None:
    for file in (place(written).file, newest_head(written)):
        assert file.stat().st_mode & 0o777 == 0o600


def test_refusals_say_what_to_do(written: Path) -> None:
    place(written).file.write_bytes(b"")
    with pytest.raises(FedwardError) as refusal:
        opened(written)
    assert "backup" in refusal.value.fix
