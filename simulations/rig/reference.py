# SPDX-License-Identifier: Apache-2.0
"""The run in which nothing went wrong: the same sites in each round's sum, in one process, without masks, network or kills.

For every committed round, every site of its sum trains on the same model, from its own images, with its own (seeded) noise; the integers
are added, and the plan's strategy takes its step. It is slow and obvious, and uses the deployed training, quantiser and strategy, so
whatever differs in the end was done by what is left out here: the protocol, the transport, and everybody who died.

Each site gets a second home with an empty ledger, so that no budget is touched. Only a rig whose sites draw their noise from a seed can be
compared.
"""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from client.home import PREPARED_FOLDER, SITE_FILE, DataSection, SimulatedSite, SiteFile, SiteName
from client.site import Site
from common import credentials
from common.agreement import grid_of
from common.models import initial_weights
from common.plan import Plan, at_round, digest_of, dump
from common.update import QuantisedDelta, Weights, Words
from common.wire import Step, TrainRequest
from server.checkpoint import CheckpointFolder
from server.combine import GroupSum, combine
from server.home import CHECKPOINTS_FOLDER
from server.journal import CommittedRound
from server.strategies import strategy_of
from simulations.rig import evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The final model, and what each site's update was in each round before it was masked: what must be nowhere."""

    weights: Weights
    updates: Mapping[tuple[str, int], Words]


def play(plan: Plan, session: bytes, rounds: Sequence[CommittedRound], homes: Mapping[str, Path], *, seed: int, folder: Path) -> Expected:
    """The whole run. `homes` are the sites' own; second ones are made below `folder`.

    In one thread, as the rig's site processes train: with more, sums end in other last bits, once in some twenty rounds.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _play(plan, session, rounds, homes, seed=seed, folder=folder)
    finally:
        torch.set_num_threads(threads)


def compare(run: Path, plan: Plan, done: Sequence[CommittedRound], homes: Mapping[str, Path], *, seed: int) -> tuple[Expected, list[str]]:
    """What was to be expected of a run; and complaints: of other weights, and of sites in a sum that never paid for it."""
    with tempfile.TemporaryDirectory() as beside:
        expected = play(plan, evidence.session(run, plan), done, homes, seed=seed, folder=Path(beside))
    complaints = [complaint for name, home in homes.items() for complaint in evidence.unpaid_in(home, name, plan, done)]
    found = CheckpointFolder(run / CHECKPOINTS_FOLDER, power_cut_safe=False).load(done[-1]).state.weights
    if not np.array_equal(expected.weights.values.view(np.uint32), found.view(np.uint32)):
        complaints.append("the final weights are not those of a run in which nobody died")
    return expected, complaints


def _play(plan: Plan, session: bytes, rounds: Sequence[CommittedRound], homes: Mapping[str, Path], *, seed: int, folder: Path) -> Expected:
    sites = {name: _second(home, folder / name, plan, seed=seed) for name, home in homes.items()}
    roster = credentials.load_roster(next(iter(homes.values())))
    initial = initial_weights(plan)
    state = strategy_of(plan.training).init(initial.values)
    updates: dict[tuple[str, int], Words] = {}
    for done in rounds:
        step = Step(session=session, round=done.round, attempt=done.attempt, plan=digest_of(plan))
        request = TrainRequest(step=step, weights=Weights(layout=initial.layout, values=state.weights))
        made = {name: sites[name].train_ideal(request).update for name in done.sites}
        updates |= {(name, done.round): update.words for name, update in made.items()}
        state = strategy_of(at_round(plan.training, done.round)).apply(
            state, combine([_sum(made)], grid_of(plan, roster), plan.aggregation)
        )
    return Expected(weights=Weights(layout=initial.layout, values=state.weights), updates=updates)


def _sum(made: Mapping[str, QuantisedDelta]) -> GroupSum:
    words = np.zeros_like(next(iter(made.values())).words)
    for update in made.values():
        words += update.words
    return GroupSum(words=words, total_weight=sum(update.weight for update in made.values()), sites=tuple(made))


def _second(home: Path, second: Path, plan: Plan, *, seed: int) -> Site:
    second.mkdir(parents=True)
    file = SiteFile(
        site=SiteName(name=home.parent.name),
        data=DataSection(namespace="reference"),
        simulation=SimulatedSite(unsafe_noise_seed=seed, aggregation="ideal"),
    )
    (second / SITE_FILE).write_text(dump(file))
    for name in (credentials.KEY_FILE, credentials.ROSTER_FILE, credentials.ROOTS_FILE):
        shutil.copy(home / name, second / name)
    (second / PREPARED_FOLDER).symlink_to(home / PREPARED_FOLDER)
    return Site.open(second, plan)
