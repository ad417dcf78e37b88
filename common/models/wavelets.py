# SPDX-License-Identifier: Apache-2.0
"""The scattering transform of images: Morlet wavelets, modulus, wavelets, modulus, average.

Bruna and Mallat 2013 (https://arxiv.org/abs/1203.1513), to the second order:

    S0 = x * phi      S1[j, t] = |x * psi[j, t]| * phi      S2[j, t, k, u] = | |x * psi[j, t]| * psi[k, u] | * phi,   k > j

psi[j, t] is a wave under a Gaussian, about 2^j pixels wide, at angle t, with the mean taken out; phi is a Gaussian about 2^J wide, after
which one value in 2^J is kept. What comes out hardly changes when the image shifts by less than 2^J or bends a little, a lone modulus keeps
what the average would blur, and no map has more energy than the image had. All of it is a constant: nothing is learnt or remembered.

Wavelets, padding and order are those of Kymatio (Andreux et al. 2020, https://arxiv.org/abs/1812.11214), whose last release does not import
beside SciPy 1.17 and later; values recorded from it are in the tests. Only its rounded pi is not ours. Filters are products of spectra,
and keeping one value in 2^s is folding a spectrum; averages are two small matrices, since a Gaussian is a product.

    N  images times channels      H, W  height and width      P, Q  the same, padded      J  scales      L  angles
    S  maps of one channel: 1 + J L + J (J - 1) / 2 L^2       h, w  height and width of a map: H >> J, W >> J
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

IMAGES_AT_ONCE = 16  # so that what is between stays in the cache; twice as fast as 64 at 64 x 64
_COPIES = range(-2, 3)  # of a filter, left and right, to wrap its tails around
_TINY = 1e-24  # makes the modulus differentiable at 0 and changes no value


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """The size of images, J scales and L angles: all that the filters depend on."""

    height: int
    width: int
    scales: int
    angles: int

    @property
    def maps(self) -> int:
        """S"""
        J, L = self.scales, self.angles
        return 1 + J * L + J * (J - 1) // 2 * L * L

    @property
    def map_size(self) -> tuple[int, int]:
        """h, w"""
        return self.height >> self.scales, self.width >> self.scales

    @property
    def padded(self) -> tuple[int, int]:
        """P, Q: a map's size and one more on either side, at full resolution."""
        h, w = self.map_size
        return h + 2 << self.scales, w + 2 << self.scales

    @property
    def padding(self) -> tuple[int, int, int, int]:
        """Left, right, top, bottom."""
        across, down = self.padded[1] - self.width, self.padded[0] - self.height
        return across // 2, across - across // 2, down // 2, down - down // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """For images halved s times: wavelets[s][j - s], (L, P >> s, Q >> s), j from s to J - 1; averages[s], (h, P >> s) and (w, Q >> s)."""

    wavelets: tuple[tuple[Tensor, ...], ...]
    averages: tuple[tuple[Tensor, Tensor], ...]


def scattering(images_NHW: Tensor, geometry: Geometry) -> Tensor:
    """All maps of each image, (N, S, h, w), in the images' own precision. Guarantees: no image looks at another."""
    filters = _filters(geometry, images_NHW.dtype, images_NHW.device)
    return torch.cat([_scattering(part, geometry, filters) for part in torch.split(images_NHW, IMAGES_AT_ONCE)])


def _scattering(images_NHW: Tensor, geometry: Geometry, filters: Filters) -> Tensor:
    x_NPQ = functional.pad(images_NHW.unsqueeze(1), geometry.padding, mode="reflect").squeeze(1)
    spectrum_N1PQ = _spectrum(x_NPQ).unsqueeze(1)
    first, second = [], []
    for j, wavelets in enumerate(filters.wavelets[0]):
        u_NL = _modulus(spectrum_N1PQ, wavelets, folds=1 << j)
        first.append(_average(u_NL, filters, j))
        if wider := filters.wavelets[j][1:]:
            of_each_NL1 = _spectrum(u_NL).unsqueeze(2)
            u_NLL = [_modulus(of_each_NL1, wavelet, folds=2 << k) for k, wavelet in enumerate(wider)]
            second.append(torch.cat([_average(u, filters, j + 1 + k) for k, u in enumerate(u_NLL)], dim=2).flatten(1, 2))
    return torch.cat([_average(x_NPQ, filters, 0).unsqueeze(1), *first, *second], dim=1)


def _spectrum(real: Tensor) -> Tensor:
    # (The transform of a tensor declared complex is six times faster on the CPU than one for which torch mirrors the second half.)
    spectrum: Tensor = torch.fft.fft2(torch.complex(real, torch.zeros_like(real)))
    return spectrum


