# SPDX-License-Identifier: Apache-2.0
"""Rounds as a coordinator sees them, told to a status one event after the other."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from common.plan import Plan
from common.update import Weights
from server.absences import Absence
from server.aggregation import SILENT
from server.journal import CommittedRound
from server.live import story
from server.live.status import SiteStatus, Status
from simulations import scenario

PLAN = Path(__file__).parents[3] / "simulations" / "plans" / "default.toml"
SITES = ("east", "mercy", "north", "south", "west")
STEPS = ("KEYS", "SHARE", "MASK", "CONFIRM", "UNMASK")
SESSION = bytes(range(16))
NOWHERE: Weights = None  # type: ignore[assignment] # no status looks at weights


def plan(*, rounds: int = 12) -> Plan:
    found = scenario.parse(PLAN.read_text(encoding="utf-8")).plan
    return replace(found, training=replace(found.training, rounds=rounds))


def begun(*, now: float = 1000.0, rounds: int = 12) -> Status:
    return story.begin(plan(rounds=rounds), session=SESSION, sites=SITES, now=now)


def committed(
    number: int, *, sites: Sequence[str] = SITES, missing: Mapping[str, str] | None = None, seconds: float = 30.0
) -> CommittedRound:
    return CommittedRound(
        round=number,
        attempt=0,
        sites=tuple(sites),
        missing=tuple(Absence(site=site, why=why) for site, why in (missing or {}).items()),
        checkpoint=f"round-{number}",
        sha256="00",
        seconds=seconds,
        update_norm=1.0 / number,
    )


def whole_round(status: Status, number: int, *, now: float, step_s: float = 5.0, lost: Mapping[str, str] | None = None) -> Status:
    """A round in which `lost` sites refuse or fall silent at training, as a coordinator tells it. It takes six steps' time."""
    lost = lost or {}
    status = story.round_opened(status, number, list(SITES), now)
    asked = list(SITES)
    for place, phase in enumerate(STEPS):
        opened = now + place * step_s
        status = story.phase_opened(status, phase, asked, opened)
        for site in asked:
            code = lost.get(site)
            if code != SILENT:
                status = story.site_heard(status, phase, site, code, 0 if code else 1000, opened + 1)
        heard = [site for site in asked if site not in lost]
        status = story.phase_closed(status, phase, answered=len(heard), asked=len(asked), now=opened + step_s)
        asked = heard
    return story.round_committed(status, committed(number, sites=asked, missing=lost, seconds=6 * step_s), now + 6 * step_s)


def site(status: Status, name: str) -> SiteStatus:
    return next(each for each in status.sites if each.name == name)
