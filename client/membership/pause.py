# SPDX-License-Identifier: Apache-2.0
"""A site that takes no part for a while, or no longer.

    paused    while this file lies in the home, the site answers no round: the operator's own switch, for maintenance or a doubt
    left      the site has left; the file is the statement that it signed for the coordinator (common/enrolment.py)

Both are looked at before anything else is, at every message, so that a pause holds from the next message on and needs no restart. A site
that pauses in the middle of a round is one that dropped out: the others finish. Its ledger and its audit log stay as they are. A pause
is taken back by `fedward site resume`; leaving is not, since the consortium revokes who left: coming back is enrolling again.
"""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from common.durable import OWNER_ONLY, write_atomically
from common.errors import SiteLeft, SitePaused

PAUSED_FILE: Final = "paused"
LEFT_FILE: Final = "left"


def check_not_paused(home: Path) -> None:
    """Raises: SitePaused, SiteLeft."""
    if (home / LEFT_FILE).exists():
        raise SiteLeft("this site has left the federation.", fix="To take part again: fedward site recover, see docs/enrolment.md.")
    if (home / PAUSED_FILE).exists():
        raise SitePaused("this site is paused by its operator.", fix="Go on with: fedward site resume.")


def pause(home: Path) -> bool:
    """From the next message on, no part in any round. False, if it was paused already. Raises: SiteLeft, DiskFull."""
    if is_paused(home):
        return False
    check_not_paused(home)
    since = datetime.fromtimestamp(int(time.time()), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    write_atomically(home / PAUSED_FILE, f"since {since}\n".encode(), fsync=True, mode=OWNER_ONLY)
    return True


def resume(home: Path) -> bool:
    """Take part again. False, if it was not paused. Raises: SiteLeft."""
    was = is_paused(home)
    (home / PAUSED_FILE).unlink(missing_ok=True)
    check_not_paused(home)
    return was


def come_back(home: Path) -> None:
    """A site that had left asks to be enrolled again; until a roster trusts it, nobody works with it."""
    (home / LEFT_FILE).unlink(missing_ok=True)


def is_paused(home: Path) -> bool:
    return (home / PAUSED_FILE).exists()


def has_left(home: Path) -> bool:
    return (home / LEFT_FILE).exists()
