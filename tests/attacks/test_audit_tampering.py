# SPDX-License-Identifier: Apache-2.0
"""Histories that were changed afterwards, by strangers and by insiders: each is found, and one honest log is enough for it."""

import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.audit import evidence
from common.audit.bundle import MANIFEST, Bundle
from common.audit.entries import (
    Abandoned,
    Answered,
    Asked,
    Committed,
    Contradicted,
    Fact,
    Heard,
    Invited,
    Masked,
    Met,
    PlanFollowed,
    Released,
    Reserved,
    RosterAdopted,
    Started,
    Summed,
)
from common.audit.findings import Findings
from common.audit.log import LOG_FILE
from common.audit.parties import archive, witnesses
from common.audit.replay import Ground, inviting_of, replies_of
from common.audit.rounds import story_of
from common.errors import AggregateNorm
from common.models import initial_weights, layout_of_plan
from common.plan import parse
from common.secagg import codec, messages, shamir, stages
from common.secagg import keys as agreement
from common.secagg.masks import Mask, apply
from common.secagg.messages import Keys, RoundTag, Step, Up
from common.secagg.unmask import check_norm
from common.spelling import digest
from tests.attacks.forgers import COORDINATOR, FELL, ROUNDS, Bundles, codes, judged, run_and_export, with_reply

THIEF = "site_01"
EDITS = 1000


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    return run_and_export(tmp_path_factory.mktemp("audit"))


@pytest.fixture
def bundles(honest: Bundles, tmp_path: Path) -> Bundles:
    return honest.copied(tmp_path / "bundles")


def test_an_honest_run_is_found_to_be_one(honest: Bundles) -> None:
    """The control for everything below: nothing is found, and everything is shown, of the round with a site that fell too."""
    report = judged(honest.paths)
    assert report.is_clean, report.findings
    assert [each.shown for each in report.rounds] == [("logs", "replies", "sum", "model")] * ROUNDS
    assert [FELL in each.survivors for each in report.rounds] == [True, False, True]
    assert report.unchecked == ("the model that was given out: give it with --model",)


# Strangers: whoever can edit a file.


def test_a_thousand_single_bytes_are_each_found(honest: Bundles, tmp_path: Path) -> None:
    """Any byte of any file of any bundle: logs, manifests, keys, plans, rosters, replies, masked updates, ledgers.

    Already where bundles are opened, before anything that they say is compared.
    """
    rng = random.Random(7)
    work = honest.copied(tmp_path / "edited")
    files = sorted(path for path in work.folder.rglob("*") if path.is_file())
    assert not any(seen(path) for path in work.paths)
    for _ in range(EDITS):
        path = rng.choice(files)
        before = path.read_bytes()
        at = rng.randrange(len(before))
        path.write_bytes(before[:at] + bytes([before[at] ^ rng.randrange(1, 256)]) + before[at + 1 :])
        assert seen(work.folder / path.relative_to(work.folder).parts[0]), (path, at)
        path.write_bytes(before)
    assert not codes(work.paths), "the edits were taken back"


def seen(bundle: Path) -> set[str]:
    found = Findings()
    witnesses([bundle], found)
    return {each.code for each in found.items}


@pytest.mark.parametrize("how", ["deleted", "doubled", "swapped", "cut off", "from another log", "invented"])
def test_lines_that_come_and_go_are_found(bundles: Bundles, how: str) -> None:
    """Everywhere in every log; the manifest is left as it was, or made to fit, for which a stranger has no key."""
    for name in [path.name for path in bundles.paths]:
        log = bundles.folder / name / LOG_FILE
        other = (bundles.folder / ("site_03" if name != "site_03" else "site_04") / LOG_FILE).read_bytes().splitlines(keepends=True)
        before = log.read_bytes()
        lines = before.splitlines(keepends=True)
        for number in range(1, len(lines) - 1, 3):
            changed = list(lines)
            match how:
                case "deleted":
                    del changed[number]
                case "doubled":
                    changed.insert(number, lines[number])
                case "swapped":
                    changed[number : number + 2] = changed[number : number + 2][::-1]
                case "cut off":
                    del changed[number:]
                case "from another log":
                    changed[number] = other[number]
                case "invented":
                    changed.insert(number, lines[number].replace(b'"seq":', b'"seq":1'))
            log.write_bytes(b"".join(changed))
            assert "F_BUNDLE" in seen(log.parent), (name, number)
        log.write_bytes(before)


