# SPDX-License-Identifier: Apache-2.0
"""What a site has agreed to, and can prove: who it is, who takes part, which plan, under which limits, and what was spent already.

The same functions that a round goes through look at the same files here, but read only: the ledger is read line by line and held to its
sealed head without taking its lock or appending to it.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from client import policy
from client.doctor.findings import Finding, look, ok, wrong
from client.home import PREPARED_FOLDER, SiteFile, ledger_place, read_site_file
from client.imaging import manifest
from client.ledger import chain as ledger
from client.ledger import head as sealed
from client.ledger.chain import Chain
from client.membership.approval import approved_plan
from client.membership.pause import has_left, is_paused
from common import credentials, keyfile, roster
from common.audit import chain as audit
from common.audit.log import LOG_FILE
from common.durable import Newest
from common.errors import FedwardError, SnapshotMismatch
from common.plan import Plan, digest_of

INCOMING: Final = "incoming"
_DAY_S: Final = 86_400
_SOON_S: Final = 7 * _DAY_S
_RENEW_ENTRY_S: Final = 30 * _DAY_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What is looked at, and when. `plan`: the approved one, where there is one."""

    home: Path
    file: SiteFile
    plan: Plan | None
    now: int


def identity(ground: Ground) -> Iterator[Finding]:
    """The site's key, and whether the roster knows it by this site's name."""
    mine = keyfile.load(ground.home / credentials.KEY_FILE, "site")
    held = credentials.load_roster(ground.home)
    name = ground.file.site.name
    member = held.find(name)
    if member is None:
        yield wrong(
            "identity", f"site '{name}' is not in roster epoch {held.epoch}.", "Enrol: fedward site enrol, and send what it prints."
        )
    elif member.revoked:
        yield wrong(
            "identity", f"site '{name}' is revoked in roster epoch {held.epoch}.", "Call the consortium; a new key: fedward site recover"
        )
    elif member.public_key != mine.public:
        yield wrong(
            "identity",
            f"the roster has another key for site '{name}' than identity.key here.",
            "Put the right identity.key back, or enrol the new one: fedward site recover",
        )
    else:
        left = member.not_after - ground.now
        say = f"site '{name}', in roster epoch {held.epoch} until {_day(member.not_after)}"
        yield ok("identity", say) if left > _RENEW_ENTRY_S else _entry_ends(left, say)


def roster_held(ground: Ground) -> Iterator[Finding]:
    """Whether the roster that is in force holds, and for how long yet."""
    held = credentials.load_roster(ground.home)
    left = held.not_after - ground.now
    say = f"epoch {held.epoch}, {len(held.members)} sites, signed, until {_day(held.not_after)}"
    renew = "Ask the coordinator for the renewed roster; it arrives by itself while the mailbox is connected."
    if ground.now < held.not_before - roster.GRACE_S:
        yield wrong("roster", f"epoch {held.epoch} begins {_day(held.not_before)}, after this clock.", "Set this machine's clock.")
    elif left < 0:
        yield wrong("roster", f"E_ROSTER_EXPIRED: epoch {held.epoch} ended {_day(held.not_after)}.", f"{renew} Check this clock too.")
    else:
        yield look("roster", say, renew) if left < _SOON_S else ok("roster", say)


def limits(ground: Ground) -> Iterator[Finding]:
    """The site's own policy, and what it says of the approved plan."""
    allowed = policy.load(ground.home)
    against = policy.objections(allowed, ground.plan, units=None) if ground.plan else []
    if ground.plan and against:
        yield wrong("policy", f"it has something against plan '{ground.plan.name}': {'; '.join(against)}.", "One of the two has to change.")
    else:
        yield ok("policy", f"at most epsilon {allowed.budget.eps_plan:g} a plan and {allowed.budget.eps_total:g} in all")


