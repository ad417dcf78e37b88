# SPDX-License-Identifier: Apache-2.0
"""What an update shows of the image that it was trained on: the image, if nothing was done about it.

The gradient of a dense layer contains its input. For one image x, unit k of the layer and its error e_k,

    dL/dW_k = e_k x,      dL/db_k = e_k,      so      x = sum_k e_k dL/dW_k / sum_k e_k^2

(Phong et al. 2018, https://eprint.iacr.org/2017/715, section 3.1; here as the least-squares estimate over all units, which is the best one
under noise). The network attacked is one layer on the pixels, the clearest case and the worst: behind convolutions and pooling
the same attack gives back what enters the first dense layer, exactly, and images need a search. Defences must not rely on that search.

The image is made, and nobody's: a report must not show a patient, however badly.

    H, W  height and width of the image      K  units of the layer      P = K * (H * W + 1)
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from client.training.clipping import Kept, add_clipped
from common.privacy import Lattice, charged_as, noise_of
from common.secagg.masks import Mask, apply
from common.secagg.quantise import Grid, mean, quantise
from common.secagg.shamir import Entropy
from simulations.phantoms import hospital, scanner, thorax

UNITS = 8
WINDOW_HU = (-1350.0, 150.0)
_SOMEBODY = 7
_BEYOND = 0.05

Picture = NDArray[np.float64]


def made_slice(size_px: int) -> Picture:
    """A slice through a made chest, (H, W) in [0, 1] by the usual lung window."""
    rng, where = np.random.default_rng(_SOMEBODY), hospital.draw(_SOMEBODY, 0)
    canvas, _ = thorax.draw_slice(rng, thorax.draw_chest(rng, where, size_px), 0.0, size_px)
    low, high = WINDOW_HU
    return np.clip((scanner.scan(rng, canvas.hu_YX, where).astype(np.float64) - low) / (high - low), 0, 1)


def update_of(picture: Picture) -> NDArray[np.float32]:
    """The gradient (P,) of the first layer of a network of K hidden units, for one image."""
    rng, pixels = np.random.default_rng(_SOMEBODY), torch.from_numpy(picture.astype(np.float32).reshape(1, -1))
    weight = torch.from_numpy(rng.normal(size=(UNITS, picture.size)).astype(np.float32) * np.float32(picture.size**-0.5)).requires_grad_()
    bias = torch.zeros(UNITS, requires_grad=True)
    head = torch.from_numpy(rng.normal(size=(1, UNITS)).astype(np.float32))
    logits = functional.linear(torch.sigmoid(functional.linear(pixels, weight, bias)), head)
    slopes = torch.autograd.grad(functional.softplus(logits).sum(), (weight, bias))
    return torch.cat([slope.flatten() for slope in slopes]).numpy()


def invert(update: NDArray[Any], shape: tuple[int, int]) -> Picture:
    """The image that best explains an update (P,), in [0, 1]; stretched to that range where it is far out of it."""
    weights, errors = update[:-UNITS].reshape(UNITS, -1).astype(np.float64), update[-UNITS:].astype(np.float64)
    guess = errors @ weights / max(float(errors @ errors), 1e-300)
    if guess.min() < -_BEYOND or guess.max() > 1 + _BEYOND:
        guess = (guess - guess.min()) / max(float(np.ptp(guess)), 1e-300)
    return np.clip(guess, 0, 1).reshape(shape)


def psnr(guess: Picture, truth: Picture) -> float:
    """Peak signal-to-noise ratio in dB: above 20 an image is recognisable, at 8 it is noise."""
    return float(-10 * np.log10(max(float(np.mean((guess - truth) ** 2)), 1e-12)))


def clipped(update: NDArray[np.float32], lattice: Lattice) -> NDArray[np.int64]:
    """An update as a unit's contribution to a sum, in steps of the lattice: clipped, and nothing else."""
    total = torch.zeros(update.size, dtype=torch.int64)
    add_clipped([total], [Kept(torch.from_numpy(update.copy()).unsqueeze(0))], lattice, torch.ones(1, dtype=torch.bool))
    return total.numpy()


def noised(contribution: NDArray[np.int64], lattice: Lattice, noise_multiplier: float, entropy: Entropy) -> NDArray[np.int64]:
    """The same with the noise that training adds."""
    return contribution + noise_of(charged_as(noise_multiplier, lattice.clip_steps)).draw(contribution.size, entropy)


def masked(update: NDArray[np.float32], grid: Grid, entropy: Entropy) -> NDArray[np.float32]:
    """What a coordinator has of an update in secure aggregation, read as if it were one: under its own mask and those of two peers."""
    words = quantise(update, grid, weight=1, entropy=entropy).body
    apply([Mask(entropy(32)), Mask(entropy(32)), Mask(entropy(32), negative=True)], body=words, tail=np.zeros(3, dtype=np.uint32))
    return mean(words, grid, total_weight=1)
