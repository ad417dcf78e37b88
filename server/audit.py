# SPDX-License-Identifier: Apache-2.0
"""The coordinator's audit log: whom it asked, what came, what it made of it.

    INVITE -> HEAR KEYS -> HEAR SHARE -> HEAR MASK -> HEAR CONFIRM -> HEAR UNMASK -> SUM -> COMMIT

A line is written when its step is in the journal, and again after a crash in between; the log has it once. Beside the log, under
`evidence/`, the replies themselves are kept as the sites signed them, since the journal forgets them with the round. With `keep="vectors"`
the masked updates of each sum are kept too: four bytes a parameter, site and round, for which anybody can later compute the model anew.
They stay masked (docs/evidence.md says why, and why they should not be kept for longer than an audit needs them).

A coordinator that cannot write its log does not go on.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from common.audit import entries, evidence
from common.audit.entries import At, StepName, at_of
from common.audit.evidence import Keep, Replies, Reply
from common.audit.log import LOG_FILE, Log, Pen
from common.credentials import Credentials
from common.durable import OWNER_ONLY, forget_unfinished, write_atomically
from common.plan import Plan, digest_of, to_toml
from common.roster import Roster
from common.secagg.coordinator import Inviting, Unmasking
from common.secagg.messages import Step
from common.spelling import digest
from common.update import Weights
from common.version import COORDINATOR as SOURCES
from common.version import code_version
from server.aggregation import Silent
from server.combine import GroupSum
from server.gate import PAUSED
from server.journal import CommittedRound
from server.phases import Heard
from server.vectors import Attempt, VectorFolder

COORDINATOR: Final = "coordinator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a log is about. `folder` is the run's, `signed_roster` the roster's file as it is."""

    folder: Path
    plan: Plan
    session: bytes
    initial: Weights
    credentials: Credentials
    signed_roster: bytes


