# SPDX-License-Identifier: Apache-2.0
"""What lies in a folder, header by header: images, and what documents say of them. The parent's side of `told` and `fhir`.

Identifiers become keyed names here, at once, so all that follows compares names without knowing whose they are.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Protocol

from pydantic import TypeAdapter

from client.imaging.geometry import Geometry
from client.imaging.identity import PatientSecret, is_placeholder, item_key, names_nobody, patient_key
from client.imaging.labels.codes import Code, coded
from client.imaging.listing import Listing
from client.imaging.readers import Progress, Task, read_all
from client.imaging.rejection import Reason
from client.imaging.worker import Brief, Kind, Limits
from common.plan import InputSpec

_GEOMETRY: TypeAdapter[Geometry] = TypeAdapter(Geometry)


class Source(StrEnum):
    """Where a statement comes from; the section of labels.toml that it belongs to."""

    CSV = "csv"
    REPORT = "structured_report"
    SEGMENTATION = "segmentation"
    FHIR = "fhir"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictured:
    """One image file: keyed names of whose it is, and what its header says of how it was made."""

    path: str = field(repr=False)
    patient: str
    study: str
    item: str
    frames: int
    years: int | None
    about: Mapping[str, str] = field(repr=False)
    shape: tuple[int, int] | None = None
    geometry: Geometry | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Subject:
    """What something is said of, by its keyed name: an image (some frames of it, or all), a study or a patient.

    segments: where a segmentation stands for the images that it was drawn on, which segments of it are meant.
    """

    level: str  # image, study, patient
    name: str
    frames: tuple[int, ...] | None = None
    segments: tuple[int, ...] | None = None


Codes = tuple[tuple[Code | None, Code], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One thing that a document says: codes, of subjects. Where somebody drew it: in which stored frame, which segment, how many pixels."""

    codes: Codes
    subjects: tuple[Subject, ...]
    frame: int | None = None
    segment: int | None = None
    pixels: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """Who said it: one report, one segmentation, one entry of an export. `examined`: what it looked at, whether it found something or not.

    patient: whose document it is, where that can contradict whose image it speaks of; path: of the file, or empty for an export's entry.
    """

    source: Source
    name: str
    date: str
    said: tuple[Said, ...]
    examined: tuple[Subject, ...] = ()
    patient: str | None = None
    path: str = field(default="", repr=False)
    confirmed: bool = True
    verified: bool = True
    unusable: Reason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """A folder's images and documents; and the files that are neither, by path."""

    images: tuple[Pictured, ...]
    documents: tuple[Document, ...]
    rejected: Mapping[str, Reason] = field(repr=False)


class Remembers(Protocol):
    """Keeps surveys, and gives back that of exactly the same files (memory.py)."""

    def recall(self, listing: Listing) -> Survey | None: ...
    def keep(self, survey: Survey, listing: Listing) -> None: ...


Tell = Callable[[Kind, Sequence[str]], Sequence[tuple[Any, Reason | None]]]
"""What each of these files tells, or why it tells nothing."""


def in_children(root: Path, input_spec: InputSpec, limits: Limits, *, workers: int | None = None, progress: Progress | None = None) -> Tell:
    """Files below the root are read in limited child processes. Raises, when asked: EngineError, if none starts."""

    def tell(kind: Kind, paths: Sequence[str]) -> list[tuple[Any, Reason | None]]:
        brief = Brief(kind=kind, input=input_spec, limits=limits, wanted=None)
        tasks = [Task(slot=slot, path=path) for slot, path in enumerate(paths)]
        with TemporaryFile() as nothing:  # a reader has an output, and these write none
            outcomes = read_all(root, nothing.fileno(), brief, tasks, workers=workers, progress=progress)
        return [(outcome.told, outcome.reason) for outcome in outcomes]

    return tell


