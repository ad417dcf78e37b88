# SPDX-License-Identifier: Apache-2.0
"""A request says what its key signed and nothing else; whose key it is, six words say."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import enrolment, transport_key
from common.enrolment import Leave, Request
from common.errors import EnrolmentRefused, FedwardError, RosterKey
from common.fingerprint import Fingerprint
from common.secagg.keys import SigningKey
from tests.common.secagg.federation import NOW

KEY, OLD, THIEF = (SigningKey(bytes([number]) * 32) for number in (1, 2, 3))
DAY_S = 24 * 3600


@pytest.fixture(scope="module")
def mailboxes(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("mailboxes")
    one, other = (transport_key.create(folder / f"{name}.key", name="north") for name in ("one", "other"))
    return one, other


def joining(mailbox: str | None = None, **changes: object) -> Request:
    return replace(Request(kind="join", site="north", key=KEY.public, mailbox=mailbox, made=NOW), **changes)  # type: ignore[arg-type]


def test_a_request_comes_out_as_it_went_in(mailboxes: tuple[str, str]) -> None:
    asked = joining(mailboxes[0], weight=7, days=90)
    assert enrolment.read(enrolment.sign(asked, KEY), now=NOW) == asked
    rotated = replace(asked, kind="rotate", previous=OLD.public)
    assert enrolment.read(enrolment.sign(rotated, KEY, previous=OLD), now=NOW) == rotated


def test_a_request_can_be_read_by_a_person_and_holds_no_secret(mailboxes: tuple[str, str]) -> None:
    text = enrolment.sign(joining(mailboxes[0]), KEY).decode()
    assert text.startswith(f"fedward-enrolment 1\nkind join\nsite north\nkey {KEY.public.hex()}\n")
    assert KEY.seed.hex() not in text


def test_no_single_bit_of_a_request_can_be_changed(mailboxes: tuple[str, str]) -> None:
    data = enrolment.sign(replace(joining(mailboxes[0]), kind="rotate"), KEY, previous=OLD)
    for at in range(len(data)):
        for bit in (1, 32):
            with pytest.raises((EnrolmentRefused, RosterKey)):
                enrolment.read(data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :], now=NOW)


def test_a_request_whose_key_was_exchanged_has_other_words() -> None:
    """Who sits on the mail can only send a request of their own: it holds, and its words are not those that the site reads out."""
    forged = enrolment.read(enrolment.sign(joining(), THIEF), now=NOW)
    assert Fingerprint.of(forged.key) != Fingerprint.of(KEY.public)


def test_the_mailboxs_key_cannot_be_exchanged(mailboxes: tuple[str, str]) -> None:
    mine, theirs = mailboxes
    data = enrolment.sign(joining(mine), KEY)
    with pytest.raises(EnrolmentRefused, match="not signed"):
        enrolment.read(data.replace(mine.encode(), theirs.encode()), now=NOW)


def test_a_rotation_without_the_old_keys_consent_is_refused() -> None:
    data = enrolment.sign(replace(joining(), kind="rotate"), KEY, previous=OLD)
    by_thief = enrolment.sign(replace(joining(), kind="rotate"), KEY, previous=THIEF)
    consent = data.rpartition(b"consent ")[2]
    forged_consent = by_thief.rpartition(b"consent ")[2]
    for other in (data.replace(consent, forged_consent), data.replace(consent, b"-\n")):
        with pytest.raises(EnrolmentRefused, match="consent"):
            enrolment.read(other, now=NOW)


def test_a_signature_for_one_thing_is_none_for_another() -> None:
    """A site's word that it leaves is no request, and the other way round."""
    leave = enrolment.sign_leave(Leave(site="north", key=KEY.public, made=NOW), KEY)
    request = enrolment.sign(joining(), KEY)
    with pytest.raises(EnrolmentRefused):
        enrolment.read(leave, now=NOW)
    with pytest.raises(EnrolmentRefused):
        enrolment.read_leave(request, now=NOW)
    proof = request.partition(b"proof ")[2].partition(b"\n")[0]
    own = leave.partition(b"proof ")[2].partition(b"\n")[0]
    with pytest.raises(EnrolmentRefused):
        enrolment.read_leave(leave.replace(own, proof), now=NOW)


