# SPDX-License-Identifier: Apache-2.0
"""A hospital, and the same hospital without one of its patients: what either sums up in one step, by the code that is deployed.

A `Case` is a hospital of three to five patients of 1 to 500 images each, drawn from a number: a network of any family at its smallest, a
task, a clip norm, at most K images, weights and images of any size, who is drawn and with which images. `sum_of` gives what
`dpsgd.noised_sums` gives, without the noise. Chance is the same in both worlds: every patient and every image brings its own random words,
and a patient takes them along.
"""

import atexit
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.imaging.dataset import Dataset, Images, whole
from client.training import LocalWork, by_unit, dpsgd
from client.training.augmentation import SECRET_BYTES
from client.training.bench import Bench, bench_of
from client.training.by_unit import UnitHooks
from client.training.device import Room
from client.training.noise import Entropy
from common.models import build, initial_weights, look_in
from common.plan import (
    AggregationSpec,
    AugmentationSpec,
    CentreSpec,
    ClassificationSpec,
    CnnSpec,
    DetectionSpec,
    FcnSpec,
    FusionSpec,
    Identity,
    InputSpec,
    MlpSpec,
    ModelSpec,
    MultiLabelSpec,
    Plan,
    PrivacySpec,
    RecordField,
    ResNetSpec,
    RestorationSpec,
    ScatteringSpec,
    SecondImage,
    SegmentationSpec,
    SequenceSpec,
    SrcnnSpec,
    TaskSpec,
    TextNetSpec,
    TextSpec,
    TrainingSpec,
    UNetSpec,
)
from common.tasks import task_of
from tests.common.models.pretrained_files import made_backbone

Way = Literal["together", "by Opacus", "alone"]
WAYS: tuple[Way, ...] = ("together", "by Opacus", "alone")
MOST_IMAGES = 500
SIDE = 8

IMAGE = InputSpec(modality="CT", height=SIDE, width=SIDE)
SERIES = replace(IMAGE, sequence=3)
RECORD = (RecordField(column="age"), RecordField(column="sex", values=("f", "m")))
TEXT = TextSpec(buckets=16, length=5)
TWO = ClassificationSpec(kind="classification", classes=("a", "b"))
THREE = ClassificationSpec(kind="classification", classes=("a", "b", "c"), weights=(1.0, 5.0, 0.2), label_smoothing=0.1)
FINDINGS = MultiLabelSpec(kind="multi-label", classes=("a", "b"))
AREAS = SegmentationSpec(kind="segmentation", classes=("none", "a"))
BOXES = DetectionSpec(kind="detection", classes=("a",), most_boxes=3)
NOISY = RestorationSpec(kind="restoration", degradation="noise", strength=0.1)
COARSE = RestorationSpec(kind="restoration", degradation="resolution", strength=2.0)
EVERYTHING = replace(IMAGE, second=SecondImage(modality="MR"), record=RECORD, text=TEXT)
FUSED: Mapping[str, Any] = {"family": "fusion", "widths": (2,), "features": 3, "hidden": 3}

NETWORKS: Mapping[str, tuple[InputSpec, TaskSpec, ModelSpec]] = {
    "cnn": (IMAGE, TWO, CnnSpec(family="cnn", widths=(3, 4), hidden=5)),
    "cnn in colour": (replace(IMAGE, channels=3), THREE, CnnSpec(family="cnn", widths=(4,), hidden=12, norm="none")),
    "resnet": (IMAGE, THREE, ResNetSpec(family="resnet", widths=(4, 8))),
    "scattering": (IMAGE, FINDINGS, ScatteringSpec(family="scattering", scales=1, angles=2)),
    "unet": (SERIES, AREAS, UNetSpec(family="unet", widths=(2, 3))),
    "unet that mends": (IMAGE, NOISY, UNetSpec(family="unet", widths=(2, 3), residual=True)),
    "fcn": (IMAGE, replace(AREAS, dice=0.0), FcnSpec(family="fcn", answer="pixel", widths=(2, 3))),
    "fcn for findings": (IMAGE, FINDINGS, FcnSpec(family="fcn", answer="image", widths=(2, 3), pooling=True)),
    "centre": (IMAGE, BOXES, CentreSpec(family="centre", widths=(2, 4), hidden=3, stride=2)),
    "srcnn": (IMAGE, COARSE, SrcnnSpec(family="srcnn", widths=(3,), kernels=(3, 3))),
    "gru": (SERIES, TWO, SequenceSpec(family="sequence", how="gru", widths=(2,), features=3)),
    "attention": (SERIES, FINDINGS, SequenceSpec(family="sequence", how="attention", widths=(2,), features=4)),
    "mil": (SERIES, THREE, SequenceSpec(family="sequence", how="mil", widths=(2,), features=3)),
    "mlp": (InputSpec(modality="none", record=RECORD), TWO, MlpSpec(family="mlp", widths=(5, 3))),
    "text": (InputSpec(modality="none", text=TEXT), THREE, TextNetSpec(family="text", features=3, hidden=3)),
    "late fusion": (EVERYTHING, TWO, FusionSpec(how="late", **FUSED)),
    "cross-attention": (EVERYTHING, FINDINGS, FusionSpec(how="cross-attention", **FUSED)),
}
NAMES = (*NETWORKS, "backbone")
AUGMENTED = AugmentationSpec(rotation_degrees=20, shift=0.1, scale=0.1, flip="both", contrast=0.2)

