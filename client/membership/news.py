# SPDX-License-Identifier: Apache-2.0
"""What becomes of news from the coordinator: a newer roster, a plan to read.

    news -> the coordinator's signature -> roster: signed by the pinned roots -> in force, or incoming/ (client/membership/rosters.py)
                                        -> plan:   signed by the pinned roots -> incoming/, always

The answer says which roster is in force here and which plan is approved, so that a coordinator sees whom it waits for. News are taken
while the site is paused, too: a revocation must not wait for the end of maintenance. A site that has left takes none.

Nothing that arrives is followed. A plan lies in incoming/ until somebody has read it (`fedward site approve`).
"""

import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from client.home import read_site_file
from client.membership import approval, pause
from client.membership import rosters as membership
from client.membership.approval import ENDORSEMENT_FILE, PLAN_FILE, SignedPlan
from client.membership.rosters import INCOMING_FOLDER
from common import endorsement, news, plan, roster
from common.durable import OWNER_ONLY, folder_locked, write_atomically
from common.errors import (
    CoordinatorSignature,
    FedwardError,
    PlanError,
    PlanMismatch,
    PlanNotApproved,
    RosterError,
    RosterNotFound,
    SiteLeft,
)
from common.news import News
from common.plan import Plan
from common.wire import NewsReply

_NOTHING: Final = ""


def receive(home: Path, told: News, *, now: int | None = None) -> NewsReply:
    """Take news in and say where this site stands. `now` is Unix seconds.

    Raises: SiteLeft, CoordinatorSignature, RosterError, PlanError, DiskFull; PlanMismatch for an older version of a known plan.
    """
    if pause.has_left(home):
        raise SiteLeft("this site has left the federation.", fix="Nothing is taken in.")
    _check_bearer(home, told)
    if told.roster:
        membership.take_in(home, told.roster, now=int(time.time()) if now is None else now)
    if told.plan:
        with folder_locked(home):
            _keep_plan(home, SignedPlan(text=told.plan, endorsement=told.endorsement))
    return standing(home)


def standing(home: Path) -> NewsReply:
    """Where this site stands. Raises: DataNotFound, PlanError, RosterError for files here that do not hold."""
    held = membership.in_force(home)
    return NewsReply(site=read_site_file(home).site.name, epoch=held.epoch if held else 0, plan=_approved(home))


def waiting_plan(home: Path) -> SignedPlan | None:
    """The plan that the coordinator sent and nobody here has decided on."""
    folder = home / INCOMING_FOLDER
    try:
        return SignedPlan(text=(folder / PLAN_FILE).read_bytes(), endorsement=(folder / ENDORSEMENT_FILE).read_bytes())
    except FileNotFoundError:
        return None


def undecided(home: Path) -> list[str]:
    """What waits for this site's operator, in words; what is damaged waits too. Raises nothing that is about what waits."""
    found = []
    try:
        if (newer := membership.waiting(home)) is not None:
            rests = "; until then this site rests" if membership.rests(home, newer) else ""
            found.append(f"roster epoch {newer.roster.epoch} ({'; '.join(newer.asks)}){rests}")
    except RosterError as error:
        found.append(f"a roster that is damaged ({error.code})")
    with suppress(PlanError):
        if (waits := waiting_plan(home)) is not None:
            sent = plan.parse(waits.text.decode(errors="replace"))
            found.append(f"plan '{sent.name}', version {sent.plan.version}")
    return found


def forget_plan(home: Path, digest: str) -> None:
    """Clear a plan away that is decided on."""
    waits = waiting_plan(home)
    if waits is not None and plan.digest_of(plan.parse(waits.text.decode(errors="replace"))) == digest:
        (home / INCOMING_FOLDER / PLAN_FILE).unlink(missing_ok=True)
        (home / INCOMING_FOLDER / ENDORSEMENT_FILE).unlink(missing_ok=True)


def _check_bearer(home: Path, told: News) -> None:
    """The coordinator of the roster in force, or of the one that the roots signed and that it brings. Raises: RosterError."""
    held = membership.in_force(home)
    known = [held.coordinator] if held else []
    if told.roster:
        known.append(roster.verify(told.roster, roots=approval.pinned_roots(home)).coordinator)
    if not any(news.told_by(told, key) for key in known):
        raise CoordinatorSignature("news are not signed by the consortium's coordinator.", fix="Nothing was taken in.")


def _keep_plan(home: Path, sent: SignedPlan) -> None:
    found = plan.parse(sent.text.decode(errors="replace"))
    endorsement.check(endorsement.parse(sent.endorsement), found, roots=approval.pinned_roots(home))
    if plan.digest_of(found) == _approved(home):
        return
    for known in _known_plans(home):
        if known.name == found.name and known.plan.version > found.plan.version:
            raise PlanMismatch(
                f"plan '{found.name}' arrived in version {found.plan.version}, version {known.plan.version} is known here.",
                fix="The coordinator sends an old plan: tell it which one is the newest.",
            )
    folder = home / INCOMING_FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    write_atomically(folder / ENDORSEMENT_FILE, sent.endorsement, fsync=True, mode=OWNER_ONLY)
    write_atomically(folder / PLAN_FILE, sent.text, fsync=True, mode=OWNER_ONLY)


def _known_plans(home: Path) -> list[Plan]:
    found = []
    with suppress(PlanNotApproved):
        found.append(approval.approved_plan(home))
    with suppress(FedwardError):  # one that is damaged is no reason to refuse another
        if (waits := waiting_plan(home)) is not None:
            found.append(plan.parse(waits.text.decode(errors="replace")))
    return found


def _approved(home: Path) -> str:
    with suppress(PlanNotApproved, RosterNotFound):
        return plan.digest_of(approval.approved_plan(home))
    return _NOTHING
