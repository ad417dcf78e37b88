# SPDX-License-Identifier: Apache-2.0
"""From all parties' bundles to what can be said about a run.

    bundles -> parties (each log whole, signed, whose)    common.audit.parties
            -> conduct (each site by itself)              common.audit.conduct
            -> rounds (the logs against each other)       common.audit.rounds
            -> replay (the coordinator's evidence)        common.audit.replay
            -> leaving (who was left out, and why)        common.audit.leaving
            -> heads (what was signed of a log, against the log)
            -> models (from the sums)                     whoever calls this, and knows the strategies

One honest party's bundle is enough to find out two others who rewrote theirs together: it has their heads in its own log, and its signed
keys, which they cannot change, echo them. If all parties rewrite everything together nothing is found, and nothing can be.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.audit import conduct, leaving, replay, rounds
from common.audit.entries import Asked, At, PlanFollowed, SessionBegun
from common.audit.findings import Finding, Findings
from common.audit.parties import Archive, Witness, archive, check_keys, witnesses
from common.audit.replay import Ground, Replayed
from common.audit.rounds import Room, Story
from common.errors import FedwardError
from common.plan import Plan
from common.roster import Roots, Roster
from common.secagg.messages import NO_HEAD
from common.secagg.unmask import AggregateSum
from common.update import Weights

Make = Callable[[Roster, Sequence[AggregateSum]], Weights]
"""From a round's sums, group by group, to the model that comes of it; called for each round in turn."""
Beside = Callable[[Sequence[Witness], Findings], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """What is not agreed on in `common`: a plan's first weights, and how its rounds are applied to them."""

    initial: Callable[[Plan], Weights]
    begin: Callable[[Plan, Weights], Make]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartyVerdict:
    """One log. `lines` were read."""

    name: str
    role: str
    lines: int
    findings: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundVerdict:
    """One group's attempt. `shown` is what was proved of it, from the logs' agreement on; `survivors` are in the sum, if there is one."""

    at: At
    group: int
    invited: int
    survivors: tuple[str, ...]
    shown: tuple[str, ...]
    findings: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found, what was shown, and what could not be looked at."""

    session: str | None
    plan: str | None
    roots: Roots | None
    parties: tuple[PartyVerdict, ...]
    rounds: tuple[RoundVerdict, ...]
    findings: tuple[Finding, ...]
    unchecked: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        return not self.findings


def verify(
    paths: Sequence[Path], arithmetic: Arithmetic, *, roots: Roots | None = None, published: str | None = None, beside: Beside | None = None
) -> Report:
    """Look at everything that these bundles let one look at.

    `published` is the digest of the model that was given out; `beside` looks at what bundles hold that is not of this room.
    """
    found = Findings()
    parties = witnesses(paths, found)
    kept = archive(parties, roots, found)
    for party in parties:
        check_keys(party, kept, found)
        if party.role == "site":
            conduct.check(party, kept.plans, found)
    if beside is not None:
        beside(parties, found)
    session = _session(parties, found)
    if session is None:
        return _report(None, None, kept, parties, (), found)
    story = rounds.story_of(session, parties, kept)
    rounds.check(story, found)
    _check_plans(story, found)
    shown = {key: ["logs"] for key in story.rooms}
    _replay(story, kept, arithmetic, shown, found)
    _check_published(story, kept, published, found)
    verdicts = tuple(_round(key, room, shown[key], found) for key, room in story.rooms.items())
    return _report(session, story, kept, parties, verdicts, found)


def _session(parties: Sequence[Witness], found: Findings) -> str | None:
    """The coordinator's newest; without a coordinator, the one that most sites were asked in."""
    named = [fact.session for party in parties for _, fact in party.facts(SessionBegun)]
    asked = Counter(fact.at.session for party in parties for _, fact in party.facts(Asked))
    session = named[-1] if named else max(asked, key=lambda each: asked[each], default=None)
    if session is None:
        found.skip("any round: no log here speaks of one")
    for other in sorted({*asked, *named} - {session}):
        found.skip(f"session {other[:12]}: it is not the one that is looked at")
    return session


def _check_plans(story: Story, found: Findings) -> None:
    """Every site answers under the plan that the session is about."""
    begun = story.begun
    for site in story.sites:
        followed = ""
        for entry in site.entries:
            match entry.fact:
                case PlanFollowed() as fact:
                    followed = fact.plan
                case Asked() as fact if fact.at.session == story.session and begun and followed != begun.plan:
                    text = f"'{site.name}' followed plan {followed[:12]}; the session is about plan {begun.plan[:12]}."
                    found.add("F_PLAN", site.name, text, line=entry.seq, number=fact.at.round)


def _replay(story: Story, kept: Archive, arithmetic: Arithmetic, shown: dict[tuple[At, int], list[str]], found: Findings) -> None:
    begun = story.begun
    if story.coordinator is None or begun is None:
        return
    plan = kept.plans.get(begun.plan)
    if plan is None:
        found.skip(f"the coordinator's replies and sums: plan {begun.plan[:12]} is in no bundle")
        return
    initial = arithmetic.initial(plan)
    if initial.digest.hex() != begun.model:
        found.add(
            "F_MODEL", "coordinator", f"the run began with model {begun.model[:12]}; the plan's first is {initial.digest.hex()[:12]}."
        )
    ground = Ground(coordinator=story.coordinator, session=story.session, plan=plan, initial=initial, kept=kept)
    sums: dict[int, list[tuple[Room, AggregateSum | None]]] = {}
    for key, room in story.rooms.items():
        before = len(found.items)
        done = replay.replay(ground, room, found)
        if done is not None:
            _check_heads(story, room, done, found)
        if done is not None and len(found.items) == before:
            shown[key].append("replies")
            if done.sum is not None:
                shown[key].append("sum")
        if room.summed and room.invited.at.kind == "UPDATE":
            sums.setdefault(room.invited.at.round, []).append((room, done.sum if done else None))
    leaving.check(ground, story, found)
    _make_models(story, ground, arithmetic.begin(plan, initial), sums, shown, found)


def _check_heads(story: Story, room: Room, done: Replayed, found: Findings) -> None:
    """Where logs stood, as their owners and their peers signed it, against the logs."""
    number, by_name = room.invited.at.round, {site.name: site for site in story.sites}
    for site, head in done.heads.items():
        if head == NO_HEAD:
            found.skip(f"the log of '{site}' before round {number}: it kept none then")
        elif site in by_name:
            line = by_name[site].chain.number(head)
            answered = story.said[site].get((room.invited.tag, "KEYS"))
            if line is None or (answered is not None and line >= answered[0]):
                text = f"round {number}: '{site}' signed that its log ended with line {head.hex()[:12]}, which is not there."
                found.add("F_LOST", site, text, number=number)
    for peer, owner, head in done.echoes:
        if owner in by_name and by_name[owner].chain.number(head) is None:
            text = f"round {number}: '{peer}' echoed line {head.hex()[:12]} of the log of '{owner}', which is not there."
            found.add("F_ECHO", owner, text, number=number)


def _make_models(
    story: Story,
    ground: Ground,
    make: Make,
    sums: dict[int, list[tuple[Room, AggregateSum | None]]],
    shown: dict[tuple[At, int], list[str]],
    found: Findings,
) -> None:
    """Each committed model from the sums and the models before; it ends with the first sum that is not there."""
    for number, done in sorted(story.committed.items()):
        parts = [(room, total) for room, total in sums.get(number, []) if total is not None]
        roster = ground.kept.rosters.get(parts[0][0].invited.roster) if parts else None
        if not parts or len(parts) < len(sums.get(number, [])) or roster is None:
            found.skip(f"that the models from round {number} on follow from the masked updates: these were not kept, or not given")
            return
        try:
            model = make(roster, [total for _, total in sorted(parts, key=lambda each: each[0].invited.group)]).digest.hex()
        except FedwardError as error:
            found.add("F_MODEL", "coordinator", f"round {number}: {error.code}: {error.message}", number=number)
            return
        if model != done.model:
            text = f"round {number}: the masked updates make model {model[:12]}; the log has {done.model[:12]}."
            found.add("F_MODEL", "coordinator", text, number=number)
            return
        for room, _ in parts:
            shown[room.invited.at, room.invited.group].append("model")


def _check_published(story: Story, kept: Archive, published: str | None, found: Findings) -> None:
    if published is None:
        found.skip("the model that was given out: give it with --model")
        return
    last = max(story.committed, default=None)
    if last is None:
        found.skip("the model that was given out: no coordinator's log says which round was the last")
        return
    plan = kept.plans.get(story.begun.plan) if story.begun else None
    made = {number: story.committed[number].model for number in _may_be_given(plan, last) if number in story.committed}
    if published not in made.values():
        listed = ", ".join(f"round {number} made {model[:12]}" for number, model in sorted(made.items())[-3:])
        found.add("F_PUBLISHED", "coordinator", f"the model that was given is {published[:12]}; {listed}.", number=last)
    elif len(made) > 1:
        found.skip("that the model that was given out is the one judged best: the log has digests of the judgements, not what they said")


def _may_be_given(plan: Plan | None, last: int) -> set[int]:
    """The last round, and where the plan gives out the best model, every round whose model was judged."""
    if plan is None or plan.evaluation is None or plan.evaluation.keep == "last":
        return {last}
    return {last, *(number - 1 for number in plan.evaluation_rounds if number - 1 <= last)}


def _round(key: tuple[At, int], room: Room, shown: list[str], found: Findings) -> RoundVerdict:
    at, group = key
    wrong = sum(each.round == at.round for each in found.items)
    survivors = room.summed.survivors if room.summed else ()
    return RoundVerdict(
        at=at,
        group=group,
        invited=len(room.invited.sites),
        survivors=survivors,
        shown=() if wrong else tuple(shown),
        findings=wrong,
    )


def _report(
    session: str | None, story: Story | None, kept: Archive, parties: Sequence[Witness], verdicts: tuple[RoundVerdict, ...], found: Findings
) -> Report:
    about = Counter(name for each in found.items for name in each.party.split(", "))
    begun = story.begun if story else None
    return Report(
        session=session,
        plan=begun.plan if begun else None,
        roots=kept.roots,
        parties=tuple(PartyVerdict(name=each.name, role=each.role, lines=len(each.entries), findings=about[each.name]) for each in parties),
        rounds=verdicts,
        findings=tuple(found.items),
        unchecked=tuple(found.unchecked),
    )
