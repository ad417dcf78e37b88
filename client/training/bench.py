# SPDX-License-Identifier: Apache-2.0
"""The model on which a process trains, built once per plan and used for every round and every site.

Building costs milliseconds and, with hooks for private training, leaves reference cycles behind: a worker that serves a thousand sites
would pay a thousand times. Nothing of a site stays on the bench for the next: each use begins by overwriting all weights.

A bench serves one training at a time; a second thread waits.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn

from client.training.by_unit import UnitHooks
from client.training.device import PROCESSOR, Device, Room, chosen, too_small
from common.models import FlatModel, build, flatten, load
from common.plan import Plan
from common.tasks import Task, task_of
from common.update import Weights

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A model, the task it learns, and how much of its work is done at once.

    `by_unit`, for private training only, where the gradients of two units or more fit in memory.
    """

    model: FlatModel
    task: Task
    by_unit: UnitHooks | None
    room: Room
    lock: threading.Lock


@contextmanager
def bench_for(plan: Plan, weights: Weights) -> Iterator[Bench]:
    """The plan's bench with these weights on it, for one use at a time. Raises: ModelLayout, GpuMemory."""
    bench = _bench(plan, chosen())
    with bench.lock:
        load(bench.model, weights)
        yield bench


@lru_cache(maxsize=4)
def _bench(plan: Plan, device: Device) -> Bench:
    task, pixels = task_of(plan), plan.input.height * plan.input.width
    module = build(plan.model, plan.input, task.outputs)
    try:
        return bench_of(module, task, private=plan.is_private, device=device, pixels=pixels)
    except torch.OutOfMemoryError:
        raise too_small("the plan's model") from None


def bench_of(module: nn.Module, task: Task, *, private: bool, device: Device = PROCESSOR, pixels: int = 0) -> Bench:
    """A bench with this module on it, whose parameters become views of one vector. `pixels`: of one image."""
    model = flatten(module.to(device.where))
    room = device.room_for(pixels=pixels, values=model.layout.size)
    if private:
        how = f"{room.units} units at once" if room.units > 1 else "one unit at a time"
        _LOG.info("private training on %s: gradients of %d values, %s", device.where, model.layout.size, how)
    by_unit = UnitHooks(module) if private and room.units > 1 else None
    return Bench(model=model, task=task, by_unit=by_unit, room=room, lock=threading.Lock())
