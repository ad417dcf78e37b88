# SPDX-License-Identifier: Apache-2.0
"""The linear classifier on scattering features: all layers but the last are constants.

What a network's first layers would have to learn of edges and textures, fixed wavelets know (`wavelets`). Each map is brought to mean 0 and
variance 1 by itself, image by image; then comes one dense layer. So privacy's noise has one layer to spoil, the problem is convex, and
large steps are safe: with few patients this beats a network that learns its features (Tramèr and Boneh 2021,
https://arxiv.org/abs/2011.11660). With many it does not, since it cannot learn what the wavelets miss.

Fewer angles and more scales make fewer weights, and each weight costs noise. Per map and image a mean and a variance are lost: what is only
brighter, or rougher all over, looks the same.

    B  batch      C  channels      H, W  height and width of the image
    S  maps of a channel      h, w  height and width of a map, H >> J and W >> J for J scales      M = C S      F = M h w      K  outputs
"""

from torch import Tensor, nn
from torch.nn import functional

from common.models.wavelets import Geometry, scattering
from common.plan import InputSpec, ScatteringSpec


class Scattering(nn.Module):
    """(B, C, H, W) -> (B, K)."""

    def __init__(self, spec: ScatteringSpec, image: InputSpec, outputs: int) -> None:
        super().__init__()
        self.geometry = Geometry(height=image.height, width=image.width, scales=spec.scales, angles=spec.angles)
        h, w = self.geometry.map_size
        self.head = nn.Linear(image.channels * self.geometry.maps * h * w, outputs)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        maps_BMhw = scattering(x_BCHW.flatten(0, 1), self.geometry).reshape(len(x_BCHW), -1, *self.geometry.map_size)
        x_BF = functional.instance_norm(maps_BMhw).flatten(1)
        logits_BK: Tensor = self.head(x_BF)
        return logits_BK
