# SPDX-License-Identifier: Apache-2.0
"""A patient's key hides who it is, tells patients apart, and lasts as long as the secret."""

import hashlib
import hmac
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.imaging.identity import PatientSecret, is_placeholder, item_key, load_or_create, names_nobody, patient_key
from common.errors import SecretFile

SECRET = PatientSecret(value=bytes(range(32)))
identifiers = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)


def test_the_key_is_the_documented_hmac() -> None:
    parts = [b"patient", b"NORTH", b"MRN-1"]
    message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    expected = hmac.new(SECRET.value, message, hashlib.sha256).digest()[:16].hex()
    assert patient_key(SECRET, "NORTH", "MRN-1") == expected


@given(identifiers, identifiers, identifiers, identifiers)
def test_two_patients_never_share_a_key(issuer: str, patient: str, other_issuer: str, other_patient: str) -> None:
    same_person = (issuer, patient) == (other_issuer, other_patient)
    assert (patient_key(SECRET, issuer, patient) == patient_key(SECRET, other_issuer, other_patient)) is same_person


@given(identifiers, identifiers)
def test_a_patient_and_an_image_of_one_name_have_different_keys(kind: str, name: str) -> None:
    assert patient_key(SECRET, kind, name) != item_key(SECRET, kind, name)


def test_the_boundary_between_issuer_and_id_counts() -> None:
    assert patient_key(SECRET, "AB", "C") != patient_key(SECRET, "A", "BC")


def test_padding_and_unicode_spelling_do_not_count() -> None:
    assert patient_key(SECRET, "N ", "Mu\u0308ller ") == patient_key(SECRET, "N", "M\u00fcller")


@given(st.text(st.characters(codec=None, min_codepoint=0xD7F0, max_codepoint=0xE010), max_size=5))
def test_whatever_a_document_holds_for_an_identifier_has_a_key(name: str) -> None:
    """JSON may hold half of a character, and a file's name bytes that are no text."""
    assert len(patient_key(SECRET, "N", name)) == 32
    assert patient_key(SECRET, "N", f"x{name}x") != patient_key(SECRET, "N", "x")


UNSEEN = {
    "a space of no width": "MRN\u200b-7",
    "a mark of byte order": "\ufeffMRN-7",
    "a mark of direction": "MRN-7\u200e",
    "a space that does not break": "MRN-7\u00a0",
    "digits as wide as ideograms": "\uff2d\uff32\uff2e\uff0d\uff17",
    "a wide space": "\u3000MRN-7",
    "padding within": "MRN-7\0 \0",
    "a line's end within": "MRN\n-7",
}


@pytest.mark.parametrize("spelled", UNSEEN.values(), ids=UNSEEN)
def test_a_patient_is_one_however_little_the_difference_is_seen(spelled: str) -> None:
    """As two they would be charged half of what one pays, each."""
    assert patient_key(SECRET, "N", spelled) == patient_key(SECRET, "N", "MRN-7")
    assert patient_key(SECRET, spelled, "1") == patient_key(SECRET, "MRN-7", "1")


@pytest.mark.parametrize("other", ["mrn-7", "MRN -7", "MRN-07", "MRN7", "MRN_7"])
def test_what_is_seen_to_differ_is_another_patient(other: str) -> None:
    assert patient_key(SECRET, "N", other) != patient_key(SECRET, "N", "MRN-7")


@pytest.mark.parametrize("text", ["\uff21\uff4e\uff4f\uff4e", "un\u00adknown", "\u200b", "\u3000", "n\0a"])
def test_a_placeholder_is_one_in_whatever_letters(text: str) -> None:
    assert is_placeholder(text)


def test_another_secret_gives_another_key_and_another_fingerprint() -> None:
    other = PatientSecret(value=bytes(32))
    assert patient_key(SECRET, "N", "1") != patient_key(other, "N", "1")
    assert SECRET.fingerprint != other.fingerprint


@pytest.mark.parametrize("text", ["", "   ", "ANON", "anonymous", "Anonymized", "UNKNOWN", "N/A", "none", "XXXX", "---", "No-ID", "***"])
def test_a_placeholder_is_no_patient(text: str) -> None:
    assert is_placeholder(text)


@pytest.mark.parametrize("text", ["0", "0000", "\uff10\uff10", "0\u200b0", "ANON"])
def test_what_a_console_fills_in_names_nobody(text: str) -> None:
    assert names_nobody(text)
    assert not names_nobody(f"{text}7")


@pytest.mark.parametrize("text", ["1", "0017", "MRN-0017", "X12", "Anonymous17", "PAT001", "p000"])
def test_an_identifier_is_no_placeholder(text: str) -> None:
    assert not is_placeholder(text)


def test_the_secret_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "patients.secret"
    first = load_or_create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_or_create(path) == first
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_processes_that_make_the_secret_at_once_share_one(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        secrets = list(pool.map(load_or_create, [tmp_path / "secret"] * 32))
    assert len({secret.value for secret in secrets}) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_secret_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret"
    load_or_create(path)
    path.chmod(mode)
    with pytest.raises(SecretFile, match=rf"{mode:04o}, 0600 expected.*chmod 600"):
        load_or_create(path)


def test_a_link_in_place_of_the_secret_is_refused(tmp_path: Path) -> None:
    load_or_create(tmp_path / "real")
    (tmp_path / "secret").symlink_to(tmp_path / "real")
    with pytest.raises(SecretFile, match="not a link"):
        load_or_create(tmp_path / "secret")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SecretFile):
        load_or_create(tmp_path / "dangling")


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_secret_of_another_size_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "secret"
    path.touch(mode=0o600)
    path.write_bytes(os.urandom(size))
    with pytest.raises(SecretFile, match=f"{size} bytes found, 32 expected"):
        load_or_create(path)


def test_the_secret_is_not_in_its_repr() -> None:
    shown = repr(PatientSecret(value=b"S" * 32))
    assert "S" * 4 not in shown
    assert (b"S" * 4).hex() not in shown
