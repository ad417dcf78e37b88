# SPDX-License-Identifier: Apache-2.0
"""A mailbox's life: connect, look, carry; connect again whenever the coordinator has forgotten it; leave so that it may come back at once.

It ends when it is told to, and for no other reason: a coordinator that is down, a wrong clock, a database that was lost, a site process
that is not there are all waited out. What is the matter stands in stats.json and in the log, as a code.
"""

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread, current_thread, main_thread
from typing import Final

from client.mailbox import settings as files
from client.mailbox.carrier import Carrier
from client.mailbox.flower import HEARTBEAT_S, Link, LinkDown, NotAccepted, NotKnown, RunOver
from client.mailbox.retrying import Pace, delays
from client.mailbox.settings import Settings
from client.mailbox.tally import Counts, Tally
from client.process import place
from client.process.events import Event as Said
from client.process.events import Log
from common.durable import OWNER_ONLY, write_atomically
from common.errors import DiskFull, NodeKey, SecretFile, TransportError

LOCK_FILE: Final = "join.lock"
NODE_FILE: Final = "node.id"
_BEATS: Final = 0.8
"""Of an interval: Flower forgives one that is missed."""
_WRITE_EVERY_S: Final = 2.0
_LAST_WORDS_S: Final = 5.0
_LONGEST_NUMBER: Final = 32


@dataclass(slots=True)
class Life:
    """The parts of one mailbox."""

    settings: Settings
    link: Link
    carrier: Carrier
    tally: Tally
    pace: Pace
    log: Log
    stopping: Event
    lost: Event
    misses: int = 0


def join(folder: Path, log: Log, *, stopping: Event | None = None) -> None:
    """Carry until `stopping` is set, or SIGTERM or SIGINT comes.

    Raises: before anything is connected DataNotFound, PlanError, CertificateMissing, InsecureLink, NodeKey, SecretFile, SiteRunning.
    """
    place.keep_to_oneself()
    found = files.read(folder)
    _check_folder(folder)
    with place.alone(folder, LOCK_FILE, what="mailbox"):
        tally, pace = Tally(folder, Counts(process=os.getpid(), since=_now())), Pace()
        link = Link(found, tally)
        carrier = Carrier(found, link, tally, pace, log)
        asked = stopping or Event()
        life = Life(settings=found, link=link, carrier=carrier, tally=tally, pace=pace, log=log, stopping=asked, lost=Event())
        _listen_for_the_end(life)
        log.write(Said(event="started"))
        _live(life)
        _leave(life)


def _live(life: Life) -> None:
    beating: Thread | None = None
    written = 0.0
    while not life.stopping.is_set():
        if life.link.node == 0 or life.lost.is_set():
            _connect(life)
            continue
        if beating is None:
            beating = Thread(target=_beat, args=(life,), name="heartbeat", daemon=True)
            beating.start()
        _look(life)
        if time.monotonic() > written + _WRITE_EVERY_S:
            life.tally.write()
            written = time.monotonic()


def _look(life: Life) -> None:
    try:
        taken = life.link.pull()
    except NotKnown:
        life.lost.set()
        return
    except (LinkDown, NotAccepted, RunOver):
        life.misses += 1
        if life.misses > 1:  # one alone is a connection that the other end had closed for idleness, on a line with much delay
            _note_link(life, up=False, code=TransportError.code)
            life.pace.wait()
        return
    life.misses = 0
    _note_link(life, up=True)
    if taken is None:
        life.pace.wait()
        return
    life.pace.came()
    with suppress(Exception):  # an envelope that Flower itself cannot read is nobody's question
        life.carrier.take(taken)
    life.pace.wait()


def _connect(life: Life) -> None:
    """Until it is done, or this process is to end."""
    remembered = _remembered(life.settings.folder)
    for delay in delays(first=0.5):
        if life.stopping.is_set():
            return
        try:
            if not (remembered and life.link.resume(remembered)):
                remembered = 0
                life.link.activate()
        except LinkDown:
            code = TransportError.code
        except (NotKnown, NotAccepted, RunOver):
            # The coordinator has not registered this key, or another mailbox uses it, or this machine's clock is minutes off.
            code = NodeKey.code
        else:
            _come_online(life)
            return
        life.link.node = 0
        _note_link(life, up=False, code=code)
        life.tally.write()
        life.stopping.wait(delay)


def _come_online(life: Life) -> None:
    life.lost.clear()
    with suppress(DiskFull):
        write_atomically(life.settings.folder / NODE_FILE, f"{life.link.node}\n".encode(), fsync=False, mode=OWNER_ONLY)
    life.tally.add(connections=1)
    _note_link(life, up=True)
    life.carrier.take_up()
    life.pace.came()


def _note_link(life: Life, *, up: bool, code: str = "") -> None:
    counts = life.tally.counts
    if up != counts.connected or (not up and code != counts.code):
        life.tally.note(connected=up, code=code, since=_now())
        life.log.write(Said(event="connected" if up else "disconnected", code=code))


def _beat(life: Life) -> None:
    """On a thread of its own, so that a long upload does not cost the mailbox its place."""
    pauses = delays(first=1.0)
    while not life.stopping.is_set():
        try:
            known = life.lost.is_set() or life.link.beat()
        except NotKnown:
            known = False
        except (LinkDown, NotAccepted, RunOver):
            life.stopping.wait(next(pauses))
            continue
        if not known:
            life.lost.set()
            life.pace.wake()
        pauses = delays(first=1.0)
        life.stopping.wait(HEARTBEAT_S * _BEATS)


def _leave(life: Life) -> None:
    life.carrier.stop(within_s=_LAST_WORDS_S)
    life.link.deactivate()
    life.tally.note(connected=False, code="", since=_now())
    life.tally.write()
    life.log.write(Said(event="stopped"))


def _listen_for_the_end(life: Life) -> None:
    if current_thread() is not main_thread():
        return

    def told(*_: object) -> None:
        life.stopping.set()
        life.pace.wake()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, told)


def _check_folder(folder: Path) -> None:
    mode = folder.stat().st_mode & 0o777
    if mode & 0o077:
        raise SecretFile(f"'{folder}' has mode {mode:04o}, so that others can look into it; expected 0700.", fix=f"chmod 0700 '{folder}'")


def _remembered(folder: Path) -> int:
    try:
        text = (folder / NODE_FILE).read_text("ascii")[:_LONGEST_NUMBER].strip()
    except (OSError, ValueError):
        return 0
    return int(text) if text.isdecimal() else 0


def _now() -> int:
    return int(time.time())
