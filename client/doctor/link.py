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
from typing import Final
from urllib.parse import urlsplit

from client.doctor.findings import Finding, look, ok, wrong
from client.mailbox.settings import Settings

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
    """Where the mailbox connects to, whom it believes, and the hospital's proxy, where there is one."""

    host: str
    port: int
    tls: ssl.SSLContext
    proxy: tuple[str, int] | None = None

    @property
    def place(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def next_hop(self) -> tuple[str, int]:
        return self.proxy or (self.host, self.port)


def link_of(settings: Settings) -> Link | None:
    """The mailbox's own; None where it is told to go without TLS, which is for trials on one machine."""
    host, _, port = settings.address.rpartition(":")
    hop = urlsplit(settings.proxy) if settings.proxy else None
    proxy = (hop.hostname or "", hop.port or 80) if hop else None
    return Link(host=host.strip("[]"), port=int(port), tls=settings.tls, proxy=proxy) if settings.tls else None


def authority(link: Link) -> Iterator[Finding]:
    """The pinned authority's certificate: the consortium's own, and for how long yet."""
    pinned, raw = link.tls.get_ca_certs(), link.tls.get_ca_certs(binary_form=True)
    if not pinned or len(pinned) > _BUNDLE:
        yield look(
            "authority",
            f"the mailbox believes {len(pinned)} authorities, the consortium has one.",
            "Pin the consortium's alone: with a public bundle any of them could pass for the coordinator.",
        )
        return
    now, until = time.time(), max(ssl.cert_time_to_seconds(str(each["notAfter"])) for each in pinned)
    say = f"pinned, SHA-256 {hashlib.sha256(raw[0]).hexdigest()[:16]}, until {_day(until)}"
    renew = "Ask the coordinator for the consortium's new ca.crt; compare its fingerprint by telephone."
    if until < now:
        yield wrong("authority", f"{say}, which is over.", renew)
    else:
        yield look("authority", say, renew) if until < now + _RENEW_S else ok("authority", say)


def way(link: Link) -> Iterator[Finding]:
    """Name, TCP, TLS, certificate and clock, as far as they go."""
    host, port = link.next_hop
    place = f"{host}:{port}"
    try:
        connected = socket.create_connection((host, port), timeout=_TIMEOUT_S)
    except socket.gaierror:
        yield wrong("reach", f"the name '{host}' has no address here.", "Ask your network's DNS for it, or put it into /etc/hosts.")
        return
    except ConnectionRefusedError:
        yield wrong("reach", f"{place} is there and refuses.", "Ask its people whether the proxy there is running, and compare the port.")
        return
    except OSError as error:
        reason = "no answer within 10 s" if isinstance(error, TimeoutError) else error.strerror or "no way there"
        yield wrong("reach", f"{place}: {reason}.", f"Ask your firewall's people for outbound TCP to {place}, and for nothing else.")
        return
    with closing(connected):
        yield from _through(link, connected) if link.proxy else [ok("reach", f"TCP to {place}"), *_tls(link, connected)]


def _through(link: Link, connected: socket.socket) -> Iterator[Finding]:
    """The hospital's own proxy passes TLS on unopened, or refuses in its first line."""
    connected.sendall(f"CONNECT {link.place} HTTP/1.1\r\nHost: {link.place}\r\n\r\n".encode("ascii"))
    status = _head(connected).partition(b"\r\n")[0].split(b" ", 2)
    if len(status) < 2 or status[1] != b"200":
        code = status[1].decode("ascii", "replace")[:3] if len(status) > 1 else "nothing"
        yield wrong(
            "reach", f"your proxy answers {code} for {link.place}.", f"Ask your proxy's people to let {link.place} through, unopened."
        )
        return
    yield ok("reach", f"{link.place}, through your proxy")
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
    try:
        secure = link.tls.wrap_socket(connected, server_hostname=link.host)
    except ssl.SSLCertVerificationError as error:
        yield _refused(error, link)
        return
    except (OSError, ValueError):
        fix = "Compare the port with the coordinator's. If it is right, something on the way is old, or reads along."
        yield wrong("certificate", f"no TLS 1.3 at {link.place}.", fix)
        return
    with closing(secure):
        yield _certificate(secure)
        yield _time(secure, link.host)


def _certificate(secure: ssl.SSLSocket) -> Finding:
    until = ssl.cert_time_to_seconds(str((secure.getpeercert() or {})["notAfter"]))
    left = until - time.time()
    say = f"right name, signed by the pinned authority, until {_day(until)}, {secure.version()}"
    if left < _RENEW_S:
        return look("certificate", say, f"It ends in {left / _DAY_S:.0f} days: remind the coordinator to renew it (deploy/pki).")
    return ok("certificate", say)


def _refused(error: ssl.SSLCertVerificationError, link: Link) -> Finding:
    if error.verify_code == _EXPIRED:
        found, fix = "has expired, by this clock.", "Check this clock; then ask the coordinator to renew it."
    elif error.verify_code == _NOT_YET:
        found, fix = "is not valid yet, by this clock.", "Check this clock: timedatectl"
    elif error.verify_code in _WRONG_NAME:
        found, fix = f"is not for '{link.host}'.", "Compare the address in mailbox.toml with the coordinator's."
    else:
        found = "is not signed by the authority that is pinned here."
        fix = "Nothing was sent. Compare ca.crt with the coordinator by telephone; a proxy that reads along looks the same."
    return wrong("certificate", f"the coordinator's certificate {found}", fix)


def _time(secure: ssl.SSLSocket, host: str) -> Finding:
    sent = time.time()
    secure.sendall(f"HEAD /v1/fleet/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("ascii"))
    return clock(_head(secure), sent=sent, received=time.time())


def _head(connected: socket.socket) -> bytes:
    """The head of an HTTP answer, as far as it comes."""
    answer = b""
    while b"\r\n\r\n" not in answer and len(answer) < _LARGEST_HEAD and (part := connected.recv(4096)):
        answer += part
    return answer


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))
