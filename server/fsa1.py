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

Enrolled sites beyond the plan's max_group are several groups, each a protocol of its own with its own attempts, side by side
(`server.talks`). A group that fails twice is missing from the round, and the round fails when no group is left.

Counts of patients (common.counting) are summed by the same steps, "train" being to count; a statistic comes without a model.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from common import failpoints, wire
from common.agreement import grid_of, groups_of, terms_beside, terms_of
from common.counting import Form
from common.credentials import Credentials
from common.errors import CohortTooSmall, FedwardError, MessageFormat, UnknownPeer
from common.plan import Plan
from common.secagg import coordinator as protocol
from common.secagg.coordinator import Inviting, Rejected
from common.secagg.messages import RoundTag, Signed, Step
from common.secagg.terms import Chair, Kind, Terms
from common.secagg.unmask import open_sum
from common.update import Vector, Weights
from server.absences import Absence
from server.aggregation import ATTEMPTS, FAILED, SILENT, Collected, Observer, absent, reasons
from server.audit import Recorder
from server.checkpoint import KEPT
from server.combine import GroupSum, combine, total
from server.counts import CountedRound
from server.exchange import Line
from server.journal import Journal
from server.phases import Heard, OpenedSum, Phase
from server.talks import Keep, Question, Speaker, Talk, phase_name
from server.vectors import Attempt, VectorFolder

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
class Room:
    """One group in one attempt: what it is invited to, who of it is asked, who has not answered to the end and why."""

    group: int
    inviting: Inviting
    model: Vector | None
    nodes: Mapping[str, int]
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def tag(self) -> RoundTag:
        return self.inviting.tag

    @property
    def terms(self) -> Terms:
        return self.inviting.chair.terms

    @property
    def kind(self) -> str:
        return self.inviting.kind.name

    @property
    def attempt(self) -> Attempt:
        return Attempt(round=self.tag.round, kind=self.kind, attempt=self.tag.attempt)

    def phase(self, step: Step) -> Phase:
        return Phase(round=self.tag.round, kind=self.kind, group=self.group, attempt=self.tag.attempt, step=step.name)

    def question(self, step: Step, contents: Mapping[str, bytes]) -> Question:
        return Question(round=self.tag.round, step=step, contents=contents, nodes=self.nodes, kind=self.inviting.kind)

    def note(self, rejected: Iterable[Rejected]) -> None:
        """Replies that were laid aside."""
        self.note_missing({one.site_id: one.reason.code for one in rejected})

    def note_missing(self, found: Mapping[str, str]) -> None:
        """The first reason stays: what a site says to later steps only follows from it."""
        for site, why in found.items():
            self.missing.setdefault(site, why)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is summed, in which round, and the model that the round is about."""

    kind: Kind
    round: int
    weights: Weights


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

    line: Line
    plan: Plan
    initial: Weights
    credentials: Credentials
    journal: Journal
    vectors: VectorFolder
    observer: Observer
    workers: int = 1
    recorder: Recorder | None = None

    def collect(self, number: int, weights: Weights, nodes: Mapping[str, int]) -> Collected:
        """One round; every group in it is tried twice. Raises: what the last group failed with, by name."""
        sums = self._sums(Subject(kind=Kind.UPDATE, round=number, weights=weights), nodes)
        missing, fallen = _absences(nodes, sums)
        if not sums.opened:
            assert sums.error is not None
            raise _explained(sums.error, number, missing)
        grid = grid_of(self.plan, self.credentials.roster)
        aggregate = combine([sums.opened[group] for group in sorted(sums.opened)], grid, self.plan.aggregation)
        return Collected(aggregate=aggregate, attempt=sums.attempt, sites=sums.sites, missing=missing, fallen=fallen)

    def count(self, number: int, form: Form, weights: Weights, nodes: Mapping[str, int]) -> CountedRound:
        """One question, asked in the same way; if no group gives a sum, the reason. Raises: CohortTooSmall, if nobody need be asked."""
        sums = self._sums(Subject(kind=form.kind, round=number, weights=weights), nodes)
        missing, fallen = _absences(nodes, sums)
        if not sums.opened:
            assert sums.error is not None
            return CountedRound(round=number, kind=form.kind, attempt=sums.attempt, missing=missing, failure=sums.error.code)
        steps = total([group.words for group in sums.opened.values()], form.grid)
        return CountedRound(
            round=number, kind=form.kind, attempt=sums.attempt, sites=sums.sites, missing=missing, fallen=fallen, steps=steps
        )

    def _sums(self, subject: Subject, nodes: Mapping[str, int]) -> Sums:
        opened: dict[int, GroupSum] = {}
        errors: list[FedwardError] = []
        waiting, ended = self._large_enough(subject, nodes)
        speaker = self._speaker(ended[0].terms)
        for _ in range(ATTEMPTS):
            rooms = {group: self._room(subject, group, nodes) for group in waiting}
            results = speaker.side_by_side({group: self._sum(room) for group, room in rooms.items()})
            opened |= {group: result for group, result in results.items() if isinstance(result, GroupSum)}
            errors += [result for result in results.values() if isinstance(result, FedwardError)]
            ended |= rooms
            waiting = [group for group in waiting if group not in opened]
            speaker.side_by_side({group: self._give_up(rooms[group]) for group in waiting})
        return Sums(opened=opened, rooms=ended, error=errors[-1] if errors else None)

    def _large_enough(self, subject: Subject, nodes: Mapping[str, int]) -> tuple[list[int], dict[int, Room]]:
        """Which groups can give a sum at all, and a room for each group. Raises: CohortTooSmall, if none can."""
        count = len(groups_of(self.plan, self.credentials.roster))
        rooms = {group: self._room(subject, group, nodes) for group in range(count)}
        large = [group for group, room in rooms.items() if len(room.nodes) >= room.terms.smallest_cohort]
        if not large:
            largest = max(len(room.nodes) for room in rooms.values())
            raise CohortTooSmall(
                f"in round {subject.round} {len(nodes)} sites are asked, in groups of at most {largest}; "
                f"a sum needs {rooms[0].terms.smallest_cohort} to hide one of them.",
                fix="Let more sites take part, or enlarge max_group.",
            )
        return large, rooms

    def settle(self, number: int) -> None:
        """Drop the masked vectors, and the sums of rounds whose checkpoints are gone."""
        self.vectors.drop(vectors_to=number, sums_to=number - KEPT)

    # One group, top to bottom.

    def _sum(self, room: Room) -> Talk[GroupSum]:
        """From an invitation to the group's sum. Raises: RoundError, ProtocolError, UpdateError by name."""
        if stored := self._stored(room):
            return stored
        if self.recorder:
            self.recorder.invited(room.inviting, room.group, tuple(room.nodes))
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

        confirming, survivors = masking.survive((yield from self._hear(room, Step.MASK, deliveries, needed, keep)))
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

    def _give_up(self, room: Room) -> Talk[None]:
        """End an attempt that gave no sum: whoever has not released signs that it never will."""
        trained = self.journal.phases.heard(room.phase(Step.KEYS))
        told = dict.fromkeys(trained.replies if trained else (), protocol.abandon(room.inviting.chair, room.tag))
        yield from self._hear(replace(room, missing={}), Step.ABANDON, told, needed=0)

    # Asking and writing down.

    def _train(self, room: Room) -> Talk[Heard]:
        """The first step: everybody is waited for, and asked once."""
        header = dict.fromkeys(room.nodes, room.inviting.header)
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
        """A later step's replies: from the journal, or asked, twice if fewer than needed came."""
        heard = self.journal.phases.heard(room.phase(step))
        if heard is None:
            question = replace(room.question(step, contents), needed=needed, keep=keep)
            heard = yield question
            lost = [site for site, why in heard.missing.items() if why in (SILENT, FAILED)]
            if lost and len(heard.replies) < needed:
                again = yield replace(question.of(lost), needed=needed - len(heard.replies))
                refused = {site: why for site, why in heard.missing.items() if site not in lost}
                heard = Heard(replies={**heard.replies, **again.replies}, missing={**refused, **again.missing}, at=again.at)
            self._close(room, step, heard)
        self._record(room, step, heard)
        room.note_missing(heard.missing)
        return heard.replies

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
            line=self.line,
            observer=self.observer,
            deadline_s=self.plan.aggregation.deadline_s,
            num_values=terms.num_values,
            grid=terms.grid,
        )

    # Rooms and sums.

    def _room(self, subject: Subject, group: int, nodes: Mapping[str, int]) -> Room:
        """A group in the attempt that is due: the one after the last that was given up."""
        roster = self.credentials.roster
        members = groups_of(self.plan, roster)[group]
        terms = self._terms(subject.kind, members)
        chair = Chair(signer=self.credentials.signer, terms=terms, roster=roster, workers=self.workers)
        attempt = self.journal.phases.times_closed(subject.round, subject.kind.name, group, Step.ABANDON.name)
        tag = RoundTag(
            version=terms.version,
            ring_bits=terms.grid.ring_bits,
            plan=terms.plan,
            roster=roster.digest,
            session=self.journal.session,
            round=subject.round,
            attempt=attempt,
            model=subject.weights.digest,
            layout=terms.layout,
        )
        inviting = Inviting(chair=chair, tag=tag, abandons=self._abandons(chair, tag, group))
        model = subject.weights.values if subject.kind.has_model else None
        return Room(group=group, inviting=inviting, model=model, nodes={site: node for site, node in nodes.items() if site in members})

    def _terms(self, kind: Kind, members: frozenset[str]) -> Terms:
        updates = terms_of(self.plan, self.initial, self.credentials.roster, members)
        return next(terms for terms in (updates, *terms_beside(updates, self.plan)) if terms.kind is kind)

    def _abandons(self, chair: Chair, tag: RoundTag, group: int) -> tuple[Signed, ...]:
        """Signatures that give the attempt before this one up."""
        if tag.attempt == 0:
            return ()
        before = replace(tag, attempt=tag.attempt - 1)
        given_up = Phase(round=tag.round, kind=chair.terms.kind.name, group=group, attempt=before.attempt, step=Step.ABANDON.name)
        heard = self.journal.phases.heard(given_up)
        return protocol.abandons(chair, before, heard.replies) if heard else ()

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


def _explained(error: FedwardError, number: int, missing: tuple[Absence, ...]) -> FedwardError:
    """The same error, with the round and who was missing."""
    return type(error)(
        f"round {number} failed {ATTEMPTS} times: {error.message} ({reasons(missing)})",
        fix="Nothing was summed. Mend those sites and continue with --resume; every committed round is kept.",
    )


def _absences(nodes: Mapping[str, int], sums: Sums) -> tuple[tuple[Absence, ...], tuple[Absence, ...]]:
    """Of those asked: who is in no sum, and who is in one and fell before the end. Of a group that gave no sum, everybody is missing."""
    missing, fallen = dict.fromkeys(nodes, UnknownPeer.code), dict[str, str]()
    for group, room in sums.rooms.items():
        counted = sums.opened[group].sites if group in sums.opened else ()
        for site in room.nodes:
            why = room.missing.get(site)
            if site not in counted:
                missing[site] = why or CohortTooSmall.code
                continue
            del missing[site]
            if why:
                fallen[site] = why
    return absent(missing), absent(fallen)
