# SPDX-License-Identifier: Apache-2.0
"""The plan that this hospital's operator approved, and the record of it that the site signed for itself.

    approved/plan.toml    the plan, as it came
    approved/plan.sig     what the consortium's root keys say of it (common/endorsement.py)
    approved/approval     that a person here agreed: which plan, under which roots, when, signed with this site's own key

The site process trains nothing but `approved_plan(home)`, which looks at all three every time. A plan that the coordinator sends is only
put beside (`incoming/`): nothing is approved by arriving. A record that another site signed, that names another plan, or whose plan was
edited afterwards is refused, and so is a plan of which the pinned root keys no longer say that it is theirs.

The approval names no roster. Who else takes part is settled by the roster in force (client/membership/rosters.py), so that a hospital that
joins later asks nobody to read the plan again.

What this does not do: protect from who administers this machine, and holds its key.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from client.home import read_site_file
from common import canonical, credentials, endorsement, keyfile, plan, roster
from common.durable import OWNER_ONLY, write_atomically
from common.endorsement import Endorsement
from common.errors import ApprovalBroken, PlanNotApproved, RosterNotFound
from common.instant import instant, seconds
from common.plan import Plan
from common.roster import NAME_PATTERN, Roots
from common.secagg.keys import SigningKey, signature_holds

APPROVED_FOLDER: Final = "approved"
PLAN_FILE: Final = "plan.toml"
ENDORSEMENT_FILE: Final = "plan.sig"
APPROVAL_FILE: Final = "approval"
_TITLE: Final = "fedward-approval 1"
_RECORD: Final = re.compile(
    rf"{_TITLE}\nsite ({NAME_PATTERN})\nplan ([0-9a-f]{{64}})\nroots ([0-9a-f]{{64}})\nepoch ([0-9]{{1,18}})\nat (\S{{20}})\n"
    rf"key ([0-9a-f]{{64}})\nsignature ([0-9a-f]{{128}})\n",
    re.ASCII,
)
_AGAIN: Final = "Read the plan and approve it again: fedward site approve PLAN."


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedPlan:
    """A plan's two files, as they came: unverified."""

    text: bytes
    endorsement: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """One operator's yes. `plan` and `roots` are digests, `epoch` that of the roster that was shown, `at` Unix seconds."""

    site: str
    plan: str
    roots: str
    epoch: int
    at: int
    key: bytes

    @property
    def message(self) -> bytes:
        """What the site signs."""
        return canonical.digest(b"fedward approval 1", _body(self).encode())


def approved_plan(home: Path) -> Plan:
    """The plan in force here; its record, its signatures and its roster's epoch are looked at anew.

    Raises: PlanNotApproved where there is none, ApprovalBroken, PlanSignature, PlanError, RosterError, SecretFile.
    """
    folder = home / APPROVED_FOLDER
    try:
        text, endorsed, record = (_read(folder / name) for name in (PLAN_FILE, ENDORSEMENT_FILE, APPROVAL_FILE))
    except OSError:
        raise PlanNotApproved(
            f"site '{read_site_file(home).site.name}' has approved no plan.", fix="Read one and approve it: fedward site approve PLAN."
        ) from None
    approval = _verified(record, site=read_site_file(home).site.name, key=keyfile.load(home / credentials.KEY_FILE, "site").public)
    found, roots = _parsed(text), pinned_roots(home)
    if approval.plan != plan.digest_of(found):
        raise ApprovalBroken(
            f"the approved plan has digest {plan.digest_of(found)[:16]}, its approval is of {approval.plan[:16]}.", fix=_AGAIN
        )
    check_endorsed(home, found, endorsement.parse(endorsed), roots)
    if approval.roots != endorsement.name_of(roots):
        raise ApprovalBroken("the approval was given under other root keys than those pinned here.", fix=_AGAIN)
    return found


def approval_of(home: Path) -> Approval:
    """The record in force. Raises: as `approved_plan`."""
    approved_plan(home)
    return _parse(_read(home / APPROVED_FOLDER / APPROVAL_FILE))


def read_signed(home: Path, given: SignedPlan) -> tuple[Plan, Endorsement]:
    """A plan that enough of the pinned roots signed, to be shown to a person.

    Raises: PlanError, PlanSignature; RosterChanged for a plan that wants a newer roster than the one here; RosterError.
    """
    found, said = _parsed(given.text), endorsement.parse(given.endorsement)
    check_endorsed(home, found, said, pinned_roots(home))
    return found, said


