# SPDX-License-Identifier: Apache-2.0
"""What is kept beside a log, under names that follow from what it is: plans and rosters at both ends, replies at the coordinator.

    evidence/plan-DIGEST.toml           a plan that the log names
             roster-DIGEST              a roster that it names, as the roots signed it
             ROUND-KIND-GROUP-ATTEMPT-STEP          every reply of one step, as it came: keys, confirmations, opened shares
             ROUND-KIND-GROUP-ATTEMPT-complaints    what sites signed about peers whose shares did not open there
             ROUND-KIND-GROUP-ATTEMPT-vector-SITE   a masked update, where the coordinator was told to keep them

The coordinator saw all of it when the round was on. What keeping it adds, and why it opens no site's update, stands in docs/evidence.md.
"""

from dataclasses import dataclass
from typing import Final, Literal

from common.audit.entries import At
from common.secagg import codec

FOLDER: Final = "evidence"
Keep = Literal["hashes", "vectors"]
"""How much of a round the coordinator keeps: the hash of each masked update, or the update too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A site's control bytes."""

    site_id: str
    control: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Replies:
    """What a step brought, and when it was closed (Unix seconds)."""

    closed: int
    items: tuple[Reply, ...]

    @property
    def by_site(self) -> dict[str, bytes]:
        return {item.site_id: item.control for item in self.items}


def plan_name(digest: str) -> str:
    return f"plan-{digest}.toml"


def roster_name(digest: str) -> str:
    return f"roster-{digest}"


def step_name(at: At, group: int, step: str) -> str:
    return f"{_attempt(at, group)}-{step}"


def complaints_name(at: At, group: int) -> str:
    return f"{_attempt(at, group)}-complaints"


def vector_name(at: At, group: int, site: str) -> str:
    return f"{_attempt(at, group)}-vector-{site}"


def write_replies(replies: Replies) -> bytes:
    return codec.write(replies)


def read_replies(content: bytes) -> Replies:
    """Raises: MessageFormat."""
    return codec.read(Replies, content, what="a file of replies")


def _attempt(at: At, group: int) -> str:
    return f"{at.round:06d}-{at.kind}-{group}-{at.attempt}"
