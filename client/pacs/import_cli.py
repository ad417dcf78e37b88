# SPDX-License-Identifier: Apache-2.0
"""`fedward site import`: from the hospital's archive into the folder that the site reads.

This is the door: it reads what was typed, takes the folder, speaks to the archive in one of two languages, and tells counts. On a terminal
it shows how far it is; a first SIGINT or SIGTERM finishes what runs and tells the account, a second one ends at once, which costs nothing
but the instance that was on its way.
"""

import logging
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import typer
from rich.console import Console

from client.ledger.cli import AsJson
from client.pacs import query as queries
from client.pacs.account import Import
from client.pacs.archive import Archive
from client.pacs.dicomweb import DicomWeb
from client.pacs.dimse import BATCH, Dimse, Peer
from client.pacs.failure import Failed
from client.pacs.guard import Watch, pynetdicom_set_up
from client.pacs.landing import IMAGES_FOLDER, Landing
from client.pacs.link import Trust, authorization, check_plain
from client.pacs.pace import Pace
from client.pacs.receiver import Listening, Receiver, addresses_of
from client.pacs.reception import Reception
from client.pacs.retry import Retry
from client.pacs.transfer import Progress, Transfer
from client.telling import tell
from common.errors import PacsAway

_MIB, _GIB = 1 << 20, 1 << 30
_PORTS: Final = range(1, 1 << 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Archives:
    """Which archive, and as whom: what was typed."""

    dicomweb: str | None
    auth_file: Path | None
    dimse: str | None
    title: str
    called: str | None
    move_to: str | None
    senders: Sequence[str]
    trust: Trust
    with_tls: bool
    without_tls: bool
    timeout_s: float
    tries: int
    batch: int
    """How many instances may be asked for at once over DIMSE."""


def import_(
    into: Annotated[Path, typer.Option(help="The folder. Let root in site.toml be images/ in it.")],
    dicomweb: Annotated[str | None, typer.Option(metavar="URL", help="Its DICOMweb service: https://pacs.example/dicom-web")] = None,
    auth_file: Annotated[Path | None, typer.Option(help="With --dicomweb: a file of mode 0600 with USER:PASSWORD or Bearer TOKEN.")] = None,
    dimse: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="The archive's DICOM port.")] = None,
    aet: Annotated[str, typer.Option(help="With --dimse: our AE title, as the archive knows it.")] = "FEDWARD",
    called_aet: Annotated[str | None, typer.Option(help="With --dimse: the archive's AE title.")] = None,
    move_to: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS:PORT", help="C-MOVE to here instead of C-GET; the archive must know --aet at this address."),
    ] = None,
    sender: Annotated[
        list[str] | None,
        typer.Option(metavar="TITLE@ADDRESS", help="With --move-to: who else may send for the archive, such as a second node of it."),
    ] = None,
    ca: Annotated[Path | None, typer.Option(help="TLS: the authority that signed the archive's certificate, in PEM.")] = None,
    certificate: Annotated[Path | None, typer.Option(help="TLS: our own certificate, where the archive asks for one.")] = None,
    key: Annotated[Path | None, typer.Option(help="TLS: its key.")] = None,
    tls: Annotated[bool, typer.Option("--tls", help="With --dimse: TLS by this computer's authorities; --ca implies it.")] = False,
    without_tls: Annotated[bool, typer.Option("--without-tls", help="Images over a plain line, on a network of your own.")] = False,
    query: Annotated[
        list[str] | None, typer.Option("--query", "-q", metavar="KEY=VALUE", help="Such as Modality=CT; all must match.")
    ] = None,
    from_list: Annotated[
        typer.FileText | None,
        typer.Option("--list", help="A CSV whose header names keys, such as AccessionNumber: one query a row. - is standard input."),
    ] = None,
    everything: Annotated[bool, typer.Option("--everything", help="No query: all that the archive has.")] = False,
    count_only: Annotated[bool, typer.Option("--count-only", help="Only list, and say how many are here already.")] = False,
    per_second: Annotated[float | None, typer.Option(min=0.01, help="Ask for no more instances in a second. Default: no limit.")] = None,
    tries: Annotated[int, typer.Option(min=1, max=20, help="How often to ask for an instance whose failure may pass.")] = 4,
    timeout: Annotated[float, typer.Option(min=1, max=3600, help="Seconds without progress that end a request.")] = 60,
    largest_mib: Annotated[int, typer.Option(min=1, max=65536, help="No instance may be larger.")] = 2048,
    keep_free_gib: Annotated[float, typer.Option(min=0.1, help="Stop before the disk has less room than this.")] = 5,
    report: Annotated[Path | None, typer.Option(help="A CSV of every instance with its UIDs, for you alone (0600).")] = None,
    as_json: AsJson = False,
) -> None:
    """Bring images from the hospital's archive (PACS) into a folder. Run again, it goes on where it was, and brings what is new.

    \b
        fedward site import --into /srv/images --dicomweb https://pacs.example/dicom-web --auth-file pacs.auth -q Modality=CT
        fedward site import --into /srv/images --dimse pacs.example:11112 --called-aet PACS --ca hospital.pem --list cohort.csv

    Every instance is accounted for: asked = received + failed, with reasons. Exit code 0 if all came, 1 if not. See docs/pacs.md.
    """
    typed = Archives(
        dicomweb=dicomweb, auth_file=auth_file, dimse=dimse, title=aet, called=called_aet, move_to=move_to, senders=sender or (),
        trust=Trust(ca=ca, certificate=certificate, key=key), with_tls=tls or ca is not None, without_tls=without_tls,
        timeout_s=timeout, tries=tries, batch=max(1, min(BATCH, int(per_second or BATCH))),
    )  # fmt: skip
    asked = queries.parse(query or (), from_list.read(queries.LONGEST_LIST + 1) if from_list else None)
    if not everything and not all(each.keys for each in asked):
        raise typer.BadParameter("say what to ask for: --query, --list, or --everything.")
    if (dicomweb is None) == (dimse is None):
        raise typer.BadParameter("give one of --dicomweb and --dimse.")
    with ExitStack() as held:
        stop = held.enter_context(_stop_by_signal())
        landing = held.enter_context(Landing.opened(into, largest=largest_mib * _MIB, reserve=int(keep_free_gib * _GIB)))
        archive = held.enter_context(_opened(typed, landing, stop))
        transfer = Transfer(archive, landing, pace=Pace(per_second, wait=stop.wait), tries=tries, stop=stop, progress=_progress())
        wanted = transfer.listed(asked)
        if count_only:
            here = sum(landing.arrived(each) is not None for each in wanted)
            tell({"listed": len(wanted), "here": here}, f"{len(wanted)} instances are listed; {here} of them are here", as_json=as_json)
            return
        done = transfer.run(wanted)
        if report is not None:
            done.write_report(report)
    _tell(done, into, journal_was_damaged=landing.journal_was_damaged, as_json=as_json)
    raise typer.Exit(0 if done.is_complete else 1)


