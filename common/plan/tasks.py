# SPDX-License-Identifier: Apache-2.0
"""[task]: what a prediction means, one type for each kind."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from common.plan.values import STRICT, ClassName, Fraction, Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationSpec:
    """[task] kind = "classification": one class for a case. Two classes make one logit (the second is the positive one), n make n.

    weights: how much a case of each class counts in the loss, for classes that are rare where the disease is; public, never counted from
    patients. label_smoothing: that part of the truth is spread evenly over the classes.
    """

    __pydantic_config__ = STRICT
    kind: Literal["classification"]
    classes: Annotated[tuple[ClassName, ...], Field(min_length=2, max_length=1000)]
    label_column: Annotated[str, Field(min_length=1)] = "label"
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    weights: Annotated[tuple[Positive, ...], Field(max_length=1000)] = ()
    label_smoothing: Fraction = 0.0

    @property
    def columns(self) -> tuple[str, ...]:
        """Where the truth stands in a table of images, beside each image's name."""
        return (self.label_column,)


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiLabelSpec:
    """[task] kind = "multi-label": several findings, each there or not by itself. One column of the labels for each, named like it.

    weights: how much more each finding counts in the loss where it is there; public, never counted from patients.
    """

    __pydantic_config__ = STRICT
    kind: Literal["multi-label"]
    classes: Annotated[tuple[ClassName, ...], Field(min_length=1, max_length=1000)]
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    weights: Annotated[tuple[Positive, ...], Field(max_length=1000)] = ()
    label_smoothing: Fraction = 0.0

    @property
    def columns(self) -> tuple[str, ...]:
        """Where the truth stands in a table of images."""
        return self.classes


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationSpec:
    """[task] kind = "segmentation": a class for each pixel; the first is the background. Loss: cross-entropy plus `dice` times Dice's.

    weights: how much a pixel of each class counts in the cross-entropy; public, never counted from patients.
    """

    __pydantic_config__ = STRICT
    kind: Literal["segmentation"]
    classes: Annotated[tuple[ClassName, ...], Field(min_length=2, max_length=255)]
    mask_column: Annotated[str, Field(min_length=1)] = "mask_file"
    dice: Annotated[float, Field(ge=0, le=100)] = 1.0
    weights: Annotated[tuple[Positive, ...], Field(max_length=255)] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Where the truth stands in a table of images: the path of a mask."""
        return (self.mask_column,)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionSpec:
    """[task] kind = "detection": boxes with a class and a score, found as peaks of a heat map (see common/tasks/detection.py).

    most_boxes: so many are kept of an image, in training (the first that are listed) and in a prediction (the surest).
    """

    __pydantic_config__ = STRICT
    kind: Literal["detection"]
    classes: Annotated[tuple[ClassName, ...], Field(min_length=1, max_length=255)]
    most_boxes: Annotated[int, Field(ge=1, le=1000)] = 64

    @property
    def columns(self) -> tuple[str, ...]:
        """None: boxes have a table of their own."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorationSpec:
    """[task] kind = "restoration": the image as it was, from one that was made worse by a public rule.

    "noise": Gaussian noise of standard deviation `strength` (of the full range), as at low dose; "resolution": shrunk by `strength` and
    enlarged again.
    """

    __pydantic_config__ = STRICT
    kind: Literal["restoration"]
    degradation: Literal["noise", "resolution"]
    strength: Positive

    @property
    def classes(self) -> tuple[str, ...]:
        """None: nothing is told apart."""
        return ()

    @property
    def columns(self) -> tuple[str, ...]:
        """None: an image is its own truth."""
        return ()


TaskSpec = Annotated[ClassificationSpec | MultiLabelSpec | SegmentationSpec | DetectionSpec | RestorationSpec, Field(discriminator="kind")]
