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
from typing import Final

from torch import nn

from client.training.by_unit import UnitHooks
from common.models import FlatModel, build, flatten, load
from common.plan import Plan
from common.tasks import Task, task_of
from common.update import Weights

KEPT_VALUES: Final = 2**26
"""Gradients of single units held at once: 256 MB."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A model and the task it learns. `by_unit`, for private training only, where the gradients of two units or more fit in memory."""

    model: FlatModel
    task: Task
    by_unit: UnitHooks | None
    lock: threading.Lock

    @property
    def units_at_once(self) -> int:
        """How many units' gradients are held at once."""
        return KEPT_VALUES // self.model.layout.size if self.by_unit else 1


@contextmanager
def bench_for(plan: Plan, weights: Weights) -> Iterator[Bench]:
    """The plan's bench with these weights on it, for one use at a time. Raises: ModelLayout."""
    bench = _bench(plan)
    with bench.lock:
        load(bench.model, weights)
        yield bench


@lru_cache(maxsize=4)
def _bench(plan: Plan) -> Bench:
    task = task_of(plan)
    return bench_of(build(plan.model, plan.input, task.outputs), task, private=plan.is_private)


def bench_of(module: nn.Module, task: Task, *, private: bool) -> Bench:
    """A bench with this module on it, whose parameters become views of one vector."""
    model = flatten(module)
    at_once = KEPT_VALUES // model.layout.size
    if private:
        how = f"{at_once} units at once" if at_once > 1 else "one unit at a time"
        _LOG.info("private training: gradients of %d values, %s", model.layout.size, how)
    return Bench(model=model, task=task, by_unit=UnitHooks(module) if private and at_once > 1 else None, lock=threading.Lock())