def check_endorsed(home: Path, found: Plan, said: Endorsement, roots: Roots) -> None:
    """Raises: PlanSignature, RosterChanged, RosterError."""
    endorsement.check(said, found, roots=roots)
    roster.check_successor(credentials.load_roster(home), held=None, minimum_epoch=said.minimum_epoch)


def approve(home: Path, given: SignedPlan, *, now: int) -> Approval:
    """Sign for a plan that a person here has read, and put it in force. `now` is Unix seconds. Raises: as `read_signed`; DiskFull."""
    found, _ = read_signed(home, given)
    signer = keyfile.load(home / credentials.KEY_FILE, "site")
    approval = Approval(
        site=read_site_file(home).site.name,
        plan=plan.digest_of(found),
        roots=endorsement.name_of(pinned_roots(home)),
        epoch=credentials.load_roster(home).epoch,
        at=now,
        key=signer.public,
    )
    folder = home / APPROVED_FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    # The record last: a machine that stops in between has a plan that its record does not name, which is refused.
    _write(folder / PLAN_FILE, given.text)
    _write(folder / ENDORSEMENT_FILE, given.endorsement)
    _write(folder / APPROVAL_FILE, _render(approval, signer))
    return approval


def sign_anew(home: Path, old: SigningKey, new: SigningKey) -> None:
    """Let a new identity key stand for the approval that the old one signed; nothing, where there is none. May be repeated."""
    file = home / APPROVED_FOLDER / APPROVAL_FILE
    if not file.exists():
        return
    known = _parse(_read(file)).key
    approval = _verified(_read(file), site=read_site_file(home).site.name, key=new.public if known == new.public else old.public)
    renewed = Approval(site=approval.site, plan=approval.plan, roots=approval.roots, epoch=approval.epoch, at=approval.at, key=new.public)
    _write(file, _render(renewed, new))


def pinned_roots(home: Path) -> Roots:
    """The root keys that were compared by telephone once. Raises: RosterNotFound, RosterFormat."""
    file = home / credentials.ROOTS_FILE
    try:
        return roster.parse_roots(file.read_bytes())
    except OSError as error:
        raise RosterNotFound(
            f"'{file}' cannot be read: {error.strerror}.", fix="Put the consortium's roots file there, after comparing its words."
        ) from None


@lru_cache(maxsize=16)
def _parsed(text: bytes) -> Plan:
    """The same bytes are the same plan; files are read anew each time."""
    return plan.parse(text.decode(errors="replace"))


def _verified(record: bytes, *, site: str, key: bytes) -> Approval:
    """Raises: ApprovalBroken."""
    approval = _parse(record)
    if approval.site != site:
        raise ApprovalBroken(f"the approval is of site '{approval.site}', this is site '{site}'.", fix=_AGAIN)
    if approval.key != key or not signature_holds(key, _signature(record), approval.message):
        raise ApprovalBroken(f"the approval is not signed by the key of site '{site}'.", fix=_AGAIN)
    return approval


def _parse(record: bytes) -> Approval:
    found = _RECORD.fullmatch(record.decode("ascii", errors="replace"))
    if found is None:
        raise ApprovalBroken("the approval is not in its canonical form.", fix=_AGAIN)
    try:
        approval = Approval(
            site=found[1], plan=found[2], roots=found[3], epoch=int(found[4]), at=seconds(found[5]), key=bytes.fromhex(found[6])
        )
    except ValueError:
        raise ApprovalBroken("the approval has no proper date.", fix=_AGAIN) from None
    if _body(approval).encode() != record.rpartition(b"signature ")[0]:
        raise ApprovalBroken("the approval is not in its canonical form.", fix=_AGAIN)
    return approval


def _signature(record: bytes) -> bytes:
    return bytes.fromhex(record.rpartition(b"signature ")[2].decode().strip())


def _body(approval: Approval) -> str:
    return (
        f"{_TITLE}\nsite {approval.site}\nplan {approval.plan}\nroots {approval.roots}\nepoch {approval.epoch}\n"
        f"at {instant(approval.at)}\nkey {approval.key.hex()}\n"
    )


def _render(approval: Approval, signer: SigningKey) -> bytes:
    return f"{_body(approval)}signature {signer.sign(approval.message).hex()}\n".encode()


def _read(file: Path) -> bytes:
    return file.read_bytes()


def _write(file: Path, content: bytes) -> None:
    write_atomically(file, content, fsync=True, mode=OWNER_ONLY)
