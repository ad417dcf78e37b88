# SPDX-License-Identifier: Apache-2.0
"""An image with whatever else is known of the patient: a second image, a record, a text. Any of these may be missing.

Each source has an encoder of its own, which makes D values of it. How they come together:

*late*: side by side into one dense layer; each source is understood by itself first.

*cross-attention*: before that, each source's values look at the others' places (an image's are those of its last map; a record and a text
are one place each) and add what they find (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762), so that a finding in the record can
say where in the image to look.

A second image that is not there, and a text without a word, are replaced by values that are learnt: a dense layer on "it is missing", for a
text the vector of no word (text.py). Nothing is filled in with a mean of patients, and an absent image's pixels have no way into the
answer. What is missing *within* a record says so itself (client/imaging/parts.py).

    B  batch      C  channels      H, W  height and width      F  numbers of a record      L  words      S  sources      D  values of each
    N  places of all sources      K  outputs
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.models.encoder import Attention, Encoder, grid
from common.models.layers import Dropout
from common.models.text import Reader
from common.plan import FusionSpec, InputSpec


class Picture(nn.Module):
    """An image (B, C, H, W), and which are there (B, 1) -> its values (B, D), its places (B, h w, D)."""

    def __init__(self, spec: FusionSpec, image: InputSpec, *, may_lack: bool) -> None:
        super().__init__()
        self.encoder = Encoder(spec.widths, (image.channels, image.height, image.width), spec.features)
        self.missing = nn.Linear(1, spec.features, bias=False) if may_lack else None
        self.place = nn.Linear(spec.widths[-1], spec.features) if spec.how == "cross-attention" else None

    def forward(self, x_BCHW: Tensor, present_B1: Tensor | None = None) -> tuple[Tensor, Tensor]:
        maps = self.encoder.maps(x_BCHW)
        values_BD = self.encoder.summary(maps)
        places_BND = self._places(maps) if self.place else values_BD.unsqueeze(1)
        if self.missing is None or present_B1 is None:
            return values_BD, places_BND
        instead_BD = self.missing(1 - present_B1)  # 0 where the image is there
        there_B11 = present_B1.unsqueeze(1)
        return values_BD * present_B1 + instead_BD, places_BND * there_B11 + instead_BD.unsqueeze(1)

    def _places(self, maps: Tensor) -> Tensor:
        """What the last maps show at each place, and where it lies: else nobody could look at one side of an image."""
        assert self.place is not None
        shown_BND: Tensor = self.place(maps.flatten(2).mT)
        return shown_BND + grid(maps.shape[2], maps.shape[3], shown_BND.shape[2]).to(shown_BND)


class Fusion(nn.Module):
    """Image (B, C, H, W); second image (B, C, H, W) and whether it is there (B, 1); record (B, F); text (B, L): -> (B, K)."""

    def __init__(self, spec: FusionSpec, image: InputSpec, outputs: int) -> None:
        super().__init__()
        D = spec.features
        self.image = Picture(spec, image, may_lack=False)
        self.second = Picture(spec, image, may_lack=True) if image.second is not None else None
        self.record = nn.Linear(image.record_width, D) if image.record else None
        self.text = Reader(image.text.buckets, D) if image.text is not None else None
        self.attention = Attention(D) if spec.how == "cross-attention" else None
        sources = 1 + sum(each is not None for each in (self.second, self.record, self.text))
        self.hidden = nn.Linear(sources * D, spec.hidden)
        self.dropout = Dropout(spec.dropout)
        self.head = nn.Linear(spec.hidden, outputs)

    def forward(self, *given: Tensor) -> Tensor:
        values, places = zip(*self._sources(*given), strict=True)
        x_BSD = torch.stack(values, dim=1)
        if self.attention is not None:
            x_BSD = x_BSD + self._looked_around(x_BSD, places)
        logits_BK: Tensor = self.head(self.dropout(functional.relu(self.hidden(x_BSD.flatten(1)))))
        return logits_BK

    def _sources(self, *given: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The values (B, D) and the places (B, ., D) of each source, in the order in which they are given."""
        rest = list(given)
        found = [self.image(rest.pop(0))]
        if self.second is not None:
            found.append(self.second(rest.pop(0), rest.pop(0)))
        if self.record is not None:
            found.append(_one_place(functional.relu(self.record(rest.pop(0)))))
        if self.text is not None:
            found.append(_one_place(self.text(rest.pop(0))))
        return found

    def _looked_around(self, x_BSD: Tensor, places: tuple[Tensor, ...]) -> Tensor:
        """What each source finds at the others' places, (B, S, D); its own are hidden from it."""
        assert self.attention is not None
        owner_N = torch.cat([torch.full((each.shape[1],), source) for source, each in enumerate(places)]).to(x_BSD.device)
        others_SN = owner_N != torch.arange(len(places), device=x_BSD.device).unsqueeze(1)
        gathered_BSD: Tensor = self.attention(x_BSD, torch.cat(places, dim=1), others_SN)[0]
        return gathered_BSD


def _one_place(values_BD: Tensor) -> tuple[Tensor, Tensor]:
    return values_BD, values_BD.unsqueeze(1)
