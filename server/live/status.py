# SPDX-License-Identifier: Apache-2.0
"""What is known of a run at one moment, as one frozen value and as one file.

Times are Unix seconds of the coordinator's clock: readers are other programs, and stay when this one has gone. Everything here is public
among the consortium, or was released: names of sites, what they were asked and when they answered, codes, sizes of messages; the length
of the mean update, and noised counts with their intervals (`server.counts`). Nothing is added up that a single site said of its patients.

The file is written whole or not at all, and read strictly: a status that another version wrote is refused by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from pydantic import TypeAdapter, ValidationError

from common.counting.evaluation import EvaluationFigures
from common.counting.statistics import StatisticFigures
from common.durable import write_atomically
from common.errors import StatusUnreadable
from common.plan.values import STRICT

STATUS_FILE: Final = "status.json"
SCHEMA: Final = 1

SiteState = Literal["unheard", "asked", "answered", "refused", "failed", "silent", "paused", "left", "revoked", "not in cohort"]
RunState = Literal["starting", "waiting", "running", "paused", "finished", "stopped"]

OUT_OF_SIGHT_S: Final = 20.0
"""A status that nobody has written for so long is of a coordinator that is gone; it writes every five seconds at the least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFacts:
    """What of the plan a reader needs to understand the rest. `epsilon` is the promise, None without one;"""

    __pydantic_config__ = STRICT
    name: str
    purpose: str
    digest: str
    rounds: int
    minimum_cohort: int
    deadline_s: float
    unit: str
    epsilon: float | None
    delta: float | None
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteStep:
    """What a site did in one step of the round that is open, and since when."""

    __pydantic_config__ = STRICT
    phase: str
    state: SiteState
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteStatus:
    """One site. `code` says why, where it refused or failed; `last_seen` is when it last said anything, a refusal too."""

    __pydantic_config__ = STRICT
    name: str
    state: SiteState
    since: float
    code: str = ""
    last_seen: float | None = None
    rounds: int = 0
    bytes_up: int = 0
    steps: tuple[SiteStep, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseDone:
    """A closed step of the round that is open, all groups together."""

    __pydantic_config__ = STRICT
    phase: str
    seconds: float
    answered: int
    asked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A committed round: how many sites are in its sum and how many are not; `update_norm` is the L2 length of the mean delta."""

    __pydantic_config__ = STRICT
    round: int
    at: float
    seconds: float
    sites: int
    missing: int
    update_norm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """An evaluation as it was released, or the code of why there is none. It judges the model after `after_round`."""

    __pydantic_config__ = STRICT
    after_round: int
    figures: EvaluationFigures | None
    failure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A statistic of the training data as it was released, or the code of why there is none."""

    __pydantic_config__ = STRICT
    figures: StatisticFigures | None
    failure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Somebody who was asked and did not answer to the end; `site` is empty where the round itself failed."""

    __pydantic_config__ = STRICT
    at: float
    round: int
    site: str
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """How often a step was closed in this session, and the seconds that it took in all."""

    __pydantic_config__ = STRICT
    times: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A run at one moment.

    `round` is the one that is open, or was open last; `phase` is empty between steps; `why` says what is waited for, or what ended the run.
    `kept` is the round whose model is given out, 0 until that is known. `starts` counts how often the coordinator was started in this
    session. `history` holds every recent commit and ever fewer older ones.
    """

    __pydantic_config__ = STRICT
    schema: int = SCHEMA
    fedward: str
    plan: PlanFacts
    session: str
    starts: int
    begun: float
    written: float
    state: RunState
    since: float
    why: str = ""
    kept: int = 0
    round: int = 0
    round_since: float
    phase: str = ""
    phase_since: float
    committed: int = 0
    sites: tuple[SiteStatus, ...]
    phases: tuple[PhaseDone, ...] = ()
    history: tuple[Commit, ...] = ()
    judged: tuple[Judged, ...] = ()
    described: Described | None = None
    failures: tuple[Failure, ...] = ()
    failed: Mapping[str, int] = field(default_factory=dict)
    took: Mapping[str, Took] = field(default_factory=dict)
    journal_bytes: int = 0

    @property
    def deadline(self) -> float | None:
        """When the step that is open ends at the latest."""
        return self.phase_since + self.plan.deadline_s if self.phase else None


_STATUS: Final[TypeAdapter[Status]] = TypeAdapter(Status)


def write_status(path: Path, status: Status) -> None:
    """Replace the file. It is for looking at, so it need not survive a power cut. Raises: DiskFull."""
    write_atomically(path, _STATUS.dump_json(status), fsync=False)


def read_status(path: Path) -> Status | None:
    """What the coordinator last wrote; None, if it has not written yet. Raises: StatusUnreadable."""
    try:
        return _STATUS.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StatusUnreadable(
            f"'{path.name}' cannot be read: {error.strerror}.", fix="Let the reader's user read the run folder."
        ) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise StatusUnreadable(
            f"'{path.name}' is no status of this version of fedward: {where}: {first['msg']}.",
            fix="Run the same version of fedward as the coordinator; the file is written anew when it goes on.",
        ) from error


def as_json(status: Status) -> bytes:
    """The same bytes as in the file."""
    return _STATUS.dump_json(status)
