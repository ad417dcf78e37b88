# SPDX-License-Identifier: Apache-2.0
"""Root keys sign a plan's values, their own number and the oldest roster; nothing else passes for it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import endorsement, roster
from common.endorsement import Endorsement
from common.errors import PlanSignature
from common.roster import Roots
from common.secagg.keys import SigningKey
from tests.client.members import a_plan

A, B, C = (SigningKey(bytes([number]) * 32) for number in (1, 2, 3))
ROOTS = Roots(keys=frozenset({A.public, B.public, C.public}), needed=2)
PLAN = a_plan()


def signed(*keys: SigningKey) -> Endorsement:
    said = endorsement.unsigned(PLAN, roots=ROOTS, minimum_epoch=7)
    for key in keys:
        said = endorsement.sign(said, key, roots=ROOTS)
    return said


def test_k_of_m_custodians_sign_in_any_order() -> None:
    with pytest.raises(PlanSignature, match="1 valid"):
        endorsement.check(signed(A), PLAN, roots=ROOTS)
    with pytest.raises(PlanSignature, match="1 valid"):
        endorsement.check(signed(A, A), PLAN, roots=ROOTS)
    endorsement.check(signed(A, C), PLAN, roots=ROOTS)
    assert signed(A, C) == signed(C, A)
    assert endorsement.parse(endorsement.render(signed(C, A, B))) == signed(A, B, C)


def test_a_signature_holds_for_nothing_else() -> None:
    said = signed(A, B)
    other_roots = Roots(keys=frozenset({A.public, B.public}), needed=2)
    for changed, plan, roots in (
        (said, replace(PLAN, plan=replace(PLAN.plan, version=2)), ROOTS),
        (said, PLAN, other_roots),
        (replace(said, minimum_epoch=6), PLAN, ROOTS),
        (replace(said, roots=endorsement.name_of(other_roots)), PLAN, other_roots),
        (replace(said, signatures=tuple(replace(each, value=bytes(64)) for each in said.signatures)), PLAN, ROOTS),
    ):
        with pytest.raises(PlanSignature):
            endorsement.check(changed, plan, roots=roots)


def test_fewer_custodians_asked_for_is_another_consortium() -> None:
    """Who edits `needed 2` into `needed 1` in a site's roots file has other roots, and no plan that was signed for them."""
    with pytest.raises(PlanSignature, match="other root keys"):
        endorsement.check(signed(A, B), PLAN, roots=replace(ROOTS, needed=1))


def test_a_stranger_cannot_sign_and_does_not_count() -> None:
    stranger = SigningKey(b"\x09" * 32)
    with pytest.raises(PlanSignature):
        endorsement.sign(signed(A), stranger, roots=ROOTS)
    theirs = replace(signed(A).signatures[0], root=stranger.public, value=stranger.sign(signed().message))
    with pytest.raises(PlanSignature, match="1 valid"):
        endorsement.check(replace(signed(A), signatures=(*signed(A).signatures, theirs)), PLAN, roots=ROOTS)


def test_a_roots_word_for_a_roster_is_none_for_a_plan() -> None:
    """Both are signed by the same keys: each in a domain of its own."""
    said = signed()
    for message in (roster.render_roots(ROOTS), endorsement.render(said), bytes.fromhex(said.plan)):
        forged = replace(said, signatures=tuple(roster.Signature(root=key.public, value=key.sign(message)) for key in (A, B)))
        assert endorsement.signed_by(forged, roots=ROOTS) == frozenset()


def test_no_bit_of_the_file_can_be_changed_unseen() -> None:
    data = endorsement.render(signed(A, B))
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(PlanSignature):
            endorsement.check(endorsement.parse(changed), PLAN, roots=ROOTS)


def test_a_file_has_one_spelling() -> None:
    lines = endorsement.render(signed(A, B)).splitlines(keepends=True)
    swapped = b"".join([*lines[:-2], lines[-1], lines[-2]])
    doubled = b"".join([*lines, lines[-1]])
    for other in (swapped, doubled, b"".join(lines)[:-1], b"\n" + b"".join(lines), b"".join(lines).replace(b"epoch 7", b"epoch 07")):
        with pytest.raises(PlanSignature):
            endorsement.parse(other)


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_by_name(data: bytes) -> None:
    for head in (b"", b"fedward-plan-signatures 1\n"):
        with pytest.raises(PlanSignature):
            endorsement.parse(head + data)
    with pytest.raises(PlanSignature):
        endorsement.parse(b"x" * (endorsement.LARGEST_FILE + 1))