# Insiders: whoever holds a party's key and writes its history anew.


def changed(fact: Fact, rng: random.Random) -> Fact | None:
    """The same fact, with something else said; None for what has nothing to say."""
    other = digest(rng.randbytes(8)).hex()
    match fact:
        case Asked() | Met():
            return replace(fact, tag=other)
        case Answered() | Masked() | Released() | Abandoned():
            return replace(fact, exchange=replace(fact.exchange, reply=other))
        case Reserved():
            return replace(fact, line=fact.line + 1)
        case PlanFollowed():
            return replace(fact, plan=other)
        case RosterAdopted():
            return replace(fact, roster=other)
        case Started():
            return replace(fact, version="fedward 0.1.0 sources 0123456789abcdef")
    return None


def last_announced(facts: list[Fact]) -> int:
    """The line that answers KEYS for the last time: everything before it was shown to others."""
    return max(line for line, fact in enumerate(facts) if isinstance(fact, Answered) and fact.step == "KEYS")


def test_any_line_that_a_site_rewrites_is_found_by_what_its_peers_saw(honest: Bundles, tmp_path: Path) -> None:
    """One fact changed, every later line linked and signed anew with the site's own key."""
    tried = 0
    for line in range(1, last_announced(honest.facts(THIEF))):
        rng = random.Random(line)
        if changed(honest.facts(THIEF)[line], rng) is None:
            continue
        work = honest.copied(tmp_path / str(line))
        work.rewrite(THIEF, lambda facts, line=line, rng=rng: [*facts[:line], changed(facts[line], rng), *facts[line + 1 :]])  # type: ignore[misc, list-item]
        assert codes(work.paths) & {"F_LOST", "F_ECHO"}, line
        without_the_coordinator = work.without(COORDINATOR)
        assert "F_ECHO" in codes(without_the_coordinator), line
        shutil.rmtree(work.folder)
        tried += 1
    assert tried > 15


@pytest.mark.parametrize("kind", [Masked, Released, Answered, Met])
def test_what_a_site_did_after_its_peers_last_saw_its_log_is_found_by_its_replies(bundles: Bundles, kind: type[Fact]) -> None:
    def edit(facts: list[Fact]) -> Iterator[Fact]:
        last = max(line for line, fact in enumerate(facts) if isinstance(fact, kind))
        yield from (fact for line, fact in enumerate(facts) if line != last)

    bundles.rewrite(THIEF, edit)
    assert codes(bundles.paths) & {"F_REPLY", "F_ORDER"}


def test_a_site_that_denies_its_last_rounds_is_found(bundles: Bundles) -> None:
    """Cut off before round 3, and signed so."""
    bundles.rewrite(THIEF, lambda facts: facts[: next(n for n, fact in enumerate(facts) if isinstance(fact, Asked) and fact.at.round == 3)])
    assert "F_REPLY" in codes(bundles.paths)
    assert "F_ECHO" in codes(bundles.without(COORDINATOR))


def test_a_site_that_begins_its_log_anew_is_found(bundles: Bundles) -> None:
    bundles.rewrite(THIEF, lambda facts: facts[:4])
    assert {"F_REPLY", "F_LOST", "F_ECHO"} <= codes(bundles.paths)


def test_a_site_that_trained_without_paying_is_found(bundles: Bundles) -> None:
    """In the last round: nobody has seen its log since, and it is found all the same, by the log's own order."""
    bundles.rewrite(THIEF, lambda facts: [fact for fact in facts if not (isinstance(fact, Reserved) and fact.at.round == ROUNDS)])
    assert "F_LEDGER" in codes([bundles.folder / THIEF])


def test_a_payment_that_serves_twice_is_found(bundles: Bundles) -> None:
    def edit(facts: list[Fact]) -> list[Fact]:
        first = next(fact for fact in facts if isinstance(fact, Reserved))
        return [replace(first, at=fact.at) if isinstance(fact, Reserved) and fact.at.round == ROUNDS else fact for fact in facts]

    bundles.rewrite(THIEF, edit)
    assert "F_LEDGER" in codes([bundles.folder / THIEF])


def test_a_site_that_answered_twice_is_found(bundles: Bundles) -> None:
    def edit(facts: list[Fact]) -> list[Fact]:
        last = next(fact for fact in reversed(facts) if isinstance(fact, Masked))
        return [*facts, replace(last, vector="0" * 64)]

    bundles.rewrite(THIEF, edit)
    assert "F_TWICE" in codes([bundles.folder / THIEF])


