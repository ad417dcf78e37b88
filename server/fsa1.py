# SPDX-License-Identifier: Apache-2.0
"""A round of secure aggregation, from the coordinator's side of the network.

    train      header and model out            KEYS in: a site has trained, and committed to its update
    agree      who is in: everybody's KEYS     SHARE in: secrets dealt, sealed for each peer
    mask       what peers sealed               MASK in: masked vectors, checked and put on disk one by one
    confirm    whose vector arrived            CONFIRM in: signatures over the survivors
    unmask     a quorum of those               UNMASK in: shares; the sum is opened into one accumulator

What is said and checked stands in `common.secagg.coordinator`; this module asks, writes down and goes on. Each step's answers are in the
journal before the next step is asked, so that a coordinator killed anywhere resumes the same attempt. Training comes first: a site that
misses its deadline has never entered the cryptography. A site that falls later is made up for by the others' shares while a threshold
of them is left. When too few are left there is no sum, not even a part of one: the attempt is given up by all who can still sign
that, and the next one masks the same updates afresh, for free, or trains anew where the protocol does not allow it.

A site whose shares are no good can make an attempt fail. Those who found out say so, signed; the attempts to come go without it
(`common.secagg.complaints`), in this round, and are not counted as tries while each leaves somebody more out. A dealer that is found only
when the sum is opened is left out too; that try counts, since sites train, and pay, again.

Enrolled sites beyond the plan's max_group are several groups, each a protocol of its own with its own attempts, side by side
(`server.transport.talks`). A group that fails twice is missing from the round, and the round fails when no group is left.

Counts of patients (common.counting) are summed by the same steps, "train" being to count; a statistic comes without a model.

Where a step has fewer answers than it needs, those who fell silent are asked again: once, and with persistence (`server.persistence`) for
as long as that says, in the same attempt. Which roster an attempt follows is settled in `server.rooms`.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from common import failpoints, wire
from common.counting import Form
from common.errors import CohortTooSmall, Equivocation, FedwardError, MessageFormat, Replay, SecondCoordinator, UnknownPeer
from common.plan import Plan
from common.secagg import complaints
from common.secagg import coordinator as protocol
from common.secagg.messages import Step
from common.secagg.terms import Kind, Terms
from common.secagg.unmask import open_sum
from common.update import Weights
from server.absences import Absence
from server.aggregation import ATTEMPTS, FAILED, LEFT_OUT, SILENT, Collected, Observer, absent, reasons
from server.audit import Recorder
from server.checkpoint import KEPT
from server.combine import GroupSum, combine, total
from server.counts import CountedRound
from server.gate import Gate, Open
from server.journal import Journal
from server.membership.consortium import Consortium
from server.membership.roll import Roll
from server.persistence import Persistence
from server.phases import Heard, OpenedSum
from server.rooms import Room, Rooms, Subject, large_enough
from server.transport.talks import Keep, Question, Speaker, Talk, phase_name
from server.vectors import VectorFolder

_HEARD: Final[Mapping[Step, str]] = {
    Step.KEYS: "coordinator_after_train",
    Step.SHARE: "coordinator_after_share",
    Step.MASK: "coordinator_after_mask",
    Step.CONFIRM: "coordinator_after_confirm",
    Step.UNMASK: "coordinator_after_unmask",
    Step.ABANDON: "coordinator_after_abandon",
}
"""Where a test may kill a coordinator that has just written a step down (common.failpoints)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """What came of it: each group's sum, every group's last room, and the last error."""

    opened: Mapping[int, GroupSum]
    rooms: Mapping[int, Room]
    error: FedwardError | None

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(sorted(site for each in self.opened.values() for site in each.sites))

    @property
    def attempt(self) -> int:
        return max(self.rooms[group].tag.attempt for group in self.opened or self.rooms)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecureAggregation:
    """`server.aggregation.Aggregation`, as deployed. `workers` is how many threads may remove masks; `recorder` keeps the audit log."""

    roll: Roll
    plan: Plan
    initial: Weights
    members: Consortium
    journal: Journal
    vectors: VectorFolder
    observer: Observer
    workers: int = 1
    recorder: Recorder | None = None
    gate: Gate = field(default_factory=Open)
    persistence: Persistence | None = None

    def collect(self, number: int, weights: Weights, asked: Sequence[str]) -> Collected:
        """One round; every group in it is tried twice. Raises: what the last group failed with, by name."""
        sums = self._sums(self._subject(Kind.UPDATE, number, weights, asked))
        missing, fallen = _absences(asked, sums)
        if not sums.opened:
            assert sums.error is not None
            raise _explained(sums.error, number, missing)
        grid = next(iter(sums.rooms.values())).terms.grid
        aggregate = combine([sums.opened[group] for group in sorted(sums.opened)], grid, self.plan.aggregation)
        return Collected(aggregate=aggregate, attempt=sums.attempt, sites=sums.sites, missing=missing, fallen=fallen)

    def count(self, number: int, form: Form, weights: Weights, asked: Sequence[str]) -> CountedRound:
        """One question, asked in the same way; if no group gives a sum, the reason. Raises: CohortTooSmall, if nobody need be asked."""
        sums = self._sums(self._subject(form.kind, number, weights, asked))
        missing, fallen = _absences(asked, sums)
        if not sums.opened:
            assert sums.error is not None
            return CountedRound(round=number, kind=form.kind, attempt=sums.attempt, missing=missing, failure=sums.error.code)
        steps = total([group.words for group in sums.opened.values()], form.grid)
        return CountedRound(
            round=number, kind=form.kind, attempt=sums.attempt, sites=sums.sites, missing=missing, fallen=fallen, steps=steps
        )

    def _subject(self, kind: Kind, number: int, weights: Weights, asked: Sequence[str]) -> Subject:
        return Subject(kind=kind, round=number, weights=weights, asked=tuple(asked), nodes=self.roll.sites)

    def _sums(self, subject: Subject) -> Sums:
        made = Rooms(plan=self.plan, initial=self.initial, members=self.members, journal=self.journal, workers=self.workers)
        opened: dict[int, GroupSum] = {}
        errors: list[FedwardError] = []
        ended: dict[int, Room] = {}
        tries = Counter[int]()
        goes_on = True
        while goes_on:
            rooms = made.open(subject)
            ended = {group: ended[group] if group in opened else room for group, room in rooms.items()}
            due = [group for group in large_enough(subject, rooms) if group not in opened and tries[group] < ATTEMPTS]
            speaker = self._speaker(rooms[0].terms)
            results = speaker.side_by_side({group: self._sum(rooms[group]) for group in due})
            opened |= {group: result for group, result in results.items() if isinstance(result, GroupSum)}
            failed = {group: error for group, error in results.items() if isinstance(error, FedwardError)}
            tries.update(group for group, error in failed.items() if not self._leave_out(rooms[group], error))
            errors += failed.values()
            speaker.side_by_side({group: self._give_up(rooms[group]) for group in failed})
            goes_on = any(tries[group] < ATTEMPTS for group in failed)
        return Sums(opened=opened, rooms=ended, error=errors[-1] if errors else None)

    def _leave_out(self, room: Room, error: FedwardError) -> bool:
        """Write down whom the attempts to come go without. True if complaints name one more: to try again then costs nobody a training.

        Complaints count where the attempt failed before shares were asked for; what went wrong later did so for another reason.
        """
        due = room.due if self.journal.phases.heard(room.phase(Step.UNMASK)) is None else {}
        found = {**dict.fromkeys(error.accused, ()), **due}
        for site, by in sorted(found.items()):
            if self.recorder:
                self.recorder.left_out(room.inviting, room.group, site, by)
            self.observer.site_heard(room.tag.round, phase_name(room.inviting.kind, Step.MASK), site, code=LEFT_OUT, bytes_up=0)
        known = self.journal.phases.left_out(room.tag.round, room.kind, before=room.tag.attempt)
        self.journal.phases.leave_out(room.tag.round, room.kind, room.tag.attempt, found)
        return bool(due.keys() - known)

    def settle(self, number: int) -> None:
        """Drop the masked vectors, and the sums of rounds whose checkpoints are gone."""
        self.vectors.drop(vectors_to=number, sums_to=number - KEPT)

    # One group, top to bottom.

    def _sum(self, room: Room) -> Talk[GroupSum]:
        """From an invitation to the group's sum. Raises: RoundError, ProtocolError, UpdateError by name."""
        if stored := self._stored(room):
            return stored
        if self.recorder:
            self.recorder.invited(room.inviting, room.group, room.sites)
        trained = yield from self._train(room)
        sharing, cohort = room.inviting.agree(trained.replies, now=trained.at)
        room.note(sharing.rejected)
        members = [member.site_id for member in sharing.members]
        needed = room.terms.threshold(len(members))

        masking, deliveries = sharing.route((yield from self._hear(room, Step.SHARE, dict.fromkeys(members, cohort), needed)))
        room.note(masking.rejected)

        def keep(site: str, reply: wire.SecureReply) -> None:
            if reply.update is None:
                raise MessageFormat(f"site '{site}' sent no vector.")
            masking.check_vector(site, reply.control, reply.update.words.data.cast("B"))
            self.vectors.keep_vector(room.attempt, site, reply.update.words)
            failpoints.reach("coordinator_after_vector")

        masked = yield from self._hear(room, Step.MASK, deliveries, needed, keep)
        self._accuse(room, masking, deliveries)
        confirming, survivors = masking.survive(masked)
        room.note(confirming.rejected)
        confirmed = yield from self._hear(room, Step.CONFIRM, dict.fromkeys(confirming.masked, survivors), needed)
        unmasking, quorum = confirming.quorum(confirmed)
        room.note(unmasking.rejected)
        shares = yield from self._hear(room, Step.UNMASK, dict.fromkeys(confirming.masked, quorum), needed)
        opened = open_sum(unmasking, shares, lambda site: self.vectors.vector(room.attempt, site, room.terms.grid.word))
        room.note(opened.rejected)
        found = GroupSum(words=opened.body, total_weight=opened.total_weight, sites=opened.survivors)
        if self.recorder:
            self.recorder.summed(unmasking, room.group, found, self.vectors)
        return self._store(room, found)

    def _accuse(self, room: Room, masking: protocol.Masking, deliveries: Mapping[str, bytes]) -> None:
        """Who refused to mask, and says that it is for a peer's shares. It matters if this attempt comes to nothing."""
        heard = self.journal.phases.heard(room.phase(Step.MASK))
        said = masking.accusations(heard.complaints if heard else {}, deliveries)
        room.due.update(complaints.judge(said, cohort=len(masking.members) + len(room.left_out)))

    def _give_up(self, room: Room) -> Talk[None]:
        """End an attempt that gave no sum: whoever has not released signs that it never will."""
        trained = self.journal.phases.heard(room.phase(Step.KEYS))
        told = dict.fromkeys(trained.replies if trained else (), protocol.abandon(room.inviting.chair, room.tag))
        yield from self._hear(replace(room, missing={}), Step.ABANDON, told, needed=0)

    # Asking and writing down.

    def _train(self, room: Room) -> Talk[Heard]:
        """The first step: everybody is waited for, and asked once."""
        header = dict.fromkeys(room.sites, room.inviting.header)
        heard = self.journal.phases.heard(room.phase(Step.KEYS))
        if heard is None:
            heard = yield replace(room.question(Step.KEYS, header), model=room.model)
            self._close(room, Step.KEYS, heard)
        self._record(room, Step.KEYS, heard)
        room.note_missing(heard.missing)
        return heard

    def _hear(
        self, room: Room, step: Step, contents: Mapping[str, bytes], needed: int, keep: Keep | None = None
    ) -> Talk[Mapping[str, bytes]]:
        """A later step's replies: from the journal, or asked, again and again if fewer than needed came and may still come."""
        heard = self.journal.phases.heard(room.phase(step))
        if heard is None:
            question = replace(room.question(step, contents), needed=needed, keep=keep)
            began, heard = time.monotonic(), (yield question)
            while (lost := _lost(heard)) and self._is_worth_asking(question, heard, began, needed):
                question = replace(question.of(lost), needed=needed - len(heard.replies), again=question.again + 1)
                more = yield question
                refused = {site: why for site, why in heard.missing.items() if site not in lost}
                heard = Heard(
                    replies={**heard.replies, **more.replies},
                    missing={**refused, **more.missing},
                    at=more.at,
                    complaints={**heard.complaints, **more.complaints},
                )
            self._close(room, step, heard)
        self._record(room, step, heard)
        room.note_missing(heard.missing)
        return heard.replies

    def _is_worth_asking(self, question: Question, heard: Heard, began: float, needed: int) -> bool:
        """Where those who are lost would make the answers enough: once always; with persistence, for as long as it holds this step."""
        if not len(heard.replies) < needed <= len(heard.replies) + len(_lost(heard)):
            return False
        if question.again == 0:
            return True
        if self.persistence is None or time.monotonic() - began >= self.persistence.hold_of(question.step):
            return False
        self.observer.waiting(
            question.round,
            f"{question.phase}: {len(heard.replies)} sites answered, more are needed; asking again: {', '.join(_lost(heard))}.",
        )
        return True

    def _record(self, room: Room, step: Step, heard: Heard) -> None:
        """What a step brought, whether it was heard now or stands in the journal: a crash may have come before the log's line."""
        if self.recorder:
            self.recorder.heard(room.inviting, room.group, step, heard)

    def _close(self, room: Room, step: Step, heard: Heard) -> None:
        """Write down what a step brought."""
        self.journal.phases.hear(room.phase(step), heard)
        failpoints.reach(_HEARD[step])
        phase = phase_name(room.inviting.kind, step)
        self.observer.phase_closed(room.tag.round, phase, answered=len(heard.replies), asked=len(heard.replies) + len(heard.missing))

    def _speaker(self, terms: Terms) -> Speaker:
        return Speaker(
            roll=self.roll,
            gate=self.gate,
            observer=self.observer,
            deadline_s=self.plan.aggregation.deadline_s,
            num_values=terms.num_values,
            grid=terms.grid,
        )

    # Sums.

    def _stored(self, room: Room) -> GroupSum | None:
        opened = self.journal.phases.sum(room.tag.round, room.kind, room.group)
        if opened is None:
            return None
        words = self.vectors.sum(room.tag.round, room.kind, room.group, room.terms.grid.word, opened.sha256)
        if words is None:
            return None
        room.note_missing(opened.missing)
        return GroupSum(words=words, total_weight=opened.weight, sites=opened.sites)

    def _store(self, room: Room, opened: GroupSum) -> GroupSum:
        sha256 = self.vectors.keep_sum(room.tag.round, room.kind, room.group, opened.words)
        failpoints.reach("coordinator_after_sum")
        facts = OpenedSum(
            attempt=room.tag.attempt, weight=opened.total_weight, sites=opened.sites, sha256=sha256, missing=dict(room.missing)
        )
        self.journal.phases.keep_sum(room.tag.round, room.kind, room.group, facts)
        return opened


