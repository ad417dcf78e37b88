# SPDX-License-Identifier: Apache-2.0
"""Who was left out, once more: from the complaints and shares that the coordinator kept, whether the rest of a round had to go without it.

    EXCLUDE with accusers   their complaints, signed, each of what its accused signed to have sealed -> `common.secagg.complaints.judge`
    EXCLUDE without         the opened shares, signed: of no set of them comes a secret that the accused committed to

A coordinator that leaves out whom it likes would weigh a cohort towards those it likes. It can make up neither.
"""

from collections.abc import Iterator

from common.audit import evidence
from common.audit.entries import Invited, LeftOut
from common.audit.evidence import Replies
from common.audit.findings import Findings
from common.audit.replay import Ground, inviting_of, replies_of
from common.audit.rounds import Room, Story
from common.errors import BundleFormat, FedwardError
from common.secagg import complaints
from common.secagg.coordinator import Masking
from common.secagg.unmask import accused_by


def check(ground: Ground, story: Story, found: Findings) -> None:
    """Note every site that was left out on a word that nobody gave."""
    for fact, before in _left_out(ground, story):
        room = story.rooms.get((fact.at, fact.group))
        number = fact.at.round
        try:
            if room is None:
                raise BundleFormat(f"attempt {fact.at.attempt} is in no line before.")
            due = _due(ground, room, before)
        except FedwardError as error:
            text = f"round {number}: '{fact.site}' was left out; why does not follow: {error.code}: {error.message}"
            found.add("F_EVIDENCE", "coordinator", text, number=number)
            continue
        if due is not None and due.get(fact.site) != fact.accusers:
            word = f"on the word of {', '.join(fact.accusers)}" if fact.accusers else "because of its shares"
            text = f"round {number}: '{fact.site}' was left out {word}; what was kept of attempt {fact.at.attempt} does not say so."
            found.add("F_EVIDENCE", "coordinator", text, number=number)
        elif due is None:
            found.skip(f"whether '{fact.site}' had to be left out of round {number}: its roster is in no bundle")


def _left_out(ground: Ground, story: Story) -> Iterator[tuple[LeftOut, frozenset[str]]]:
    """Each line about this session, with whom earlier attempts at the same sum had left out. Of what is told twice, the last counts."""
    told: dict[tuple[int, str], list[LeftOut]] = {}
    for entry in ground.coordinator.entries:
        fact = entry.fact
        if isinstance(fact, Invited) and fact.at.session == story.session:
            mine = told.setdefault((fact.at.round, fact.at.kind), [])
            mine[:] = [each for each in mine if (each.at, each.group) != (fact.at, fact.group)]
        elif isinstance(fact, LeftOut) and fact.at.session == story.session:
            told.setdefault((fact.at.round, fact.at.kind), []).append(fact)
    for facts in told.values():
        for fact in facts:
            yield fact, frozenset(each.site for each in facts if each.at.attempt < fact.at.attempt)


def _due(ground: Ground, room: Room, before: frozenset[str]) -> dict[str, tuple[str, ...]] | None:
    """Whom the attempt after this one goes without; None, if that cannot be said. Raises: FedwardError."""
    inviting = inviting_of(ground, room.invited)
    if inviting is None:
        return None
    keys = _replies(ground, room, "KEYS")
    sharing, _ = inviting.agree(keys.by_site, now=keys.closed)
    masking, deliveries = sharing.route(_replies(ground, room, "SHARE").by_site)
    if "UNMASK" in room.heard:
        return dict.fromkeys(_of_no_secret(ground, room, masking), ())
    said = masking.accusations(_complaints(ground, room), deliveries)
    return complaints.judge(said, cohort=len(masking.members) + len(inviting.chair.terms.does_without(before)))


def _of_no_secret(ground: Ground, room: Room, masking: Masking) -> tuple[str, ...]:
    confirming, _ = masking.survive(_replies(ground, room, "MASK").by_site)
    unmasking, _ = confirming.quorum(_replies(ground, room, "CONFIRM").by_site)
    return accused_by(unmasking, _replies(ground, room, "UNMASK").by_site)


def _replies(ground: Ground, room: Room, step: str) -> Replies:
    if step not in room.heard:
        raise BundleFormat(f"the log has no {step}.")
    return replies_of(ground.bundle, room, step)


def _complaints(ground: Ground, room: Room) -> dict[str, bytes]:
    name = f"{evidence.FOLDER}/{evidence.complaints_name(room.invited.at, room.invited.group)}"
    return evidence.read_replies(ground.bundle.read(name)).by_site if ground.bundle.has(name) else {}
