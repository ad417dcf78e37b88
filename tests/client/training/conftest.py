# SPDX-License-Identifier: Apache-2.0
"""A small made data set and a small plan; every test of training starts from these."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from client.imaging.dataset import Dataset, Images
from common.plan import AggregationSpec, ClassificationSpec, CnnSpec, Identity, InputSpec, ModelSpec, Plan, PrivacySpec, TrainingSpec

PRIVATE = PrivacySpec(unit="record", epsilon=8.0, delta=1e-5, clip_norm=1.0)

MakeDataset = Callable[..., Dataset]
MakePlan = Callable[..., Plan]


@pytest.fixture
def make_dataset() -> MakeDataset:
    """Images of noise on which the class is written as brightness: any working training learns it."""

    def make(
        records: int = 24, *, images_of: Sequence[int] | None = None, size: int = 16, channels: int = 1, classes: int = 2, seed: int = 0
    ) -> Dataset:
        """`images_of` each patient; without it, `records` patients of one image. Rows of a patient are not side by side."""
        rng = np.random.default_rng(seed)
        patients = np.arange(records) if images_of is None else rng.permutation(np.repeat(np.arange(len(images_of)), images_of))
        records = len(patients)
        labels = rng.integers(0, classes, records)
        base = rng.integers(0, 20000, (records, channels, size, size)) + labels[:, None, None, None] * (40000 // classes)
        return Dataset(
            images=Images(base.astype(np.uint16), np.arange(records)),
            labels=labels,
            patients=patients.astype(np.int32),
            patient_keys=tuple(f"{index:016x}" for index in range(patients.max() + 1)),
            splits=np.zeros(records, dtype=np.int8),
            unit_source="patient_id",
        )

    return make


@pytest.fixture
def make_plan() -> MakePlan:
    """A plan for 16 x 16 images; `training` changes single values of its [training] section."""

    def make(
        *,
        private: bool = False,
        model: ModelSpec | None = None,
        classes: int = 2,
        channels: int = 1,
        privacy: PrivacySpec = PRIVATE,
        **training: object,
    ) -> Plan:
        base = TrainingSpec(rounds=2, local_steps=3, batch=8, learning_rate=0.1)
        return Plan(
            plan=Identity(name="small", purpose="a test"),
            input=InputSpec(modality="CT", height=16, width=16, channels=channels),  # type: ignore[arg-type]  # 1 or 3
            task=ClassificationSpec(kind="classification", classes=tuple("abcdefgh"[:classes])),
            model=model or CnnSpec(family="cnn", widths=(8, 8), hidden=8),
            training=replace(base, **training),  # type: ignore[arg-type]  # checked by the plan's own tests
            privacy=privacy if private else PrivacySpec(unit="none"),
            aggregation=AggregationSpec(),
        )

    return make
