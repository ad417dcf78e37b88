# SPDX-License-Identifier: Apache-2.0
"""From a run folder to frozen types: the report's only door to the disk.

A folder is read while a run goes on, after a kill -9, and years later with another version of fedward. So only `run.json` must be there;
every other part that is absent or unreadable becomes a `Gap`, which the page prints, and a last line that was cut off in the middle is
left out and said so. Keys the report does not know are ignored: what is not named in a type here cannot reach the page, which is how a
patient's key in some later file stays out of it.

Text is cleaned once, here: control characters, lone surrogates and the marks that reverse the direction of text are replaced, so no
string in the folder can make a page that is malformed or that reads otherwise than it is written.
"""

import json
import math
import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from common.errors import DataNotFound, DataUnreadable
from common.tasks import Scores
from simulations.audits.membership import Attacked
from simulations.report.counted import CountedLine
from simulations.report.sites import BySite
from simulations.report.tabled import OtherScores

T = TypeVar("T")
JUDGEMENT = "judgement.json"
LENIENT = ConfigDict(extra="ignore", allow_inf_nan=True)
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRecord:
    """The plan as the run kept it: its text is what was agreed, the digest what every artefact names."""

    __pydantic_config__ = LENIENT
    name: str
    purpose: str = ""
    digest: str = ""
    toml: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """A group of images and patients, counted by class; of a site when it is named."""

    __pydantic_config__ = LENIENT
    site: str = ""
    images: int
    patients: int | None = None
    classes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """What became of the files that were looked at; rejected by reason."""

    __pydantic_config__ = LENIENT
    seen: int
    used: int
    rejected: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What the run says about privacy: the unit protected, and the budget that training kept to."""

    __pydantic_config__ = LENIENT
    unit: str = "none"
    epsilon: float | None = None
    delta: float | None = None
    noise: str = "local"
    noise_quorum: int | None = None
    colluders: int | None = None
    own_share_epsilon: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """run.json."""

    __pydantic_config__ = LENIENT
    fedward: str = ""
    plan: PlanRecord
    session: str = ""
    started: datetime | None = None
    finished: datetime | None = None
    seed: int | None = None
    engine: str = ""
    workers: int | None = None
    device: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    sites: tuple[Cohort, ...] = ()
    holdout: Cohort | None = None
    unit_source: str = ""
    privacy: Promise | None = None
    command: tuple[str, ...] = ()
    data: str = ""
    intake: Intake | None = None
    unsafe_noise_seed: int | None = None
    secure_aggregation: bool = False
    aggregation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Absence:
    """A site that was asked and did not answer, with the code of its reason."""

    __pydantic_config__ = LENIENT
    site: str
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One line of metrics.jsonl."""

    __pydantic_config__ = LENIENT
    number: Annotated[int, Field(validation_alias="round")]
    seconds: float | None = None
    sites: tuple[str, ...] = ()
    missing: tuple[Absence, ...] = ()
    fallen: tuple[Absence, ...] = ()
    auc: float | None = None
    balanced_accuracy: float | None = None
    epsilon: float | None = None
    own_share_epsilon: float | None = None
    update_norm: float | None = None
    headline: tuple[str, float] | None = None

    @property
    def judged(self) -> float | None:
        """The figure by which the task is judged first: of classification the AUC."""
        return self.auc if self.headline is None else self.headline[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """comparison.json, or judgement.json where no classes are told apart: the same hold-out, scored for each way of training."""

    __pydantic_config__ = LENIENT
    federated: Scores | OtherScores
    pooled: Scores | OtherScores | None = None
    local: dict[str, Scores | OtherScores] = field(default_factory=dict)
    not_private: Scores | OtherScores | None = None
    by_site: BySite | None = None
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """predictions.json: one row of class probabilities and one label per patient of the hold-out, and no name of any."""

    __pydantic_config__ = LENIENT
    federated: tuple[tuple[float, ...], ...]
    labels: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """membership.json: how the attack on each kind of model went, and the most that the promise allows, at each rate of false alarms."""

    __pydantic_config__ = LENIENT
    rates: tuple[float, ...]
    models: dict[str, Attacked]
    allowed: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One exhibit of inversion.json: grey values of 0 to 255, and how near it is to the true image, in dB."""

    __pydantic_config__ = LENIENT
    name: str
    psnr: float | None = None
    pixels: tuple[tuple[Annotated[int, Field(ge=0, le=255)], ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inversion:
    """inversion.json: an image, and what an attacker rebuilds of it from an update."""

    __pydantic_config__ = LENIENT
    noise_multiplier: float | None = None
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """What a plan has come to at a site: as seen from outside, and by more colluders than the plan assumes."""

    __pydantic_config__ = LENIENT
    outside: float
    own_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerFact:
    """What one line of a site's ledger says; `after` is there if it was charged for something."""

    __pydantic_config__ = LENIENT
    kind: str
    round: int = 0
    after: Sums | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLine:
    """One line of a site's ledger."""

    __pydantic_config__ = LENIENT
    fact: LedgerFact


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """A release that was paid for, and the sums so far."""

    kind: str
    round: int
    after: Sums


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A part of the folder that the page has to do without."""

    part: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """All that a report is made of."""

    run: Run
    rounds: tuple[Round, ...]
    comparison: Comparison | None
    predictions: Predictions | None
    membership: Membership | None
    inversion: Inversion | None
    counted: tuple[CountedLine, ...]
    ledgers: dict[str, tuple[Reservation, ...]]
    gaps: tuple[Gap, ...]


def read(folder: Path) -> RunFolder:
    """Read what is there.

    Raises: DataNotFound without a run.json, DataUnreadable if that one file does not say what was run.
    """
    gaps: list[Gap] = []
    counted = folder / "counted.jsonl"
    rounds = _lines(folder / "metrics.jsonl", TypeAdapter(Round), gaps)
    # Tasks without classes have no curves, and no attack that asks how sure a model is of one.
    classless = (folder / JUDGEMENT).is_file()
    beside: list[Gap] = [] if classless else gaps
    comparison = _optional(folder / (JUDGEMENT if classless else "comparison.json"), TypeAdapter(Comparison), gaps)
    predictions = _optional(folder / "predictions.json", TypeAdapter(Predictions), beside)
    membership = _optional(folder / "membership.json", TypeAdapter(Membership), beside)
    inversion = _optional(folder / "inversion.json", TypeAdapter(Inversion), beside)
    ledgers = {_clean(path.stem): _charges(_lines(path, TypeAdapter(LedgerLine), gaps)) for path in sorted(folder.glob("ledgers/*.jsonl"))}
    return RunFolder(
        run=_run(folder),
        rounds=tuple(sorted({line.number: line for line in rounds}.values(), key=lambda line: line.number)),
        comparison=comparison,
        predictions=_aligned(predictions, gaps),
        membership=_of_one_grid(membership, gaps),
        inversion=_of_pixels(inversion, gaps),
        counted=_lines(counted, TypeAdapter(CountedLine), gaps) if counted.is_file() else (),
        ledgers=ledgers,
        gaps=tuple(gaps),
    )


def _run(folder: Path) -> Run:
    path = folder / "run.json"
    if not path.is_file():
        raise DataNotFound(
            f"'{folder}' holds no run.json, so it is no run folder.", fix="Give the folder that `fedward simulate --out` wrote."
        )
    try:
        return TypeAdapter(Run).validate_python(_parse(path.read_text(encoding="utf-8")))
    except (ValueError, OSError) as error:
        raise DataUnreadable(f"'{path}' does not say what was run: {_reason(error)}.", fix="Restore the file, or run again.") from error


def _optional(path: Path, adapter: TypeAdapter[T], gaps: list[Gap]) -> T | None:
    """A part that may be missing, as it is in a run that has not come so far."""
    if not path.is_file():
        gaps.append(Gap(part=path.name, why="not in the run folder"))
        return None
    try:
        return adapter.validate_python(_parse(path.read_text(encoding="utf-8")))
    except (ValueError, OSError) as error:
        gaps.append(Gap(part=path.name, why=f"could not be read: {_reason(error)}"))
        return None


def _lines(path: Path, adapter: TypeAdapter[T], gaps: list[Gap]) -> tuple[T, ...]:
    """A file of one JSON value a line. The first line that does not read ends it, since nothing after it can be trusted to be whole."""
    if not path.is_file():
        gaps.append(Gap(part=path.name, why="not in the run folder"))
        return ()
    found: list[T] = []
    text = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(filter(str.strip, text.splitlines()), start=1):
        try:
            found.append(adapter.validate_python(_parse(line)))
        except ValueError as error:
            gaps.append(Gap(part=path.name, why=f"read up to line {number}, which is incomplete: {_reason(error)}"))
            break
    return tuple(found)


def _charges(lines: tuple[LedgerLine, ...]) -> tuple[Reservation, ...]:
    return tuple(
        Reservation(kind=line.fact.kind, round=line.fact.round, after=line.fact.after) for line in lines if line.fact.after is not None
    )


def _aligned(predictions: Predictions | None, gaps: list[Gap]) -> Predictions | None:
    """Rows and labels that do not belong to each other would draw a curve of nothing."""
    if predictions is None:
        return None
    rows, labels = predictions.federated, predictions.labels
    width = len(rows[0]) if rows else 0
    whole = all(len(row) == width and all(map(math.isfinite, row)) for row in rows)
    if rows and whole and len(rows) == len(labels) and all(0 <= label < width for label in labels):
        return predictions
    gaps.append(Gap(part="predictions.json", why=f"{len(rows)} rows of probabilities and {len(labels)} labels do not fit together"))
    return None


def _of_one_grid(membership: Membership | None, gaps: list[Gap]) -> Membership | None:
    """A curve with other rates than its neighbours could not be drawn beside them."""
    if membership is None:
        return None
    curves = [found.curve for found in membership.models.values()] + ([] if membership.allowed is None else [membership.allowed])
    if membership.models and all(len(curve) == len(membership.rates) and all(map(math.isfinite, curve)) for curve in curves):
        return membership
    gaps.append(Gap(part="membership.json", why=f"its curves do not belong to its {len(membership.rates)} rates"))
    return None


def _of_pixels(inversion: Inversion | None, gaps: list[Gap]) -> Inversion | None:
    if inversion is None:
        return None
    if inversion.pictures and all(picture.pixels and len(set(map(len, picture.pixels))) == 1 for picture in inversion.pictures):
        return inversion
    gaps.append(Gap(part="inversion.json", why="its pictures are not rectangles"))
    return None


def _parse(text: str) -> Any:
    return _clean_all(json.loads(text))


def _clean_all(value: Any) -> Any:
    match value:
        case str():
            return _clean(value)
        case list():
            return [_clean_all(item) for item in value]
        case dict():
            return {_clean(key): _clean_all(item) for key, item in value.items()}
    return value


def _clean(text: str) -> str:
    return _UNPRINTABLE.sub("\ufffd", text)


def _reason(error: Exception) -> str:
    """Where a file went wrong, without the value that stood there: it may be a patient's."""
    if isinstance(error, ValidationError):
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(step) for step in first["loc"]) or "the whole"
        return _clean(f"{place}: {first['msg']}")
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON at line {error.lineno}, column {error.colno}"
    return type(error).__name__
