# SPDX-License-Identifier: Apache-2.0
"""labels.toml: which code of which source means which class of the plan. The site's own file, beside its images.

    [labels]
    conflicts = "refuse"                 # or "majority", "newest": see agreement.py

    [csv]
    file = "labels.csv"                  # a labels file as it would stand alone

    [structured_report.classes]          # a section is a source: without it, that source is not asked
    nodule = ["SCT:27925004"]

    [segmentation]
    absent = "normal"                    # what an image shows that was examined, and of which nothing below was said; mostly nothing
    [segmentation.classes]
    nodule = ["SCT:27925004"]

    [fhir]
    files = ["export.json"]
    [fhir.issuers]                       # identifier system -> Issuer of Patient ID (0010,0021) in the images; any other: no issuer
    "urn:oid:1.2.3" = "NORTH"
    [fhir.classes]
    nodule = ["I10:R91*", "SCT:27925004"]

A code that is listed under no class means nothing and is counted. One that would mean two classes is refused here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, TypeAdapter

from client.imaging.labels import codes
from client.imaging.labels.codes import Code, Pattern
from common.errors import LabelsMismatch
from common.plan.parse import Sections, read_table, text_of, validate
from common.plan.values import STRICT

RULES: Final = "labels.toml"
Policy = Literal["refuse", "majority", "newest"]
Spelled = Mapping[str, tuple[str, ...]]  # class name -> patterns
Below = Annotated[str, Field(min_length=1, max_length=4096)]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelsSection:
    """[labels]"""

    __pydantic_config__ = STRICT
    conflicts: Policy = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvSection:
    """[csv]: a file below the folder."""

    __pydantic_config__ = STRICT
    file: Below


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSection:
    """[structured_report]. `verified`: only reports that a person has put their name to (Verification Flag, 0040,A493).

    preliminary: also reports that say themselves that they are not final (Preliminary Flag, 0040,A496), as research software often does.
    """

    __pydantic_config__ = STRICT
    classes: Spelled
    absent: str | None = None
    verified: bool = False
    preliminary: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationSection:
    """[segmentation]. `smallest`: a segment of fewer pixels in an image is not there."""

    __pydantic_config__ = STRICT
    classes: Spelled
    absent: str | None = None
    smallest: Annotated[int, Field(ge=1)] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FhirSection:
    """[fhir]: files below the folder. `issuers`: identifier system to issuer; with any, identifiers of other systems are not used."""

    __pydantic_config__ = STRICT
    files: Annotated[tuple[Below, ...], Field(min_length=1)]
    classes: Spelled
    absent: str | None = None
    issuers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """labels.toml as it was read."""

    __pydantic_config__ = STRICT
    labels: LabelsSection = field(default_factory=LabelsSection)
    csv: CsvSection | None = None
    structured_report: ReportSection | None = None
    segmentation: SegmentationSection | None = None
    fhir: FhirSection | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """The patterns of one source, each with the class that it means."""

    patterns: tuple[tuple[Pattern, int], ...]
    absent: int | None

    def classes(self, said: Sequence[tuple[Code | None, Code]]) -> set[int]:
        """What these codes say, (name, value) each; empty, if they are none of ours."""
        return {label for name, value in said for pattern, label in self.patterns if pattern.matches(name, value)}


_RULES: TypeAdapter[Rules] = TypeAdapter(Rules)
_SECTIONS: Sections = {
    "labels": (LabelsSection,),
    "csv": (CsvSection,),
    "structured_report": (ReportSection,),
    "segmentation": (SegmentationSection,),
    "fhir": (FhirSection,),
}


def read(path: Path) -> Rules:
    """Raises: PlanSyntax, PlanUnknownKey, PlanValue; LabelsMismatch, if it names no source."""
    text = text_of(path)
    rules = validate(_RULES, read_table(text, name=path.name), text=text, name=path.name, sections=_SECTIONS, quoted=False)
    if not (rules.csv or rules.structured_report or rules.segmentation or rules.fhir):
        raise LabelsMismatch(
            f"{path.name}: no source of labels in it.", fix="Add one of [csv], [structured_report], [segmentation] and [fhir]."
        )
    return rules


def meaning(section: ReportSection | SegmentationSection | FhirSection, classes: Sequence[str], *, name: str) -> Meaning:
    """A source's patterns, in numbers of the plan's classes. Raises: LabelsMismatch for another class, or a code that means two."""
    patterns: dict[Pattern, int] = {}
    for label, spelled in section.classes.items():
        number = class_number(label, classes, where=f"[{name}.classes]")
        for text in spelled:
            pattern = _pattern(text, where=f"[{name}.classes] {label}")
            if patterns.setdefault(pattern, number) != number:
                raise LabelsMismatch(
                    f"{RULES}, [{name}.classes]: '{text}' means both '{classes[patterns[pattern]]}' and '{label}'.",
                    fix="Keep one of the two.",
                )
    absent = None if section.absent is None else class_number(section.absent, classes, where=f"[{name}] absent")
    return Meaning(patterns=tuple(patterns.items()), absent=absent)


def class_number(label: str, classes: Sequence[str], *, where: str) -> int:
    """Raises: LabelsMismatch, if the plan has no such class."""
    if label not in classes:
        raise LabelsMismatch(
            f"{RULES}, {where}: '{label}' is none of the plan's classes ({', '.join(classes[:12])}).",
            fix="Use the plan's names for its classes.",
        )
    return list(classes).index(label)


def _pattern(text: str, *, where: str) -> Pattern:
    try:
        return codes.parse(text)
    except ValueError as error:
        raise LabelsMismatch(f"{RULES}, {where}: '{text}' is not a code.", fix=f"{str(error)[:1].upper()}{str(error)[1:]}.") from error
