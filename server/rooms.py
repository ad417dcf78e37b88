# SPDX-License-Identifier: Apache-2.0
"""Who sums what with whom: each group of an attempt in a room of its own, under the roster that the sum was opened with.

A round is opened under the roster that is in force then (`server.openings`). What is half done is finished under that roster, whatever
has been issued meanwhile: whoever has trained is not made to train again. As soon as an attempt has been given up, or nobody has been
heard in it yet, the next one follows the roster that is due (`server.membership.consortium`). So a revoked site is out of the next round at
the latest, and nothing is restarted. Signatures that gave an attempt up are shown to the next one across that change.

The coordinator signs for one roster's key. Where a newer roster names another, what was begun under the old key cannot be finished.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from common import roster
from common.agreement import groups_of, terms_beside, terms_of
from common.credentials import Credentials
from common.errors import CohortTooSmall
from common.plan import Plan
from common.roster import Roster
from common.secagg import coordinator as protocol
from common.secagg.coordinator import Inviting, Rejected
from common.secagg.messages import RoundTag, Signed, Step
from common.secagg.terms import Chair, Kind, Terms
from common.update import Vector, Weights
from server.journal import Journal
from server.membership.consortium import Consortium
from server.openings import Opening
from server.phases import Phase
from server.transport.talks import Question
from server.vectors import Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """One group in one attempt: what it is invited to, who of it is asked, who has not answered to the end and why.

    `nodes` says where everybody can be reached now, also those of no room; `sites` are asked to train. `left_out` would be among them but
    for an earlier attempt; `due` are those whom the next one is to go without, if this one fails, each with whose word stands against it.
    """

    group: int
    inviting: Inviting
    model: Vector | None
    sites: tuple[str, ...]
    nodes: Mapping[str, int]
    left_out: tuple[str, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)
    due: dict[str, tuple[str, ...]] = field(default_factory=dict)

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
    """What is summed, in which round, and the model that the round is about; who is asked, and where everybody is."""

    kind: Kind
    round: int
    weights: Weights
    asked: tuple[str, ...]
    nodes: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """Where they are made."""

    plan: Plan
    initial: Weights
    members: Consortium
    journal: Journal
    workers: int

    def open(self, subject: Subject) -> dict[int, Room]:
        """A room for each group, in the attempt that is due. Raises: RosterError; RosterChanged for a roster that goes back."""
        mine = self.members.read()
        sitting = _Sitting(subject=subject, mine=mine, openings=self._openings(subject, mine))
        opening, made = sitting.openings[-1], {}
        for group, members in enumerate(groups_of(self.plan, opening.roster)):
            chair = self._chair(sitting, opening.roster, members)
            tag = self._tag(subject, chair, self._attempt(subject, opening, group))
            out = self._left_out(chair, tag)
            made[group] = Room(
                group=group,
                inviting=Inviting(chair=chair, tag=tag, abandons=self._abandons(sitting, chair, tag, group)),
                model=subject.weights.values if subject.kind.has_model else None,
                sites=tuple(site for site in subject.asked if site in members - out),
                nodes=subject.nodes,
                left_out=tuple(site for site in subject.asked if site in members & out),
            )
        return made

    def _left_out(self, chair: Chair, tag: RoundTag) -> frozenset[str]:
        """Whom this attempt goes without, because of what was found in those before it."""
        return chair.terms.does_without(self.journal.phases.left_out(tag.round, chair.terms.kind.name, before=tag.attempt))

    def _openings(self, subject: Subject, mine: Credentials) -> tuple[Opening, ...]:
        """All of a sum's, the one in force last; opens one where that is due."""
        number, kind = subject.round, subject.kind.name
        known = self.journal.openings.of(number, kind)
        if known and known[-1].roster.coordinator == mine.signer.public and self._is_half_done(subject, known[-1]):
            return known
        found = self._in_force(mine.roster)
        if known and known[-1].roster.digest == found.digest:
            return known
        first = 1 + max(self._attempt(subject, known[-1], group) for group in self._groups(known[-1])) if known else 0
        opening = Opening(roster=found, first_attempt=first)
        self.journal.openings.open(number, kind, opening)
        self.members.adopt(found)
        return (*known, opening)

    def _in_force(self, newest: Roster) -> Roster:
        """The roster for what is opened now. Raises: RosterChanged for one that goes back."""
        held = self.journal.openings.newest()
        roster.check_successor(newest, held=held)
        return newest if held is None or self.members.is_due(newest, held) else held

    def _is_half_done(self, subject: Subject, opening: Opening) -> bool:
        """Whether a group has its sum, or somebody has been heard in an attempt that was not given up."""
        number, kind = subject.round, subject.kind.name
        return any(
            self.journal.phases.sum(number, kind, group) is not None
            or self.journal.phases.heard(Phase(round=number, kind=kind, group=group, attempt=attempt, step=Step.KEYS.name)) is not None
            for group in self._groups(opening)
            for attempt in (self._attempt(subject, opening, group),)
        )

    def _groups(self, opening: Opening) -> range:
        return range(len(groups_of(self.plan, opening.roster)))

    def _attempt(self, subject: Subject, opening: Opening, group: int) -> int:
        """The one after the last that was given up."""
        first = opening.first_attempt
        return first + self.journal.phases.times_closed(subject.round, subject.kind.name, group, Step.ABANDON.name, since=first)

    def _chair(self, sitting: "_Sitting", found: Roster, members: frozenset[str]) -> Chair:
        updates = terms_of(self.plan, self.initial, found, members)
        terms = next(terms for terms in (updates, *terms_beside(updates, self.plan)) if terms.kind is sitting.subject.kind)
        return Chair(signer=sitting.mine.signer, terms=terms, roster=found, workers=self.workers)

    def _tag(self, subject: Subject, chair: Chair, attempt: int) -> RoundTag:
        terms = chair.terms
        return RoundTag(
            version=terms.version,
            ring_bits=terms.grid.ring_bits,
            plan=terms.plan,
            roster=chair.roster.digest,
            session=self.journal.session,
            round=subject.round,
            attempt=attempt,
            model=subject.weights.digest,
            layout=terms.layout,
        )

    def _abandons(self, sitting: "_Sitting", chair: Chair, tag: RoundTag, group: int) -> tuple[Signed, ...]:
        """Signatures that give the attempt before this one up; of all groups that its sites were in, if that was under another roster."""
        subject, (*earlier, opening) = sitting.subject, sitting.openings
        if tag.attempt > opening.first_attempt:
            return self._given_up(chair, replace(tag, attempt=tag.attempt - 1), group)
        found: list[Signed] = []
        for number, members in enumerate(groups_of(self.plan, earlier[-1].roster)) if earlier else ():
            last = self._attempt(subject, earlier[-1], number) - 1
            if last >= 0 and members & chair.terms.members:
                before = self._chair(sitting, earlier[-1].roster, members)
                found += self._given_up(before, self._tag(subject, before, last), number)
        return tuple(found)

    def _given_up(self, chair: Chair, tag: RoundTag, group: int) -> tuple[Signed, ...]:
        phase = Phase(round=tag.round, kind=chair.terms.kind.name, group=group, attempt=tag.attempt, step=Step.ABANDON.name)
        heard = self.journal.phases.heard(phase)
        return protocol.abandons(chair, tag, heard.replies) if heard else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sitting:
    """A sum, the coordinator's credentials now, and what the sum was opened under, in order."""

    subject: Subject
    mine: Credentials
    openings: tuple[Opening, ...]


def large_enough(subject: Subject, rooms: Mapping[int, Room]) -> list[int]:
    """The groups that can give a sum at all. Raises: CohortTooSmall, if none can."""
    large = [group for group, room in rooms.items() if len(room.sites) >= room.terms.smallest_cohort]
    if not large:
        largest = max((len(room.sites) for room in rooms.values()), default=0)
        needed = next(iter(rooms.values())).terms.smallest_cohort
        out = sorted(site for room in rooms.values() for site in room.left_out)
        without = f" without {', '.join(out)}, whose shares or complaints did not hold" if out else ""
        raise CohortTooSmall(
            f"in round {subject.round} {len(subject.asked)} sites are asked, in groups of at most {largest}{without}; "
            f"a sum needs {needed} to hide one of them.",
            fix="Let more sites take part, or enlarge max_group.",
        )
    return large
