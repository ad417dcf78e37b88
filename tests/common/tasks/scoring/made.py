# SPDX-License-Identifier: Apache-2.0
"""Made predictions for tests of scores: a signal, noise, and patients with a few images each."""

import numpy as np

from common.plan import ClassificationSpec


def spec(classes, threshold=0.5):
    return ClassificationSpec(kind="classification", classes=tuple(f"class {c}" for c in range(classes)), threshold=threshold)


def predictions(classes, *, images=120, patients=40, seed=0, signal=1.5):
    """Probabilities (N, C), labels (N,), patients (N,)."""
    rng = np.random.default_rng(seed)
    patient = rng.integers(0, patients, images).astype(np.int32)
    labels = rng.integers(0, classes, patients)[patient]
    logits = rng.normal(size=(images, classes)) + signal * np.eye(classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities.astype(np.float32), labels, patient
