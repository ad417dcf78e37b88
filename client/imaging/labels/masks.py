# SPDX-License-Identifier: Apache-2.0
"""What was drawn on an image, as one mask: the class of each pixel, in the plan's size, turned and fitted as the image is.

A drawing lies on an image if it has the image's shape and says that it lies on its pixels, or if both lie in the same place of the same
patient; a claim that the geometry contradicts is not believed. Where nothing was drawn is background.

Documents add up: one organ each, one lesion each. They contradict each other where they give one pixel two classes, or outline the same
thing differently, and then labels.toml decides for that image as it does for classes:

    refuse      no mask
    majority    pixel by pixel, what most of the documents that drew on this image say (background is said too); none on a tie
    newest      the mask of the newest document alone; none, if one has no date, or two of the newest contradict each other
"""

import zlib
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from client.imaging.dicom import MAMMOGRAPHY, SLIDES
from client.imaging.geometry import Geometry, turn_of, turned
from client.imaging.labels.agreement import Why, latest
from client.imaging.labels.rules import Policy
from client.imaging.labels.survey import Pictured, geometry_from
from client.imaging.sample import fit_classes
from common.plan import InputSpec

Mask = NDArray[np.uint8]  # (Y, X), class of each pixel
BACKGROUND: Final = 0
SAME_MM, SAME_DIRECTION = 0.01, 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """One class drawn on one image by a document; the pixels stay packed until they are asked for."""

    document: str = field(repr=False)
    date: str = field(repr=False)
    label: int
    shape: tuple[int, int]
    on_grid: bool
    plane: Geometry | None = field(repr=False)
    bits: str = field(repr=False)

    def pixels(self) -> NDArray[np.bool_]:
        """(Y, X). Never more than the shape holds, whatever the packed bits would unpack to. Raises: ValueError, zlib.error."""
        size = self.shape[0] * self.shape[1]
        unpacked = zlib.decompressobj().decompress(b64decode(self.bits), -(-size // 8))
        return np.unpackbits(np.frombuffer(unpacked, dtype=np.uint8), count=size).astype(np.bool_).reshape(self.shape)


def lies_on(drawing: Drawing, image: Pictured) -> bool:
    """Whether a drawing's pixels are the image's."""
    if drawing.shape != image.shape:
        return False
    agreed = _same_place(drawing.plane, image.geometry)
    return drawing.on_grid if agreed is None else agreed


def _same_place(first: Geometry | None, second: Geometry | None) -> bool | None:
    """None where one of them does not say where it lies."""
    if first is None or second is None:
        return None
    pairs = [
        (first.position_mm, second.position_mm, SAME_MM),
        (first.across, second.across, SAME_DIRECTION),
        (first.down, second.down, SAME_DIRECTION),
        (first.spacing_mm, second.spacing_mm, SAME_DIRECTION),
    ]
    if any(one is None or other is None for one, other, _ in pairs):
        return None
    return all(np.allclose(np.array(one), np.array(other), rtol=0, atol=within) for one, other, within in pairs)


def compose(drawings: Sequence[Drawing], policy: Policy) -> Mask | Why:
    """One mask of what was drawn on one image; all drawings have its shape.

    Guarantees: the order of the drawings does not matter; a pixel's class was drawn there, or it is background.
    """
    by_document: dict[str, Mask] = {}
    for drawing in sorted(drawings, key=lambda each: each.label):
        mask = by_document.setdefault(drawing.document, np.zeros(drawing.shape, dtype=np.uint8))
        pixels = drawing.pixels()
        if _is_taken(mask, pixels, drawing.label):
            return Why.CONFLICT  # a document that contradicts itself is settled by no policy
        mask[pixels] = drawing.label
    masks = list(by_document.values())
    if not any(contradict(first, second) for first, second in combinations(masks, 2)):
        return _union(masks)
    dates = {drawing.document: drawing.date for drawing in drawings}
    match policy:
        case "refuse":
            return Why.CONFLICT
        case "majority":
            return _majority(masks)
        case "newest":
            return _newest(by_document, dates)


def _is_taken(mask: Mask, pixels: NDArray[np.bool_], label: int) -> bool:
    taken = mask[pixels]
    return bool(((taken != BACKGROUND) & (taken != label)).any())


def contradict(first: Mask, second: Mask) -> bool:
    """Whether two masks give a pixel two classes, or outline one thing differently."""
    both = (first != BACKGROUND) & (second != BACKGROUND)
    if not both.any():
        return False
    if (first[both] != second[both]).any():
        return True
    return any(((first == label) != (second == label)).any() for label in np.unique(first[both]))


def _union(masks: Sequence[Mask]) -> Mask:
    """Of masks that do not contradict each other."""
    return np.asarray(np.maximum.reduce(masks), dtype=np.uint8)


def _majority(masks: Sequence[Mask]) -> Mask | Why:
    stack = np.stack(masks)
    labels = np.unique(stack)
    votes = np.stack([(stack == label).sum(axis=0) for label in labels])
    ranked = np.sort(votes, axis=0)
    if len(labels) > 1 and (ranked[-1] == ranked[-2]).any():
        return Why.TIE
    return np.asarray(labels[votes.argmax(axis=0)], dtype=np.uint8)


def _newest(by_document: Mapping[str, Mask], dates: Mapping[str, str]) -> Mask | Why:
    newest = latest({document: dates[document] for document in by_document})
    if newest is None:
        return Why.UNDATED
    masks = [by_document[document] for document in newest]
    if any(contradict(first, second) for first, second in combinations(masks, 2)):
        return Why.TIE
    return _union(masks)


def fit(mask: Mask, image: Pictured, spec: InputSpec) -> Mask:
    """(H, W): turned, resized and cut as `sample.of_instance` does it with the image; no class is mixed. Raises: Rejected."""
    geometry, modality = image.geometry or Geometry(), image.about.get("modality", "")
    spacing_mm = geometry.spacing_mm
    if spec.orientation == "canonical" and modality != SLIDES:
        turn = turn_of(geometry, on_its_side=modality == MAMMOGRAPHY)
        mask = turned(mask, turn)
        spacing_mm = spacing_mm[::-1] if spacing_mm and turn.transposed else spacing_mm
    return np.asarray(fit_classes(mask, spec, spacing_mm), dtype=np.uint8)


def drawings_of(told: dict[str, Any], document: str, labels: Mapping[int, int]) -> Iterator[tuple[str, int | None, Drawing]]:
    """What a segmentation told, for the segments that mean a class: the image's UID and frame, and the drawing."""
    for each in told["drawings"]:
        if each["segment"] not in labels:
            continue
        drawing = Drawing(
            document=document,
            date=told["date"],
            label=labels[each["segment"]],
            shape=(each["shape"][0], each["shape"][1]),
            on_grid=each["on_grid"],
            plane=geometry_from(each["plane"]),
            bits=each["bits"],
        )
        for item, frame in each["sources"]:
            yield item, frame, drawing
