# SPDX-License-Identifier: Apache-2.0
"""How near a restored image is to the true one, and how much nearer than what it was made from.

    PSNR = 10 log10(range^2 / mean squared difference), in dB       SSIM  Wang, Bovik, Sheikh and Simoncelli 2004, -1 to 1

A batch becomes two numbers an image at once (`fidelity_of`); a patient's are the means over their images, and every patient counts alike.
A restoration is worth what it gains over the image as it was, so both are scored and the gain has an interval of its own, paired. An image
equal to the truth has no finite PSNR; it counts as the finest difference that 16 bits can store.

High figures say that grey values are near, not that a small lesion is still there: that is for a reader, or for the task that follows.

    N  images      C  channels      H, W  pixels      M  patients
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common.tasks.bootstrap import Interval, interval_of, mean_by_weight, resampled
from common.tasks.scoring.headline import Headline

FINEST_DB = 20 * float(np.log10(65535))
"""One grey level of 65 536 in every pixel: 96.3 dB."""
_REACH = 5
"""Pixels from the middle of SSIM's window of eleven to its edge."""


@dataclass(frozen=True, slots=True, eq=False)
class Fidelity:
    """PSNR in dB and SSIM of each image, (N,) float64 each."""

    psnr: NDArray[np.float64]
    ssim: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorationScores:
    """Means over patients, or over images where patients are not known; `before` is of the images that were restored."""

    count: int
    psnr: float | None
    psnr_interval: Interval | None
    ssim: float | None
    ssim_interval: Interval | None
    psnr_before: float | None
    ssim_before: float | None
    psnr_gain: float | None
    psnr_gain_interval: Interval | None

    @property
    def headline(self) -> Headline:
        return Headline(name="PSNR (dB)", value=self.psnr, interval=self.psnr_interval)

    def as_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and None, ready for JSON."""
        return asdict(self)


def fidelity_of(restored: NDArray[np.floating], true: NDArray[np.floating]) -> Fidelity:
    """Score a batch. Shapes: (N, C, H, W) in [0, 1], each side at least eleven pixels; what is outside of [0, 1] is cut off first."""
    # torchmetrics takes a second to import, and a process that only trains never needs it.
    from torchmetrics.functional.image import structural_similarity_index_measure

    ours, truth = (torch.from_numpy(np.clip(images, 0, 1).astype(np.float64)) for images in (restored, true))
    mean_squared = ((ours - truth) ** 2).flatten(1).mean(dim=1).numpy()
    psnr = -10 * np.log10(np.maximum(mean_squared, 10 ** (-FINEST_DB / 10)))
    _, similarity = structural_similarity_index_measure(ours, truth, data_range=1.0, reduction="none", return_full_image=True)
    # The paper's mean is over windows that lie inside; torchmetrics' own also has those that reach over the border into a reflection.
    inside = similarity[..., _REACH:-_REACH, _REACH:-_REACH]
    return Fidelity(psnr=psnr, ssim=inside.flatten(1).mean(dim=1).numpy())


def score_images(
    after: Fidelity,
    before: Fidelity | None = None,
    patients: NDArray[np.int32] | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> RestorationScores:
    """Judge restored images by their fidelity, beside that of what they were made from. Shapes: (N,) all. N may be 0."""
    psnr, ssim = (_by_patient(values, patients) for values in (after.psnr, after.ssim))
    weights = resampled(len(psnr), resamples=0 if patients is None else resamples, seed=seed)
    was = None if before is None else _by_patient(before.psnr, patients)
    gain = None if was is None else psnr - was
    return RestorationScores(
        count=len(psnr),
        psnr=_mean(psnr),
        psnr_interval=interval_of(mean_by_weight(psnr, weights)),
        ssim=_mean(ssim),
        ssim_interval=interval_of(mean_by_weight(ssim, weights)),
        psnr_before=None if was is None else _mean(was),
        ssim_before=None if before is None else _mean(_by_patient(before.ssim, patients)),
        psnr_gain=None if gain is None else _mean(gain),
        psnr_gain_interval=None if gain is None else interval_of(mean_by_weight(gain, weights)),
    )


def _by_patient(values: NDArray[np.float64], patients: NDArray[np.int32] | None) -> NDArray[np.float64]:
    if patients is None:
        return values
    _, owner, images = np.unique(patients, return_inverse=True, return_counts=True)
    return np.bincount(owner, weights=values, minlength=len(images)) / images


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None
