# SPDX-License-Identifier: Apache-2.0
"""[input]: what the model is shown of a case: images, a record, a text; and what becomes of a file on its way there."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from common.plan.values import STRICT, ClassName, Fraction, Positive

Modality = Literal["CT", "MR", "CR", "DX", "US", "XA", "NM", "MG", "PT", "RF", "SM", "OP", "ES", "XC", "OT", "any"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A public intensity window in the modality's output units (CT: Hounsfield), PS3.3 C.11.2.1.2."""

    __pydantic_config__ = STRICT
    centre: float
    width: Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondImage:
    """[input.second]: another image of the same patient beside the first (MR with CT), in the same size; a patient may lack it."""

    __pydantic_config__ = STRICT
    modality: Modality
    window: Window | None = None
    mean: float = 0.5
    std: Positive = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordField:
    """[[input.record]]: one column of the patient's record. A number becomes (x - mean) / std; one of `values` becomes as many of 0 and 1.

    An empty cell, and a value that is not listed, is "not known": zeros, and one more value that says so.
    """

    __pydantic_config__ = STRICT
    column: Annotated[str, Field(min_length=1)]
    mean: float = 0.0
    std: Positive = 1.0
    values: tuple[ClassName, ...] = ()

    @property
    def width(self) -> int:
        """How many numbers of the model's input it makes."""
        return max(1, len(self.values)) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSpec:
    """[input.text]: a short clinical text; its first `length` words and pairs of words are hashed into `buckets` by a public function.

    So there is no vocabulary that could be learnt from patients, or leave with the model.
    """

    __pydantic_config__ = STRICT
    column: Annotated[str, Field(min_length=1)] = "text"
    buckets: Annotated[int, Field(ge=16, le=2**20)] = 1024
    length: Annotated[int, Field(ge=1, le=4096)] = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """[input]: what one image is once it enters the model: float32, (channels, height, width), (x - mean) / std of [0, 1].

    Without a window, a DICOM file's own VOI window is used, and the full range of the stored type where it has none.
    Mean and standard deviation are public constants, never measured on patients.

    frames: what becomes of a file with several frames, tiles or slices: refused, its first or middle one is taken, or each is an image.
    orientation: "canonical" turns and mirrors an image as its file says, until left, behind and below lie where a reader expects them.
    spacing_mm: one pixel's side; images are then resampled and cut or filled to height and width, not stretched. On whole slides it also
    chooses the level, and `tissue` is the least share of a tile that must be tissue. laterality, views: others are refused.

    sequence: how many images of a case the model sees together (slices, frames, visits), in their order; one, unless said. Where areas or
    boxes are to be found it is each image with its neighbours, an odd number with the image itself in the middle. A case may
    also have a second image, a record and a text; with `modality = "none"` it has no image, and height and width stay 0.
    """

    __pydantic_config__ = STRICT
    modality: Literal[Modality, "none"]
    height: Annotated[int, Field(ge=0, le=2048)] = 0
    width: Annotated[int, Field(ge=0, le=2048)] = 0
    sequence: Annotated[int, Field(ge=1, le=256)] = 1
    channels: Literal[1, 3] = 1
    window: Window | None = None
    mean: float = 0.5
    std: Positive = 0.5
    frames: Literal["single", "first", "middle", "each"] = "single"
    orientation: Literal["canonical", "stored"] = "canonical"
    spacing_mm: Positive | None = None
    laterality: Literal["L", "R"] | None = None
    views: tuple[Annotated[str, Field(min_length=1, max_length=16)], ...] = ()
    tissue: Fraction = 0.0
    second: SecondImage | None = None
    record: tuple[RecordField, ...] = ()
    text: TextSpec | None = None

    @property
    def has_image(self) -> bool:
        return self.modality != "none"

    @property
    def record_width(self) -> int:
        """How many numbers a record makes, 0 without one."""
        return sum(field.width for field in self.record)