def _tell(done: Import, into: Path, *, journal_was_damaged: bool, as_json: bool) -> None:
    account, stopped = done.account, done.stopped
    found: dict[str, Any] = {"complete": done.is_complete, **account.as_dict(), "journal_was_damaged": journal_was_damaged}
    if stopped is not None:
        found["stopped"] = stopped.as_dict()
    tell(
        found,
        *account.lines(),
        *(["the journal was damaged; it was put aside, and written anew from the files"] if journal_was_damaged else []),
        *([f"{stopped.code}: {stopped}"] if stopped else []),
        *([] if done.is_complete else ["Run it again: what has come is kept, and only what is missing is asked for."]),
        f"images: {into / IMAGES_FOLDER}",
        as_json=as_json,
    )


app = typer.Typer()
app.command("import")(import_)


@app.callback()
def _alone() -> None:
    """So that the command keeps its name where it is the only one."""


@contextmanager
def _opened(typed: Archives, landing: Landing, stop: Event) -> Iterator[Archive]:
    """An archive to speak to. Raises: InsecureLink, CertificateMissing, SecretFile, AddressTaken, PacsAway, PacsRefused."""
    retry = Retry(typed.tries, stop.wait)
    with ExitStack() as held:
        held.enter_context(_in_silence())
        archive: Archive
        if typed.dicomweb is not None:
            archive = _web(typed.dicomweb, typed, retry)
        else:
            held.enter_context(pynetdicom_set_up(landing.incoming))
            archive = _classic(typed, landing, retry)
        held.callback(archive.close)
        yield archive


