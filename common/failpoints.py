# SPDX-License-Identifier: Apache-2.0
"""Named moments at which a test may kill a process, as a power cut would.

A claim such as "nothing is lost, wherever the process dies" is worth what was killed to try it. The code calls `reach("name")` at each
moment where something has just become durable, or is just about to; a process in whose environment

    FEDWARD_FAILPOINT=name          or          FEDWARD_FAILPOINT=name:3

stands sends itself SIGKILL when it comes there for the first, or third, time: nothing is flushed, no handler runs. Without the variable
a call is one look into the environment.

The names are a closed set, declared here with what has happened by then. A name that is none of them is refused rather than ignored: a
sweep with a misspelt name would kill nobody and pass. This is for tests. It can only end the process that reads it, which whoever may
set that process's environment can do anyway; long-lived doors say aloud that one is set (`armed`).

A power cut also loses what was written and not flushed; killing a process does not, so this cannot find a missing fsync.
"""

import os
import signal
from collections import Counter
from collections.abc import Mapping
from typing import Final, NamedTuple

from common.errors import FailpointUnknown

VARIABLE: Final = "FEDWARD_FAILPOINT"

SITE: Final[Mapping[str, str]] = {
    "after_ledger_line": "a line is in the ledger's file, and the sealed head does not know it",
    "after_reserve": "the charge is on the ledger, no image was opened",
    "after_training": "an update is in memory, and nowhere else",
    "after_update_stored": "the update is on disk, the record that commits to it is not",
    "after_keys_stored_before_reply": "the site has committed to its update, nobody has heard",
    "after_share_stored": "the sealed shares are on disk, nobody has heard",
    "after_mask_stored": "the step that masks is on disk, the masked update has not left",
    "after_confirm_stored": "the survivors are signed, nobody has heard",
    "after_unmask_stored": "the shares are opened and the keys erased, nobody has heard",
    "after_abandon_stored": "the attempt is given up, nobody has heard",
}
COORDINATOR: Final[Mapping[str, str]] = {
    "coordinator_after_train": "the journal knows who trained",
    "coordinator_after_share": "the journal knows who dealt shares",
    "coordinator_after_vector": "a masked update is on disk, the journal does not know",
    "coordinator_after_mask": "the journal knows whose masked update arrived",
    "coordinator_after_confirm": "the journal knows who confirmed the survivors",
    "coordinator_after_unmask": "the journal has the opened shares",
    "coordinator_after_abandon": "the journal knows who gave the attempt up",
    "coordinator_after_sum": "the sum is on disk, the journal does not know",
    "coordinator_before_commit": "the new model is in memory, and nowhere else",
    "coordinator_between_checkpoint_and_journal": "the checkpoint is on disk, the round is not committed",
    "coordinator_after_commit": "the round is committed, nothing was tidied up",
}
ANYWHERE: Final[Mapping[str, str]] = {
    "before_rename": "a file is written beside its place, whole, and the one before still counts",
}
NAMES: Final = frozenset((*SITE, *COORDINATOR, *ANYWHERE))


class Failpoint(NamedTuple):
    """Where to die: when `name` is reached for the `nth` time."""

    name: str
    nth: int


_reached: Counter[str] = Counter()


def reach(name: str) -> None:
    """Say that this process is at `name`. It may be the last thing that it does. Raises: FailpointUnknown."""
    if VARIABLE not in os.environ:
        return
    if name not in NAMES:
        raise _unknown(name)
    point = armed()
    _reached[name] += 1
    if point == (name, _reached[name]):
        os.kill(os.getpid(), signal.SIGKILL)


def so_far(name: str) -> int:
    """How often this process has been at a failpoint since one was set: for whoever sets one in a process that has begun."""
    return _reached[name]


def armed() -> Failpoint | None:
    """The failpoint that this process's environment asks for, for doors to say so. Raises: FailpointUnknown."""
    text = os.environ.get(VARIABLE)
    if text is None:
        return None
    name, colon, count = text.partition(":")
    if name not in NAMES or (colon and not (count.isdecimal() and int(count) > 0)):
        raise _unknown(text)
    return Failpoint(name, int(count) if colon else 1)


def _unknown(text: str) -> FailpointUnknown:
    return FailpointUnknown(
        f"{VARIABLE} is '{text}', which is no failpoint.",
        fix=f"Unset it: it is for tests, and kills this process. Or NAME[:COUNT] with one of: {', '.join(sorted(NAMES))}.",
    )