class Recorder(Silent):
    """Writes down what the coordinator does; an observer of its rounds, and told of each step by `server.fsa1`. `clock`: Unix seconds."""

    def __init__(self, run: Run, *, keep: Keep, power_cut_safe: bool, clock: Callable[[], float] = time.time) -> None:
        """Raises: AuditTampered, DiskFull."""
        self._run, self._keep_vectors, self._fsync = run, keep == "vectors", power_cut_safe
        self._paused = False
        self._folder = run.folder / evidence.FOLDER
        self._folder.mkdir(parents=True, exist_ok=True)
        forget_unfinished(self._folder)
        pen = Pen(role="coordinator", name=COORDINATOR, signer=run.credentials.signer, clock=clock, power_cut_safe=power_cut_safe)
        self._log = Log(run.folder / LOG_FILE, pen)
        self._session, plan = run.session.hex(), digest_of(run.plan)
        self._keep(evidence.plan_name(plan), to_toml(run.plan).encode())
        self._log.say(
            entries.Started(version=code_version(SOURCES)),
            entries.PlanFollowed(plan=plan),
            entries.SessionBegun(session=self._session, plan=plan, model=run.initial.digest.hex()),
        )
        self.adopted(run.credentials.roster, run.signed_roster)

    def adopted(self, roster: Roster, signed: bytes) -> None:
        """A roster is in force from here on. Raises: AuditTampered, DiskFull."""
        self._keep(evidence.roster_name(roster.digest.hex()), signed)
        self._log.say(entries.RosterAdopted(roster=roster.digest.hex(), epoch=roster.epoch))

    def stopped(self) -> None:
        """The operator ended the run before its last round. Raises: AuditTampered, DiskFull."""
        self._log.say(entries.Stopped())

    def invited(self, inviting: Inviting, group: int, sites: Sequence[str]) -> None:
        """A header goes out. Raises: AuditTampered, DiskFull."""
        tag = inviting.tag
        self._log.say(
            entries.Invited(
                at=at_of(tag, inviting.kind),
                group=group,
                tag=tag.rt.hex(),
                roster=tag.roster.hex(),
                model=tag.model.hex(),
                sites=tuple(sorted(sites)),
            )
        )

    def heard(self, inviting: Inviting, group: int, step: Step, heard: Heard) -> None:
        """A step is over, and in the journal. Raises: AuditTampered, DiskFull."""
        at = at_of(inviting.tag, inviting.kind)
        items = _in_order(heard.replies)
        self._keep(evidence.step_name(at, group, step.name), evidence.write_replies(Replies(closed=heard.at, items=items)))
        if heard.complaints:
            said = Replies(closed=heard.at, items=_in_order(heard.complaints))
            self._keep(evidence.complaints_name(at, group), evidence.write_replies(said))
        self._log.say(
            entries.Heard(
                at=at,
                group=group,
                step=cast(StepName, step.name),  # all of them have one
                replies=tuple((item.site_id, digest(item.control).hex()) for item in items),
                missing=tuple(sorted(heard.missing.items())),
            )
        )

    def left_out(self, inviting: Inviting, group: int, site: str, by: Sequence[str]) -> None:
        """The attempts after this one go without a site. Raises: AuditTampered, DiskFull."""
        at = at_of(inviting.tag, inviting.kind)
        self._log.say(entries.LeftOut(at=at, group=group, site=site, accusers=tuple(sorted(by))))

    def summed(self, unmasking: Unmasking, group: int, opened: GroupSum, vectors: VectorFolder) -> None:
        """A sum is open; the masked updates that it was made of are still there. Raises: AuditTampered, DiskFull."""
        masking = unmasking.confirming.masking
        at = at_of(masking.tag, masking.chair.terms.kind)
        if self._keep_vectors:
            self._keep_masked(at, group, opened.sites, vectors)
        masked = unmasking.confirming.masked
        self._log.say(
            entries.Summed(
                at=at,
                group=group,
                tag=masking.tag.rt.hex(),
                transcript=unmasking.confirming.transcript.hex(),
                vectors=tuple((site, masked[site].vector.hex()) for site in sorted(masked)),
                sum=digest(opened.words.tobytes()).hex(),
                weight=opened.total_weight,
            )
        )

    def waiting(self, number: int, why: str) -> None:
        if why == PAUSED and not self._paused:
            self._log.say(entries.Paused())
            self._paused = True

    def round_opened(self, number: int, cohort: list[str]) -> None:
        if self._paused:
            self._log.say(entries.Resumed())
            self._paused = False

    def round_committed(self, done: CommittedRound, weights: Weights) -> None:
        self._log.say(
            entries.Committed(
                session=self._session,
                round=done.round,
                attempt=done.attempt,
                model=weights.digest.hex(),
                sites=tuple(sorted(done.sites)),
                checkpoint=done.sha256,
            )
        )

    def published(self, weights: Weights) -> None:
        """The model is in the run folder. Raises: AuditTampered, DiskFull."""
        self._log.say(entries.Published(session=self._session, model=weights.digest.hex()), entries.Stopped())

    def _keep_masked(self, at: At, group: int, sites: Sequence[str], vectors: VectorFolder) -> None:
        """A second name for the same bytes: nothing is copied, and the first name may go."""
        for site in sites:
            target = self._folder / evidence.vector_name(at, group, site)
            target.unlink(missing_ok=True)
            os.link(vectors.path(Attempt(round=at.round, kind=at.kind, attempt=at.attempt), site), target)

    def _keep(self, name: str, content: bytes) -> None:
        path = self._folder / name
        if not path.exists() or path.read_bytes() != content:
            write_atomically(path, content, fsync=self._fsync, mode=OWNER_ONLY)


def _in_order(said: Mapping[str, bytes]) -> tuple[Reply, ...]:
    return tuple(Reply(site_id=site, control=control) for site, control in sorted(said.items()))
