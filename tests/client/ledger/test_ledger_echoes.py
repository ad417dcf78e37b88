# SPDX-License-Identifier: Apache-2.0
"""A disk that is rolled back whole, sealed head and all, is remembered by the peers; and nobody learns from a token but its owner."""

import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.ledger import Position, echo, witness
from client.ledger.echo import TokenKey
from client.ledger.witness import Witness
from common.errors import LedgerRollback, LedgerTampered
from common.secagg.messages import NO_HEAD, Heads, PeerHead
from tests.client.ledger.ledgers import OTHER, SIGNER, founded, opened, place, reserve

KEY = TokenKey.of(SIGNER)
PLACES = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.binary(min_size=32, max_size=32))


def peer(name: str, token: bytes) -> PeerHead:
    return PeerHead(site_id=name, ledger_head=token, audit_head=NO_HEAD)


@given(PLACES)
def test_a_token_opens_to_its_place(at: tuple[int, int, bytes]) -> None:
    token = KEY.seal(Position(branch=at[0], seq=at[1], head=at[2]))
    assert len(token) == 32
    assert KEY.open(token) == Position(branch=at[0], seq=at[1], head=at[2][:16])


@given(PLACES, st.integers(0, 255))
def test_nobody_else_makes_or_alters_one(at: tuple[int, int, bytes], bit: int) -> None:
    """A peer that made tokens up could stop this site whenever it liked."""
    position = Position(branch=at[0], seq=at[1], head=at[2])
    assert KEY.open(TokenKey.of(OTHER).seal(position)) is None
    token = bytearray(KEY.seal(position))
    token[bit // 8] ^= 1 << bit % 8
    assert KEY.open(bytes(token)) is None
    assert KEY.open(NO_HEAD) is None


def test_a_token_does_not_show_how_many_lines_there_are(tmp_path: Path) -> None:
    """The number of a line would tell how often a hospital trains elsewhere: seen beside the hash alone it is noise."""
    ledger = founded(tmp_path)
    shown = []
    for number in range(1, 30):
        reserve(ledger, number, 1e6)
        shown.append(KEY.seal(ledger.chain.position)[16:24])
    assert len(set(shown)) == len(shown)
    increments = {int.from_bytes(b) - int.from_bytes(a) for a, b in pairwise(shown)}
    assert not increments & set(range(-1000, 1000))


def test_what_peers_saw_before_is_in_the_ledger(tmp_path: Path) -> None:
    ledger = founded(tmp_path)
    tokens = [KEY.seal(ledger.chain.position)]
    for number in range(1, 4):
        reserve(ledger, number)
        tokens.append(KEY.seal(ledger.chain.position))
    for token in tokens:
        assert echo.lost(KEY, ledger.chain, "north", [("south", Heads(peers=(peer("north", token),)))]) is None


@pytest.fixture
def rolled_back(tmp_path: Path) -> tuple[Path, bytes]:
    """A ledger and its head, both put back to where they were two rounds ago, and the token that a peer had seen since."""
    ledger = founded(tmp_path / "now")
    reserve(ledger, 1)
    shutil.copytree(tmp_path / "now", tmp_path / "snapshot")
    reserve(ledger, 2)
    reserve(ledger, 3)
    token = KEY.seal(ledger.chain.position)
    shutil.rmtree(tmp_path / "now")
    shutil.copytree(tmp_path / "snapshot", tmp_path / "now")
    return tmp_path / "now", token


def test_a_rollback_of_ledger_and_head_together_is_seen_by_a_peer_alone(rolled_back: tuple[Path, bytes]) -> None:
    folder, token = rolled_back
    chain = opened(folder).chain
    assert len(chain) == 2
    said = [("west", Heads()), ("south", Heads(peers=(peer("east", token), peer("north", token))))]
    found = echo.lost(KEY, chain, "north", said)
    assert found is not None
    assert (found.peer, found.seq, found.branch) == ("south", 3, 0)


def test_a_fork_is_seen_even_when_it_has_grown_longer(rolled_back: tuple[Path, bytes]) -> None:
    folder, token = rolled_back
    ledger = opened(folder)
    for number in range(10, 16):
        reserve(ledger, number, 1e6)
    assert echo.lost(KEY, ledger.chain, "north", [("south", Heads(peers=(peer("north", token),)))]) is not None


def test_without_any_ledger_a_remembered_line_is_missing(rolled_back: tuple[Path, bytes]) -> None:
    _, token = rolled_back
    assert echo.lost(KEY, None, "north", [("south", Heads(peers=(peer("north", token),)))]) is not None


def test_a_witness_stops_every_charge_until_the_loss_is_made_good(rolled_back: tuple[Path, bytes]) -> None:
    folder, token = rolled_back
    found = echo.lost(KEY, opened(folder).chain, "north", [("south", Heads(peers=(peer("north", token),)))])
    assert found is not None
    witness.keep(place(folder).witness, found, power_cut_safe=False)
    before = place(folder).file.read_bytes()
    for _ in range(2):
        with pytest.raises(LedgerRollback, match="site 'south' remembers line 4"):
            reserve(opened(folder), 2)
    assert place(folder).file.read_bytes() == before


def test_the_furthest_witness_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "ledger.witness"
    for seq in (3, 9, 5):
        witness.keep(path, Witness(branch=0, seq=seq, head="0" * 32, peer="south"), power_cut_safe=False)
    kept = witness.read(path)
    assert kept is not None
    assert kept.seq == 9
    path.write_bytes(b"{}")
    with pytest.raises(LedgerTampered):
        witness.read(path)


def test_up_to_sixteen_peers_are_echoed_and_which_changes() -> None:
    known = {f"s{number:03}": peer(f"s{number:03}", bytes([number]) * 32) for number in range(60)}
    seen = [tuple(each.site_id for each in echo.announce(KEY, None, known).peers) for _ in range(20)]
    assert {len(names) for names in seen} == {16}
    assert len(set(seen)) > 1
    assert all(list(names) == sorted(names) for names in seen)


def test_what_is_remembered_is_bounded_and_is_the_newest() -> None:
    known: dict[str, PeerHead] = {}
    for number in range(echo.REMEMBERED + 50):
        known = echo.remember(known, "north", [(f"s{number}", Heads(ledger=bytes([1]) * 32)), ("north", Heads(ledger=bytes(32)))])
    assert len(known) == echo.REMEMBERED
    assert "s0" not in known
    assert "north" not in known
    known = echo.remember(known, "north", [("s100", Heads(ledger=bytes([2]) * 32)), ("silent", Heads())])
    assert known["s100"].ledger_head == bytes([2]) * 32
    assert "silent" not in known
    assert echo.load(echo.save(known)) == known
