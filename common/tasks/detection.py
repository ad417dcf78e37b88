# SPDX-License-Identifier: Apache-2.0
"""Detection: boxes, each of a class and with a score, found as peaks of a map (CenterNet: Zhou et al. 2019, https://arxiv.org/abs/1904.07850).

Of each cell of the map the model answers K logits, one for each class, then a box's width and height in cells, and where in the cell its
centre is. The truth is drawn as one Gaussian for each box, 1 in the cell of its centre, as wide as a box of that size may be off and still
overlap the true one by 0.7 (Law and Deng 2018, https://arxiv.org/abs/1808.01244, section 3.2). With y the drawn value, p the model's:

    heat    - 1/n sum over cells and classes of   (1 - p)^2 log p  where y = 1,   (1 - y)^4 p^2 log(1 - p)  elsewhere
    side    L1 distance of width and height, offset: of the place in the cell; each a mean over the n boxes, taken in their centres' cells
    loss    heat + offset + side / 10

n is this image's own number of boxes (1 for none): no image looks at another. A prediction is the peaks, cells that no neighbour's
probability exceeds, the surest first; two boxes of a class with centres closer than two cells are found as one.

    B  batch      M  boxes at most      K  classes      h, w  height and width of the map
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from common.tasks.task import Target

BOX_VALUES: Final = 4
OVERLAP: Final = 0.7
SIDE_WEIGHT: Final = 0.1
PRIOR: Final = -2.19
"""Log-odds of a centre before anything is learnt, 1 in 10: as section 4 of the paper has it, here a constant beside the head's own bias."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """Maps (B, K + 4, h, w); boxes (B, M, 5): class or -1, left, top, right, bottom in parts of width and height.

    A prediction is (B, M, 6): class or -1, score, left, top, right, bottom.
    """

    outputs: int
    most_boxes: int
    target: Target = "boxes"

    def loss(self, maps: Tensor, boxes: Tensor) -> Tensor:
        logits, sides, offsets = self._parts(maps)
        truth = _Truth.of(boxes.to(maps.dtype), height=maps.shape[2], width=maps.shape[3])
        boxes_of_each = truth.there.sum(dim=1).clamp(min=1)
        heat = _focal(logits, truth.heat(logits.shape[1]))
        distance = SIDE_WEIGHT * _distance(sides, truth.sides, truth) + _distance(offsets, truth.offsets, truth)
        return (heat + distance) / boxes_of_each

    def predict(self, maps: Tensor) -> Tensor:
        logits, sides, offsets = self._parts(maps)
        height, width = maps.shape[2:]
        heat = torch.sigmoid(logits)
        peaks = heat * (functional.max_pool2d(heat, 3, stride=1, padding=1) == heat)
        scores, places = peaks.flatten(1).topk(min(self.most_boxes, logits.shape[1] * height * width), dim=1)
        classes, cells = places.div(height * width, rounding_mode="floor"), places % (height * width)
        side, offset = _at(sides, cells).clamp(min=0), _at(offsets, cells)
        cell = torch.stack([cells % width, cells.div(width, rounding_mode="floor")], dim=-1)
        scale = maps.new_tensor([width, height])
        corners = torch.cat([(cell + offset - side / 2) / scale, (cell + offset + side / 2) / scale], dim=-1).clamp(0, 1)
        found = torch.cat([classes.unsqueeze(-1).to(maps.dtype), scores.unsqueeze(-1), corners], dim=-1)
        nothing = found.new_tensor([-1, 0, 0, 0, 0, 0])
        found = torch.where(scores.unsqueeze(-1) > 0, found, nothing)
        return torch.cat([found, nothing.expand(len(found), self.most_boxes - found.shape[1], -1)], dim=1)

    def _parts(self, maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, K, h, w), sides and offsets (B, 2, h, w)."""
        return maps[:, :-BOX_VALUES] + PRIOR, maps[:, -BOX_VALUES:-2], maps[:, -2:]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Truth:
    """True boxes in cells: there (B, M), classes and cells (B, M) int64, sides and offsets (B, M, 2) as x, y."""

    height: int
    width: int
    there: Tensor
    classes: Tensor
    cells: Tensor
    sides: Tensor
    offsets: Tensor

    @classmethod
    def of(cls, boxes: Tensor, *, height: int, width: int) -> "_Truth":
        scale = boxes.new_tensor([width, height])
        first, last = boxes[..., 1:3] * scale, boxes[..., 3:5] * scale
        centre = (first + last) / 2
        cell = torch.minimum(centre.floor().clamp(min=0), scale - 1)
        return cls(
            height=height,
            width=width,
            there=boxes[..., 0] >= 0,
            classes=boxes[..., 0].long().clamp(min=0),
            cells=(cell[..., 1] * width + cell[..., 0]).long(),
            sides=last - first,
            offsets=centre - cell,
        )

    def heat(self, classes: int) -> Tensor:
        """A Gaussian for each box, the largest where several meet, (B, K, h, w)."""
        spread = 2 * _deviation(self.sides).square().unsqueeze(-1)
        rows, columns = self.cells.div(self.width, rounding_mode="floor").unsqueeze(-1), (self.cells % self.width).unsqueeze(-1)
        down = torch.exp(-(torch.arange(self.height, device=rows.device) - rows).square() / spread) * self.there.unsqueeze(-1)  # (B, M, h)
        across = torch.exp(-(torch.arange(self.width, device=rows.device) - columns).square() / spread)  # (B, M, w)
        drawn = [_drawn(*of_image, classes) for of_image in zip(down, across, self.classes, strict=True)]
        return torch.stack(drawn) if drawn else down.new_zeros(0, classes, self.height, self.width)


