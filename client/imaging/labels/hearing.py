# SPDX-License-Identifier: Apache-2.0
"""From what documents say to statements about images: which codes mean a class, and which image, study or patient is here.

A finding that was seen somewhere says nothing of where it was not. Only where labels.toml names an `absent` class does silence speak, and
then carefully: of an image that the documents of a source looked at, and of which none of them said anything that has a class, confirmed
or not. A report or segmentation looked for our classes if it found one somewhere; an export of diagnoses looked at every patient in it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from client.imaging.labels.agreement import Statement, Why
from client.imaging.labels.rules import Meaning
from client.imaging.labels.survey import Document, Pictured, Said, Source, Subject
from client.imaging.rejection import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """How one source is understood. `smallest`: pixels that a segment must have.

    verified: somebody must have put their name to it; preliminary: it need not be final.
    """

    meaning: Meaning
    smallest: int = 1
    verified: bool = False
    preliminary: bool = False


@dataclass(slots=True)
class Heard:
    """Statements by the index of the image, and what labels nothing."""

    statements: dict[int, list[Statement]] = field(default_factory=lambda: defaultdict(list))
    unused: Counter[Why] = field(default_factory=Counter)


class Hearing:
    """One pass over the documents about a set of images."""

    def __init__(self, images: Sequence[Pictured], documents: Iterable[Document]) -> None:
        self._images = images
        self._by_subject: dict[tuple[str, str], list[int]] = defaultdict(list)
        for number, image in enumerate(images):
            for level, name in (("image", image.item), ("study", image.study), ("patient", image.patient)):
                self._by_subject[level, name].append(number)
        self._documents = tuple(documents)
        self._drawings = {each.name: each for each in self._documents if each.source is Source.SEGMENTATION}

    def hear(self, listening: Mapping[Source, Listening]) -> Heard:
        """Everything that the sources listened to say of these images."""
        heard = Heard()
        for source, how in listening.items():
            spoken: set[int] = set()
            looked: dict[int, Document] = {}
            for document in (each for each in self._documents if each.source is source):
                has_class = self._hear(document, how, heard, spoken)
                if how.meaning.absent is not None and (has_class or source is Source.FHIR):
                    for number in self._examined(document):
                        looked[number] = max(document, looked.get(number, document), key=lambda each: (each.date, each.name))
            for number in sorted(looked.keys() - spoken):
                assert how.meaning.absent is not None
                heard.statements[number].append(_statement(looked[number], how.meaning.absent))
        return heard

    def _hear(self, document: Document, how: Listening, heard: Heard, spoken: set[int]) -> bool:
        """One document; whether it said anything that has a class. Adds to `spoken` the images that it was said of."""
        if document.unusable is not None:
            heard.unused[Why.TEMPLATE if document.unusable is Reason.NOT_AN_IMAGE else Why.UNREADABLE] += 1
            return False
        is_confirmed = (document.confirmed or how.preliminary) and (document.verified or not how.verified)
        has_class = False
        for said in document.said:
            if said.pixels is not None and said.pixels < how.smallest:
                continue
            classes = how.meaning.classes(said.codes)
            if not classes:
                heard.unused[Why.UNKNOWN_CODE] += 1
                continue
            has_class = True
            numbers = self._of(document, said, heard)
            spoken |= numbers
            if not is_confirmed:
                heard.unused[Why.NOT_CONFIRMED] += 1
                continue
            for number in sorted(numbers):
                heard.statements[number] += [_statement(document, label) for label in sorted(classes)]
        return has_class

    def _of(self, document: Document, said: Said, heard: Heard) -> set[int]:
        """The images that something was said of."""
        if not said.subjects:
            heard.unused[Why.NO_SUBJECT] += 1
        subjects = [each for each in said.subjects if each.name not in self._drawings]
        if not subjects:  # a region that is given by a segmentation alone: the images that it was drawn on
            subjects = [source for each in said.subjects for source in self._drawn_on(each)]
        numbers = {number for subject in subjects for number in self._here(document, subject, heard=heard)}
        if not numbers and any(each.level == "patient" for each in subjects):  # who has several identifiers is here by one of them
            heard.unused[Why.ABSENT] += 1
        return numbers

    def _examined(self, document: Document) -> set[int]:
        return {number for subject in document.examined for number in self._here(document, subject, heard=None)}

    def _drawn_on(self, subject: Subject) -> Iterator[Subject]:
        for said in self._drawings[subject.name].said:
            is_meant = (subject.frames is None or said.frame in subject.frames) and (
                subject.segments is None or said.segment in subject.segments
            )
            if said.pixels and is_meant:
                yield from said.subjects

    def _here(self, document: Document, subject: Subject, *, heard: Heard | None) -> Iterator[int]:
        """The images of a subject that may be labelled by it; the others are counted, if they are to be."""
        found = self._by_subject.get((subject.level, subject.name), [])
        if not found and heard is not None and subject.level != "patient":
            heard.unused[Why.ABSENT] += 1
        for number in found:
            image = self._images[number]
            why = None
            if document.patient is not None and image.patient != document.patient:
                why = Why.OTHER_PATIENT
            elif subject.frames is not None and not set(range(1, image.frames + 1)) <= set(subject.frames):
                why = Why.FRAMES
            if why is None:
                yield number
            elif heard is not None:
                heard.unused[why] += 1


def _statement(document: Document, label: int) -> Statement:
    return Statement(source=document.source, document=document.name, date=document.date, label=label)
