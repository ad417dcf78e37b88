# SPDX-License-Identifier: Apache-2.0
"""The logs against each other: did everybody see the same rounds?

    site and site           the same requests, cohorts, sharers and survivors in an attempt; each other's heads
    coordinator and site    the same round tag and model; every reply that one has, the other gave; every update in the sum was masked
    round and round         what sites are sent is the model that came of the round before

A site's answer that the coordinator has not heard is no contradiction: answers are lost, and come late. The other way round is one.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from common.agreement import groups_of
from common.audit.conduct import exchanges
from common.audit.entries import (
    Answered,
    Asked,
    At,
    Committed,
    Contradicted,
    Heard,
    Invited,
    Masked,
    Met,
    PlanFollowed,
    Released,
    RosterAdopted,
    Said,
    SessionBegun,
    Summed,
)
from common.audit.findings import Findings
from common.audit.parties import Archive, Witness

_SAME_TO_ALL = ("KEYS", "SHARE", "CONFIRM", "UNMASK", "ABANDON")
"""Steps whose request is the same bytes for a whole group; what peers sealed for each other differs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What the coordinator's log says of one group's attempt. Of what it says twice, after a checkpoint was lost, the last counts."""

    invited: Invited
    heard: Mapping[str, Heard]
    summed: Summed | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """A session as the logs tell it. `said` is by site, then by tag and step; `groups` by site and tag, since groups have one tag."""

    session: str
    coordinator: Witness | None
    sites: Sequence[Witness]
    rooms: Mapping[tuple[At, int], Room]
    said: Mapping[str, Mapping[tuple[str, str], tuple[int, Said]]]
    groups: Mapping[tuple[str, str], int]

    @property
    def committed(self) -> Mapping[int, Committed]:
        facts = self.coordinator.facts(Committed) if self.coordinator else ()
        return {fact.round: fact for _, fact in facts if fact.session == self.session}

    @property
    def begun(self) -> SessionBegun | None:
        facts = self.coordinator.facts(SessionBegun) if self.coordinator else ()
        return next((fact for _, fact in facts if fact.session == self.session), None)


def story_of(session: str, parties: Sequence[Witness], kept: Archive) -> Story:
    """Everything that the logs say of one session."""
    coordinator = next((each for each in parties if each.role == "coordinator"), None)
    sites = [each for each in parties if each.role == "site"]
    said = {
        site.name: {key: (line, fact) for key, (line, fact) in exchanges(site).items() if fact.exchange.at.session == session}
        for site in sites
    }
    rooms = _rooms(session, coordinator) if coordinator else {}
    groups = {(site.name, tag): group for site in sites for tag, group in _groups_of(site, kept).items()}
    return Story(session=session, coordinator=coordinator, sites=sites, rooms=rooms, said=said, groups=groups)


def check(story: Story, found: Findings) -> None:
    """Note every contradiction between two logs."""
    _check_requests(story, found)
    _check_transcripts(story, found)
    _check_meetings(story, found)
    if story.coordinator is None:
        found.skip("what the coordinator heard, summed and published: its bundle was not given")
        return
    _check_tags(story, found)
    for room in story.rooms.values():
        _check_replies(story, room, found)
        _check_sum(story, room, found)
    _check_models(story, found)


def _rooms(session: str, coordinator: Witness) -> dict[tuple[At, int], Room]:
    invited = {(fact.at, fact.group): fact for _, fact in coordinator.facts(Invited) if fact.at.session == session}
    heard: dict[tuple[At, int], dict[str, Heard]] = defaultdict(dict)
    for _, step in coordinator.facts(Heard):
        heard[step.at, step.group][step.step] = step
    summed = {(fact.at, fact.group): fact for _, fact in coordinator.facts(Summed)}
    return {key: Room(invited=fact, heard=heard[key], summed=summed.get(key)) for key, fact in sorted(invited.items(), key=_in_order)}


def _in_order(item: tuple[tuple[At, int], Invited]) -> tuple[int, str, int, int]:
    (at, group), _ = item
    return at.round, at.kind, at.attempt, group


def _groups_of(site: Witness, kept: Archive) -> dict[str, int]:
    """By tag, the group that the site was in, as plan and roster in force had it."""
    plan, roster, groups = "", "", dict[str, int]()
    for entry in site.entries:
        match entry.fact:
            case PlanFollowed() as fact:
                plan = fact.plan
            case RosterAdopted() as fact:
                roster = fact.roster
            case Answered() as fact if fact.step == "KEYS" and plan in kept.plans and roster in kept.rosters:
                members = groups_of(kept.plans[plan], kept.rosters[roster])
                groups[fact.exchange.tag] = next((number for number, group in enumerate(members) if site.name in group), 0)
    return groups


def _by_attempt(story: Story) -> Iterator[tuple[tuple[str, str, int], dict[str, tuple[int, Said]]]]:
    """For each tag, step and group, who said what."""
    found: dict[tuple[str, str, int], dict[str, tuple[int, Said]]] = defaultdict(dict)
    for site, said in story.said.items():
        for (tag, step), each in said.items():
            found[tag, step, story.groups.get((site, tag), 0)][site] = each
    yield from found.items()


def _check_requests(story: Story, found: Findings) -> None:
    for (_, step, _), said in _by_attempt(story):
        requests = {fact.exchange.request for _, fact in said.values()}
        if step in _SAME_TO_ALL and len(requests) > 1:
            at = next(iter(said.values()))[1].exchange.at
            names = ", ".join(sorted(said))
            found.add("F_SPLIT", "coordinator", f"round {at.round}: {step} was asked in {len(requests)} ways of {names}.", number=at.round)


def _check_transcripts(story: Story, found: Findings) -> None:
    summed = {(room.summed.tag, room.summed.group): room.summed.transcript for room in story.rooms.values() if room.summed}
    for (tag, step, group), said in _by_attempt(story):
        told = {site: fact.transcript for site, (_, fact) in said.items() if isinstance(fact, Answered | Masked | Released)}
        if step in ("CONFIRM", "UNMASK") and (tag, group) in summed:
            told["coordinator"] = summed[tag, group]
        if len(set(told.values())) > 1:
            at = next(iter(said.values()))[1].exchange.at
            names = ", ".join(sorted(told))
            text = f"round {at.round}, {step}: {names} do not speak of the same {_subject(step)}."
            found.add("F_TRANSCRIPT", names, text, number=at.round)


def _check_meetings(story: Story, found: Findings) -> None:
    """Every head that a site wrote down of a peer must be a line of that peer's log, from before it answered KEYS in that attempt."""
    by_name = {site.name: site for site in story.sites}
    for site in story.sites:
        for line, denied in site.facts(Contradicted):
            text = f"'{denied.peer}' remembers line {denied.head[:12]} of the log of '{site.name}', which has none such."
            found.add("F_ECHO", site.name, text, line=line)
        for _, met in site.facts(Met):
            for peer, head in met.heads if met.at.session == story.session else ():
                if peer in by_name and not _had(story, by_name[peer], bytes.fromhex(head), met.tag):
                    text = f"round {met.at.round}: '{site.name}' was shown line {head[:12]} of the log of '{peer}', which has none such."
                    found.add("F_ECHO", peer, text, number=met.at.round)


