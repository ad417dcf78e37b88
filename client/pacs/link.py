# SPDX-License-Identifier: Apache-2.0
"""How the archive is believed, and how this computer shows who it is: authorities, a certificate of our own, a user's name and password.

Without TLS whoever is on the line reads patients' images, and can send others instead. So a plain line is taken to this computer itself
only, unless somebody says `--without-tls`; a password never goes over a plain line to another computer.
"""

import base64
import ipaddress
import os
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common.errors import CertificateMissing, InsecureLink, SecretFile

_LARGEST_FILE: Final = 16 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Files in PEM. Without `ca` the computer's own list of authorities counts; `certificate` is shown to an archive that asks."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def as_client(self) -> ssl.SSLContext:
        """For calling the archive: its certificate has to be signed by the authority and to be for its name. Raises: CertificateMissing."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return self._loaded(context)

    def as_server(self) -> ssl.SSLContext:
        """For being called by it (C-MOVE): it has to show a certificate of the authority. Raises: CertificateMissing."""
        if self.ca is None or self.certificate is None:
            raise CertificateMissing(
                "to be called by the archive over TLS, an authority and a certificate of our own are needed.",
                fix="Give --ca, --certificate and --key, or let the archive send by C-GET, without --move-to.",
            )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        return self._loaded(context)

    def _loaded(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # archives of ten years ago; PS3.15 B.12 asks for no more
        try:
            if self.ca is not None:
                context.load_verify_locations(cafile=self.ca)
            else:
                context.load_default_certs()
        except (OSError, ssl.SSLError):
            raise CertificateMissing(
                f"'{self.ca}' holds no certificate that can be read.", fix="Give the authority's file, in PEM."
            ) from None
        if self.certificate is not None:
            try:
                context.load_cert_chain(self.certificate, self.key, password=_no_password)
            except (OSError, ssl.SSLError, ValueError):
                raise CertificateMissing(
                    f"'{self.certificate}' and its key cannot be read, or do not belong together.",
                    fix="Give --certificate and --key in PEM, the key without a passphrase and readable for this user.",
                ) from None
        return context


def check_plain(host: str, *, allowed: bool, carries_secret: bool) -> None:
    """Raises: InsecureLink, where a plain line would leave this computer unasked or with a password on it."""
    if is_here(host):
        return
    if carries_secret:
        raise InsecureLink(f"a password would go to '{host}' without TLS.", fix="Use the archive's https address.")
    if not allowed:
        raise InsecureLink(
            f"patients' images would come from '{host}' without TLS.",
            fix="Use the archive's TLS port (--ca). Where it has none and the network is yours alone: --without-tls.",
        )


def is_here(host: str) -> bool:
    """Whether this is the computer itself, by a name or address that cannot be anything else."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def authorization(path: Path) -> str:
    """The value of HTTP's Authorization header from a file of one line: `USER:PASSWORD`, or `Bearer TOKEN`.

    Raises: SecretFile where others can read it, or it holds neither.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise SecretFile(f"'{path}' cannot be opened ({error.strerror}).", fix="Name the file itself, not a link.") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
            raise SecretFile(f"'{path}' can be read by others.", fix=f"Run: chmod 600 '{path}'.")
        line = file.read(_LARGEST_FILE).strip()
    if not line or b"\n" in line or not (line.startswith(b"Bearer ") or b":" in line):
        raise SecretFile(f"'{path}' holds neither USER:PASSWORD nor Bearer TOKEN in one line.", fix="Write it anew.")
    return line.decode("latin-1") if line.startswith(b"Bearer ") else f"Basic {base64.b64encode(line).decode()}"


def _no_password() -> str:
    """OpenSSL would ask on the terminal, where perhaps nobody sits."""
    return ""
