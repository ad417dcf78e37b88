# SPDX-License-Identifier: Apache-2.0
"""A site's audit log: what it was asked, what it answered, and where everybody's logs stood then.

    header is good -> ASK -> RESERVE -> trained -> ANSWER KEYS -> MEET, ANSWER SHARE -> MASK -> ANSWER CONFIRM -> RELEASE -> reply leaves

Each line is on the disk before the reply that it tells of leaves the site, and the line that pays before an image is opened. A site that
is killed in between says the line again when the same request comes again; the log has it once (`common.audit.log`).

    audit.jsonl                      the log
    evidence/plan-*, roster-*        every plan that was followed and every roster that was in force: what the log names by hash

Written on purpose without the site's lock on its attempts: a refusal, a pause and a start have no place in an attempt.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from client.home import SiteFile, read_site_file
from client.ledger.chain import Position
from common import keyfile, roster, wire
from common.audit import entries
from common.audit.chain import Chain
from common.audit.entries import KINDS, At, Exchange, Fact, Said, at_of
from common.audit.log import LOG_FILE, Log, Pen
from common.credentials import KEY_FILE, ROSTER_FILE
from common.durable import OWNER_ONLY, folder_locked, forget_unfinished, write_atomically
from common.errors import FedwardError, RosterError, StorageError
from common.plan import Plan, digest_of, to_toml
from common.roster import Roster
from common.secagg import codec, messages
from common.secagg.keys import SigningKey
from common.secagg.messages import NO_HEAD, Cohort, Confirmation, Down, Heads, Masked, RoundTag, Step, Up
from common.secagg.site import Record
from common.secagg.stages import Listening
from common.secagg.terms import Kind
from common.spelling import digest
from common.version import code_version

EVIDENCE_FOLDER: Final = "evidence"


class SiteAudit:
    """One site's log, opened when there is first something to say. `clock` gives Unix seconds."""

    def __init__(self, home: Path, file: SiteFile, *, clock: Callable[[], float] = time.time) -> None:
        self._home, self._file, self._clock = home, file, clock
        self._opened: Log | None = None
        self._signer: SigningKey | None = None
        self._entered: tuple[str, bytes] | None = None

    def enter(self, plan: Plan, enrolled: Roster) -> None:
        """Before a message is answered: which plan and which roster are in force. Raises: AuditTampered, DiskFull, SecretFile."""
        now = digest_of(plan), enrolled.digest
        if self._entered == now:
            return
        start = () if self._entered else (entries.Started(version=code_version()),)
        self._keep(f"plan-{now[0]}.toml", to_toml(plan).encode())
        self._keep_roster(enrolled)
        self.say(*start, entries.PlanFollowed(plan=now[0]), entries.RosterAdopted(roster=enrolled.digest.hex(), epoch=enrolled.epoch))
        self._entered = now

    @property
    def head(self) -> bytes:
        """The hash of the last line, as others are shown it. Raises: as `enter`."""
        return self._log().read().head

    def asked(self, tag: RoundTag, kind: Kind, request: bytes) -> None:
        """A header was accepted; nothing was opened yet. Raises: as `enter`."""
        self.say(entries.Asked(at=at_of(tag, kind), tag=tag.rt.hex(), model=tag.model.hex(), request=_hash(request)))

    def reserved(self, step: wire.Step, position: Position) -> None:
        """The ledger has charged what was asked. Raises: as `enter`."""
        at = At(session=step.session.hex(), round=step.round, attempt=step.attempt, kind=KINDS[Kind[step.kind]])
        self.say(entries.Reserved(at=at, line=position.seq, head=position.head.hex()))

    def answered(self, record: Record, request: bytes, reply: bytes) -> None:
        """A reply is about to leave. Raises: as `enter`, and then it may not."""
        self.say(*facts_of(record, request, reply))

    def met(self, tag: RoundTag, kind: Kind, own: str, said: Iterable[tuple[str, Heads]]) -> None:
        """What a cohort announced: where its logs stand goes into this one, and so does who remembers a line that is not here."""
        said = tuple(said)
        shown = tuple((site, heads.audit.hex()) for site, heads in said if site != own and heads.audit != NO_HEAD)
        echoed = {(peer, echo.audit_head) for peer, heads in said if peer != own for echo in heads.peers if echo.site_id == own}

        def facts(chain: Chain) -> tuple[Fact, ...]:
            strange = sorted((peer, head) for peer, head in echoed if head != NO_HEAD and chain.number(head) is None)
            return (
                *(entries.Contradicted(peer=peer, head=head.hex()) for peer, head in strange),
                entries.Met(at=at_of(tag, kind), tag=tag.rt.hex(), heads=shown),
            )

        self._log().decide(facts)

    def refused(self, request: bytes, code: str) -> None:
        """Something was not answered. A refusal is not held up by a log that cannot be written."""
        with suppress(FedwardError):
            self.say(entries.Refused(request=_hash(request), code=code))

    def say(self, *facts: Fact) -> None:
        """Write those of the facts that are new. Raises: AuditTampered, DiskFull, SecretFile."""
        self._log().say(*facts)

    def _log(self) -> Log:
        signer = keyfile.load(self._home / KEY_FILE, "site")
        if self._opened is None or self._signer != signer:  # a new identity key came into use: client/membership/rotation.py
            self._signer = signer
            pen = Pen(role="site", name=self._file.site.name, signer=signer, clock=self._clock, power_cut_safe=self._file.power_cut_safe)
            self._opened = Log(self._home / LOG_FILE, pen)
        return self._opened

    def _keep_roster(self, enrolled: Roster) -> None:
        """The file as it was signed, if it is still the one that was read."""
        with suppress(OSError, RosterError, StorageError):
            signed = (self._home / ROSTER_FILE).read_bytes()
            if roster.parse(signed)[0].digest == enrolled.digest:
                self._keep(f"roster-{enrolled.digest.hex()}", signed)

    def _keep(self, name: str, content: bytes) -> None:
        folder = self._home / EVIDENCE_FOLDER
        folder.mkdir(exist_ok=True)
        if not (folder / name).exists():
            with folder_locked(folder):
                forget_unfinished(folder)
                write_atomically(folder / name, content, fsync=self._file.power_cut_safe, mode=OWNER_ONLY)


