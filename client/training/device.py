# SPDX-License-Identifier: Apache-2.0
"""What a process trains on: a GPU, or its processor. The site's own choice ([training] in site.toml), never the plan's.

    auto      the first GPU that PyTorch sees, else the processor
    cpu       the processor
    cuda, cuda:1      that GPU, or nothing: a site that means to use one is not silently forty times slower

A float32 stays one on a GPU, too: the ten bits of TF32 would be enough to learn with, but a unit's gradient would then depend on which
units it shares a batch with by more than the room that `clipping` leaves for it, and a product would be longer than its norm says. The
library's algorithms are those that repeat; others of a network need not, so equal bits are promised for processors only. Nothing rests on
them: an answered step is never trained again.

How much is taken at once is for speed and memory alone. A processor likes what fits its caches. A GPU takes what its free memory holds by
a rough guess, and half of it whenever the guess was wrong (`Room`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeVar

import torch

from common.errors import GpuMemory, GpuMissing

_MOST_AT_ONCE: Final = 1024
"""More images or units at once than this fill no GPU any better."""
BYTES_A_PIXEL: Final = 2**14
"""What a network keeps for its backward pass, roughly: 64 channels at full resolution, a few times over."""
_PART_FOR_UNITS: Final = 8
"""Gradients of single units may take one part in so many of the free memory."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Where tensors live, and how much fits: images and units at once, and values of single units' gradients.

    `free_bytes`: None on a processor, whose numbers are what its caches like.
    """

    where: torch.device
    free_bytes: int | None = None
    kept_values: int = 2**26

    @property
    def is_gpu(self) -> bool:
        return self.where.type == "cuda"

    def room_for(self, *, pixels: int, values: int) -> "Room":
        """Where an image has so many pixels, and a model so many values."""
        units = max(1, self.kept_values // values)
        if self.free_bytes is None:
            return Room(images=64, units=min(units, 16))
        images = max(1, self.free_bytes // (BYTES_A_PIXEL * max(1, pixels)))
        return Room(images=min(images, _MOST_AT_ONCE), units=min(units, _MOST_AT_ONCE))


@dataclass(slots=True)
class Room:
    """How many images, and how many units, are taken at once; it learns that a GPU has less."""

    images: int
    units: int

    def fitting(self, work: Callable[[], T]) -> T:
        """What `work` gives, which may be called several times: with half as many images and units after each time that memory runs out.

        Raises: GpuMemory, when not even one image fits.
        """
        while True:
            try:
                return work()
            except torch.OutOfMemoryError:
                pass  # not here: as long as the exception is known, so is all that it was holding
            if self.images == 1 and self.units == 1:
                raise too_small("one image of this plan's size")
            self.images, self.units = max(1, self.images // 2), max(1, self.units // 2)
            torch.cuda.empty_cache()


def too_small(what: str) -> GpuMemory:
    """The error that says so."""
    return GpuMemory(
        f"the GPU's memory is too small for {what}, or another program holds it.",
        fix='Free it (nvidia-smi shows who holds it), or train on the processor: [training] device = "cpu" in site.toml.',
    )


PROCESSOR: Final = Device(where=torch.device("cpu"))
_chosen = PROCESSOR


def chosen() -> Device:
    """What this process trains and predicts on; its processor, until somebody chooses."""
    return _chosen


def choose(name: str) -> Device:
    """From now on, this process trains and predicts there. Raises: GpuMissing."""
    global _chosen
    _chosen = found(name)
    return _chosen


@cache
def found(name: str) -> Device:
    """The device that a site.toml names, as it is found first: a process that serves many sites has one. Raises: GpuMissing."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return PROCESSOR
    number = int(name.partition(":")[2] or 0)
    if not torch.cuda.is_available() or number >= torch.cuda.device_count():
        raise GpuMissing(
            f"[training] device = '{name}' in site.toml, and PyTorch {torch.__version__} sees {torch.cuda.device_count()} GPUs.",
            fix="Say what is wrong: fedward site doctor. Or train on the processor, with device = 'cpu'.",
        )
    where = torch.device("cuda", number)
    cudnn: Any = torch.backends.cudnn  # torch leaves half of it untyped
    cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = torch.backends.cuda.matmul.fp32_precision = "ieee"
    cudnn.deterministic, cudnn.benchmark = True, False
    free_bytes, _ = torch.cuda.mem_get_info(where)
    return Device(where=where, free_bytes=free_bytes, kept_values=max(free_bytes // (_PART_FOR_UNITS * 4), PROCESSOR.kept_values))


def called(device: Device) -> str:
    """A device's name for people."""
    return torch.cuda.get_device_name(device.where) if device.is_gpu else "processor"
