# SPDX-License-Identifier: Apache-2.0
"""What a site counts for a federation: its forms, filled in by its patients, added up and noised (common.counting).

    EVAL   validation patients, whom this site never trains on, judged by the global model
    STAT   training patients: class and intensity

Whoever calls has paid on the ledger and opened the approved snapshot. A unit is the plan's: a patient with all images, or one image. A
site without such patients counts nobody, and its noise says as much as anybody's.
"""

import numpy as np
from numpy.typing import NDArray

from client.imaging.dataset import Dataset
from client.training import Units, predict_apart, units_of
from client.training.noise import Entropy
from common.counting import Form, evaluation, statistics
from common.counting.form import Steps
from common.plan import Plan
from common.privacy import noise_of
from common.tasks import by_patient
from common.update import NoisedCounts, Weights

FULL_SCALE = 65535
_IMAGES_AT_ONCE = 256


def judged(weights: Weights, data: Dataset, plan: Plan) -> Steps:
    """How the model does on these units. Shapes: result (cells,), in steps. Raises: ModelLayout, NoPatientId."""
    units = units_of(data, plan)
    return evaluation.count(plan, *by_patient(predict_apart(weights, data, plan, units), data.labels, _owners(units)))


def measured(data: Dataset, plan: Plan) -> Steps:
    """What these units are like. Shapes: result (cells,), in steps. Raises: NoPatientId."""
    units = units_of(data, plan)
    owners, nobody = _owners(units), np.zeros((len(data), len(plan.task.classes)), dtype=np.float32)
    _, labels = by_patient(nobody, data.labels, owners)
    means, squares = (_per_unit(values, owners, units) for values in _moments(data))
    return statistics.count(plan, labels, means, squares)


def noised(counts: Steps, form: Form, entropy: Entropy) -> NoisedCounts:
    """The counts and this site's noise, all of it or its share. Shapes: (cells,)."""
    return NoisedCounts(values=counts + noise_of(form.variance).draw(counts.size, entropy))


def _owners(units: Units) -> NDArray[np.int32]:
    """Which unit each row belongs to, (N,)."""
    owners = np.empty(len(units.rows), dtype=np.int32)
    owners[units.rows] = np.repeat(np.arange(len(units), dtype=np.int32), units.sizes)
    return owners


def _moments(data: Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and mean square of each image's intensity in [0, 1], (N,) both; a few images in memory at a time."""
    means, squares = np.empty(len(data)), np.empty(len(data))
    for start in range(0, len(data), _IMAGES_AT_ONCE):
        block = slice(start, start + _IMAGES_AT_ONCE)
        intensity = data.images[block].reshape(len(means[block]), -1) / FULL_SCALE
        means[block], squares[block] = intensity.mean(axis=1), np.square(intensity).mean(axis=1)
    return means, squares


def _per_unit(values: NDArray[np.float64], owners: NDArray[np.int32], units: Units) -> NDArray[np.float64]:
    """The mean over each unit's images, (U,)."""
    return np.bincount(owners, weights=values, minlength=len(units)) / units.sizes