def _modulus(spectrum: Tensor, wavelet: Tensor, *, folds: int) -> Tensor:
    """|x * psi|, one value in `folds` kept in each direction: the spectra's product, folded block on block."""
    P, Q = wavelet.shape[-2] // folds, wavelet.shape[-1] // folds
    blocks = [(..., slice(P * i, P * i + P), slice(Q * k, Q * k + Q)) for i in range(folds) for k in range(folds)]
    folded = spectrum[blocks[0]] * wavelet[blocks[0]]
    for block in blocks[1:]:
        folded = folded.addcmul(spectrum[block], wavelet[block])
    filtered = torch.fft.ifft2(folded) / folds**2
    modulus: Tensor = torch.sqrt(filtered.real.square() + filtered.imag.square() + _TINY)
    return modulus


def _average(maps: Tensor, filters: Filters, halvings: int) -> Tensor:
    down, across = filters.averages[halvings]
    averaged: Tensor = down @ maps @ across.T
    return averaged


@lru_cache(maxsize=8)
def _filters(geometry: Geometry, dtype: torch.dtype, device: torch.device) -> Filters:
    def tensor(values: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device, dtype)

    def complex_tensor(values: NDArray[np.float64]) -> Tensor:
        return torch.complex(tensor(values), tensor(np.zeros_like(values)))

    spectra = [_wavelets(geometry, j) for j in range(geometry.scales)]
    wavelets = [
        tuple(complex_tensor(_halved(_halved(spectra[j], s, axis=1), s, axis=2)) for j in range(s, geometry.scales))
        for s in range(geometry.scales)
    ]
    down, across = ([tensor(_averaging(size, geometry.scales, s)) for s in range(geometry.scales)] for size in geometry.padded)
    return Filters(wavelets=tuple(wavelets), averages=tuple(zip(down, across, strict=True)))


def _wavelets(geometry: Geometry, j: int) -> NDArray[np.float64]:
    """The spectra of scale j's wavelets, (L, P, Q), real since each wavelet mirrors itself; angles run downwards."""
    L = geometry.angles
    turns = [(L - L // 2 - 1 - t) * math.pi / L for t in range(L)]
    return np.stack([np.fft.fft2(_morlet(geometry.padded, 0.8 * 2**j, 0.75 * math.pi / 2**j, turn, 4 / L)).real for turn in turns])


def _morlet(size: tuple[int, int], width: float, frequency: float, turn: float, slant: float) -> NDArray[np.complex128]:
    """A wave of this frequency in the direction `turn`, under a Gaussian drawn out across it by 1 / slant; its mean is 0."""
    along = np.array([math.cos(turn), math.sin(turn)])
    envelope, wave = np.zeros(size), np.zeros(size, dtype=np.complex128)
    for down in _COPIES:
        for right in _COPIES:
            y, x = np.indices(size, dtype=np.float64)
            y, x = y + down * size[0], x + right * size[1]
            forth, aside = along[0] * y + along[1] * x, along[1] * y - along[0] * x
            bell = np.exp(-(forth**2 + (slant * aside) ** 2) / (2 * width**2))
            envelope += bell
            wave += bell * np.exp(1j * frequency * forth)
    whole: NDArray[np.complex128] = (wave - wave.sum() / envelope.sum() * envelope) * slant / (2 * math.pi * width**2)
    return whole


def _averaging(size: int, scales: int, halvings: int) -> NDArray[np.float64]:
    """The average along one axis that was halved so often, as a matrix (h, size >> halvings); the margins' values are dropped."""
    width = 0.8 * 2 ** (scales - 1)
    bell = sum(np.exp(-((np.arange(size) + copy * size) ** 2) / (2 * width**2)) for copy in _COPIES) / (math.sqrt(2 * math.pi) * width)
    spectrum = _halved(np.fft.fft(bell).real, halvings, axis=0)
    circulant = np.fft.ifft(spectrum[:, None] * np.fft.fft(np.eye(spectrum.size), axis=0), axis=0).real
    kept: NDArray[np.float64] = circulant[:: 1 << scales - halvings][1:-1]
    return kept


def _halved(spectrum: NDArray[np.float64], times: int, *, axis: int) -> NDArray[np.float64]:
    """The same filter for a signal of which one value in 2^times is left: its low frequencies."""
    size = spectrum.shape[axis]
    left = size >> times
    kept: NDArray[np.float64] = np.take(spectrum, np.r_[0 : left // 2, size - left + left // 2 : size], axis=axis)
    return kept