@dataclass(frozen=True, slots=True, kw_only=True)
class Surveyor:
    """What surveying needs: the folder, who keys its identifiers, and who reads its files."""

    root: Path
    secret: PatientSecret
    tell: Tell
    memory: Remembers | None = None

    def folder(self, listing: Listing) -> Survey:
        """The header of every file of a folder, and its reports and segmentations whole; as remembered, if nothing has changed.

        Raises: EngineError, DiskFull.
        """
        known = None if self.memory is None else self.memory.recall(listing)
        if known is not None:
            return known
        survey = self._read(listing)
        if self.memory is not None:
            self.memory.keep(survey, listing)
        return survey

    def _read(self, listing: Listing) -> Survey:
        rejected: dict[str, Reason] = {}
        images: dict[str, Pictured] = {}
        documents: dict[str, Document] = {}
        for file, (told, reason) in zip(listing.files, self.tell("header", [file.path for file in listing.files]), strict=True):
            if told is None:
                rejected[file.path] = reason or Reason.CRASHED
            elif names_nobody(told["patient"]) or not told["item"]:
                rejected[file.path] = Reason.NO_PATIENT_ID
            elif told["kind"] == "image":
                images[file.path] = self._pictured(file.path, told)
            else:
                document = self._document(file.path, told)
                if documents.setdefault(document.name, document) is not document:
                    rejected[file.path] = Reason.DUPLICATE
        return Survey(images=tuple(images.values()), documents=tuple(documents.values()), rejected=rejected)

    def exports(self, paths: Sequence[str], issuers: Mapping[str, str]) -> tuple[Document, ...]:
        """The diagnoses of FHIR exports. A file that is none is a document that cannot be used. Raises: EngineError."""
        found: list[Document] = []
        for path, (told, reason) in zip(paths, self.tell("fhir", paths), strict=True):
            if told is None:
                unusable = reason or Reason.CRASHED
                found.append(Document(source=Source.FHIR, name=self._name("export", path), date="", said=(), path=path, unusable=unusable))
                continue
            found += [self._diagnosis(path, number, each, issuers) for number, each in enumerate(told["diagnoses"])]
            found += [self._patient(pairs, issuers) for pairs in told["patients"]]
        return tuple(found)

    def name_of(self, sop_instance_uid: str) -> str:
        """The keyed name of an image, as `Pictured.item` has it."""
        return self._name("sop_instance_uid", sop_instance_uid)

    def _pictured(self, path: str, told: dict[str, Any]) -> Pictured:
        return Pictured(
            path=path,
            patient=patient_key(self.secret, told["issuer"], told["patient"]),
            study=self._name("study", told["study"]),
            item=self._name("sop_instance_uid", told["item"]),
            frames=told["frames"],
            years=told["years"],
            about=told["about"],
            shape=None if told["shape"] is None else (told["shape"][0], told["shape"][1]),
            geometry=geometry_from(told["geometry"]),
        )

    def _document(self, path: str, told: dict[str, Any]) -> Document:
        source = Source(told["kind"])
        unusable = told.get("unusable")
        said: tuple[Said, ...] = ()
        if unusable is None:
            said = self._segments(told) if source is Source.SEGMENTATION else self._groups(told)
        return Document(
            source=source,
            name=self._name("sop_instance_uid", told["item"]),
            date=told["date"],
            said=said,
            examined=tuple(self._image(each) for each in told.get("evidence", ())),
            patient=patient_key(self.secret, told["issuer"], told["patient"]),
            path=path,
            confirmed=not told.get("preliminary", False),
            verified=told.get("verified", True),
            unusable=None if unusable is None else Reason(unusable),
        )

    def _groups(self, told: dict[str, Any]) -> tuple[Said, ...]:
        return tuple(
            Said(
                codes=tuple((coded(*each[:2]), coded(*each[2:])) for each in group["codes"]),
                subjects=tuple(self._image(item, frames, segments) for item, frames, segments in group["refs"]),
            )
            for group in told["groups"]
        )

    def _segments(self, told: dict[str, Any]) -> tuple[Said, ...]:
        kinds = {int(number): coded(*code) for number, code in told["segments"].items()}
        return tuple(
            Said(
                codes=((None, kinds[segment]),) if segment in kinds else (),
                subjects=tuple(self._image(item, None if of is None else [of]) for item, of in sources),
                frame=frame,
                segment=segment,
                pixels=pixels,
            )
            for frame, segment, pixels, sources in told["frames"]
        )

    def _diagnosis(self, path: str, number: int, told: dict[str, Any], issuers: Mapping[str, str]) -> Document:
        patients = self._patients(told["patients"], issuers)
        studies = tuple(Subject("study", self._name("study", study)) for study in told["studies"])
        subjects = studies if told.get("of_study") else patients
        return Document(
            source=Source.FHIR,
            name=self._name("export", path, told["id"] or str(number)),
            date=told["date"],
            said=(Said(codes=tuple((None, coded(*each)) for each in told["codes"]), subjects=subjects),),
            confirmed=told["confirmed"],
        )

    def _patient(self, pairs: Sequence[tuple[str, str]], issuers: Mapping[str, str]) -> Document:
        """That somebody appears in an export: nothing is said of them, but they were looked at."""
        subjects = self._patients(pairs, issuers)
        return Document(
            source=Source.FHIR, name=self._name("patient", *(each.name for each in subjects)), date="", said=(), examined=subjects
        )

    def _patients(self, pairs: Sequence[tuple[str, str]], issuers: Mapping[str, str]) -> tuple[Subject, ...]:
        known = [(issuers.get(system, ""), value) for system, value in pairs if not issuers or system in issuers]
        keys = dict.fromkeys(patient_key(self.secret, issuer, value) for issuer, value in known if not is_placeholder(value))
        return tuple(Subject("patient", key) for key in keys)

    def _image(self, item: str, frames: Sequence[int] | None = None, segments: Sequence[int] | None = None) -> Subject:
        return Subject(
            "image",
            self.name_of(item),
            None if frames is None else tuple(frames),
            None if segments is None else tuple(segments),
        )

    def _name(self, kind: str, *parts: str) -> str:
        return item_key(self.secret, kind, "\0".join(parts))


def geometry_from(told: dict[str, Any] | None) -> Geometry | None:
    """The other end of `told`: a geometry whose tuples came as lists."""
    return None if told is None else _GEOMETRY.validate_python(told)


def used_files(documents: Iterable[Document], asked: Container[Source]) -> dict[str, Reason]:
    """Reports and segmentations that were asked: no images, and not lost either."""
    return {each.path: Reason.LABEL_SOURCE if each.source in asked and each.unusable is None else Reason.NOT_AN_IMAGE for each in documents}
