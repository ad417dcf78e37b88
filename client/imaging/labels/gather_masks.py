# SPDX-License-Identifier: Apache-2.0
"""Masks from labels.toml: what the segmentations of a folder draw on its images, settled image by image, with the account.

Only the [segmentation] section says something of pixels; other sections of the file are for other plans. An image that a document looked at
and drew nothing on is all background only if `absent` says so, with the name of the plan's first class; otherwise it has no mask.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from client.imaging.labels import masks, rules
from client.imaging.labels.account import LabelAccount
from client.imaging.labels.agreement import Why
from client.imaging.labels.codes import coded
from client.imaging.labels.masks import BACKGROUND, Drawing, Mask
from client.imaging.labels.rules import Meaning, SegmentationSection
from client.imaging.labels.survey import Document, Pictured, Source, Survey, Surveyor, used_files
from client.imaging.labels.table import Labels
from client.imaging.listing import Listing
from client.imaging.rejection import Rejected
from common.errors import LabelsMismatch
from common.plan import InputSpec, SegmentationSpec


@dataclass(slots=True)
class _Drawn:
    """What was drawn on each image, by its number; which images were looked at; and what is no mask of any."""

    on: dict[int, list[Drawing]] = field(default_factory=lambda: defaultdict(list))
    looked: set[int] = field(default_factory=set)
    unused: Counter[Why] = field(default_factory=Counter)


def gather_masks(surveyor: Surveyor, listing: Listing, rules_file: Path, task: SegmentationSpec, spec: InputSpec) -> Labels:
    """A mask for each image that has one, by path. Raises: what reading labels.toml raises; LabelsMismatch, EngineError."""
    law = rules.read(rules_file)
    section = law.segmentation
    if section is None:
        raise LabelsMismatch(
            f"{rules_file.name}: the plan is to outline things, and no [segmentation] is there to say where outlines are.",
            fix="Add [segmentation.classes]: which codes of DICOM segmentations mean which class of the plan.",
        )
    meaning = rules.meaning(section, task.classes, name=Source.SEGMENTATION)
    if meaning.absent not in (None, BACKGROUND):
        raise LabelsMismatch(
            f"{rules_file.name}, [segmentation] absent: where nothing was drawn is background, and that is the plan's first class.",
            fix=f"Write absent = '{task.classes[BACKGROUND]}', or leave it out.",
        )
    survey = surveyor.folder(listing)
    drawn = _draw(surveyor, survey, meaning, section)
    found: dict[str, Mask] = {}
    unlabelled: Counter[Why] = Counter()
    for number, image in enumerate(survey.images):
        mask = _mask_of(number, image, drawn, law.labels.conflicts, spec)
        if isinstance(mask, Why):
            unlabelled[mask] += 1
        else:
            found[image.path] = mask
    documents = used_files(survey.documents, {Source.SEGMENTATION})
    account = LabelAccount(
        images=len(survey.images),
        labelled=Counter({BACKGROUND: len(found)}),
        unlabelled=unlabelled,
        settled=0,
        spoke={Source.SEGMENTATION.value: len(drawn.on.keys() | drawn.looked)},
        unused=drawn.unused,
        pairs=(),
    )
    if not found:
        raise LabelsMismatch(
            f"{rules_file.name}: not one of {len(survey.images)} images has a mask.",
            fix="\n".join(["It was counted:", *account.lines()[1:]]),
        )
    return Labels(
        key="path",
        column=rules_file.name,
        by_item=dict.fromkeys(found, BACKGROUND),
        rows=len(found),
        known={**survey.rejected, **documents},
        account=account,
        masks=found,
    )


def _draw(surveyor: Surveyor, survey: Survey, meaning: Meaning, section: SegmentationSection) -> _Drawn:
    by_item: dict[str, list[int]] = defaultdict(list)
    for number, image in enumerate(survey.images):
        by_item[image.item].append(number)
    documents = [each for each in survey.documents if each.source is Source.SEGMENTATION]
    drawn = _Drawn()
    for document, (told, _) in zip(documents, surveyor.tell("drawings", [each.path for each in documents]), strict=True):
        if told is None:
            drawn.unused[Why.UNREADABLE] += 1
            continue
        labels = _labels(told["segments"], meaning)
        drawn.unused[Why.UNKNOWN_CODE] += len(told["segments"]) - len(labels)
        if labels and meaning.absent is not None:
            names = [subject.name for subject in document.examined]
            drawn.looked |= {number for name in names for number in by_item[name] if survey.images[number].patient == document.patient}
        for item, frame, drawing in masks.drawings_of(told, document.name, labels):
            numbers = by_item.get(surveyor.name_of(item), [])
            drawn.unused[Why.ABSENT] += not numbers
            for number in numbers:
                why = _why_not(survey.images[number], document, frame, drawing)
                if why is not None:
                    drawn.unused[why] += 1
                elif drawing.pixels().sum() >= section.smallest:
                    drawn.on[number].append(drawing)
    drawn.unused = +drawn.unused
    return drawn


def _labels(segments: Mapping[str, Sequence[str]], meaning: Meaning) -> dict[int, int]:
    """Class by segment, of those that mean exactly one."""
    classes = {int(number): meaning.classes([(None, coded(*code))]) for number, code in segments.items()}
    return {number: found.pop() for number, found in classes.items() if len(found) == 1}


def _why_not(image: Pictured, document: Document, frame: int | None, drawing: Drawing) -> Why | None:
    if image.patient != document.patient:
        return Why.OTHER_PATIENT
    if image.frames > 1 or frame not in (None, 1):
        return Why.FRAMES
    return None if masks.lies_on(drawing, image) else Why.OFF_GRID


def _mask_of(number: int, image: Pictured, drawn: _Drawn, policy: rules.Policy, spec: InputSpec) -> Mask | Why:
    drawings = drawn.on.get(number, [])
    if drawings:
        mask = masks.compose(drawings, policy)
    elif number in drawn.looked and image.shape is not None:
        mask = np.zeros(image.shape, dtype=np.uint8)
    else:
        return Why.NOTHING_SAID
    try:
        return mask if isinstance(mask, Why) else masks.fit(mask, image, spec)
    except Rejected:
        return Why.OFF_GRID
