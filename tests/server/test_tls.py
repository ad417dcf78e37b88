# SPDX-License-Identifier: Apache-2.0
"""The SuperLink's certificate: made for loopback and names given, renewed in time for the same names, refused by name when it is off."""

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from common.errors import CertificateMissing
from server.process import tls
from server.process.tls import Place

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(ca=tmp_path / "tls" / "ca.crt", certificate=tmp_path / "tls" / "server.crt", key=tmp_path / "tls" / "server.key")
    tls.create(made, names=["fedward.example.org", "10.0.0.7"], now=NOW)
    return made


def names_of(place: Place) -> list[str]:
    found = x509.load_pem_x509_certificate(place.certificate.read_bytes()).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return [str(name.value) for name in found.value]


def test_openssl_takes_what_is_made_and_the_keys_are_the_owners_alone(place: Place) -> None:
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    server.load_cert_chain(place.certificate, place.key)
    client.load_verify_locations(place.ca)
    assert names_of(place) == ["localhost", "127.0.0.1", "::1", "fedward.example.org", "10.0.0.7"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (place.key, place.ca_key)} == {0o600}


def test_it_is_left_alone_while_it_has_time_and_renewed_for_the_same_names_when_it_has_not(place: Place) -> None:
    authority, before, names = place.ca.read_bytes(), place.certificate.read_bytes(), names_of(place)
    assert not tls.renew(place, now=NOW + timedelta(days=50))
    assert place.certificate.read_bytes() == before
    for days in (70, 200):  # nearly over, and long over
        assert tls.renew(place, now=NOW + timedelta(days=days))
        assert tls.check(place, now=NOW + timedelta(days=days + 80))
    assert (place.ca.read_bytes(), set(names_of(place))) == (authority, set(names))


def test_a_certificate_of_somebody_elses_authority_is_used_and_never_touched(place: Place) -> None:
    place.ca_key.unlink()
    before = place.certificate.read_bytes()
    assert not tls.renew(place, now=NOW + timedelta(days=85))
    assert place.certificate.read_bytes() == before
    with pytest.raises(CertificateMissing, match="expired on 2026-05-30"):
        tls.renew(place, now=NOW + timedelta(days=91))


def test_nothing_is_overwritten(place: Place) -> None:
    with pytest.raises(CertificateMissing, match="exists already"):
        tls.create(place, names=[], now=NOW)


def test_a_key_of_another_certificate_a_missing_and_a_damaged_file_are_named(place: Place, tmp_path: Path) -> None:
    other = Place(ca=tmp_path / "o" / "ca.crt", certificate=tmp_path / "o" / "server.crt", key=tmp_path / "o" / "server.key")
    tls.create(other, names=[], now=NOW)
    place.key.write_bytes(other.key.read_bytes())
    with pytest.raises(CertificateMissing, match="is not the key of"):
        tls.check(place, now=NOW)
    place.key.write_bytes(b"no key")
    with pytest.raises(CertificateMissing, match="no PEM file"):
        tls.check(place, now=NOW)
    place.key.unlink()
    with pytest.raises(CertificateMissing, match=r"server\.key' is not there") as refused:
        tls.check(place, now=NOW)
    assert refused.value.code == "E_CERTIFICATE"
