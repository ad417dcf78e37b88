# SPDX-License-Identifier: Apache-2.0
"""Who is left out on whose word: laws over every mixture of honest and rogue sites below a third, and what a signed complaint is."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import FedwardError
from common.secagg import codec, complaints, messages
from common.secagg.complaints import Accused, Complaint
from common.secagg.keys import SigningKey
from common.secagg.messages import Deliveries, Delivery, Step
from tests.common.secagg.federation import federation


@st.composite
def disputes(draw: st.DrawFn) -> tuple[int, set[str], dict[str, set[str]]]:
    """A cohort, its rogue sites, and complaints: honest sites accuse rogues alone, rogues whom they like."""
    size = draw(st.integers(3, 24))
    names = [f"s{number:02d}" for number in range(size)]
    rogues = set(draw(st.permutations(names))[: draw(st.integers(0, (size - 1) // 3))])
    said: dict[str, set[str]] = {}
    for name in names:
        others = [other for other in names if other != name and (name in rogues or other in rogues)]
        if others and (accused := draw(st.sets(st.sampled_from(others)))):
            said[name] = accused
    return size, rogues, said


@given(disputes())
def test_fewer_than_a_third_of_those_who_stay_are_at_fault(dispute: tuple[int, set[str], dict[str, set[str]]]) -> None:
    size, rogues, said = dispute
    assert 3 * len(rogues) < size
    out = complaints.judge(said, cohort=size).keys()
    assert 3 * len(rogues - out) < size - len(out)
    assert len(out - rogues) <= len(out & rogues), "each honest site that goes takes a rogue one with it"


@given(disputes())
def test_each_dispute_costs_the_rogues_one_of_theirs(dispute: tuple[int, set[str], dict[str, set[str]]]) -> None:
    """So that they can make as many attempts fail as they are, and no more. Where nobody goes alone, no accusation is left over."""
    size, rogues, said = dispute
    out = complaints.judge(said, cohort=size)
    assert bool(out.keys() & rogues) == bool(said)
    if any(accused in out and accused not in out.get(by, ()) for accused in out for by in out[accused]):
        assert set(out) <= rogues
    else:
        assert all(accuser in out or accused in out for accuser, named in said.items() for accused in named)
    assert set(out) <= set(said) | {accused for named in said.values() for accused in named}
    assert all(by for by in out.values())


@given(disputes())
def test_who_is_accused_by_a_third_goes_alone(dispute: tuple[int, set[str], dict[str, set[str]]]) -> None:
    size, rogues, _ = dispute
    honest = {f"s{number:02d}" for number in range(size)} - rogues
    out = complaints.judge(dict.fromkeys(honest, rogues) | dict.fromkeys(rogues, honest), cohort=size)
    assert set(out) == rogues, "all honest sites complain of the rogues, and the rogues of all of them"


def test_slander_costs_the_slanderer_its_place() -> None:
    everybody = {f"s{number}" for number in range(1, 10)}
    assert complaints.judge({"s0": everybody}, cohort=10) == {"s1": ("s0",), "s0": ("s1",)}


def test_voices_weigh_no_more_for_those_who_were_left_out_before() -> None:
    """Two of seven are liars, and two dealers went before them, perhaps wrongly: of five, two would be a third."""
    said = {"liar": {"honest"}, "other": {"honest"}}
    assert complaints.judge(said, cohort=5) == {"honest": ("liar", "other")}
    assert complaints.judge(said, cohort=7) == {"honest": ("liar",), "liar": ("honest",)}


def complained() -> tuple[SigningKey, messages.RoundTag, bytes]:
    f = federation(5)
    f.to_keys()
    signer = f.consortium.sites["site-000"]
    items = tuple(Delivery(site_id=f"site-00{number}", sealed=bytes([number])) for number in (1, 2, 3))
    request = messages.down(f.chair.signer, f.tag, Step.MASK, Deliveries(items=items))
    return signer, f.tag, complaints.write(signer, "site-000", request, ("site-001", "site-003"))


def test_a_complaint_says_who_and_quotes_what_came() -> None:
    signer, tag, content = complained()
    quoted = {"site-001": complaints.digest(b"\x01"), "site-003": complaints.digest(b"\x03")}
    assert complaints.read(content, tag, "site-000", signer.public) == quoted


@pytest.mark.parametrize("change", ["attempt", "site", "key", "accused", "nobody", "twice", "magic", "cut"])
def test_a_complaint_that_does_not_hold_is_refused_by_name(change: str) -> None:
    signer, tag, content = complained()
    said, identity, site = codec.read(Complaint, content, what="a complaint"), signer.public, "site-000"
    code = {"attempt": "E_ROUND_TAG", "site": "E_ROUND_TAG", "magic": "E_ROUND_TAG", "cut": "E_MSG_FORMAT"}.get(change, "E_PEER_SIGNATURE")
    match change:
        case "attempt":
            tag = replace(tag, attempt=tag.attempt + 1)
        case "site":
            site = "site-004"
        case "key":
            identity = SigningKey(b"\x07" * 32).public
        case "accused":
            said = replace(said, accused=(Accused(site_id="site-002", sealed=bytes(32)),))
        case "magic":
            said = replace(said, magic=b"FSA2")
        case _:
            accused = () if change == "nobody" else said.accused[:1] * 2
            digest = complaints._digest(said.version, said.ring_bits, said.rt, site, accused)
            said, code = replace(said, accused=accused, signature=signer.sign(digest)), "E_MSG_FORMAT"
    content = codec.write(said)[: -1 if change == "cut" else None]
    with pytest.raises(FedwardError) as refusal:
        complaints.read(content, tag, site, identity)
    assert refusal.value.code == code


def test_a_complaint_is_no_reply_to_a_step() -> None:
    """Its signature is under a label of its own: nobody can show it as something else that the site said."""
    f = federation(5)
    signer, tag, content = complained()
    signature = codec.read(Complaint, content, what="a complaint").signature
    for step in Step:
        said = messages.Signed(
            site_id="site-000", body=codec.write(codec.read(Complaint, content, what="a complaint").accused), signature=signature
        )
        assert not messages.site_signed(said, tag, step, signer.public)
    assert f.tag == tag
