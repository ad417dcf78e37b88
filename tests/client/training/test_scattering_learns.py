# SPDX-License-Identifier: Apache-2.0
"""The linear model on wavelets, trained privately with few patients: it sees a direction that no pixel shows by its brightness."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from client.imaging.dataset import Dataset, Images
from client.training import LocalWork, UnsafeSeededNoise, predict, train_locally
from common.models import initial_weights
from common.plan import Plan, PrivacySpec, ScatteringSpec
from common.privacy import round_charge
from common.tasks.curves import roc_curve
from common.update import Weights
from tests.client.training.conftest import MakeDataset, MakePlan

FEW = 128
STEPS = 25


def striped(data: Dataset, seed: int) -> Dataset:
    """The same patients; their images are waves down (class 0) or across (class 1) at a phase of their own, in noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:16, :16]
    waves = [np.sin(1.3 * (x if label else y) + rng.uniform(0, 2 * np.pi)) for label in data.labels]
    pixels = 0.5 + 0.18 * np.stack(waves) + rng.normal(0, 0.15, (len(waves), 16, 16))
    return replace(data, images=Images((65535 * pixels.clip(0, 1)).astype(np.uint16)[:, None], np.arange(len(waves))))


def auc(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    curve = roc_curve(probabilities[:, 1], labels == 1)
    assert curve is not None
    return float(np.trapezoid(curve.true_positive_rate, curve.false_positive_rate))


def trained(plan: Plan, data: Dataset) -> Weights:
    start, charge = initial_weights(plan), round_charge(plan, FEW).outside
    work = LocalWork(steps=STEPS, noise_multiplier=charge.noise_multiplier, order_seed=b"", noise=UnsafeSeededNoise(b"stripes"))
    return Weights(layout=start.layout, values=start.values + train_locally(start, data, plan, work).values)


def test_few_patients_teach_it_a_direction_under_a_patients_privacy(make_plan: MakePlan, make_dataset: MakeDataset) -> None:
    promise = PrivacySpec(unit="patient", epsilon=8.0, delta=1e-5, clip_norm=1.0, images_per_patient=2)
    model = ScatteringSpec(family="scattering", scales=3, angles=4)
    plan = make_plan(private=True, privacy=promise, model=model, rounds=1, local_steps=STEPS, batch=32, learning_rate=0.05, momentum=0.9)
    few = striped(make_dataset(images_of=[1, 2] * (FEW // 2)), seed=1)
    others = striped(make_dataset(200), seed=2)
    assert auc(predict(initial_weights(plan), others, plan), others.labels) < 0.7
    assert auc(predict(trained(plan, few), others, plan), others.labels) > 0.85