def _had(story: Story, peer: Witness, head: bytes, tag: str) -> bool:
    number = peer.chain.number(head)
    answered = story.said[peer.name].get((tag, "KEYS"))
    return number is not None and (answered is None or number < answered[0])


def _check_tags(story: Story, found: Findings) -> None:
    assert story.coordinator is not None
    tags: dict[str, tuple[At, str]] = {}
    sites: dict[str, set[str]] = defaultdict(set)
    for _, fact in story.coordinator.facts(Invited):  # a coordinator that was started again may have asked more sites in an attempt
        tags[fact.tag] = fact.at, fact.model
        sites[fact.tag].update(fact.sites)
    for site in story.sites:
        for line, asked in site.facts(Asked):
            if asked.at.session != story.session:
                continue
            at = asked.at
            if tags.get(asked.tag) != (at, asked.model) or site.name not in sites[asked.tag]:
                text = f"'{site.name}' was asked for round {at.round}, attempt {at.attempt}; the coordinator's log has it otherwise."
                found.add("F_ROUND", site.name, text, line=line, number=asked.at.round)


def _check_replies(story: Story, room: Room, found: Findings) -> None:
    at, tag = room.invited.at, room.invited.tag
    for step, heard in room.heard.items():
        for site, reply in heard.replies:
            if site not in story.said:
                found.skip(f"what '{site}' says of its rounds: its bundle was not given")
                continue
            said = story.said[site].get((tag, step))
            if said is None or said[1].exchange.reply != reply:
                what = "has no such answer" if said is None else "has another answer"
                text = f"round {at.round}: the coordinator has a reply of '{site}' to {step}, and the log of '{site}' {what}."
                found.add("F_REPLY", site, text, number=at.round)


def _check_sum(story: Story, room: Room, found: Findings) -> None:
    if room.summed is None:
        return
    at = room.invited.at
    for site, vector in room.summed.vectors:
        said = story.said.get(site, {}).get((room.invited.tag, "MASK"))
        if site in story.said and (said is None or not isinstance(said[1], Masked) or said[1].vector != vector):
            text = f"round {at.round}: the update of '{site}' in the sum is not the one that '{site}' masked."
            found.add("F_VECTOR", site, text, number=at.round)


def _check_models(story: Story, found: Findings) -> None:
    """Each round is about the model that the round before made."""
    begun, committed = story.begun, story.committed
    for room in story.rooms.values():
        number = room.invited.at.round
        before = committed[number - 1].model if number - 1 in committed else begun.model if number == 1 and begun else "nothing"
        if room.invited.model != before:
            text = f"round {number} was about model {room.invited.model[:12]}; the round before made {before[:12]}."
            found.add("F_MODEL", "coordinator", text, number=number)
    for number in sorted({room.invited.at.round for room in story.rooms.values() if room.summed and _is_update(room)} - {*committed}):
        found.skip(f"round {number}: it was summed and not committed; a run that was stopped looks like that")
    for number, done in committed.items():
        sums = [room.summed for room in story.rooms.values() if room.summed and _is_update(room) and room.summed.at.round == number]
        survivors = {site for each in sums for site in each.survivors}
        if set(done.sites) != survivors:
            text = f"round {number} was committed for {len(done.sites)} sites; the sums are over {len(survivors)}, not all the same."
            found.add("F_ROUND", "coordinator", text, number=number)


def _is_update(room: Room) -> bool:
    return room.invited.at.kind == "UPDATE"


def _subject(step: str) -> str:
    return {"SHARE": "cohort", "MASK": "sharers", "CONFIRM": "survivors", "UNMASK": "survivors"}.get(step, "round")
