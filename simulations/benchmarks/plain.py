# SPDX-License-Identifier: Apache-2.0
"""Federated averaging without an engine: as one would write it first, and as fast as it gets.

`loop` is one process, NCHW, torch's own threads, one site after the other. `limit` is one process per core and nothing else: one thread
each, channels_last, the allocator told to keep memory, weights in shared memory, each process its fixed part of the sites, the mean in
the parent. No messages, no records, no failures: what an engine cannot beat, and should not fall behind of.
"""

import os
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, multiprocessing, nn
from torch.nn import functional

from client.home import PREPARED_FOLDER
from client.imaging.prepared import load_prepared
from client.training.batches import images, labels
from common.models import build, flatten, outputs_for
from common.plan import Plan
from simulations.benchmarks.turnstile import Turnstile
from simulations.benchmarks.workload import Workload
from simulations.engine.nursery import SETTINGS


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """One site's images (N, C, H, W) and labels (N,), float32, in memory."""

    images: Tensor
    labels: Tensor


def loop(workload: Workload, workers: int, turnstile: Turnstile) -> None:
    """One process, whatever the number of workers."""
    del workers
    plan = workload.plan
    sites = [_load(home, plan, layout=torch.contiguous_format) for home in workload.homes]
    model = build(plan.model, plan.input, outputs_for(plan))
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    turnstile.ready()
    for _ in range(plan.training.rounds):
        total = {name: torch.zeros_like(value) for name, value in weights.items()}
        for site in sites:
            model.load_state_dict(weights)
            optimiser = torch.optim.SGD(model.parameters(), lr=plan.training.learning_rate)
            for rows in torch.split(torch.randperm(len(site.labels)), plan.training.batch):
                optimiser.zero_grad()
                torch.autograd.backward(_loss(model, site, rows))
                optimiser.step()
            for name, value in model.state_dict().items():
                total[name] += value
        weights = {name: value / len(sites) for name, value in total.items()}
        turnstile.lap()


def limit(workload: Workload, workers: int, turnstile: Turnstile) -> None:
    """`workers` processes, started afresh so that the allocator's settings hold from their first line."""
    plan = workload.plan
    weights = flatten(build(plan.model, plan.input, outputs_for(plan))).values.share_memory_()  # type: ignore[no-untyped-call]  # torch's own
    results = torch.zeros(workload.num_sites, len(weights)).share_memory_()  # type: ignore[no-untyped-call]  # torch's own
    os.environ.update(SETTINGS)
    context = multiprocessing.get_context("spawn")
    pipes = []
    for part in range(workers):
        ours, theirs = context.Pipe()
        context.Process(target=_train_part, args=(workload, part, workers, weights, results, theirs), daemon=True).start()
        pipes.append(ours)
    _gather(pipes)
    turnstile.ready()
    for _ in range(plan.training.rounds):
        for pipe in pipes:
            pipe.send(None)
        _gather(pipes)
        torch.mean(results, dim=0, out=weights)
        turnstile.lap()


def _train_part(workload: Workload, part: int, parts: int, weights: Tensor, results: Tensor, pipe: "Connection[None, None]") -> None:
    plan = workload.plan
    torch.set_num_threads(1)
    model = flatten(build(plan.model, plan.input, outputs_for(plan)))
    sites = [(row, _load(home, plan, layout=torch.channels_last)) for row, home in enumerate(workload.homes)][part::parts]
    pipe.send(None)
    while True:
        pipe.recv()
        for row, site in sites:
            model.values.copy_(weights)
            for rows in torch.split(torch.randperm(len(site.labels)), plan.training.batch):
                model.gradient.zero_()
                torch.autograd.backward(_loss(model.module, site, rows))
                model.values.data.add_(model.gradient, alpha=-plan.training.learning_rate)
            results[row] = model.values
        pipe.send(None)


def _loss(model: nn.Module, site: Data, rows: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(model(site.images[rows]).squeeze(1), site.labels[rows])


def _gather(pipes: "list[Connection[None, None]]") -> None:
    for pipe in pipes:
        pipe.recv()


def _load(home: Path, plan: Plan, *, layout: torch.memory_format) -> Data:
    data = load_prepared(home / PREPARED_FOLDER)
    rows = np.arange(len(data))
    x = images(data, rows, plan.input)
    return Data(images=x.contiguous(memory_format=layout), labels=labels(data, rows).float())
