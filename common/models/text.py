# SPDX-License-Identifier: Apache-2.0
"""A short clinical text: a vector for each hashed word or pair of words, a mean weighted by attention, dense layers.

Pooling is that of Yang et al. 2016 (https://aclanthology.org/N16-1174, section 2.2) over vectors of n-grams as in Joulin et al. 2017
(https://arxiv.org/abs/1607.01759): small enough for a hospital's processor and for the noise of private training. There is no vocabulary:
a public hash chose the rows, so neither the plan nor the model says which words any patient's text had. The model can still have learnt
of them; that is what private training is for.

Number 0 fills a text up to its length and has no part in the mean. Of a text without any word it is all there is: its vector is what the
model has learnt to put in the place of a text that is missing.

    B  batch      L  words and pairs      V  rows of the table      D  values of one      K  outputs
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.models.encoder import without
from common.models.layers import Dropout
from common.plan import InputSpec, TextNetSpec


class Reader(nn.Module):
    """Hashed words (B, L) int64 -> (B, D)."""

    def __init__(self, buckets: int, features: int) -> None:
        super().__init__()
        self.table = nn.Embedding(1 + buckets, features)
        self.dense = nn.Linear(features, features)
        self.score = nn.Linear(features, 1, bias=False)

    def forward(self, tokens_BL: Tensor) -> Tensor:
        words_BLD = self.table(tokens_BL)
        weights_BL = self._weights(tokens_BL, words_BLD)
        read_BD: Tensor = (weights_BL.unsqueeze(2) * words_BLD).sum(dim=1)
        return read_BD

    def weights(self, tokens_BL: Tensor) -> Tensor:
        """The part that each word has in the answer, (B, L), summing to 1."""
        return self._weights(tokens_BL, self.table(tokens_BL))

    def _weights(self, tokens_BL: Tensor, words_BLD: Tensor) -> Tensor:
        scores_BL = self.score(torch.tanh(self.dense(words_BLD))).squeeze(2)
        return torch.softmax(without(scores_BL, tokens_BL == 0), dim=1)


class TextNet(nn.Module):
    """(B, L) -> (B, K)."""

    def __init__(self, spec: TextNetSpec, image: InputSpec, outputs: int) -> None:
        super().__init__()
        assert image.text is not None
        self.reader = Reader(image.text.buckets, spec.features)
        self.hidden = nn.Linear(spec.features, spec.hidden)
        self.dropout = Dropout(spec.dropout)
        self.head = nn.Linear(spec.hidden, outputs)

    def forward(self, tokens_BL: Tensor) -> Tensor:
        logits_BK: Tensor = self.head(self.dropout(functional.relu(self.hidden(self.reader(tokens_BL)))))
        return logits_BK
