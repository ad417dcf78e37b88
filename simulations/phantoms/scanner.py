# SPDX-License-Identifier: Apache-2.0
"""From a chest to what the scanner stores: kernel, noise, calibration, and the vendor's own way to write Hounsfield units.

A reconstruction kernel is a filter: a soft one blurs and hides noise, a sharp one lifts edges and noise alike. CT noise is not white:
filtered back-projection gives it a spectrum that rises with frequency and falls with the kernel (Kijewski and Judy 1987, "The noise
power spectrum of CT images", https://doi.org/10.1088/0031-9155/32/5/003). Both are applied to the slice in the frequency domain.

Frequencies are in cycles per pixel; images are float32, shape (Y, X), in HU.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from simulations.phantoms.canvas import Grid
from simulations.phantoms.hospital import Hospital, Vendor


def scan(rng: np.random.Generator, hu_YX: Grid, hospital: Hospital) -> Grid:
    """The slice as this hospital's scanner sees it, in HU."""
    size = hu_YX.shape[0]
    mtf, noise_filter = _filters(size, hospital.sharpness)
    sharp = np.fft.irfft2(np.fft.rfft2(hu_YX) * mtf, s=hu_YX.shape)
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(hu_YX.shape)) * noise_filter, s=hu_YX.shape)
    return np.asarray(sharp + hospital.noise_hu * noise + hospital.offset_hu, np.float32)


def encode(hu_YX: Grid, vendor: Vendor) -> NDArray[np.uint16] | NDArray[np.int16]:
    """Stored values: what the vendor's slope and intercept turn back into HU, clipped to the bits it stores."""
    low, high = stored_range(vendor)
    stored = np.clip(np.rint((hu_YX - vendor.intercept) / vendor.slope), low, high)
    return np.asarray(stored, np.int16) if vendor.signed else np.asarray(stored, np.uint16)


def stored_range(vendor: Vendor) -> tuple[int, int]:
    """The smallest and largest stored value."""
    if vendor.signed:
        return -(2 ** (vendor.bits_stored - 1)), 2 ** (vendor.bits_stored - 1) - 1
    return 0, 2**vendor.bits_stored - 1


@lru_cache(maxsize=64)
def _filters(size: int, sharpness: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The kernel's transfer function, and the filter that turns white noise of variance 1 into CT noise of variance 1."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    lift = 1.0 + 1.2 * sharpness * (frequency / 0.3) ** 2 * np.exp(-((frequency / 0.3) ** 2))
    mtf = lift * np.exp(-((frequency / (0.35 + 0.25 * sharpness)) ** 2))
    spectrum = np.sqrt(frequency) * np.exp(-((frequency / (0.18 + 0.22 * sharpness)) ** 2))
    twice = np.where((np.arange(spectrum.shape[1]) % size == 0) | (2 * np.arange(spectrum.shape[1]) == size), 1.0, 2.0)
    return mtf, spectrum / np.sqrt(np.sum(spectrum**2 * twice) / size**2)
