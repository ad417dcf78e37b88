# SPDX-License-Identifier: Apache-2.0
"""What the federation is measured against: each site alone, and all patients in one place.

Both train by the same client code, with the same number of rounds, and answer the same messages; only nobody averages. A site alone
follows the plan as it is. The pooled home holds every site's patients and sees as many images a round as all sites together: in as many
steps, from batches that are larger by the number of sites, or in as many passes.

The strategy's step comes with the plan: a lone site applies `server_momentum` to its own updates. That is no privilege of federations, left
on by mistake. A site's optimiser is born anew each round, so a plan of one local step has no other momentum, and with this one it is SGD
with momentum, which anybody would train by in one place; without it a rival would move at a tenth of the pace (at 0.9) and look worse than
it is. A rival may still fare better with another number of rounds: `simulations/benchmarks/pooled_gap.py` lets the pooled one have it.

Where sites share their noise there is nobody to share with: whoever trains alone, or has everyone's patients in one place, adds all of it,
which for the pooled home is the trusted centre that shared noise is measured against.

One site alone cannot be summed securely, so these updates are plain floats; they never leave this machine. Their ledgers are their own:
this training is never released, it only shows what federating was worth.
"""

import shutil
from collections.abc import Callable, Container, Mapping
from dataclasses import replace

from flwr.app import Message, RecordDict

from client.home import AggregationName
from common import canonical, wire
from common.durable import write_atomically
from common.errors import TrainFailed
from common.models import initial_weights
from common.plan import Plan, PrivacySpec, at_round, digest_of, to_toml
from common.update import Weights
from server.mean import mean_of
from server.strategies import StrategyState, strategy_of
from simulations.apps import CLIENT_APP
from simulations.engine import LocalEngine
from simulations.engine.nursery import Nursery
from simulations.federation import Federation
from simulations.stage import PLAN_FILE, SITES, Stage, aggregation_of, clone_home, pool_homes

POOLED = "pooled"
NOT_PRIVATE = "not_private"
COMPARISON = "comparison"

Progress = Callable[[int, int], None]


def pooled_plan(plan: Plan, num_sites: int) -> Plan:
    """The plan of one place with everyone's patients: as many images a round as the federation sees, by the same optimiser."""
    training, bound = plan.training, plan.aggregation.update_norm * num_sites
    if training.local_steps is not None:
        training = replace(training, batch=training.batch * num_sites)
    aggregation = replace(plan.aggregation, minimum_cohort=1, sites_per_round=None, update_norm=bound)
    return replace(plan, training=training, aggregation=aggregation)


def on_its_own(plan: Plan) -> Plan:
    """The plan of somebody who relies on nobody, and whom nobody asks to count."""
    plan = replace(plan, evaluation=None, statistics=None)
    privacy = replace(plan.privacy, noise="local", noise_quorum=None, minimum_patients=None)
    return replace(plan, privacy=privacy) if plan.shares_noise else plan


def without_privacy(plan: Plan, *, learning_rate: float | None) -> Plan:
    """The same plan with nothing clipped and no noise, and as many images a step: without privacy a batch counts images, not patients.

    learning_rate: its own, where the plan's is too long for it; None takes the plan's.
    """
    images = plan.privacy.images_per_patient if plan.privacy.unit == "patient" else 1
    training = replace(plan.training, batch=plan.training.batch * images, learning_rate=learning_rate or plan.training.learning_rate)
    return replace(plan, training=training, privacy=PrivacySpec(unit="none"), evaluation=None, statistics=None)


def twin_without_privacy(stage: Stage) -> tuple[Stage, Federation]:
    """The same federation with nothing clipped and no noise, in a folder of its own: what privacy costs, and what data could give at most.

    Nothing leaves this machine and masks would not change a bit of it, so it does without.
    """
    scenario, folder = stage.scenario, stage.folder / NOT_PRIVATE
    plan = without_privacy(scenario.plan, learning_rate=scenario.simulation.learning_rate_without_privacy)
    aggregation: AggregationName = "plain" if aggregation_of(stage) == "plain" else "ideal"
    for site in stage.sites:
        clone_home(stage, site, folder / SITES / site, aggregation=aggregation)
    write_atomically(folder / PLAN_FILE, to_toml(plan).encode(), fsync=False)
    twin = replace(stage, folder=folder, scenario=replace(scenario, plan=plan))
    federation = Federation(
        plan=plan,
        plan_file=twin.plan_file,
        sites=folder / SITES,
        num_sites=len(stage.sites),
        folder=folder,
        coordinator=stage.coordinator,
        aggregation=aggregation,
        unsafe_noise_seed=None,
    )
    return twin, federation