def plan_in_force(ground: Ground) -> Iterator[Finding]:
    """The plan that was approved here, with its signatures, and whether anything keeps the site from following it."""
    if ground.plan is None:
        approved_plan(ground.home)  # says why
    else:
        yield ok("plan", f"'{ground.plan.name}', digest {digest_of(ground.plan)[:16]}, is approved")
    if has_left(ground.home):
        yield wrong("plan", "E_SITE_LEFT: this site has left the federation.", "To take part again, enrol it anew: docs/enrolment.md.")
    elif is_paused(ground.home):
        yield look("plan", "the site is paused: no request is answered.", "When you want to take part again: fedward site resume")
    waiting = ground.home / INCOMING
    if waiting.is_dir() and any(waiting.iterdir()):
        yield look("news", "the coordinator sent something that waits for your yes.", "Read it and decide: fedward site approve --help")


def spent(ground: Ground) -> Iterator[Finding]:
    """Every line and signature of the ledger, its sealed head, and whose it is."""
    place = ledger_place(ground.home, ground.file)
    if not place.file.exists():
        begin = "Once, when the site is set up: fedward site ledger open. If there was one before, put it back first."
        yield wrong("ledger", f"'{place.file}' is not there.", begin)
        return
    chain, _ = ledger.read(place.file.read_bytes(), name=f"ledger '{place.file}'")
    mine = keyfile.load(ground.home / credentials.KEY_FILE, "site").public
    content = Newest(place.head.parent, place.head.name, fsync=False).read()
    head = None if content is None else sealed.parse(content, public=mine, name=str(place.head))
    sealed.check(chain, head, name=str(place.head))
    namespace = ground.file.data.namespace if ground.file.data else None
    if chain.key != mine.hex():
        yield wrong("ledger", "it is signed by another key than identity.key here.", "After a new key: fedward site ledger rekey --help")
    elif chain.namespace != namespace:
        yield wrong("ledger", f"it is of namespace '{chain.namespace}', site.toml says '{namespace}'.", "Same patients, same namespace.")
    else:
        yield ok("ledger", f"{len(chain)} lines, every link and signature holds, as far as its sealed head has seen")
        policy.check_recorded(policy.load(ground.home), chain.caps)
        yield from _snapshot(ground, chain)
    if place.head.parent.stat().st_dev == place.file.stat().st_dev:
        yield look(
            "ledger",
            "its sealed head lies on the same disk: a restored backup would go unnoticed.",
            "Set [ledger] head in site.toml to another mount.",
        )


def written_down(ground: Ground) -> Iterator[Finding]:
    """Every line and signature of the audit log."""
    path = ground.home / LOG_FILE
    if not path.exists():
        yield ok("audit", "no line yet; the log begins with the first message")
        return
    chain = audit.Chain(name="the audit log")
    chain.check_signatures(audit.lines_of(path.read_bytes()))
    yield ok("audit", f"{len(chain)} lines, every link and signature holds")


def ground_of(home: Path) -> Ground:
    """What there is to stand on. Raises: DataNotFound, PlanError for a home without a site.toml that parses."""
    try:
        plan = approved_plan(home)
    except FedwardError:
        plan = None  # `plan_in_force` says why
    return Ground(home=home, file=read_site_file(home), plan=plan, now=int(time.time()))


def _snapshot(ground: Ground, chain: Chain) -> Iterator[Finding]:
    data_set = ground.file.data.dataset if ground.file.data else "main"
    signed = chain.snapshots.get(data_set)
    if signed is None:
        yield look("snapshot", "no data set is approved for training yet.", "fedward site snapshot --plan PLAN")
        return
    try:
        found = manifest.read(ground.home / PREPARED_FOLDER)
    except SnapshotMismatch:
        found = None
    if found is None or found.digest != signed.manifest:
        yield wrong(
            "snapshot", "the prepared data are not what was approved.", "Prepare and approve them again: fedward site snapshot --plan PLAN"
        )
    else:
        yield ok("snapshot", f"data set '{data_set}' is as it was approved, {found.digest[:16]}")


def _entry_ends(left: int, say: str) -> Finding:
    renew = "Ask the consortium to renew this site's entry: fedward roster add --replace, same key."
    return look("identity", say, renew) if left > 0 else wrong("identity", f"{say}, which is over", renew)


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))
