# SPDX-License-Identifier: Apache-2.0
"""From everything that was said of one image to its class, or to a named reason why it has none.

All say the same: that is the class, whatever the policy. Otherwise the site's own labels.toml decides, and says so in advance:

    refuse      no label for this image (the default)
    majority    the class that most documents say; each document has one vote for each class that it names; none on a tie
    newest      what the documents of the latest moment say; none, if one that contradicts has no date, or they contradict each other

    >>> said = [Statement(source="csv", document="a", date="", label=1), Statement(source="fhir", document="b", date="20200101", label=0)]
    >>> settle(said, "refuse").why
    <Why.CONFLICT: 'E_LABEL_CONFLICT'>
    >>> settle([*said, Statement(source="fhir", document="c", date="20200102", label=1)], "majority").label
    1

A day without a time is the whole day: two statements of one day, one of them without a time, are of the same moment.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from client.imaging.labels.rules import Policy

_Key = TypeVar("_Key")


class Why(StrEnum):
    """Why an image has no label, or something that was said labels no image. `MEANING[why]` is for people."""

    NOTHING_SAID = "E_LABEL_NOTHING_SAID"
    CONFLICT = "E_LABEL_CONFLICT"
    TIE = "E_LABEL_TIE"
    UNDATED = "E_LABEL_UNDATED"
    UNKNOWN_CODE = "E_LABEL_UNKNOWN_CODE"
    NO_SUBJECT = "E_LABEL_NO_SUBJECT"
    ABSENT = "E_LABEL_ABSENT"
    OTHER_PATIENT = "E_LABEL_OTHER_PATIENT"
    FRAMES = "E_LABEL_FRAMES"
    OFF_GRID = "E_LABEL_OFF_GRID"
    NOT_CONFIRMED = "E_LABEL_NOT_CONFIRMED"
    TEMPLATE = "E_LABEL_TEMPLATE"
    UNREADABLE = "E_LABEL_UNREADABLE"


MEANING: dict[Why, str] = {
    Why.NOTHING_SAID: "No source says anything of this image that labels.toml knows.",
    Why.CONFLICT: "Sources contradict each other, and [labels] conflicts is 'refuse'.",
    Why.TIE: "Sources contradict each other, and as many, or as new ones, say one as say the other.",
    Why.UNDATED: "Sources contradict each other, and one has no date, so that none is the newest.",
    Why.UNKNOWN_CODE: "Codes that labels.toml lists under no class.",
    Why.NO_SUBJECT: "Something said of no image, study or patient in particular, or only of a place in space.",
    Why.ABSENT: "Something said of an image, study or patient that is not in this folder.",
    Why.OTHER_PATIENT: "A document of one patient that speaks of another patient's image. Have this looked at.",
    Why.FRAMES: "Something said of some frames of an image that is read as a whole.",
    Why.OFF_GRID: "A segment that was drawn on other pixels than the image's own, so it is no mask of it.",
    Why.NOT_CONFIRMED: "Preliminary, provisional, refuted, entered in error, or not verified although labels.toml asks for it.",
    Why.TEMPLATE: "A report that is not a measurement report (TID 1500).",
    Why.UNREADABLE: "A report, segmentation or export that does not hold together.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One class said of one image, by a document. `date`: 8 digits for a day, 14 for a second, or nothing."""

    source: str
    document: str = field(repr=False)
    date: str = field(repr=False)
    label: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """An image's class, or why it has none. `contested`: whether anybody said otherwise."""

    label: int | None
    why: Why | None
    contested: bool


def settle(statements: Collection[Statement], policy: Policy) -> Settled:
    """The class of one image.

    Guarantees: the order of the statements does not matter, nor does one that is there twice; a contested label is never returned under
    "refuse"; a label was said by somebody.
    """
    labels = {each.label for each in statements}
    if not labels:
        return Settled(label=None, why=Why.NOTHING_SAID, contested=False)
    if len(labels) == 1:
        return Settled(label=labels.pop(), why=None, contested=False)
    found: int | Why = Why.CONFLICT
    match policy:
        case "majority":
            found = _majority(statements)
        case "newest":
            found = _newest(statements)
    if isinstance(found, Why):
        return Settled(label=None, why=found, contested=True)
    return Settled(label=found, why=None, contested=True)


def _majority(statements: Collection[Statement]) -> int | Why:
    votes = Counter(label for _, label in {(each.document, each.label) for each in statements})
    (first, most), (_, next_most), *_ = votes.most_common(2)
    return first if most > next_most else Why.TIE


def _newest(statements: Collection[Statement]) -> int | Why:
    newest = latest({each: each.date for each in statements})
    if newest is None:
        return Why.UNDATED
    labels = {each.label for each in newest}
    return labels.pop() if len(labels) == 1 else Why.TIE


def latest(dates: Mapping[_Key, str]) -> list[_Key] | None:
    """Those of the last moment, or of the last day where one of that day has no time; None, if any has no date."""
    if not all(dates.values()):
        return None
    last_day = max(date[:8] for date in dates.values())
    newest = [key for key, date in dates.items() if date.startswith(last_day)]
    if all(len(dates[key]) > len(last_day) for key in newest):
        last = max(dates[key] for key in newest)
        newest = [key for key in newest if dates[key] == last]
    return newest
