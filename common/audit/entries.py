# SPDX-License-Identifier: Apache-2.0
"""What an audit log can say: one fact a line, from a closed list, in ids, hashes, codes and counts of sites.

    {"fact":{"kind":"MASK",...},"prev":...,"seq":7,"sig":...,"t_utc":...,"v":1}

    both ends                                                    a site
    OPEN     the first line: whose log, which key                ASK         a good header came; now it is paid for, and trained
    START    a process began; which code                         RESERVE     the line of the privacy ledger that pays
    STOP     it ended on purpose                                 ANSWER      a step was answered: hashes of request and reply
    PAUSE    its operator stopped it for a while                 MASK        the masked update left: its hash
    RESUME   and let it go on                                    RELEASE     shares left, for one set of survivors
    PLAN     the plan that is followed from here on              ABANDON     shares of this attempt will never leave
    ROSTER   the roster in force from here on                    MEET        where the cohort's own logs stood
    KEY      the identity key that signs from here on            CONTRADICT  a peer remembers a line that is not here
                                                                 REFUSE      what was refused, by code
                                                                 LEAVE       its operator left the federation
    the coordinator
    SESSION  the run begins, from which model                    SUM     a group's sum: over whom, and its hash
    INVITE   whom a header went to, about which model            COMMIT  a round is done: the model that came of it
    HEAR     a step is over: each reply's hash, who is missing   PUBLISH the model is exported
    EXCLUDE  whom the next attempts at a sum go without, and by whose word

There is no field for text: no reason, file name, path, address or exception, and nothing about a patient. Names are names of the roster,
codes those of `common.errors`. `transcript` is what the protocol calls T1, T2 or T3 (common.secagg.messages): by it a log says exactly
which cohort and which survivors its owner saw, without listing them.

How a line is spelled, signed and named by the next stands in `common.spelling`; how lines become a log, in `common.audit.chain`.
"""

from dataclasses import dataclass
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field, TypeAdapter

from common.roster import NAME_PATTERN
from common.secagg.messages import RoundTag
from common.secagg.terms import Kind
from common.spelling import NO_SIGNATURE, STRICT, Count, Digest, Signature, Spelling, Stamp

FORMAT: Final = 1
_TITLE: Final = b"fedward audit 1\n"

