# SPDX-License-Identifier: Apache-2.0
"""Images as they might also have been taken: turned, shifted, enlarged, mirrored, brighter or darker, with more noise.

    rows of a data set -> [augmentation] of the plan, a secret of the step -> the same rows, altered -> tensors of the step

A data set goes in and a data set comes out, so masks and boxes follow their image, and no task knows of it. Training alone calls this; a
prediction is of the image as it is.

*Privacy.* What is done to a case follows from its own images and from a secret that was drawn for this step: the stream of each is keyed by
a keyed hash of its pixels (BLAKE2b, RFC 7693). So whatever happens to one patient's images is the same whether or not another patient is
there, and leaving one out moves the sum of clipped gradients by one clip at most, as without augmentation. Streams that went by position in
the batch would be handed on to the next patient (common/models/layers.py says so of dropout). In private training the secret comes from the
run's noise source. Altered copies of one image are averaged within their patient's gradient like any images: they cost no more.

All geometry is one affine map, so an image is interpolated once (torch's affine_grid and grid_sample; what comes from outside is black, and
background in a mask). A box becomes the upright one around its turned corners; it is dropped when its middle leaves the picture.

    B  cases      T  images of a sequence      C  channels      H, W  height and width      M  boxes
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from client.imaging.dataset import Dataset, whole
from client.training.batches import FULL_SCALE
from common.plan import AugmentationSpec, Plan

SECRET_BYTES: Final = 32
Rows = NDArray[np.int64]


def shown(data: Dataset, rows: Rows, plan: Plan, secret: bytes) -> tuple[Dataset, Rows]:
    """The cases that a step trains on: a data set and rows of it. Where the plan alters nothing, those that were given.

    Guarantees: one case's is a function of that case and the secret.
    """
    if plan.augmentation is None:
        return data, rows
    assert len(secret) == SECRET_BYTES, "augmentation without a secret would tell what was done to whom"
    part = data.subset(rows)
    stored = part.images[:]
    streams = [_stream(case, secret) for case in stored]
    maps = Maps.draw(plan.augmentation, streams, height=stored.shape[-2], width=stored.shape[-1])
    light = _Light.draw(plan.augmentation, streams)
    parts: dict[str, NDArray[Any]] = {name: array[:] for name, array in part.parts.items()}
    for name, array in parts.items():
        match name:
            case "second":
                parts[name] = light.on(maps.pictures(array), streams)
            case "mask":
                parts[name] = maps.masks(array)
            case "boxes":
                parts[name] = maps.boxes(array)
    images = light.on(maps.pictures(stored), streams)
    altered = replace(part, images=whole(images), parts={name: whole(array) for name, array in parts.items()})
    return altered, np.arange(len(rows))


def _stream(case: NDArray[np.uint16], secret: bytes) -> np.random.Generator:
    key = hashlib.blake2b(np.ascontiguousarray(case).tobytes(), key=secret, digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Maps:
    """Where each point of an altered picture comes from, in pixels from the middle: p = turn (B, 2, 2) p' + offset (B, 2)."""

    turn: NDArray[np.float64]
    offset: NDArray[np.float64]
    height: int
    width: int

    @classmethod
    def draw(cls, spec: AugmentationSpec, streams: list[np.random.Generator], *, height: int, width: int) -> "Maps":
        """One for each stream."""
        drawn = np.array([rng.uniform(-1, 1, 9) for rng in streams]).reshape(-1, 9)
        angle, scale, right, down, cut, aside, above, across, upright = drawn.T
        sides = np.array([width, height])
        cut_away = spec.crop * np.abs(cut)
        zoom = (1 + spec.scale * scale) / (1 - cut_away)
        mirror = np.stack([_mirrored(across, spec.flips_across), _mirrored(upright, spec.flips_upright)], axis=1)
        radians = np.radians(spec.rotation_degrees * angle)
        back = np.stack([np.cos(radians), np.sin(radians), -np.sin(radians), np.cos(radians)], axis=1).reshape(-1, 2, 2)
        turn = mirror[:, :, np.newaxis] * back / zoom[:, np.newaxis, np.newaxis]
        shift = spec.shift * np.stack([right, down], axis=1) * sides
        middle = cut_away[:, np.newaxis] / 2 * np.stack([aside, above], axis=1) * sides
        return cls(turn=turn, offset=middle - np.einsum("bij,bj->bi", turn, shift), height=height, width=width)

    def pictures(self, stored: NDArray[np.uint16]) -> NDArray[np.float32]:
        """(B, ..., H, W) of stored values -> the same shape, float32 in [0, 1], by bilinear interpolation."""
        flat = torch.from_numpy(stored.astype(np.float32) / np.float32(FULL_SCALE)).flatten(1, -3)
        return self._sampled(flat, "bilinear").numpy().reshape(stored.shape)

    def masks(self, classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(B, H, W): each pixel has the class of the nearest; outside is class 0."""
        found: NDArray[np.uint8] = self._sampled(torch.from_numpy(classes).float().unsqueeze(1), "nearest").numpy()[:, 0].astype(np.uint8)
        return found

    def boxes(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, M, 5): class, left, top, right, bottom, in parts of width and height; class -1 is no box."""
        sides = np.array([self.width, self.height])
        corners = boxes[:, :, [1, 2, 3, 2, 3, 4, 1, 4]].reshape(*boxes.shape[:2], 4, 2).astype(np.float64)
        forth = np.linalg.inv(self.turn)
        before = (corners - 0.5) * sides - self.offset[:, np.newaxis, np.newaxis]
        after = np.einsum("bij,bmkj->bmki", forth, before) / sides + 0.5
        low, high = after.min(axis=2), after.max(axis=2)
        middle = (low + high) / 2
        there = (boxes[:, :, 0] >= 0) & ((middle > 0) & (middle < 1)).all(axis=2)
        clipped = np.concatenate([boxes[:, :, :1], np.clip(low, 0, 1), np.clip(high, 0, 1)], axis=2)
        return np.where(there[:, :, np.newaxis], clipped, -1).astype(np.float32)

    def _sampled(self, values_BKHW: Tensor, mode: str) -> Tensor:
        """torch's own coordinates run from -1 to 1 along each side."""
        sides = np.array([self.width, self.height])
        turn = self.turn * sides[np.newaxis, np.newaxis, :] / sides[np.newaxis, :, np.newaxis]
        theta = torch.from_numpy(np.concatenate([turn, (2 * self.offset / sides)[:, :, np.newaxis]], axis=2)).float()
        grid = functional.affine_grid(theta, list(values_BKHW.shape), align_corners=False)
        return functional.grid_sample(values_BKHW, grid, mode=mode, padding_mode="zeros", align_corners=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Light:
    """How bright each case becomes: x -> mean + contrast (x - mean) + brightness + noise, (B,)."""

    contrast: NDArray[np.float32]
    brightness: NDArray[np.float32]
    noise: float

    @classmethod
    def draw(cls, spec: AugmentationSpec, streams: list[np.random.Generator]) -> "_Light":
        drawn = np.array([rng.uniform(-1, 1, 2) for rng in streams], dtype=np.float32).reshape(-1, 2)
        return cls(contrast=1 + spec.contrast * drawn[:, 0], brightness=spec.brightness * drawn[:, 1], noise=spec.noise)

    def on(self, pictures: NDArray[np.float32], streams: list[np.random.Generator]) -> NDArray[np.uint16]:
        """Pictures (B, ..., H, W) in [0, 1] -> stored values."""
        last = (slice(None), *(np.newaxis for _ in pictures.shape[1:]))
        mean = pictures.mean(axis=tuple(range(1, pictures.ndim)), keepdims=True)
        found = mean + self.contrast[last] * (pictures - mean) + self.brightness[last]
        if self.noise:
            found += np.stack([np.float32(self.noise) * rng.standard_normal(pictures.shape[1:], dtype=np.float32) for rng in streams])
        stored: NDArray[np.uint16] = np.rint(np.clip(found, 0, 1) * FULL_SCALE).astype(np.uint16)
        return stored


def _mirrored(drawn: NDArray[np.float64], may: bool) -> NDArray[np.float64]:
    return np.where(may & (drawn < 0), -1.0, 1.0)