def test_shares_that_left_after_an_attempt_was_given_up_are_found(bundles: Bundles) -> None:
    def edit(facts: list[Fact]) -> Iterator[Fact]:
        last = next(fact for fact in reversed(facts) if isinstance(fact, Released))
        for fact in facts:
            if fact is last:
                yield Abandoned(exchange=replace(last.exchange, request="1" * 64, reply="2" * 64))
            yield fact

    bundles.rewrite(THIEF, edit)
    assert "F_ORDER" in codes([bundles.folder / THIEF])


def test_a_log_under_somebody_elses_name_or_key_is_found(bundles: Bundles) -> None:
    bundles.signers[THIEF] = bundles.signers["site_03"]
    bundles.rewrite(THIEF, lambda facts: [replace(facts[0], key=bundles.signers[THIEF].public.hex()), *facts[1:]])  # type: ignore[call-arg]
    assert "F_KEY" in codes(bundles.paths)


# The coordinator, who has every reply.


def rewritten(bundles: Bundles, edit: dict[type[Fact], object]) -> None:
    """The coordinator's facts of round 3, of one kind each, said otherwise; None takes them out."""

    def facts(old: list[Fact]) -> Iterator[Fact]:
        for fact in old:
            number = fact.round if isinstance(fact, Committed) else fact.at.round if isinstance(fact, Invited | Heard | Summed) else 0
            change = edit.get(type(fact), fact) if number == ROUNDS else fact
            if change is not None:
                yield change(fact) if callable(change) else fact

    bundles.rewrite(COORDINATOR, facts)


def test_a_model_that_does_not_follow_from_the_masked_updates_is_found(bundles: Bundles) -> None:
    rewritten(bundles, {Committed: lambda fact: replace(fact, model="0" * 64)})
    assert "F_MODEL" in codes(bundles.paths)


def test_a_model_of_an_earlier_round_is_held_against_what_sites_were_sent(bundles: Bundles) -> None:
    """Without a single masked update: the sites' own logs say what they trained on."""
    bundles.rewrite(
        COORDINATOR,
        lambda facts: [replace(fact, model="0" * 64) if isinstance(fact, Committed) and fact.round == 2 else fact for fact in facts],
    )
    assert "F_MODEL" in codes(bundles.paths)


def test_another_model_given_out_is_found(honest: Bundles) -> None:
    last = next(fact for fact in reversed(honest.facts(COORDINATOR)) if isinstance(fact, Committed))
    assert not codes(honest.paths, published=last.model)
    assert codes(honest.paths, published="0" * 64) == {"F_PUBLISHED"}


def test_other_survivors_are_found(bundles: Bundles) -> None:
    rewritten(
        bundles,
        {
            Summed: lambda fact: replace(fact, vectors=fact.vectors[:-1]),
            Committed: lambda fact: replace(fact, sites=fact.sites[:-1]),
        },
    )
    assert "F_EVIDENCE" in codes(bundles.paths)


def test_another_sum_is_found(bundles: Bundles) -> None:
    rewritten(bundles, {Summed: lambda fact: replace(fact, sum="0" * 64)})
    assert "F_SUM" in codes(bundles.paths)


@pytest.mark.parametrize("kind", [Invited, Heard, Summed])
def test_what_the_coordinator_leaves_out_is_found(bundles: Bundles, kind: type[Fact]) -> None:
    rewritten(bundles, {kind: None})
    assert codes(bundles.paths) & {"F_ROUND", "F_EVIDENCE"}


def test_a_round_that_the_coordinator_denies_is_found(bundles: Bundles) -> None:
    rewritten(bundles, {Invited: None, Heard: None, Summed: None, Committed: None})
    assert "F_ROUND" in codes(bundles.paths)


def test_a_masked_update_that_was_exchanged_is_found(bundles: Bundles) -> None:
    path = next((bundles.folder / COORDINATOR / evidence.FOLDER).glob(f"*-vector-{THIEF}"))
    path.write_bytes(bytes(path.stat().st_size))
    bundles.resign(COORDINATOR)
    assert "F_EVIDENCE" in codes(bundles.paths)