def _lost(heard: Heard) -> list[str]:
    """Who may answer yet."""
    return [site for site, why in heard.missing.items() if why in (SILENT, FAILED)]


def _explained(error: FedwardError, number: int, missing: tuple[Absence, ...]) -> FedwardError:
    """The same error, with the round and who was missing; another, where sites know more of this run than this coordinator."""
    if any(absence.why in (Equivocation.code, Replay.code) for absence in missing):
        return SecondCoordinator(
            f"round {number}: sites have answered it differently, or are past it: {reasons(missing)}.",
            fix="Another coordinator runs this session, or this run folder is an old copy. Stop the other, or restore the newest copy.",
        )
    return type(error)(
        f"round {number} failed {ATTEMPTS} times: {error.message} ({reasons(missing)})",
        fix="Nothing was summed. Mend those sites and continue with --resume; every committed round is kept.",
    )


def _absences(asked: Sequence[str], sums: Sums) -> tuple[tuple[Absence, ...], tuple[Absence, ...]]:
    """Of those asked: who is in no sum, and who is in one and fell before the end. Of a group that gave no sum, everybody is missing."""
    missing, fallen = dict.fromkeys(asked, UnknownPeer.code), dict[str, str]()
    for group, room in sums.rooms.items():
        counted = sums.opened[group].sites if group in sums.opened else ()
        missing |= dict.fromkeys(room.left_out, LEFT_OUT)
        for site in room.sites:
            why = room.missing.get(site)
            if site not in counted:
                missing[site] = why or CohortTooSmall.code
                continue
            del missing[site]
            if why:
                fallen[site] = why
    return absent(missing), absent(fallen)
