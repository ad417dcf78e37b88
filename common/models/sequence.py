# SPDX-License-Identifier: Apache-2.0
"""Several images of a case: one encoder for each of them, and then one of three ways to make one answer of all.

*gru* (Cho et al. 2014, https://arxiv.org/abs/1406.1078) reads them one after the other, in their order: frames, visits. It is written out
of dense layers, so that private training clips it like any other.

*attention* lets each image look at all others (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762), knowing by the paper's fixed waves
where in the order each lies: one block with its shortcut, norm and two dense layers; the answer is their mean.

*mil* (Ilse et al. 2018, https://arxiv.org/abs/1802.04712, gated, equation 9) takes images without an order, such as tiles of a slide, one
of which may be all that matters: the answer is a mean weighted by how much each image looks like one to be asked. Where in a tile something
lies is chance, so its encoder keeps the largest value of each map and not the place.

`weights_of` reads what an answer rested on: not an explanation, but where to begin looking for one.

    B  batch      T  images of a case      C  channels      H, W  height and width      D  values of one image      K  outputs
"""

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.models.encoder import Attention, Encoder, places
from common.models.layers import Dropout
from common.plan import InputSpec, SequenceSpec


class Gru(nn.Module):
    """One after the other: (B, T, D) -> the state after the last, (B, D)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.of_image = nn.Linear(features, 3 * features)
        self.of_state = nn.Linear(features, 3 * features)

    def forward(self, x_BTD: Tensor) -> Tensor:
        state_BD = torch.zeros_like(x_BTD[:, 0])
        for given in self.of_image(x_BTD).unbind(dim=1):
            reset_x, keep_x, new_x = given.chunk(3, dim=1)
            reset_h, keep_h, new_h = self.of_state(state_BD).chunk(3, dim=1)
            keep = torch.sigmoid(keep_x + keep_h)
            new = torch.tanh(new_x + torch.sigmoid(reset_x + reset_h) * new_h)
            state_BD = keep * state_BD + (1 - keep) * new
        return state_BD


class SelfAttention(nn.Module):
    """Each looks at all: (B, T, D) -> (B, D)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.attention = Attention(features)
        self.norm = nn.GroupNorm(1, features)
        self.widen = nn.Linear(features, 2 * features)
        self.narrow = nn.Linear(2 * features, features)

    def forward(self, x_BTD: Tensor) -> Tensor:
        placed = x_BTD + places(x_BTD.shape[1], x_BTD.shape[2]).to(x_BTD)
        seen, _ = self.attention(placed, placed)
        x = self.norm((placed + seen).flatten(0, 1)).unflatten(0, x_BTD.shape[:2])
        whole_BD: Tensor = (x + self.narrow(functional.relu(self.widen(x)))).mean(dim=1)
        return whole_BD

    def weights(self, x_BTD: Tensor) -> Tensor:
        """How much each image was looked at by all together, (B, T), summing to 1."""
        placed = x_BTD + places(x_BTD.shape[1], x_BTD.shape[2]).to(x_BTD)
        looked_BTT: Tensor = self.attention(placed, placed)[1]
        return looked_BTT.mean(dim=1)


class Mil(nn.Module):
    """A weighted mean: (B, T, D) -> (B, D)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.shape = nn.Linear(features, features)
        self.gate = nn.Linear(features, features)
        self.score = nn.Linear(features, 1, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return (self.weights(x_BTD).unsqueeze(2) * x_BTD).sum(dim=1)

    def weights(self, x_BTD: Tensor) -> Tensor:
        """The part that each image has in the answer, (B, T), summing to 1."""
        scores_BT1 = self.score(torch.tanh(self.shape(x_BTD)) * torch.sigmoid(self.gate(x_BTD)))
        return torch.softmax(scores_BT1.squeeze(2), dim=1)


_WAYS: Final[Mapping[str, type[Gru | SelfAttention | Mil]]] = {"gru": Gru, "attention": SelfAttention, "mil": Mil}


class Sequence(nn.Module):
    """(B, T, C, H, W) -> (B, K)."""

    def __init__(self, spec: SequenceSpec, image: InputSpec, outputs: int) -> None:
        super().__init__()
        self.encoder = Encoder(spec.widths, (image.channels, image.height, image.width), spec.features, anywhere=spec.how == "mil")
        self.together: Gru | SelfAttention | Mil = _WAYS[spec.how](spec.features)
        self.dropout = Dropout(spec.dropout)
        self.head = nn.Linear(spec.features, outputs)

    def forward(self, x_BTCHW: Tensor) -> Tensor:
        logits_BK: Tensor = self.head(self.dropout(self.together(self._each(x_BTCHW))))
        return logits_BK

    def weights_of(self, x_BTCHW: Tensor) -> Tensor | None:
        """What part each image had in the answer, (B, T), summing to 1; None for a GRU, which does not say."""
        return None if isinstance(self.together, Gru) else self.together.weights(self._each(x_BTCHW))

    def _each(self, x_BTCHW: Tensor) -> Tensor:
        each_BTD: Tensor = self.encoder(x_BTCHW.flatten(0, 1)).unflatten(0, x_BTCHW.shape[:2])
        return each_BTD
