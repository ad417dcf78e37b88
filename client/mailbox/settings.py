# SPDX-License-Identifier: Apache-2.0
"""mailbox.toml: where the coordinator is, by whose certificate it is known, and where the site's socket is.

[superlink]   address = "NAME:PORT"; root_certificates = "ca.crt", the coordinator's own authority and no other;
              proxy = "http://NAME:PORT", where a hospital has one; insecure = true for tests on one machine: no TLS
[site]        socket

The environment's proxies and the machine's own list of authorities are not asked: one destination, believed for one reason.
"""

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from common.errors import CertificateMissing, DataNotFound, InsecureLink, PlanValue
from common.plan.parse import Sections, read_table, text_of, validate
from common.plan.values import STRICT
from common.transport_key import KEY_FILE

MAILBOX_FILE: Final = "mailbox.toml"
_PORTS: Final = range(1, 1 << 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class SuperLinkSection:
    """[superlink]"""

    __pydantic_config__ = STRICT
    address: str
    root_certificates: str | None = None
    proxy: str | None = None
    insecure: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSection:
    """[site]"""

    __pydantic_config__ = STRICT
    socket: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MailboxFile:
    """mailbox.toml."""

    __pydantic_config__ = STRICT
    superlink: SuperLinkSection
    site: SiteSection


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The same, with every path where it is and every rule held. `tls` is None on an insecure link to this machine."""

    folder: Path
    address: str
    tls: ssl.SSLContext | None
    proxy: str | None
    socket: Path
    key: Path


_FILE: TypeAdapter[MailboxFile] = TypeAdapter(MailboxFile)
_SECTIONS: Sections = {"superlink": (SuperLinkSection,), "site": (SiteSection,)}


def read(folder: Path) -> Settings:
    """Raises: DataNotFound, PlanSyntax, PlanUnknownKey, PlanValue; CertificateMissing, InsecureLink."""
    path = folder / MAILBOX_FILE
    if not path.is_file():
        raise DataNotFound(f"mailbox folder '{folder}' has no {MAILBOX_FILE}.", fix="Make one: fedward site init --mailbox DIR.")
    text = text_of(path)
    file = validate(_FILE, read_table(text, name=str(path)), text=text, name=str(path), sections=_SECTIONS, quoted=False)
    link = file.superlink
    host = _host_of(link.address)
    if link.insecure:
        _check_here(host, link.proxy)
    return Settings(
        folder=folder,
        address=link.address,
        tls=None if link.insecure else _pinned(folder, link),
        proxy=link.proxy,
        socket=folder / file.site.socket,
        key=folder / KEY_FILE,
    )


def _host_of(address: str) -> str:
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or int(port) not in _PORTS:
        raise PlanValue(f"[superlink] address is '{address}', expected NAME:PORT.", fix="Write it as the coordinator gave it.")
    return host.strip("[]")


def _check_here(host: str, proxy: str | None) -> None:
    if proxy is not None:
        raise InsecureLink(
            "mailbox.toml asks for a link without TLS through a proxy, which would read and answer everything.",
            fix="Take insecure = true out, and set root_certificates to the coordinator's ca.crt.",
        )
    try:
        here = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = False
    if not here:
        raise InsecureLink(
            f"mailbox.toml asks for a link to '{host}' without TLS.",
            fix="Take insecure = true out, and set root_certificates to the coordinator's ca.crt.",
        )


def _pinned(folder: Path, link: SuperLinkSection) -> ssl.SSLContext:
    if link.root_certificates is None:
        raise CertificateMissing("[superlink] root_certificates is not set.", fix="Set it to the coordinator's ca.crt.")
    file = folder / link.root_certificates
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(cafile=file)
    except (OSError, ssl.SSLError):
        raise CertificateMissing(f"'{file}' is no certificate that can be read.", fix="Put the coordinator's ca.crt there.") from None
    return context