def test_requests_that_differ_between_sites_are_found(bundles: Bundles) -> None:
    """A coordinator that told one site another story: that site's own log has what it was asked."""

    def edit(facts: list[Fact]) -> list[Fact]:
        last = next(fact for fact in reversed(facts) if isinstance(fact, Answered) and fact.step == "CONFIRM")
        told = replace(last, exchange=replace(last.exchange, request="0" * 64), transcript="1" * 64)
        return [told if fact is last else replace(fact, transcript="1" * 64) if _releases(fact, last) else fact for fact in facts]

    bundles.rewrite(THIEF, edit)
    assert {"F_SPLIT", "F_TRANSCRIPT"} <= codes(bundles.paths)


def _releases(fact: Fact, confirmed: Answered) -> bool:
    return isinstance(fact, Released) and fact.exchange.tag == confirmed.exchange.tag


# Two who rewrite their logs together.


def forge_together(bundles: Bundles) -> None:
    """A site changes what it said in round 1; the coordinator takes the keys that it signs anew for every round, with the new heads."""
    bundles.rewrite(THIEF, lambda facts: [replace(f, line=f.line + 7) if isinstance(f, Reserved) and f.at.round == 1 else f for f in facts])
    new_heads = [digest(line).hex() for line in (bundles.folder / THIEF / LOG_FILE).read_bytes().splitlines()]
    invited = {fact.at.round: fact for fact in bundles.facts(COORDINATOR) if isinstance(fact, Invited)}
    hashes: dict[int, tuple[str, str]] = {}
    for number in range(1, ROUNDS + 1):
        name = evidence.step_name(invited[number].at, 0, "KEYS")
        replies = bundles.replies(name)
        answered = next(n for n, f in enumerate(bundles.facts(THIEF)) if isinstance(f, Answered) and f.exchange.tag == invited[number].tag)
        control = signed_anew(bundles, replies.by_site[THIEF], bytes.fromhex(new_heads[answered - 1]), invited[number])
        hashes[number] = digest(replies.by_site[THIEF]).hex(), digest(control).hex()
        bundles.keep_replies(name, with_reply(replies, THIEF, control))
    swap = dict(hashes.values())

    def heard(facts: list[Fact]) -> Iterator[Fact]:
        for fact in facts:
            same = isinstance(fact, Heard) and fact.step == "KEYS"
            yield replace(fact, replies=tuple((site, swap.get(h, h)) for site, h in fact.replies)) if same else fact  # type: ignore[call-arg, union-attr]

    bundles.rewrite(COORDINATOR, heard)


def signed_anew(bundles: Bundles, control: bytes, head: bytes, invited: Invited) -> bytes:
    up = codec.read(Up, control)
    keys = codec.read(Keys, up.body)
    tag = tag_of(bundles, invited, up)
    assert tag.rt == up.rt
    assert messages.site_signed(up, tag, Step.KEYS, bundles.signers[THIEF].public)
    return messages.up(bundles.signers[THIEF], tag, Step.KEYS, THIEF, replace(keys, heads=replace(keys.heads, audit=head)))


def tag_of(bundles: Bundles, invited: Invited, up: Up) -> RoundTag:
    folder = bundles.folder / COORDINATOR / evidence.FOLDER
    followed = next(fact for fact in bundles.facts(COORDINATOR) if isinstance(fact, PlanFollowed))
    plan = parse((folder / evidence.plan_name(followed.plan)).read_text())
    return RoundTag(
        version=up.version,
        ring_bits=up.ring_bits,
        plan=bytes.fromhex(followed.plan),
        roster=bytes.fromhex(invited.roster),
        session=bytes.fromhex(invited.at.session),
        round=invited.at.round,
        attempt=invited.at.attempt,
        model=bytes.fromhex(invited.model),
        layout=layout_of_plan(plan).digest,
    )


def test_a_site_and_the_coordinator_together_are_found_by_a_third(bundles: Bundles) -> None:
    """Any one other site's bundle is enough: it wrote down what it was shown."""
    forge_together(bundles)
    for third in ("site_00", "site_03", "site_04"):
        report = judged([bundles.folder / name for name in (COORDINATOR, THIEF, third)])
        echoes = [each for each in report.findings if each.code == "F_ECHO"]
        assert any(each.party == THIEF and third in each.text for each in echoes), third


def test_the_forgery_is_as_good_as_two_can_make_it(bundles: Bundles) -> None:
    """The control: by their own two bundles no head is lost; what gives them away is what others signed."""
    forge_together(bundles)
    found = judged([bundles.folder / name for name in (COORDINATOR, THIEF)]).findings
    assert not [each for each in found if each.code in ("F_LOST", "F_CHAIN", "F_HEAD", "F_KEY", "F_BUNDLE")]
    assert {each.code for each in found} <= {"F_EVIDENCE", "F_ECHO", "F_REPLY"}
    assert found