@pytest.mark.parametrize("days", [-2, 32])
def test_an_old_request_or_one_from_the_future_is_refused(days: int) -> None:
    data = enrolment.sign(joining(), KEY)
    enrolment.read(data, now=NOW + 30 * DAY_S)
    with pytest.raises(EnrolmentRefused, match="thirty days"):
        enrolment.read(data, now=NOW + days * DAY_S)
    leave = enrolment.sign_leave(Leave(site="north", key=KEY.public, made=NOW), KEY)
    with pytest.raises(EnrolmentRefused, match="thirty days"):
        enrolment.read_leave(leave, now=NOW + days * DAY_S)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"kind join", b"kind rule"),
        (b"site north", b"site North"),
        (b"site north", b"site ../north"),
        (b"weight 1", b"weight 0"),
        (b"weight 1", b"weight 01"),
        (b"weight 1", b"weight 65537"),
        (b"days 365", b"days 99999"),
        (b"days 365", b"days 3_65"),
        (b"previous -", b"previous " + b"00" * 32),
        (b"mailbox -", b"mailbox ssh-ed25519 AAAA"),
        (b"made 2027", b"made 3027"),
        (b"\nweight", b"\r\nweight"),
        (b"weight 1\n", b"weight 1\nweight 1\n"),
        (b"enrolment 1", b"enrolment 2"),
    ],
)
def test_what_no_site_writes_is_refused_even_if_its_key_signs_it(old: bytes, new: bytes) -> None:
    """The proof is made over the strange text, so that only the form can refuse it."""
    body = enrolment.sign(joining(), KEY).partition(b"proof ")[0]
    assert old in body
    strange = body.replace(old, new)
    proof = KEY.sign(enrolment._message(enrolment.TITLE, strange.decode())).hex().encode()
    with pytest.raises((EnrolmentRefused, RosterKey)):
        enrolment.read(strange + b"proof " + proof + b"\nconsent -\n", now=NOW)


@given(st.binary(max_size=600))
def test_any_bytes_are_read_or_refused_by_name(data: bytes) -> None:
    for reading in (enrolment.read, enrolment.read_leave):
        for head in (b"", b"fedward-enrolment 1\n", b"fedward-leave 1\n"):
            with pytest.raises(EnrolmentRefused):
                reading(head + data, now=NOW)


def test_a_file_that_is_too_long_is_not_read() -> None:
    with pytest.raises(EnrolmentRefused):
        enrolment.read(enrolment.sign(joining(), KEY) + b"x" * 10**6, now=NOW)


# The mailbox's key.


def test_flower_reads_the_mailboxs_key_at_both_its_doors(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key
    from flwr.cli.supernode.register import try_load_public_key
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes

    line = transport_key.create(tmp_path / "node.key", name="north")
    secret = load_ssh_private_key((tmp_path / "node.key").read_bytes(), None)  # as flower-supernode reads it
    assert isinstance(secret, ec.EllipticCurvePrivateKey)
    assert try_load_public_key(tmp_path / "node.pub") == public_key_to_bytes(secret.public_key())
    assert transport_key.public_half(tmp_path / "node.key") == line == transport_key.read_public(tmp_path / "node.pub")
    assert (tmp_path / "node.key").stat().st_mode & 0o777 == 0o600


def test_a_mailboxs_key_is_never_overwritten(tmp_path: Path) -> None:
    transport_key.create(tmp_path / "node.key", name="north")
    was = (tmp_path / "node.key").read_bytes()
    with pytest.raises(FedwardError):
        transport_key.create(tmp_path / "node.key", name="north")
    (tmp_path / "node.key").unlink()
    with pytest.raises(FedwardError):
        transport_key.create(tmp_path / "node.key", name="north")
    assert not (tmp_path / "node.key").exists(), "no secret half without its public one"
    assert was


@pytest.mark.parametrize(
    "line",
    ["", "north", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA==", "ecdsa-sha2-nistp384 " + "A" * 200, "ecdsa-sha2-nistp256 " + "A" * 160],
)
def test_what_is_no_p384_key_is_refused(line: str) -> None:
    with pytest.raises(RosterKey):
        transport_key.check_public(line)
