# SPDX-License-Identifier: Apache-2.0
"""What to ask the archive for: DICOM keywords with values, each at the level of study, series or instance that it belongs to.

    Modality=CT  StudyDate=20240101-20240630  SeriesDescription=*thorax*

Archives are free to ignore keys that they do not match on, and then return more than was asked for. So every answer is held against the
query again, as far as it says something about its keys; what contradicts it is left out and counted (PS3.4 C.2.2.2: single value,
wildcard and range matching).
"""

import csv
import fnmatch
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import typer

from client.pacs.wanted import is_uid


class Level(StrEnum):
    """As C-FIND calls them (PS3.4 C.3.1)."""

    STUDY = "STUDY"
    SERIES = "SERIES"
    IMAGE = "IMAGE"


KEYS: Final[dict[str, Level]] = {
    **dict.fromkeys(
        ("PatientID", "IssuerOfPatientID", "PatientSex", "PatientBirthDate", "AccessionNumber", "StudyDate", "StudyTime", "StudyID",
         "StudyInstanceUID", "StudyDescription", "ModalitiesInStudy"), Level.STUDY,
    ),
    **dict.fromkeys(
        ("Modality", "SeriesInstanceUID", "SeriesDescription", "SeriesNumber", "SeriesDate", "BodyPartExamined", "ProtocolName",
         "StationName"), Level.SERIES,
    ),
    **dict.fromkeys(("SOPInstanceUID", "SOPClassUID", "InstanceNumber"), Level.IMAGE),
}  # fmt: skip
LONGEST_LIST: Final = 16 << 20
_LONGEST: Final = 256
_MOST_ROWS: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Query:
    """Keys and values; all of them have to match. An empty one asks for everything."""

    keys: Mapping[str, str] = field(default_factory=dict)

    def at(self, level: Level) -> dict[str, str]:
        """What can be asked at one level. A modality of series also narrows the studies that are looked into."""
        found = {key: value for key, value in self.keys.items() if KEYS[key] is level}
        if level is Level.STUDY and "Modality" in self.keys and "ModalitiesInStudy" not in found and not _is_pattern(self.keys["Modality"]):
            found["ModalitiesInStudy"] = self.keys["Modality"]
        return found

    def allows(self, answer: Mapping[str, Sequence[str]], level: Level) -> bool:
        """Whether an answer's values, where it has any, are among those asked for."""
        return all(_any_matches(key, self.keys[key], answer[key]) for key in self.keys if KEYS[key] is level and answer.get(key))


def parse(words: Iterable[str], table: str | None = None) -> tuple[Query, ...]:
    """Queries from `Key=Value` words, and from a CSV whose header names keys: then one query for each row, with the words in each.

    Raises: typer.BadParameter, which names keys and lines, never a value.
    """
    common = dict(_pair(word) for word in words)
    if table is None:
        return (Query(keys=common),)
    if len(table) > LONGEST_LIST:
        raise typer.BadParameter(f"--list: more than {LONGEST_LIST} characters. Import in several runs.")
    return tuple(Query(keys={**common, **row}) for row in _rows(table))


def _pair(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not equals:
        raise typer.BadParameter("--query needs Key=Value, for example Modality=CT.")
    return key, _checked(key, value, where=f"--query {key}")


def _rows(table: str) -> Iterator[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(table.removeprefix("\ufeff")), strict=True)
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
    except csv.Error:
        raise typer.BadParameter("--list is no CSV in line 1.") from None
    for name in names:
        if name not in KEYS:
            raise typer.BadParameter(f"--list: column '{name}' in line 1 is no key that can be asked for. {_known()}")
    reader.fieldnames = names
    try:
        for number, row in enumerate(itertools.islice(reader, _MOST_ROWS + 1), start=1):
            if number > _MOST_ROWS:
                raise typer.BadParameter(f"--list: more than {_MOST_ROWS} rows. Import in several runs.")
            found = {key: value.strip() for key, value in row.items() if key in KEYS and value and value.strip()}
            if len(found) < len(names):
                raise typer.BadParameter(
                    f"--list: row {number} has an empty value, which would ask for everybody. Fill it in or remove the row."
                )
            yield {key: _checked(key, value, where=f"--list, row {number}, {key}") for key, value in found.items()}
    except csv.Error:
        raise typer.BadParameter(f"--list is no CSV in line {reader.line_num}.") from None


def _checked(key: str, value: str, *, where: str) -> str:
    if key not in KEYS:
        raise typer.BadParameter(f"'{key}' is no key that can be asked for. {_known()}")
    if not value or len(value) > _LONGEST or "\\" in value or not value.isprintable():
        raise typer.BadParameter(f"{where}: one value is needed, of at most {_LONGEST} printable characters and without a backslash.")
    if key.endswith("UID") and not is_uid(value):
        raise typer.BadParameter(f"{where}: no UID, which is digits and dots.")
    return value


def _known() -> str:
    return f"Known are: {', '.join(sorted(KEYS))}."


def _any_matches(key: str, asked: str, found: Sequence[str]) -> bool:
    asked = asked.strip().casefold()
    matches = _in_range if key.endswith(("Date", "Time")) and "-" in asked else _matches
    return any(matches(asked, value.strip().casefold()) for value in found)


def _matches(asked: str, found: str) -> bool:
    return fnmatch.fnmatchcase(found, asked.replace("[", "[[]")) if _is_pattern(asked) else found == asked


def _in_range(asked: str, found: str) -> bool:
    """20240101-20240630, and either end open; dates and times are written so that they sort."""
    first, _, last = (part.strip() for part in asked.partition("-"))
    return first <= found and (not last or found[: len(last)] <= last)


def _is_pattern(value: str) -> bool:
    return "*" in value or "?" in value
