# SPDX-License-Identifier: Apache-2.0
"""The model on which a process trains, built once per plan and used for every round and every site.

Building costs milliseconds and, with hooks for private training, leaves reference cycles behind: a worker that serves a thousand sites
would pay a thousand times. Nothing of a site stays on the bench for the next: each use begins by overwriting all weights.

A bench serves one training at a time; a second thread waits.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from torch import Tensor, nn

from common.models import FlatModel, build, flatten, load
from common.plan import InputSpec, ModelSpec, Plan, TaskSpec
from common.tasks import Task, task_of
from common.update import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A model and the task it learns. `by_record`, for private training only: losses (B,) -> gradients (B, *shape) in layout order."""

    model: FlatModel
    task: Task
    by_record: Callable[[Tensor], list[Tensor]] | None
    lock: threading.Lock


@contextmanager
def bench_for(plan: Plan, weights: Weights) -> Iterator[Bench]:
    """The plan's bench with these weights on it, for one use at a time. Raises: ModelLayout."""
    bench = _bench(plan.model, plan.input, plan.task, private=plan.is_private)
    with bench.lock:
        load(bench.model, weights)
        yield bench


@lru_cache(maxsize=4)
def _bench(spec: ModelSpec, image: InputSpec, task_spec: TaskSpec, *, private: bool) -> Bench:
    task = task_of(task_spec)
    return bench_of(build(spec, image, task.outputs), task, private=private)


def bench_of(module: nn.Module, task: Task, *, private: bool) -> Bench:
    """A bench with this module on it, whose parameters become views of one vector."""
    model, by_record = flatten(module), None
    if private:
        from client.training.per_record import RecordHooks  # brings Opacus: a second that plain training need not wait for

        by_record = RecordHooks(model.module).gradients
    return Bench(model=model, task=task, by_record=by_record, lock=threading.Lock())