def test_a_peer_that_makes_up_a_head_is_written_down_and_said_so(bundles: Bundles) -> None:
    bundles.rewrite(THIEF, lambda facts: [*facts, Contradicted(peer="site_03", head="0" * 64)])
    report = judged(bundles.paths)
    assert [each.code for each in report.findings] == ["F_ECHO"]
    assert "site_03" in report.findings[0].text


# What evidence does not give away.


def test_the_evidence_opens_no_sites_own_update(honest: Bundles) -> None:
    """Of a survivor nobody gave a share of s; of the one that fell nobody gave a share of b, and there is no masked update of it."""
    found = Findings()
    parties = witnesses(honest.paths, found)
    coordinator = next(each for each in parties if each.role == "coordinator")
    kept = archive(parties, None, found)
    plan = next(iter(kept.plans.values()))
    session = next(fact.at.session for _, fact in coordinator.facts(Invited))
    ground = Ground(coordinator=coordinator, session=session, plan=plan, initial=initial_weights(plan), kept=kept)
    room = next(room for (at, _), room in story_of(session, parties, kept).rooms.items() if at.round == 2)
    inviting = inviting_of(ground, room.invited)
    assert inviting is not None
    replies = {step: replies_of(coordinator.bundle, room, step) for step in room.heard}
    sharing, _ = inviting.agree(replies["KEYS"].by_site, now=replies["KEYS"].closed)
    masking, _ = sharing.route(replies["SHARE"].by_site)
    unmasking, _ = masking.survive(replies["MASK"].by_site)[0].quorum(replies["CONFIRM"].by_site)
    shares, _ = unmasking.shares(replies["UNMASK"].by_site)
    public = {member.site_id: member.keys.mask_key for member in masking.members}
    secrets = {owner: shamir.reconstruct(dict(list(held.items())[: unmasking.threshold])) for owner, held in shares.items()}
    for owner, secret in secrets.items():
        assert secret is not None
        opens_s = agreement.agreement_public(secret) == public[owner]
        opens_b = messages.seed_commitment(masking.cohort_transcript, secret) == masking.seed_commitments[owner]
        assert (opens_b, opens_s) == ((owner != FELL), (owner == FELL)), owner
    names = [name for name in coordinator.bundle.names if "-vector-" in name]
    assert not [name for name in names if name.startswith(f"{evidence.FOLDER}/000002") and name.endswith(FELL)]

    # All that is held, taken off one survivor's update: what remains is as long as noise is, not as an update may be.
    name = evidence.vector_name(room.invited.at, 0, THIEF)
    terms = inviting.chair.terms
    body = np.frombuffer(coordinator.bundle.read(f"{evidence.FOLDER}/{name}"), dtype=terms.grid.word).copy()
    tail = np.zeros(3, dtype=np.uint32)
    own, fallen = secrets[THIEF], secrets[FELL]
    assert own is not None
    assert fallen is not None
    masks = [
        Mask(stages.self_mask(own, masking.transcript, THIEF).key, negative=True),
        stages.pair_mask(agreement.AgreementKey.load(fallen), masking.transcript, FELL, THIEF, public[THIEF]),
    ]
    apply(masks, body=body, tail=tail, workers=1)
    with pytest.raises(AggregateNorm):
        check_norm(body, terms, num_sites=1)


def test_a_bundle_says_no_more_than_its_schema(honest: Bundles) -> None:
    """Nothing of a path, a machine, a patient or a secret key is in any bundle."""
    forbidden = [str(honest.folder).encode(), b"made ", b"/sites/", *(signer.seed for signer in honest.signers.values())]
    forbidden += [signer.seed.hex().encode() for signer in honest.signers.values()]
    for path in honest.folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [word for word in forbidden if word in content], path


def test_a_manifest_signed_by_a_stranger_is_no_manifest(bundles: Bundles) -> None:
    folder = bundles.folder / THIEF
    theirs, own = (bundles.signers[name].public.hex().encode() for name in ("site_03", THIEF))
    stolen = (bundles.folder / "site_03" / MANIFEST).read_bytes().replace(theirs, own)
    (folder / MANIFEST).write_bytes(stolen)
    assert codes([folder]) == {"F_BUNDLE"}
    assert Bundle(bundles.folder / "site_03").manifest.name == "site_03"
