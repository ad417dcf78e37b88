# SPDX-License-Identifier: Apache-2.0
"""A plan's endorsement: the consortium's root keys say that this plan, and no other spelling of it, is the consortium's.

It lies beside the plan (ct.toml, ct.sig), so that the plan stays a file that people read and compare. What is signed is three things:

    fedward-plan-signatures 1
    plan 5b21...                the plan's digest: its values, not its comments or its order
    roots 9a0b...               which root keys, and how many of them: a consortium's name
    epoch 7                     rosters older than this one are not for this plan
    signature 04ff... 77de...

The epoch is a floor and no more. A plan does not name a roster, so adding, renewing or revoking a site voids no approval of any plan.
k of m root keys sign, as rosters are signed; each signs the same statement, under a domain of its own, so that no signature under a roster
is one under a plan.

It says that the consortium stands behind a plan. It does not make a hospital follow it: that takes the approval of the hospital's own
operator (client/membership/approval.py).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from common import canonical, roster
from common.errors import PlanSignature
from common.plan import Plan, digest_of
from common.roster import Roots, Signature
from common.secagg.keys import SigningKey, signature_holds

_TITLE: Final = "fedward-plan-signatures 1"
LARGEST_FILE: Final = 64 * 1024
_BODY: Final = re.compile(
    rf"{_TITLE}\nplan ([0-9a-f]{{64}})\nroots ([0-9a-f]{{64}})\nepoch (0|[1-9][0-9]{{0,17}})\n"
    r"((?:signature [0-9a-f]{64} [0-9a-f]{128}\n)*)",
    re.ASCII,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorsement:
    """What root keys say of a plan. `plan` and `roots` are digests; signatures are sorted by root key, one for each."""

    plan: str
    roots: str
    minimum_epoch: int
    signatures: tuple[Signature, ...] = ()

    @property
    def message(self) -> bytes:
        """What each root key signs."""
        epoch = canonical.encode(self.minimum_epoch)
        return canonical.digest(b"fedward plan signature 1", bytes.fromhex(self.plan), bytes.fromhex(self.roots), epoch)


def name_of(roots: Roots) -> str:
    """A consortium's name: the digest of its root keys and of how many must sign."""
    return canonical.digest(b"fedward roots 1", roster.render_roots(roots)).hex()


def unsigned(plan: Plan, *, roots: Roots, minimum_epoch: int) -> Endorsement:
    """The statement that root keys are asked to sign."""
    return Endorsement(plan=digest_of(plan), roots=name_of(roots), minimum_epoch=minimum_epoch)


def sign(endorsement: Endorsement, key: SigningKey, *, roots: Roots) -> Endorsement:
    """With one more signature. Raises: PlanSignature for a key that is none of the roots."""
    if key.public not in roots.keys:
        raise PlanSignature("the key given is none of this consortium's roots.", fix="Sign with a root key that the roots file names.")
    mine = Signature(root=key.public, value=key.sign(endorsement.message))
    others = (each for each in endorsement.signatures if each.root != mine.root)
    return replace(endorsement, signatures=_sorted((*others, mine)))


def signed_by(endorsement: Endorsement, *, roots: Roots) -> frozenset[bytes]:
    """Which of the roots signed; what does not hold, or is of others, does not count."""
    message = endorsement.message
    return frozenset(
        each.root for each in endorsement.signatures if each.root in roots.keys and signature_holds(each.root, each.value, message)
    )


def check(endorsement: Endorsement, plan: Plan, *, roots: Roots) -> None:
    """Whether enough of these roots stand behind this very plan. Raises: PlanSignature."""
    if endorsement.plan != digest_of(plan):
        raise PlanSignature(
            f"plan '{plan.name}' has digest {digest_of(plan)[:16]}, its signatures are for {endorsement.plan[:16]}.",
            fix="The plan was altered after it was signed, or the two files do not belong together: get both again from the custodian.",
        )
    if endorsement.roots != name_of(roots):
        raise PlanSignature(
            f"the signatures of plan '{plan.name}' are of another consortium, or of other root keys than those pinned here.",
            fix="Compare the roots file with the custodian by telephone; do not replace it for a plan's sake.",
        )
    if len(found := signed_by(endorsement, roots=roots)) < roots.needed:
        raise PlanSignature(
            f"plan '{plan.name}' carries {len(found)} valid root signatures, expected {roots.needed} of {len(roots.keys)}.",
            fix="Collect the missing signatures: fedward plan sign.",
        )


def render(endorsement: Endorsement) -> bytes:
    """The file."""
    lines = [f"signature {each.root.hex()} {each.value.hex()}\n" for each in endorsement.signatures]
    head = f"{_TITLE}\nplan {endorsement.plan}\nroots {endorsement.roots}\nepoch {endorsement.minimum_epoch}\n"
    return (head + "".join(lines)).encode()


def parse(data: bytes) -> Endorsement:
    """What a file says, unverified. Raises: PlanSignature for anything but the one spelling of an endorsement."""
    found = _BODY.fullmatch(data.decode("ascii", errors="replace")) if len(data) <= LARGEST_FILE else None
    if found is None:
        raise _malformed()
    signatures = tuple(_parse_signature(line) for line in found[4].splitlines())
    endorsement = Endorsement(plan=found[1], roots=found[2], minimum_epoch=int(found[3]), signatures=signatures)
    if len({each.root for each in signatures}) < len(signatures) or render(replace(endorsement, signatures=_sorted(signatures))) != data:
        raise _malformed()
    return endorsement


def _parse_signature(line: str) -> Signature:
    _, root, value = line.split(" ")
    return Signature(root=bytes.fromhex(root), value=bytes.fromhex(value))


def _sorted(signatures: Iterable[Signature]) -> tuple[Signature, ...]:
    return tuple(sorted(signatures, key=lambda each: each.root))


def _malformed() -> PlanSignature:
    return PlanSignature(
        "the file of a plan's signatures is not in its canonical form.", fix="Use the file that fedward plan sign wrote, as it is."
    )
