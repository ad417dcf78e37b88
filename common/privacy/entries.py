# SPDX-License-Identifier: Apache-2.0
"""What a privacy ledger says: one fact a line, each line naming the one before by its hash.

    {"code":...,"fact":{"kind":"RESERVE",...},"namespace":...,"prev":...,"seq":7,"sig":...,"t_utc":...,"v":1}

    OPEN      the first line: whose ledger this is, of which patients, with which caps        RESERVE  a round of training, paid beforehand
    PLAN      what a plan asks for, in its own words, when it is charged for the first time   STAT     a noised statistic
    SNAPSHOT  the data set as it stands from here on                                          EVAL     a noised evaluation
    EXCLUDE   a patient who is out from the next snapshot on, as a mark that names nobody     OVERRIDE caps as they are from here on
    VOID      a remark on an earlier line; what that line charged stays charged               REKEY    the key that signs from here on
    RESTORE   an older copy was put back: what was lost with the newer one, charged again

Here are the facts. How a line is spelled, signed and named by the next stands in `common.spelling`; linking and deciding are a site's
business (`client.ledger`).
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BeforeValidator, Field, TypeAdapter

from common.privacy.events import Charge
from common.spelling import FIRST, NO_SIGNATURE, STRICT, Count, Digest, Signature, Spelling, Stamp, digest, render

__all__ = ["FIRST", "NO_SIGNATURE", "STRICT", "Count", "Digest", "digest", "render"]  # what else speaks of lines has them from here

FORMAT: Final = 1
_TITLE: Final = b"fedward ledger 1\n"

Mark = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Reason = Annotated[str, Field(min_length=1, max_length=500)]
Cost = Annotated[float, BeforeValidator(lambda value: math.inf if value == "inf" else value), Field(ge=0)]
"""An epsilon; without limit it is the word "inf", since JSON has no such number."""
Finite = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Use = Literal["RESERVE", "STAT", "EVAL"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """The most that a patient's data may cost, in one plan and in all: seen from outside, and by more colluders than a plan assumes.

    The sums over all plans are taken at `delta`, which is also the largest delta that a plan may have.
    """

    __pydantic_config__ = STRICT
    eps_plan: Finite = 8.0
    eps_total: Finite = 8.0
    own_share_plan: Cost = 8.0
    own_share_total: Cost = 8.0
    delta: Annotated[float, Field(gt=0, le=1e-3)] = 1e-6

    def raised_over(self, recorded: "Caps") -> tuple[str, ...]:
        """The names of those that are higher than recorded."""
        names = (field.name for field in dataclasses.fields(Caps))
        return tuple(name for name in names if getattr(self, name) > getattr(recorded, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tallied:
    """A charge that was made `times` times for one plan."""

    __pydantic_config__ = STRICT
    unit: Literal["record", "patient"]
    plan: Digest
    charge: Charge
    times: Annotated[int, Field(ge=1, lt=2**53)]


@dataclass(frozen=True, slots=True, kw_only=True)
class After:
    """Epsilon with this line included: of the plan at the plan's delta, of all plans (same unit) at the caps' delta."""

    __pydantic_config__ = STRICT
    delta: Finite
    outside: Cost
    own_share: Cost
    delta_total: Finite
    outside_total: Cost
    own_share_total: Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """`key`: the public half of what signs."""

    __pydantic_config__ = STRICT
    kind: Literal["OPEN"] = "OPEN"
    site: str
    key: Digest
    caps: Caps


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSeen:
    """A plan's own words, so that a ledger can be read without the plan file; one without privacy promises epsilon "inf"."""

    __pydantic_config__ = STRICT
    kind: Literal["PLAN"] = "PLAN"
    plan: Digest
    name: str
    purpose: str
    unit: Literal["none", "record", "patient"]
    noise: Literal["local", "distributed"]
    epsilon: Cost
    delta: Annotated[float, Field(ge=0, lt=1)]
    rounds: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """A release, paid for before it is made. `snapshot` is the manifest of the data that it may open."""

    __pydantic_config__ = STRICT
    kind: Use
    plan: Digest
    session: str
    round: Count
    attempt: Count
    unit: Literal["record", "patient"]
    snapshot: Digest
    charge: Charge
    after: After


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshotted:
    """`dataset` is the site's name for this preparation; counts are rounded down as everything public is."""

    __pydantic_config__ = STRICT
    kind: Literal["SNAPSHOT"] = "SNAPSHOT"
    dataset: str
    manifest: Digest
    unit_source: str
    public_patients: Count
    public_records: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """`mark` is a hash of a keyed hash: it finds the patient again, among keyed hashes only."""

    __pydantic_config__ = STRICT
    kind: Literal["EXCLUDE"] = "EXCLUDE"
    mark: Mark


@dataclass(frozen=True, slots=True, kw_only=True)
class Overridden:
    """New caps, higher or lower, and why."""

    __pydantic_config__ = STRICT
    kind: Literal["OVERRIDE"] = "OVERRIDE"
    caps: Caps
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Voided:
    """`entry` is the line's number."""

    __pydantic_config__ = STRICT
    kind: Literal["VOID"] = "VOID"
    entry: Count
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """The ledger goes on as `branch`; of branch `lost_branch` what came after this place, through line `lost_through`, is charged here."""

    __pydantic_config__ = STRICT
    kind: Literal["RESTORE"] = "RESTORE"
    branch: Annotated[int, Field(ge=1, lt=2**32)]
    lost_branch: Annotated[int, Field(ge=0, lt=2**32)]
    lost_through: Count
    charges: tuple[Tallied, ...]
    excluded: tuple[Mark, ...]
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Rekeyed:
    """`consent` is the new key's signature over the old one and itself, so that nobody hands a ledger to a key that did not ask."""

    __pydantic_config__ = STRICT
    kind: Literal["REKEY"] = "REKEY"
    key: Digest
    consent: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]


Fact: TypeAlias = Opened | PlanSeen | Spent | Snapshotted | Excluded | Overridden | Voided | Restored | Rekeyed


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line. `code` is the version that wrote it, with a digest of its sources."""

    __pydantic_config__ = STRICT
    v: Literal[1] = FORMAT
    seq: Count
    prev: Digest
    t_utc: Stamp
    namespace: str
    code: str
    fact: Annotated[Fact, Field(discriminator="kind")]
    sig: Signature = NO_SIGNATURE


SPELLING: Final = Spelling(_TITLE, TypeAdapter(Entry))


def parse(line: bytes) -> Entry:
    """The entry that is spelled so. Raises: ValueError for any other bytes."""
    return SPELLING.parse(line)


def signed_text(value: "Entry | Any") -> bytes:
    """What a signature is over: the value as spelled with an empty one."""
    return SPELLING.signed_text(value)


def consent_text(old_key: str, new_key: str) -> bytes:
    """What a new key signs to take a ledger over."""
    return _TITLE + b"rekey\n" + old_key.encode() + b"\n" + new_key.encode()
