# SPDX-License-Identifier: Apache-2.0
"""[model]: which network learns, one type for each family; the networks themselves are in common/models."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from common.plan.values import STRICT, Count, Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class CnnSpec:
    """[model] family = "cnn": convolutions with pooling, then two dense layers (see common/models/cnn.py)."""

    __pydantic_config__ = STRICT
    family: Literal["cnn"]
    widths: Annotated[tuple[Count, ...], Field(min_length=1, max_length=6)] = (32, 64, 64)
    hidden: Count = 64
    norm: Literal["group", "none"] = "group"
    dropout: Fraction = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNetSpec:
    """[model] family = "resnet": basic residual blocks with GroupNorm (see common/models/resnet.py)."""

    __pydantic_config__ = STRICT
    family: Literal["resnet"]
    widths: Annotated[tuple[Count, ...], Field(min_length=1, max_length=4)] = (16, 32, 64)
    blocks: Annotated[int, Field(ge=1, le=8)] = 1
    dropout: Fraction = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScatteringSpec:
    """[model] family = "scattering": fixed wavelets, then one dense layer (see common/models/scattering.py)."""

    __pydantic_config__ = STRICT
    family: Literal["scattering"]
    scales: Annotated[int, Field(ge=1, le=5)] = 2
    angles: Annotated[int, Field(ge=2, le=16)] = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetSpec:
    """[model] family = "unet": down and up again with shortcuts, an answer for each pixel (see common/models/unet.py)."""

    __pydantic_config__ = STRICT
    family: Literal["unet"]
    widths: Annotated[tuple[Count, ...], Field(min_length=2, max_length=6)] = (16, 32, 64)
    residual: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FcnSpec:
    """[model] family = "fcn": convolutions alone, for an answer at each pixel or, averaged, for an image (see common/models/fcn.py).

    pooling: the image is halved from each convolution to the next, which is cheap and blurs edges; else they see further each time.
    """

    __pydantic_config__ = STRICT
    family: Literal["fcn"]
    answer: Literal["image", "pixel"]
    widths: Annotated[tuple[Count, ...], Field(min_length=1, max_length=6)] = (16, 32, 32)
    pooling: bool = False
    dropout: Fraction = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CentreSpec:
    """[model] family = "centre": a detector's map of centres, one value for `stride` x `stride` pixels (see common/models/centre.py).

    The first width is at half the image's size, each further one at half the one before; `hidden` is the head's.
    """

    __pydantic_config__ = STRICT
    family: Literal["centre"]
    widths: Annotated[tuple[Count, ...], Field(min_length=1, max_length=6)] = (16, 32, 64)
    hidden: Count = 32
    stride: Literal[2, 4, 8] = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SrcnnSpec:
    """[model] family = "srcnn": three convolutions that make an image better (see common/models/srcnn.py).

    kernels: the side of each, odd; one more than widths.
    """

    __pydantic_config__ = STRICT
    family: Literal["srcnn"]
    widths: Annotated[tuple[Count, ...], Field(min_length=1, max_length=6)] = (64, 32)
    kernels: Annotated[tuple[Annotated[int, Field(ge=1, le=31)], ...], Field(min_length=2, max_length=7)] = (9, 1, 5)
    residual: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceSpec:
    """[model] family = "sequence": one encoder for each of [input] sequence images, and a way to take them together.

    how: one after the other in their order ("gru"), each looking at all ("attention"), or without an order, those that matter weighing
    most ("mil"). features: how many values stand for one image (see common/models/sequence.py).
    """

    __pydantic_config__ = STRICT
    family: Literal["sequence"]
    how: Literal["gru", "attention", "mil"]
    widths: Annotated[tuple[Count, ...], Field(min_length=1, max_length=6)] = (16, 32)
    features: Count = 32
    dropout: Fraction = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MlpSpec:
    """[model] family = "mlp": dense layers on the record, without an image (see common/models/mlp.py)."""

    __pydantic_config__ = STRICT
    family: Literal["mlp"]
    widths: Annotated[tuple[Count, ...], Field(min_length=1, max_length=6)] = (32, 16)
    dropout: Fraction = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TextNetSpec:
    """[model] family = "text": a vector for each hashed word, weighted by attention, without an image (see common/models/text.py)."""

    __pydantic_config__ = STRICT
    family: Literal["text"]
    features: Count = 16
    hidden: Count = 16
    dropout: Fraction = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionSpec:
    """[model] family = "fusion": an image with a second one, a record, a text, any of which may be missing (see common/models/fusion.py).

    how: side by side ("late"), or each source looking at the others first ("cross-attention"). features: values that stand for a source.
    """

    __pydantic_config__ = STRICT
    family: Literal["fusion"]
    how: Literal["late", "cross-attention"]
    widths: Annotated[tuple[Count, ...], Field(min_length=1, max_length=6)] = (16, 32)
    features: Count = 32
    hidden: Count = 32
    dropout: Fraction = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneSpec:
    """[model] family = "backbone": a residual network trained elsewhere; head and last stages learn on (transfer learning).

    weights: the name of a file of pre-trained weights, which every party has in a folder of its own; weights_digest: its SHA-256, so that
    all start from the same one. The first 4 - trained_stages stages stay as they are and never travel. width: channels of the first stage.
    norm: "frozen" for networks trained with BatchNorm, whose statistics became constants; "group" for GroupNorm (see
    common/models/backbone.py).
    """

    __pydantic_config__ = STRICT
    family: Literal["backbone"]
    architecture: Literal["resnet18", "resnet50"] = "resnet50"
    weights: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\.safetensors$")]
    weights_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    trained_stages: Annotated[int, Field(ge=0, le=4)] = 0
    norm: Literal["frozen", "group"] = "frozen"
    width: Annotated[int, Field(ge=4, le=128)] = 64
    dropout: Fraction = 0.0


ModelSpec = Annotated[
    BackboneSpec
    | CnnSpec
    | ResNetSpec
    | ScatteringSpec
    | UNetSpec
    | FcnSpec
    | CentreSpec
    | SrcnnSpec
    | SequenceSpec
    | MlpSpec
    | TextNetSpec
    | FusionSpec,
    Field(discriminator="family"),
]
