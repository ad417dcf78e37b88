# SPDX-License-Identifier: Apache-2.0
"""What a code means when it stands beside a site's name, and what the coordinator's operator can do about it.

A site sends a code and no words, since words could name a folder or a patient; what they mean is written here, at the reader's end. A code
that is not in the table is told by its cause, as drawn in `common.errors`; one that this version does not know is shown as it is.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from common import errors
from server.aggregation import FAILED, LEFT_OUT, SILENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """`what` goes on after a site's name, in the past; `todo` is for the coordinator's operator."""

    what: str
    todo: str


_GO_ON: Final = "then go on: fedward server start."
_ASK: Final = "Ask the site for the words of this code: fedward site status."
_CAUSES: Final[Mapping[str, str]] = dict(re.findall(r"[|`]-- \w+ +(E_[A-Z0-9_]+) +(.+)$", errors.__doc__ or "", re.MULTILINE))


def known() -> frozenset[str]:
    """Every code that this version can be told."""
    return frozenset(_CAUSES) | {SILENT, FAILED, LEFT_OUT}


def reason(code: str) -> Reason:
    """Any code in words."""
    if code in REASONS:
        return REASONS[code]
    cause = _CAUSES.get(code)
    return Reason(what=f"refused: {cause}" if cause else f"refused with {code or 'no code'}", todo=_ASK)


def of_run(code: str) -> Reason:
    """A code that ended a whole run; `what` is a clause of its own."""
    if code in RUN_REASONS:
        return RUN_REASONS[code]
    cause = _CAUSES.get(code, "no reason that this version knows")
    return Reason(what=cause, todo=f"The words are in run/log.jsonl; mend what they name, {_GO_ON}")


RUN_REASONS: Final[Mapping[str, Reason]] = {
    "E_COHORT_TOO_SMALL": Reason(
        what="fewer sites answered than a sum needs to hide one of them", todo=f"Bring the silent sites back, {_GO_ON}"
    ),
    "E_ROSTER_EXPIRED": Reason(
        what="the roster is out of its validity", todo=f"Have it renewed and signed (fedward roster sign --renew), {_GO_ON}"
    ),
    "E_DISK_FULL": Reason(what="this machine has no disk space left", todo=f"Free some, {_GO_ON}"),
    "E_CHECKPOINT_CORRUPT": Reason(
        what="no checkpoint of the run is whole", todo=f"Restore the run folder from its backup and check the disk, {_GO_ON}"
    ),
    "E_SUM_CANARY": Reason(
        what="a sum was altered on its way, twice", todo=f"Keep the audit logs and find who alters vectors (docs/protocol.md), {_GO_ON}"
    ),
    "E_AGG_NORM": Reason(
        what="a sum is longer than its sites could make it",
        todo="A site works against the model: have every site open its commitment to an auditor (docs/protocol.md).",
    ),
    "E_UNFORESEEN": Reason(
        what="an error that nobody foresaw",
        todo="This is a fault in fedward: report the line in run/log.jsonl. Until then: fedward server start.",
    ),
    "E_STOPPED": Reason(what="it was told to stop", todo="Go on when you like: fedward server start."),
}

REASONS: Final[Mapping[str, Reason]] = {
    SILENT: Reason(
        what="did not answer in time",
        todo="Ask the site whether its mailbox and site process run (fedward site doctor). It is asked again in the next round.",
    ),
    FAILED: Reason(
        what="failed while it answered, or its link broke",
        todo="Nothing, if it comes back by itself. If not, ask the site to run fedward site doctor.",
    ),
    LEFT_OUT: Reason(
        what="is left out of the rest of this round: shares that it dealt are no good, or it says so of another's and too few others do",
        todo="Read EXCLUDE in the coordinator's audit log and ask the site what it runs. It is asked again in the next round; if it"
        " repeats, revoke it: fedward roster revoke.",
    ),
    "E_SHARE_DECRYPT": Reason(
        what="could not open what another site sealed for it, and says whose",
        todo="If the round goes on, nothing now. If it repeats, read whom it accuses (docs/protocol.md), and ask both what they run.",
    ),
    "E_SITE_PAUSED": Reason(what="is paused by its operator", todo="Nothing: it comes back when its operator runs fedward site resume."),
    "E_SITE_LEFT": Reason(
        what="has left the federation", todo="Revoke it in the roster: fedward roster revoke, then have the roster signed."
    ),
    "E_SITE_AWAY": Reason(
        what="has its mailbox running, but not its site process", todo="Ask the site to start it: fedward site serve, or its service."
    ),
    "E_PLAN_MISMATCH": Reason(
        what="has approved another plan", todo="Send the site this plan; its operator reads and approves it: fedward site approve."
    ),
    "E_PLAN_NOT_APPROVED": Reason(
        what="has not approved the plan yet", todo="Ask its operator to read and approve it: fedward site approve."
    ),
    "E_PRIVACY_BUDGET": Reason(
        what="has used up its privacy budget and trains no more",
        todo="Nothing can be done here, and nothing should: the site keeps its promise to its patients. The run goes on with the others.",
    ),
    "E_POLICY": Reason(
        what="does not allow this by its own policy", todo="Ask the site what its policy objects to: fedward site policy check PLAN."
    ),
    "E_EPSILON_IMPOSSIBLE": Reason(
        what="cannot reach the plan's epsilon with the data it has", todo="Leave the site out, or agree on another plan."
    ),
    "E_TOO_FEW_PATIENTS": Reason(
        what="has too few patients for the plan", todo="Leave the site out until it has more, or agree on another plan."
    ),
    "E_SNAPSHOT": Reason(
        what="has data that differ from the snapshot it approved",
        todo="Ask the site to look at them and approve them: fedward site snapshot.",
    ),
    "E_DATA_NOT_FOUND": Reason(
        what="does not find its data", todo="Ask the site whether its data folder is mounted (fedward site doctor)."
    ),
    "E_LEDGER_TAMPERED": Reason(
        what="finds its record of spent privacy altered, and stops",
        todo="Ask the site to keep the file as it is and run fedward site ledger verify.",
    ),
    "E_LEDGER_ROLLBACK": Reason(
        what="finds its record of spent privacy gone or set back, and stops", todo="Ask the site to run fedward site ledger restore --help."
    ),
    "E_TRAIN_FAILED": Reason(
        what="failed while it trained",
        todo="Ask the site for its last error (fedward site status); often memory, GPU or a file is the cause.",
    ),
    "E_GPU_MISSING": Reason(what="does not find the GPU that it is told to train on", todo="Ask the site to run fedward site doctor."),
    "E_GPU_MEMORY": Reason(
        what="has too little memory on its GPU",
        todo="Ask the site which other program holds it (nvidia-smi); it goes on by itself.",
    ),
    "E_UNFORESEEN": Reason(
        what="met an error that nobody foresaw", todo="Ask for the line in its log and report it: this is a fault in fedward."
    ),
    "E_DISK_FULL": Reason(what="has no disk space left", todo="Ask the site to free some; it goes on by itself."),
    "E_UPDATE_NONFINITE": Reason(
        what="sent no finite numbers and was left out", todo="If several sites do, the plan's learning rate is too high."
    ),
    "E_UPDATE_NORM": Reason(
        what="sent a longer update than agreed and was left out", todo="Compare versions with the site; if they agree, ask what it runs."
    ),
    "E_MSG_FORMAT": Reason(what="sent something that is no answer", todo="Compare versions of fedward with the site."),
    "E_VERSION": Reason(what="speaks another version of the protocol", todo="Bring both ends to one version of fedward."),
    "E_ROSTER_CHANGED": Reason(
        what="holds another roster than this one",
        todo="Its operator has to fetch and approve the current roster: fedward site status says so.",
    ),
    "E_ROSTER_PENDING": Reason(
        what="has a newer roster that waits for its operator", todo="Ask its operator to look at the changes and approve them."
    ),
    "E_ROSTER_EXPIRED": Reason(
        what="finds the roster, or a member of it, out of its validity",
        todo="Renew the roster (fedward roster sign --renew), and compare the clocks.",
    ),
    "E_NODE_KEY": Reason(
        what="was greeted, and its mailbox gave a name that is not, or not only, its own",
        todo="Ask the site what answers at its mailbox; until it gives its own name, the run goes on without it.",
    ),
    "E_UNKNOWN_PEER": Reason(what="is in no group of this cohort", todo="Enrol the site, or have its new roster approved by the others."),
    "E_EQUIVOCATION": Reason(
        what="was asked two different things in one step, and refused",
        todo="Look for a second coordinator on this federation, perhaps from a restored backup, and stop it.",
    ),
    "E_SECOND_COORDINATOR": Reason(
        what="finds that its sites know more of this run than it does, and stops",
        todo="Look for a second coordinator, and whether this run folder is an old copy; let only the newest go on.",
    ),
    "E_JOURNAL_LOST": Reason(
        what="finds its journal gone or damaged, and stops", todo="Restore the run folder from a backup; see docs/operations.md."
    ),
    "E_REPLAY": Reason(
        what="was asked for a round that is over", todo="If it repeats, an old copy of the coordinator is running: stop it."
    ),
    "E_MODEL_JUMP": Reason(
        what="refused a model further from the last one than rounds allow",
        todo="Check that this is the run and the checkpoint that you mean to go on with.",
    ),
    "E_MODEL_CHAIN": Reason(
        what="refused a model that follows from none it has seen",
        todo="Was a backup restored here? Go on from a checkpoint that sites know.",
    ),
    "E_COHORT_TOO_SMALL": Reason(
        what="is in a group with too few answers for a sum", todo="Bring the silent sites back; a sum of fewer would not hide them."
    ),
    "E_SHARE_RECONSTRUCT": Reason(
        what="sent shares that fit nothing",
        todo="The attempt is repeated without it, and sites train again; if it repeats, ask the site what it runs, or revoke it.",
    ),
    "E_SUM_CANARY": Reason(
        what="is in a sum that was altered on the way", todo="The attempt is repeated; if it repeats, find who alters vectors."
    ),
}
