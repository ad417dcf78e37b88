# SPDX-License-Identifier: Apache-2.0
"""What a site process says of its site in `status.json`: the plan and the roster in force, and what patients have spent so far."""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from client.account import Account
from client.home import SiteFile
from client.membership.approval import approved_plan
from client.process.status import Spent, Status
from common import credentials
from common.errors import FedwardError
from common.plan import Plan, digest_of
from common.privacy.tally import View


def standing(home: Path, file: SiteFile, plan: Plan, *, version: str) -> Status:
    """Where a site stands before its first message. Raises: RosterError."""
    return Status(
        site=file.site.name,
        since=int(time.time()),
        process=os.getpid(),
        version=version,
        plan=digest_of(plan),
        plan_name=plan.name,
        roster_epoch=credentials.load_roster(home).epoch,
        spent=spent_so_far(home, file),
    )


def agreed(home: Path) -> dict[str, Any]:
    """The plan and the roster in force, as a status has them; what does not hold at the moment is left as it was told last."""
    found: dict[str, Any] = {}
    with suppress(FedwardError, OSError):
        found["roster_epoch"] = credentials.load_roster(home).epoch
        plan = approved_plan(home)
        found |= {"plan": digest_of(plan), "plan_name": plan.name}
    return found


def spent_so_far(home: Path, file: SiteFile) -> tuple[Spent, ...]:
    """From the ledger, verified; empty where there is none that can be read: the ledger's own commands say why."""
    try:
        chain = Account(home, file).chain()
    except (FedwardError, OSError):
        return ()
    if chain is None:
        return ()
    caps, tally = chain.caps, chain.tally
    return tuple(
        Spent(unit=unit, epsilon=tally.epsilon(View(unit=unit), caps.delta), cap=caps.eps_total, delta=caps.delta) for unit in tally.units()
    )