Trait = Literal["usual", "steep", "black", "opposed", "copies", "broken"]
"""What is odd about a hospital: weights and images of any size; nothing to see; images that cancel; all alike; values that are none."""
TRAITS: tuple[Trait, ...] = ("usual", "steep", "black", "opposed", "copies", "broken")


@cache
def network_of(name: str) -> tuple[InputSpec, TaskSpec, ModelSpec]:
    """[input], [task] and [model]. A backbone's file lasts as long as the process."""
    if name != "backbone":
        return NETWORKS[name]
    folder = TemporaryDirectory()
    atexit.register(folder.cleanup)
    look_in(Path(folder.name))
    return replace(IMAGE, height=32, width=32), THREE, made_backbone(Path(folder.name), width=4, trained_stages=1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """A hospital before a step: `data`, at these weights; `chance` (U, 1 + 500): a random word of each patient, and of each image."""

    network: str
    plan: Plan
    trait: Trait
    way: Way
    data: Dataset
    weights: NDArray[np.float32]
    drawn: NDArray[np.bool_]
    chance: NDArray[np.uint64]

    def without(self, leaver: int) -> "Case":
        """The other world: this patient was never there."""
        rest = np.arange(len(self.drawn)) != leaver
        data = self.data.subset(self.data.patients != leaver)
        return replace(self, data=data, drawn=self.drawn[rest], chance=self.chance[rest])

    def words(self) -> list[bytes]:
        """All that one step asks of its noise source, in order: dropout's seed, who is drawn, with which images, augmentation's secret."""
        last = np.uint64(2**64 - 1)
        # Below every rate that a hospital of 2 to 5 patients can have at a batch of one, or above.
        found = [bytes(dpsgd.DROPOUT_SEED_BYTES), np.where(self.drawn, self.chance[:, 0] >> np.uint64(3), last).astype("<u8").tobytes()]
        of_each = np.unique(self.data.patients, return_counts=True)[1][self.drawn]
        if (of_each > self.plan.privacy.images_per_patient).any():
            words = [own[1 : 1 + count] for own, count in zip(self.chance[self.drawn], of_each, strict=True)]
            found.append(np.concatenate(words).astype("<u8").tobytes())
        return [*found, b"\x07" * SECRET_BYTES] if self.plan.augmentation else found


@dataclass(frozen=True, slots=True)
class Told:
    """A noise source that says what it was told to, and stops at a question that was not expected."""

    words: tuple[bytes, ...]
    has_no_order: bool = field(default=False, init=False)

    def open(self) -> Entropy:
        left = iter(self.words)

        def entropy(size: int) -> bytes:
            word = next(left)
            assert len(word) == size
            return word

        return entropy


def sum_of(case: Case, room: Room) -> Tensor:
    """What the deployed trainer sums up in one step of this hospital, before noise, so many images and units at a time."""
    bench = replace(bench_of_way(case.network, case.way), room=room)
    bench.model.values.copy_(torch.from_numpy(case.weights))
    work = LocalWork(steps=1, noise_multiplier=0.0, order_seed=b"", noise=Told(tuple(case.words())))
    return dpsgd.noised_sums(bench, case.data, case.plan, work)()


def make(number: int, *, networks: tuple[str, ...], seed: int = 0) -> Case:
    """The case with this number."""
    rng = np.random.default_rng([seed, number])
    network, trait, way = networks[number % len(networks)], _one(rng, TRAITS), _one(rng, WAYS)
    plan = _plan(rng, network)
    sizes = np.minimum(np.exp(rng.uniform(0, np.log(MOST_IMAGES + 1), rng.integers(3, 6))).astype(int), MOST_IMAGES)
    data = _site(rng, plan, sizes, trait)
    weights = initial_weights(replace(plan, training=replace(plan.training, seed=int(rng.integers(100))))).values.copy()
    if trait == "steep":
        weights *= np.float32(10 ** rng.uniform(-2, 4))
        plan = replace(plan, input=replace(plan.input, std=10 ** rng.uniform(-30, 2)))
    drawn = rng.random(len(sizes)) < 0.9
    chance = rng.integers(0, 2**64, (len(sizes), 1 + MOST_IMAGES), dtype=np.uint64)
    return Case(network=network, plan=plan, trait=trait, way=way, data=data, weights=weights, drawn=drawn, chance=chance)


def any_room(rng: np.random.Generator, case: Case) -> Room:
    """How much is taken at once: anything, but that no patient is split into more than some twenty passes, which only take time."""
    least = min(MOST_IMAGES, case.plan.privacy.images_per_patient) // 20
    return Room(images=max(least, int(_one(rng, (1, 3, 8, 64, 1000)))), units=int(_one(rng, (1, 2, 5, 16))))


@cache
def bench_of_way(network: str, way: Way) -> Bench:
    """One bench for each network and way, as `bench_for` would build it."""
    plan = _plan(np.random.default_rng(0), network)
    task = task_of(plan)
    bench = bench_of(build(plan.model, plan.input, task.outputs), task, private=way == "together")
    if way != "by Opacus":
        return bench
    ours, by_unit.formula_of = by_unit.formula_of, by_unit.by_opacus
    try:
        return replace(bench, by_unit=UnitHooks(bench.model.module))
    finally:
        by_unit.formula_of = ours


def _plan(rng: np.random.Generator, network: str) -> Plan:
    image, task, model = network_of(network)
    most = MOST_IMAGES if rng.random() < 0.05 else int(_one(rng, (1, 2, 3, 4, 4, 5, 8, 16)))
    promise = PrivacySpec(unit="patient", epsilon=8.0, delta=1e-5, clip_norm=10 ** rng.uniform(-3, 2), images_per_patient=most)
    return Plan(
        plan=Identity(name="two-sites", purpose="a test"),
        input=image,
        task=task,
        model=model,
        training=TrainingSpec(rounds=1, local_steps=1, batch=1, learning_rate=0.1),
        privacy=promise,
        aggregation=AggregationSpec(),
        augmentation=AUGMENTED if image.has_image and rng.random() < 0.05 else None,
    )


def _site(rng: np.random.Generator, plan: Plan, sizes: NDArray[np.int64], trait: Trait) -> Dataset:
    """Patients of so many cases each, whose rows are not side by side."""
    count = int(sizes.sum())
    patients = rng.permutation(np.repeat(np.arange(len(sizes), dtype=np.int32), sizes))
    spec, pool = plan.input, 1 if trait == "copies" else 64
    shape = (spec.channels, max(1, spec.height), max(1, spec.width))
    top = 1 if trait == "black" else 2**16
    pictures = rng.integers(0, top, (pool, *shape)).astype(np.uint16)
    shown = rng.integers(0, pool, (count, spec.sequence) if spec.sequence > 1 else count)
    labels = rng.integers(0, max(1, len(plan.task.classes)), count)
    if trait == "opposed":  # two by two the same image, and another truth
        order = np.argsort(patients, kind="stable")
        shown[order[1::2]] = shown[order[:-1:2]][: len(order[1::2])]
        labels[order] = np.arange(count) % max(1, len(plan.task.classes))
    return Dataset(
        images=Images(pictures, shown),
        labels=labels,
        patients=patients,
        patient_keys=tuple(f"{number:016x}" for number in range(len(sizes))),
        splits=np.zeros(count, dtype=np.int8),
        unit_source="patient_id",
        parts=_parts(rng, plan, count, labels, trait),
    )


def _parts(rng: np.random.Generator, plan: Plan, count: int, labels: NDArray[np.int64], trait: Trait) -> dict[str, Images]:
    spec, found = plan.input, {}
    if isinstance(plan.task, SegmentationSpec):
        found["mask"] = (rng.random((count, spec.height, spec.width)) < labels[:, None, None] * 0.4).astype(np.uint8)
    if isinstance(plan.task, MultiLabelSpec):
        found["findings"] = np.where(rng.random((count, 2)) < 0.2, -1, np.stack([labels, 1 - labels], axis=1)).astype(np.int8)
    if isinstance(plan.task, DetectionSpec):
        corners = np.sort(rng.random((count, plan.task.most_boxes, 2, 2)), axis=2).reshape(count, -1, 4).astype(np.float32)
        classes = rng.integers(-1, 1, (*corners.shape[:2], 1)).astype(np.float32)
        found["boxes"] = np.concatenate([classes, corners], axis=2)
    if spec.second is not None:
        found["second"] = rng.integers(0, 2**16, (count, spec.channels, spec.height, spec.width)).astype(np.uint16)
        found["present"] = rng.integers(0, 2, (count, 1)).astype(np.uint8)
    if spec.record:
        scale = 10 ** rng.uniform(0, 30) if trait == "steep" else 1.0
        record = (rng.standard_normal((count, spec.record_width)) * scale).astype(np.float32)
        if trait == "broken":
            record[rng.random(count) < 0.2] = _one(rng, (np.nan, np.inf, -np.inf, 3e38))
        found["record"] = record
    if spec.text is not None:
        found["tokens"] = rng.integers(0, spec.text.buckets + 1, (count, spec.text.length)).astype(np.int32)
    return {name: whole(array) for name, array in found.items()}


def _one(rng: np.random.Generator, choices: Any) -> Any:
    return choices[int(rng.integers(len(choices)))]