Role = Literal["site", "coordinator"]
Name = Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")]
Code = Annotated[str, Field(pattern=r"^E_[A-Z0-9_]{1,40}$")]
Session = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Version = Annotated[str, Field(pattern=r"^fedward [0-9a-z.+]{1,40} sources [0-9a-f]{16}$")]
KindName = Literal["UPDATE", "STAT", "EVAL"]
StepName = Literal["KEYS", "SHARE", "MASK", "CONFIRM", "UNMASK", "ABANDON"]
Hashes = tuple[tuple[Name, Digest], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class At:
    """Where in a run: which attempt at which sum of which round."""

    __pydantic_config__ = STRICT
    session: Session
    round: Count
    attempt: Count
    kind: KindName


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request that was answered: the round's rt, and the SHA-256 of the control bytes of either."""

    __pydantic_config__ = STRICT
    at: At
    tag: Digest
    request: Digest
    reply: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """`key`: the public half of what signs."""

    __pydantic_config__ = STRICT
    kind: Literal["OPEN"] = "OPEN"
    role: Role
    name: Name
    key: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    __pydantic_config__ = STRICT
    kind: Literal["START"] = "START"
    version: Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    __pydantic_config__ = STRICT
    kind: Literal["STOP"] = "STOP"


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused:
    __pydantic_config__ = STRICT
    kind: Literal["PAUSE"] = "PAUSE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    __pydantic_config__ = STRICT
    kind: Literal["RESUME"] = "RESUME"


@dataclass(frozen=True, slots=True, kw_only=True)
class Departed:
    """The site's operator has left the federation, for good unless the site is enrolled anew."""

    __pydantic_config__ = STRICT
    kind: Literal["LEAVE"] = "LEAVE"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFollowed:
    __pydantic_config__ = STRICT
    kind: Literal["PLAN"] = "PLAN"
    plan: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class RosterAdopted:
    __pydantic_config__ = STRICT
    kind: Literal["ROSTER"] = "ROSTER"
    roster: Digest
    epoch: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class Rekeyed:
    """Signed by the key that it names. Whether that is this party's key is for a roster to say, not for the key before."""

    __pydantic_config__ = STRICT
    kind: Literal["KEY"] = "KEY"
    key: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A header was found good; nothing has been opened yet. `request` is the hash of its bytes, `tag` the round's rt."""

    __pydantic_config__ = STRICT
    kind: Literal["ASK"] = "ASK"
    at: At
    tag: Digest
    model: Digest
    request: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserved:
    """The privacy ledger's line `line`, whose hash is `head`, pays for what was asked."""

    __pydantic_config__ = STRICT
    kind: Literal["RESERVE"] = "RESERVE"
    at: At
    line: Count
    head: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """KEYS, SHARE or CONFIRM was answered. `transcript` is the round's tag, T1 or T3."""

    __pydantic_config__ = STRICT
    kind: Literal["ANSWER"] = "ANSWER"
    exchange: Exchange
    step: Literal["KEYS", "SHARE", "CONFIRM"]
    transcript: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Masked:
    """The point of no return. `transcript` is T2, `vector` the digest of the masked update as its site signed it."""

    __pydantic_config__ = STRICT
    kind: Literal["MASK"] = "MASK"
    exchange: Exchange
    transcript: Digest
    vector: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """One share of each secret left. `transcript` is T3: the survivors for whom it did."""

    __pydantic_config__ = STRICT
    kind: Literal["RELEASE"] = "RELEASE"
    exchange: Exchange
    transcript: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandoned:
    __pydantic_config__ = STRICT
    kind: Literal["ABANDON"] = "ABANDON"
    exchange: Exchange


@dataclass(frozen=True, slots=True, kw_only=True)
class Met:
    """Where the logs of the cohort's other sites stood, as each of them signed it: what makes rewriting one log everybody's business."""

    __pydantic_config__ = STRICT
    kind: Literal["MEET"] = "MEET"
    at: At
    tag: Digest
    heads: Hashes


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradicted:
    """`peer` says that this log once ended with a line `head`, which it does not have."""

    __pydantic_config__ = STRICT
    kind: Literal["CONTRADICT"] = "CONTRADICT"
    peer: Name
    head: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    __pydantic_config__ = STRICT
    kind: Literal["REFUSE"] = "REFUSE"
    request: Digest
    code: Code


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionBegun:
    """`model` is the digest of the initial weights."""

    __pydantic_config__ = STRICT
    kind: Literal["SESSION"] = "SESSION"
    session: Session
    plan: Digest
    model: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Invited:
    """The header of one group's attempt: what its tag is made of beside the plan, and whom it went to."""

    __pydantic_config__ = STRICT
    kind: Literal["INVITE"] = "INVITE"
    at: At
    group: Count
    tag: Digest
    roster: Digest
    model: Digest
    sites: tuple[Name, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A step is over. `replies` has the hash of each reply's control bytes, `missing` why there is none."""

    __pydantic_config__ = STRICT
    kind: Literal["HEAR"] = "HEAR"
    at: At
    group: Count
    step: StepName
    replies: Hashes
    missing: tuple[tuple[Name, Code], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """The attempts after this one go without `site`. `accusers` are those whose word is kept; none, where opening the sum named it."""

    __pydantic_config__ = STRICT
    kind: Literal["EXCLUDE"] = "EXCLUDE"
    at: At
    group: Count
    site: Name
    accusers: tuple[Name, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summed:
    """A group's sum is open. `transcript` is T3, `vectors` the digests of the masked updates in it, `sum` the SHA-256 of its words."""

    __pydantic_config__ = STRICT
    kind: Literal["SUM"] = "SUM"
    at: At
    group: Count
    tag: Digest
    transcript: Digest
    vectors: Hashes
    sum: Digest
    weight: Count

    @property
    def survivors(self) -> tuple[str, ...]:
        return tuple(site for site, _ in self.vectors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """`model` is what came of the round; `checkpoint` the hash of the file that holds it."""

    __pydantic_config__ = STRICT
    kind: Literal["COMMIT"] = "COMMIT"
    session: Session
    round: Count
    attempt: Count
    model: Digest
    sites: tuple[Name, ...]
    checkpoint: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    __pydantic_config__ = STRICT
    kind: Literal["PUBLISH"] = "PUBLISH"
    session: Session
    model: Digest


Said: TypeAlias = Answered | Masked | Released | Abandoned
"""What a site writes when a reply is about to leave."""
Fact: TypeAlias = (
    Opened
    | Started
    | Stopped
    | Paused
    | Resumed
    | Departed
    | PlanFollowed
    | RosterAdopted
    | Rekeyed
    | Asked
    | Reserved
    | Answered
    | Masked
    | Released
    | Abandoned
    | Met
    | Contradicted
    | Refused
    | SessionBegun
    | Invited
    | Heard
    | LeftOut
    | Summed
    | Committed
    | Published
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line."""

    __pydantic_config__ = STRICT
    v: Literal[1] = FORMAT
    seq: Count
    prev: Digest
    t_utc: Stamp
    fact: Annotated[Fact, Field(discriminator="kind")]
    sig: Signature = NO_SIGNATURE


KINDS: Final[dict[Kind, KindName]] = {Kind.UPDATE: "UPDATE", Kind.STAT: "STAT", Kind.EVAL: "EVAL"}
SPELLING: Final = Spelling(_TITLE, TypeAdapter(Entry))


def step_of(fact: Said) -> str:
    """The protocol's name of the step that was answered."""
    match fact:
        case Answered():
            return fact.step
        case Masked():
            return "MASK"
        case Released():
            return "UNMASK"
        case Abandoned():
            return "ABANDON"


def at_of(tag: RoundTag, kind: Kind) -> At:
    """Where in a run a round's tag is."""
    return At(session=tag.session.hex(), round=tag.round, attempt=tag.attempt, kind=KINDS[kind])
