# SPDX-License-Identifier: Apache-2.0
"""The one way out of the hospital, looked at step by step, so that whoever owns the broken step can be called.

    name -> TCP -> TLS with the pinned authority -> an HTTP answer, whose Date is the coordinator's clock

One connection, one HEAD request to the fleet path, nothing about this site in it. Only the mailbox's user may have a way out; the site
process has none and needs none. Flower's sign-in allows clocks to differ by 300 seconds.
"""

import hashlib
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

from client.doctor.findings import Finding, look, ok, wrong

TOLERANCE_S: Final = 300
_UNEASY_S: Final = 30
_TIMEOUT_S: Final = 10.0
_DAY_S: Final = 86_400
_RENEW_S: Final = 14 * _DAY_S
_LARGEST_HEAD: Final = 16_384
_BUNDLE: Final = 3
_EXPIRED: Final = 10
_NOT_YET: Final = 9
_WRONG_NAME: Final = (62, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Where the mailbox connects to, and the authority that it believes."""

    host: str
    port: int
    authority: Path


def authority(link: Link) -> Iterator[Finding]:
    """The pinned authority's certificate: the consortium's own, and for how long yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=link.authority)
    except ssl.SSLError:
        yield wrong("authority", f"'{link.authority}' holds no certificate.", "Put the consortium's ca.crt there, as it came.")
        return
    pinned, raw = context.get_ca_certs(), context.get_ca_certs(binary_form=True)
    if not pinned or len(pinned) > _BUNDLE:
        yield look(
            "authority",
            f"'{link.authority}' holds {len(pinned)} authorities, the consortium has one.",
            "Pin the consortium's alone: with a public bundle any of them could pass for the coordinator.",
        )
        return
    until = max(ssl.cert_time_to_seconds(str(each["notAfter"])) for each in pinned)
    say = f"pinned, SHA-256 {hashlib.sha256(raw[0]).hexdigest()[:16]}, until {_day(until)}"
    renew = "Ask the coordinator for the consortium's new ca.crt; compare its fingerprint by telephone."
    now = time.time()
    if until < now:
        yield wrong("authority", f"{say}, which is over.", renew)
    else:
        yield look("authority", say, renew) if until < now + _RENEW_S else ok("authority", say)


def way(link: Link) -> Iterator[Finding]:
    """Name, TCP, TLS, certificate and clock, as far as they go."""
    place = f"{link.host}:{link.port}"
    try:
        connected = socket.create_connection((link.host, link.port), timeout=_TIMEOUT_S)
    except socket.gaierror:
        yield wrong("reach", f"the name '{link.host}' has no address here.", "Ask your network's DNS for it, or put it into /etc/hosts.")
        return
    except ConnectionRefusedError:
        yield wrong("reach", f"{place} is there and refuses.", "Ask the coordinator whether its proxy is running, and compare the port.")
        return
    except OSError as error:
        reason = "no answer within 10 s" if isinstance(error, TimeoutError) else error.strerror or "no way there"
        yield wrong("reach", f"{place}: {reason}.", f"Ask your firewall's people for outbound TCP to {place}, and for nothing else.")
        return
    with closing(connected):
        yield ok("reach", f"TCP to {place}")
        yield from _tls(link, connected)


def clock(answer: bytes, *, sent: float, received: float) -> Finding:
    """This machine's clock beside the Date of an answer, which is whole seconds."""
    dates = [line.partition(b":")[2].strip().decode("ascii", "replace") for line in answer.split(b"\r\n") if line[:5].lower() == b"date:"]
    try:
        theirs = parsedate_to_datetime(dates[0]).timestamp() + 0.5
    except (IndexError, ValueError):
        return look("clock", "the coordinator's answer says no time.", "Compare this clock with a time server: timedatectl")
    off = (sent + received) / 2 - theirs
    say = f"{abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} the coordinator's"
    fix = "Let a time server set it: timedatectl set-ntp true. If this one is right, tell the coordinator."
    if abs(off) > TOLERANCE_S:
        return wrong("clock", f"{say}; Flower refuses the sign-in beyond {TOLERANCE_S} s.", fix)
    return look("clock", say, fix) if abs(off) > _UNEASY_S else ok("clock", f"within {max(1, round(abs(off)))} s of the coordinator's")


def _tls(link: Link, connected: socket.socket) -> Iterator[Finding]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=link.authority)
    try:
        secure = context.wrap_socket(connected, server_hostname=link.host)
    except ssl.SSLCertVerificationError as error:
        yield _refused(error, link)
        return
    except (OSError, ValueError) as error:
        yield wrong(
            "certificate", f"no TLS at {link.host}:{link.port} ({type(error).__name__}).", "Compare the port with the coordinator's."
        )
        return
    with closing(secure):
        yield _certificate(secure)
        yield _time(secure, link.host)


def _certificate(secure: ssl.SSLSocket) -> Finding:
    until = ssl.cert_time_to_seconds(str((secure.getpeercert() or {})["notAfter"]))
    left = until - time.time()
    say = f"right name, signed by the pinned authority, until {_day(until)}, {secure.version()}"
    if secure.version() != "TLSv1.3":
        return wrong("certificate", f"{secure.version()} is spoken, TLS 1.3 expected.", "Something on the way is old, or reads along.")
    if left < _RENEW_S:
        return look("certificate", say, f"It ends in {left / _DAY_S:.0f} days: remind the coordinator to renew it (deploy/pki).")
    return ok("certificate", say)


def _refused(error: ssl.SSLCertVerificationError, link: Link) -> Finding:
    match error.verify_code:
        case code if code == _EXPIRED:
            found, fix = (
                "the coordinator's certificate has expired, by this clock.",
                "Check this clock; then ask the coordinator to renew it.",
            )
        case code if code == _NOT_YET:
            found, fix = "the coordinator's certificate is not valid yet, by this clock.", "Check this clock: timedatectl"
        case code if code in _WRONG_NAME:
            found, fix = f"the certificate is not for '{link.host}'.", "Compare the address in mailbox.toml with the coordinator's."
        case _:
            found = "the certificate is not signed by the authority that is pinned here."
            fix = (
                f"Nothing was sent. Compare '{link.authority}' with the coordinator by telephone; a proxy that reads along looks the same."
            )
    return wrong("certificate", found, fix)


def _time(secure: ssl.SSLSocket, host: str) -> Finding:
    sent = time.time()
    secure.sendall(f"HEAD /v1/fleet/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("ascii"))
    answer = b""
    while b"\r\n\r\n" not in answer and len(answer) < _LARGEST_HEAD and (part := secure.recv(4096)):
        answer += part
    return clock(answer, sent=sent, received=time.time())


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))