def _drawn(down: Tensor, across: Tensor, kinds: Tensor, classes: int) -> Tensor:
    """One image's bells, (K, h, w), from (M, h), (M, w) and (M,). Image by image, as many boxes on a large map would fill the memory."""
    bells = down.unsqueeze(-1) * across.unsqueeze(-2)
    return torch.stack([torch.where((kinds == k)[:, None, None], bells, 0).amax(dim=0) for k in range(classes)])


def _focal(logits: Tensor, heat: Tensor) -> Tensor:
    """(B,), summed over cells and classes."""
    said = torch.sigmoid(logits)
    hit, miss = (1 - said).square() * functional.logsigmoid(logits), (1 - heat) ** 4 * said.square() * functional.logsigmoid(-logits)
    return -torch.where(heat >= 1, hit, miss).sum(dim=(1, 2, 3))


def _distance(said: Tensor, true: Tensor, truth: _Truth) -> Tensor:
    """L1 in the cells of the boxes' centres, summed over boxes, (B,)."""
    return ((_at(said, truth.cells) - true).abs().sum(dim=-1) * truth.there).sum(dim=1)


def _at(values: Tensor, cells: Tensor) -> Tensor:
    """Two values a cell, (B, 2, h, w), in these cells (B, M): (B, M, 2)."""
    return values.flatten(2).mT.gather(1, cells.unsqueeze(-1).expand(-1, -1, 2))


def _deviation(sides: Tensor) -> Tensor:
    """How far a centre may be off, as a standard deviation: a third of the largest radius at which two boxes overlap by `OVERLAP`, (B, M).

    Corners may both move in, both out, or one each way; each gives a quadratic equation for the radius, and the smallest root counts.
    """
    sum_, area = sides.sum(dim=-1), sides.prod(dim=-1)
    shifted = (sum_ - (sum_.square() - 4 * area * (1 - OVERLAP) / (1 + OVERLAP)).clamp(min=0).sqrt()) / 2
    smaller = (sum_ - (sum_.square() - 4 * (1 - OVERLAP) * area).clamp(min=0).sqrt()) / 4
    larger = (-sum_ + (sum_.square() + 4 * area * (1 / OVERLAP - 1)).sqrt()) / 4
    radius = torch.minimum(torch.minimum(shifted, smaller), larger)
    return (2 * radius + 1) / 6