def note(home: Path, *facts: Fact) -> None:
    """What an operator's command did: a pause, a plan approved, a roster adopted. Raises: as `SiteAudit.say`, DataNotFound."""
    SiteAudit(home, read_site_file(home)).say(*facts)


def facts_of(record: Record, request: bytes, reply: bytes) -> tuple[Said, ...]:
    """What a reply is to the log: it follows from the messages alone, so a repeated one gives the same line.

    Shares may be asked of a site that was killed before its confirmation was in the log, and left: then that line comes first.
    """
    stage = record.stage
    assert not isinstance(stage, Listening)
    down, up = codec.read(Down, request), codec.read(Up, reply)
    exchange = Exchange(at=at_of(stage.tag, stage.kind), tag=stage.tag.rt.hex(), request=_hash(request), reply=_hash(reply))
    match up.step:
        case Step.KEYS:
            return (entries.Answered(exchange=exchange, step="KEYS", transcript=exchange.tag),)
        case Step.SHARE:
            transcript = messages.t1(down.rt, codec.read(Cohort, down.body))
            return (entries.Answered(exchange=exchange, step="SHARE", transcript=transcript.hex()),)
        case Step.MASK:
            masked = codec.read(Masked, up.body)
            return (entries.Masked(exchange=exchange, transcript=masked.transcript.hex(), vector=masked.vector.hex()),)
        case Step.CONFIRM:
            return (entries.Answered(exchange=exchange, step="CONFIRM", transcript=_confirmed(reply)),)
        case Step.UNMASK:
            before = record.answer(Step.CONFIRM)
            assert before is not None
            said = _confirmed(before.reply)
            confirming = replace(exchange, request=before.request.hex(), reply=_hash(before.reply))
            confirmed = entries.Answered(exchange=confirming, step="CONFIRM", transcript=said)
            return confirmed, entries.Released(exchange=exchange, transcript=said)
        case Step.ABANDON:
            return (entries.Abandoned(exchange=exchange),)


def _confirmed(reply: bytes) -> str:
    return codec.read(Confirmation, codec.read(Up, reply).body).transcript.hex()


def _hash(content: bytes) -> str:
    return digest(content).hex()