def _web(url: str, typed: Archives, retry: Retry) -> DicomWeb:
    try:
        parts = urlsplit(url)
    except ValueError:  # such as half a bracket of an IPv6 address: no address either
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise typer.BadParameter("--dicomweb is no address such as https://pacs.example/dicom-web; a user goes into --auth-file.")
    if parts.scheme == "http":
        check_plain(parts.hostname, allowed=typed.without_tls, carries_secret=typed.auth_file is not None)
    secret = authorization(typed.auth_file) if typed.auth_file else None
    return DicomWeb(url, typed.trust, authorization=secret, timeout_s=typed.timeout_s, retry=retry)


def _classic(typed: Archives, landing: Landing, retry: Retry) -> Dimse:
    host, port = _address(typed.dimse or "", "--dimse")
    if typed.called is None:
        raise typer.BadParameter("--dimse needs --called-aet, the archive's AE title.")
    for title in (typed.title, typed.called):
        if not 0 < len(title.strip()) <= 16 or not title.isascii() or not title.isprintable() or "\\" in title:
            raise typer.BadParameter("an AE title has 1 to 16 printable ASCII characters, without a backslash.")
    if not typed.with_tls:
        check_plain(host, allowed=typed.without_tls, carries_secret=False)
    watch, reception = Watch(timeout_s=typed.timeout_s, largest=landing.largest), Reception()
    peer = Peer(host=host, port=port, called=typed.called, calling=typed.title, tls=typed.trust.as_client() if typed.with_tls else None)
    receiver = _receiver(typed, peer, reception, watch) if typed.move_to else None
    dimse = Dimse(peer, watch, retry, reception, receiver, batch=typed.batch)
    try:
        retry(dimse.echo)
    except Failed as failure:
        dimse.close()
        raise PacsAway(
            f"'{host}:{port}' does not answer a C-ECHO ({failure.reason.value}).", fix="Look at address, port, firewall and TLS."
        ) from failure
    except BaseException:
        dimse.close()
        raise
    return dimse


def _receiver(typed: Archives, peer: Peer, reception: Reception, watch: Watch) -> Receiver:
    host, port = _address(typed.move_to or "", "--move-to")
    if not typed.with_tls:
        check_plain(host, allowed=typed.without_tls, carries_secret=False)
    others = [each.rpartition("@") for each in typed.senders]
    if not all(title and address for title, _, address in others):
        raise typer.BadParameter("--sender needs TITLE@ADDRESS.")
    listening = Listening(
        host=host, port=port, title=peer.calling,
        callers=(peer.called, *(title for title, _, _ in others)),
        addresses=addresses_of(peer.host).union(*(addresses_of(address) for _, _, address in others)),
        tls=typed.trust.as_server() if typed.with_tls else None,
    )  # fmt: skip
    return Receiver(listening, reception, watch)


def _address(text: str, option: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or len(port) > 5 or int(port) not in _PORTS:
        raise typer.BadParameter(f"{option} needs HOST:PORT.")
    return host.strip("[]"), int(port)


@contextmanager
def _in_silence() -> Iterator[None]:
    """What libraries have to say of an answer quotes it, and an answer holds patients."""
    loggers = [logging.getLogger(name) for name in ("pynetdicom", "pydicom", "python_multipart", "httpx", "httpcore")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextmanager
def _stop_by_signal() -> Iterator[Event]:
    stop = Event()
    before: dict[int, Any] = {}

    def on_signal(number: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[number])  # a second one is not waited for

    for number in (int(signal.SIGINT), int(signal.SIGTERM)):
        with suppress(ValueError):  # not in the main thread
            before[number] = signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        for signalled, handler in before.items():
            signal.signal(signalled, handler)


def _progress() -> Progress | None:
    """A line that is written over, where somebody looks."""
    if not sys.stderr.isatty():
        return None
    console = Console(stderr=True, highlight=False)

    def show(came: int, failed: int, asked: int) -> None:
        console.print(f"{came} of {asked} instances are here, {failed} failed", end="\r" if came + failed < asked else "\n")

    return show