def train_apart(
    stage: Stage, *, workers: int | None, progress: Progress, nursery: Nursery | None = None, only: Container[str] | None = None
) -> dict[str, Weights]:
    """Train every site alone, and the pooled home; the final model of each by name ("pooled" for the latter). `only`: these of them."""
    plan = on_its_own(stage.scenario.plan)
    # The pooled chain is as long as all the others together: it starts first.
    plans = {POOLED: pooled_plan(plan, len(stage.sites)), **dict.fromkeys(stage.sites, plan)}
    plans = {name: plan for name, plan in plans.items() if only is None or name in only}
    configs = [_furnish(stage, name, plan) for name, plan in plans.items()]
    client_app = nursery.client_app if nursery else CLIENT_APP
    with LocalEngine(client_app, len(plans), workers=workers, node_configs=configs, nursery=nursery) as grid:
        chains = {node: Chain(name, plan) for node, (name, plan) in zip(grid.get_node_ids(), plans.items(), strict=True)}
        _drive(grid, chains, progress)
    shutil.rmtree(stage.folder / COMPARISON)
    return {chain.name: chain.weights for chain in chains.values()}


class Chain:
    """Rounds of a federation of one: ask, apply, ask again."""

    def __init__(self, name: str, plan: Plan) -> None:
        self.name = name
        self._plan = plan
        self._initial = initial_weights(plan)
        self._state: StrategyState = strategy_of(plan.training).init(self._initial.values)
        self.rounds_done = 0

    @property
    def rounds(self) -> int:
        return self._plan.training.rounds

    @property
    def weights(self) -> Weights:
        return Weights(layout=self._initial.layout, values=self._state.weights)

    def question(self) -> RecordDict:
        session = canonical.digest(b"comparison", self.name.encode())[:16]
        step = wire.Step(session=session, round=self.rounds_done + 1, attempt=0, plan=digest_of(self._plan))
        return wire.encode_train_request(wire.TrainRequest(step=step, weights=self.weights))

    def take(self, reply: Message) -> None:
        """Apply one reply. Raises: TrainFailed, with the code that the site gave."""
        content = None if reply.has_error() else wire.decode_train_reply(reply.content, self._initial.layout)
        if not isinstance(content, wire.TrainReply):
            why = content.code if content else reply.error.reason
            raise TrainFailed(
                f"training '{self.name}' for comparison stopped in round {self.rounds_done + 1}: {why}.",
                fix="Run with --no-compare to leave the comparison out.",
            )
        strategy = strategy_of(at_round(self._plan.training, self.rounds_done + 1))
        self._state = strategy.apply(self._state, mean_of({self.name: content.update}))
        self.rounds_done += 1


def _drive(grid: LocalEngine, chains: Mapping[int, Chain], progress: Progress) -> None:
    """Keep every chain busy: as soon as one answers, it is asked its next round."""
    awaited: dict[str, int] = {}

    def push(node: int) -> None:
        [message_id] = grid.push_messages([Message(chains[node].question(), node, wire.TRAIN)])
        awaited[message_id] = node

    for node in chains:
        push(node)
    total = sum(chain.rounds for chain in chains.values())
    while awaited:
        grid.wait()
        for reply in grid.pull_messages(list(awaited)):
            node = awaited.pop(reply.metadata.reply_to_message_id)
            chains[node].take(reply)
            if chains[node].rounds_done < chains[node].rounds:
                push(node)
        progress(sum(chain.rounds_done for chain in chains.values()), total)


def _furnish(stage: Stage, name: str, plan: Plan) -> dict[str, str | int | float | bool]:
    home = stage.folder / COMPARISON / name
    if name == POOLED:
        pool_homes(stage, home)
    else:
        clone_home(stage, name, home, aggregation="plain")
    plan_file = home / PLAN_FILE
    write_atomically(plan_file, to_toml(plan).encode(), fsync=False)
    return {"home": str(home.resolve()), "plan": str(plan_file.resolve())}
