# SPDX-License-Identifier: Apache-2.0
"""The ways to take one step on 64 units, one process each: `python -m simulations.benchmarks.private_steps NAME CASE IMAGES`.

    whole      plain: all images in one pass                          channels_last
    chunks-16  plain: passes of 16 images, gradients added up         channels_last
    chunks-64  plain: passes of 64
    fedward    client/training: clipped by patient, on integers, discrete noise from the system's source
    alone      the same with one backward pass for each patient, as where memory is short
    hooks      Opacus: gradients of each image, added up by patient, then its optimiser's clip and noise
    ghost      Opacus: ghost norms, two backward passes. It knows no patients: each image is clipped by itself, at any number of images

A step is forward, backward, clip, noise and the optimiser's step. Opacus gets contiguous images, on which alone its convolution is right,
in physical batches of 64, fedward chunks of at most 64 images and 16 patients.

    I  images      U  units
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from client.imaging.dataset import Dataset, Images
from client.training import LocalWork, batches, dpsgd
from client.training.bench import Bench, bench_for
from client.training.device import choose, chosen
from common.models import build, initial_weights
from common.plan import AggregationSpec, ClassificationSpec, CnnSpec, Identity, InputSpec, Plan, PrivacySpec, ResNetSpec, TrainingSpec
from simulations.benchmarks.turnstile import Turnstile

UNITS: Final = 64
CASES: Final[dict[str, tuple[CnnSpec | ResNetSpec, int]]] = {
    "cnn-32": (CnnSpec(family="cnn"), 32),
    "cnn-64": (CnnSpec(family="cnn"), 64),
    "resnet18-64": (ResNetSpec(family="resnet", widths=(64, 128, 256, 512), blocks=2), 64),
    "tiny": (CnnSpec(family="cnn", widths=(4,), hidden=4), 8),
}
"""The network of performance benchmarks, and ResNet-18 with GroupNorm and a stem for small images; `tiny` is for tests."""
PLAIN: Final = ("whole", "chunks-16", "chunks-64")
_CHUNK: Final = 64
_NOISE, _CLIP, _RATE = 1.0, 1.0, 1e-4
_WORK: Final = LocalWork(steps=1, noise_multiplier=_NOISE, order_seed=b"")

Step = Callable[[], object]


def plan_of(case: str, images_each: int, *, private: bool) -> Plan:
    """One step on everybody: 64 patients with so many images each."""
    model, size = CASES[case]
    promise = PrivacySpec(unit="patient", epsilon=8.0, delta=1e-5, clip_norm=_CLIP, images_per_patient=images_each)
    return Plan(
        plan=Identity(name="private-step", purpose="what a private step costs"),
        input=InputSpec(modality="any", height=size, width=size),
        task=ClassificationSpec(kind="classification", classes=("normal", "abnormal")),
        model=model,
        training=TrainingSpec(rounds=1, local_steps=1, batch=UNITS if private else UNITS * images_each, learning_rate=_RATE),
        privacy=promise if private else PrivacySpec(unit="none"),
        aggregation=AggregationSpec(),
    )


def data_of(case: str, images_each: int) -> Dataset:
    """Images of noise, in two classes."""
    rng, size, count = np.random.default_rng(0), CASES[case][1], UNITS * images_each
    return Dataset(
        images=Images(rng.integers(0, 2**16, (count, 1, size, size), dtype=np.uint16), np.arange(count)),
        labels=rng.integers(0, 2, count),
        patients=np.repeat(np.arange(UNITS, dtype=np.int32), images_each),
        patient_keys=tuple(f"{patient:016x}" for patient in range(UNITS)),
        splits=np.zeros(count, dtype=np.int8),
        unit_source="patient_id",
    )


def step_of(name: str, case: str, images_each: int) -> Iterator[Step]:
    """One step to be taken again and again; what it needs is held until the iterator ends."""
    data, plan = data_of(case, images_each), plan_of(case, images_each, private=name in ("fedward", "alone"))
    if name in ("hooks", "ghost"):
        yield (_hooks if name == "hooks" else _ghost)(data, plan, images_each)
        return
    with bench_for(plan, initial_weights(plan)) as bench:
        bench.model.module.train()
        if name == "whole":
            yield lambda: _plain(bench, data, plan, len(data))
        elif name.startswith("chunks-"):
            yield lambda: _plain(bench, data, plan, int(name.removeprefix("chunks-")))
        else:
            private = replace(bench, by_unit=None) if name == "alone" else bench
            yield lambda: dpsgd.train(private, data, plan, _WORK)


def _plain(bench: Bench, data: Dataset, plan: Plan, chunk: int) -> None:
    bench.model.gradient.zero_()
    for rows in np.split(np.arange(len(data)), range(chunk, len(data), chunk)):
        logits = bench.model.module(batches.images(data, rows, plan.input).to(chosen().where))
        torch.autograd.backward(bench.task.loss(logits, batches.labels(data, rows).to(chosen().where)).sum() / len(data))
    with torch.no_grad():
        bench.model.values.sub_(bench.model.gradient, alpha=_RATE)


def _hooks(data: Dataset, plan: Plan, images_each: int) -> Step:
    from opacus.grad_sample import GradSampleModule
    from opacus.optimizers import DPOptimizer

    module = GradSampleModule(build(plan.model, plan.input, 1).to(chosen().where).train(), loss_reduction="sum")
    optimiser = DPOptimizer(torch.optim.SGD(module.parameters(), lr=_RATE), **_OPACUS)

    def step() -> None:
        for images, labels, is_last in _contiguous(data, plan):
            optimiser.zero_grad()
            _losses(module, images, labels).sum().div(images_each).backward()  # type: ignore[no-untyped-call]  # torch's own
            for parameter in module.parameters():
                parameter.grad_sample = parameter.grad_sample.unflatten(0, (-1, images_each)).sum(dim=1)
            optimiser.signal_skip_step(not is_last)
            optimiser.step()

    return step


def _ghost(data: Dataset, plan: Plan, images_each: int) -> Step:
    from opacus.grad_sample import GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping

    del images_each
    bare = build(plan.model, plan.input, 1).to(chosen().where).train()
    module = GradSampleModuleFastGradientClipping(bare, max_grad_norm=_CLIP, use_ghost_clipping=True, loss_reduction="sum")
    optimiser = DPOptimizerFastGradientClipping(torch.optim.SGD(module.parameters(), lr=_RATE), **_OPACUS)

    def step() -> None:
        for images, labels, is_last in _contiguous(data, plan):
            optimiser.zero_grad()
            DPTensorFastGradientClipping(module, optimiser, _losses(module, images, labels), "sum").backward()
            optimiser.signal_skip_step(not is_last)
            optimiser.step()

    return step


_OPACUS: Final[dict[str, Any]] = {
    "noise_multiplier": _NOISE,
    "max_grad_norm": _CLIP,
    "expected_batch_size": UNITS,
    "loss_reduction": "sum",
}


def _contiguous(data: Dataset, plan: Plan) -> Iterator[tuple[Tensor, Tensor, bool]]:
    """Physical batches, and whether each is the last."""
    for rows in np.split(np.arange(len(data)), range(_CHUNK, len(data), _CHUNK)):
        # A copy: one grey channel counts as contiguous in either order, and the layers behind it would go on in channels_last.
        images = batches.images(data, rows, plan.input).clone(memory_format=torch.contiguous_format)
        yield images.to(chosen().where), batches.labels(data, rows).to(chosen().where), bool(rows[-1] == len(data) - 1)


def _losses(module: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(module(images).squeeze(1), labels.float(), reduction="none")


def main(name: str, case: str, images_each: int, device: str) -> None:
    """Step whenever the turnstile opens. A GPU's memory is what this process alone can see, so it says what a step took of it."""
    turnstile, on_gpu = Turnstile(), choose(device).is_gpu
    for step in step_of(name, case, images_each):
        before = torch.cuda.memory_allocated() if on_gpu else 0
        turnstile.ready()
        while True:
            step()
            if on_gpu:
                torch.cuda.synchronize()
            turnstile.lap(torch.cuda.max_memory_allocated() - before if on_gpu else 0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
