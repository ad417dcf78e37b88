# SPDX-License-Identifier: Apache-2.0
"""The SuperLink's own certificate, made where it is needed: an authority of this one coordinator, and what it signs.

    tls/ca.crt       what mailboxes are given, if they reach the SuperLink without a proxy in between
        ca.key       signs the certificate again; stays here
        server.crt   for loopback and the names given, for ninety days
        server.key

Flower lets nodes prove themselves with keys only behind TLS, so the SuperLink has a certificate even where it is reached by none but a
reverse proxy on the same machine. A certificate that has less than a month left is renewed at a start; ca.crt stays the same for ten years.
An operator whose organisation has an authority of its own names its files in coordinator.toml, and nothing here touches them.

This is transport. Who is in a round is proved by the roster, whatever a certificate says.
"""

import ipaddress
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.durable import OWNER_ONLY, write_atomically
from common.errors import CertificateMissing

AUTHORITY_KEY_FILE: Final = "ca.key"
LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_AUTHORITY_DAYS: Final = 3650
_SERVER_DAYS: Final = 90
_RENEWED_DAYS: Final = 30
_CLOCK_SKEW: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the files lie."""

    ca: Path
    certificate: Path
    key: Path

    @property
    def ca_key(self) -> Path:
        return self.ca.with_name(AUTHORITY_KEY_FILE)


def create(place: Place, *, names: Sequence[str], now: datetime) -> None:
    """An authority, and a certificate for loopback and `names` (hosts, addresses). Raises: CertificateMissing where files are, DiskFull."""
    for path in (place.ca, place.ca_key, place.certificate, place.key):
        if path.exists():
            raise CertificateMissing(f"'{path}' exists already, and a key is never overwritten.", fix="Move the old files away first.")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedward coordinator's transport")])
    ca = (
        _builder(name, name, key, now, _AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write_key(place.ca_key, key)
    write_atomically(place.ca, ca.public_bytes(serialization.Encoding.PEM), fsync=True)
    _issue(place, key, ca, [*LOOPBACK, *names], now)


def renew(place: Place, *, now: datetime) -> bool:
    """Sign the certificate again for the same names, if it is ours and has less than a month left. Raises: CertificateMissing, DiskFull."""
    certificate = check(place, now=now, may_be_expired=place.ca_key.exists())
    if not place.ca_key.exists() or certificate.not_valid_after_utc - now > timedelta(days=_RENEWED_DAYS):
        return False
    key = serialization.load_pem_private_key(place.ca_key.read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    names = [*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))]
    _issue(place, key, x509.load_pem_x509_certificate(place.ca.read_bytes()), names, now)
    return True


def check(place: Place, *, now: datetime, may_be_expired: bool = False) -> x509.Certificate:
    """The certificate, if it can be used. Raises: CertificateMissing, naming what is wrong with which file."""
    for path in (place.ca, place.certificate, place.key):
        if not path.is_file() or not os.access(path, os.R_OK):
            raise CertificateMissing(f"'{path}' is not there, or cannot be read.", fix="Name the files under [tls] in coordinator.toml.")
    try:
        certificate = x509.load_pem_x509_certificate(place.certificate.read_bytes())
        key = serialization.load_pem_private_key(place.key.read_bytes(), password=None)
        x509.load_pem_x509_certificates(place.ca.read_bytes())
    except (ValueError, TypeError) as error:
        raise CertificateMissing(f"'{place.certificate}', '{place.key}' or '{place.ca}' is no PEM file.", fix=_FIX) from error
    if certificate.public_key() != key.public_key():
        raise CertificateMissing(f"'{place.key}' is not the key of '{place.certificate}'.", fix=_FIX)
    if now > certificate.not_valid_after_utc and not may_be_expired:
        raise CertificateMissing(f"'{place.certificate}' expired on {certificate.not_valid_after_utc:%Y-%m-%d}.", fix=_FIX)
    return certificate


def own_name() -> str:
    """This machine's name, which sites may know it by."""
    return socket.gethostname()


def _issue(place: Place, ca_key: ec.EllipticCurvePrivateKey, ca: x509.Certificate, names: Sequence[str], now: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedward coordinator")])
    certificate = (
        _builder(subject, ca.subject, key, now, _SERVER_DAYS)
        .add_extension(x509.SubjectAlternativeName([_name(each) for each in dict.fromkeys(names)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    _write_key(place.key, key)
    write_atomically(place.certificate, certificate.public_bytes(serialization.Encoding.PEM), fsync=True)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, days: int) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    content = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_atomically(path, content, fsync=True, mode=OWNER_ONLY)


def now() -> datetime:
    return datetime.now(UTC)


_FIX: Final = "Put the right files there, or move all of tls/ away and make new ones: fedward server init --tls-only."
