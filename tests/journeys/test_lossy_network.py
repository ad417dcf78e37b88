# SPDX-License-Identifier: Apache-2.0
"""Whole rounds over a network that loses, doubles and delays messages: the same bits as without, and nobody trains twice."""

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from common import wire
from common.errors import SurvivorSet
from common.plan import digest_of
from common.update import Weights
from server.journal import CommittedRound, Journal
from server.persistence import Persistence
from server.transport.exchange import Pace
from simulations.engine import LocalEngine
from simulations.engine.nursery import Nursery
from simulations.federation import Federation
from simulations.stage import SITES, Stage
from tests.journeys.made import Quiet, made_federation, made_scenario, made_stage, reserved_rounds, train

PACE = Pace(silence_s=1.0, lost_s=0.1, first_look_s=0.01, look_s=0.05, moving_s=30.0)


class Network:
    """The engine, as a SuperLink would be: no waiting, no taking back, each reply handed out once. Thread-safe, as Flower's grid is.

    Every third message is lost: one that asks for training with an error (else it would be missed for minutes), any other in silence.
    Every fourth is delivered twice. A reply is seen at the second look at the earliest.
    """

    def __init__(self, engine: LocalEngine) -> None:
        self._engine, self._lock = engine, threading.Lock()
        self._pushed = 0
        self._looks: Counter[str] = Counter()
        self._lost: dict[str, Message] = {}
        self.asked: Counter[tuple[str, int]] = Counter()

    def get_node_ids(self) -> list[int]:
        return self._engine.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        return [self._push(message) for message in messages]

    def _push(self, message: Message) -> str:
        self._pushed += 1
        self.asked[message.metadata.message_type, message.metadata.dst_node_id] += 1
        if self._pushed % 3 == 0:
            message.metadata.__dict__["_message_id"] = str(uuid4())
            self._lost[message.metadata.message_id] = message
            return message.metadata.message_id
        if self._pushed % 4 == 0:
            again = Message(message.content, message.metadata.dst_node_id, message.metadata.message_type, ttl=message.metadata.ttl)
            self._engine.push_messages([again])
        [message_id] = self._engine.push_messages([message])
        return message_id

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        [message_id] = message_ids
        with self._lock:
            self._looks[message_id] += 1
            if self._looks[message_id] == 1:
                return []
            lost = self._lost.get(message_id)
        if lost is not None:
            noticed = lost.metadata.message_type == wire.SECURE["KEYS"]
            return [Message(Error(code=ErrorCode.MESSAGE_UNAVAILABLE, reason="lost"), reply_to=lost)] if noticed else []
        return self._engine.pull_messages([message_id])


def run(federation: Federation, grid: Grid) -> tuple[Weights, list[CommittedRound]]:
    plan = digest_of(federation.plan)
    journal = Journal(federation.folder / "journal.sqlite", plan=plan, session=federation._session(plan), power_cut_safe=True)
    try:
        return federation.coordinate(grid, journal, Quiet()).run(), journal.committed()
    finally:
        journal.close()


def environment(stage: Stage) -> dict[str, str]:
    return {"FEDWARD_PLAN": str(stage.plan_file.resolve()), "FEDWARD_SITES": str((stage.folder / SITES).resolve()), "FEDWARD_FAULTS": ""}


def test_a_run_over_a_network_that_loses_every_third_message_ends_with_the_same_bits(tmp_path: Path, nursery: Nursery) -> None:
    whole = train(made_stage(tmp_path / "whole", made_scenario(private=True)), nursery)[0].digest
    stage = made_stage(tmp_path / "lossy", made_scenario(private=True))
    federation = replace(made_federation(stage), pace=PACE)
    with LocalEngine(nursery.client_app, 4, workers=2, env=environment(stage), nursery=nursery) as engine:
        network = Network(engine)
        weights, rounds = run(federation, network)  # type: ignore[arg-type] # the members that a line uses
    assert weights.digest == whole
    assert [(done.attempt, done.missing, done.fallen) for done in rounds] == [(0, (), ())] * 4
    assert {tuple(reserved_rounds(stage, site)) for site in stage.sites} == {(1, 2, 3, 4)}
    assert sum(network.asked.values()) > 4 * 5 * 4, "something was lost and asked again"


class Struck(LocalEngine):
    """An engine two of whose sites are out of reach for the first so many messages of one step."""

    def strike(self, step: str, *, times: int) -> None:
        self._step, self._left = wire.SECURE[step], dict.fromkeys(self.get_node_ids()[:2], times)
        self._errors: dict[str, Message] = {}

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        return [self._struck(message) or super(Struck, self).push_messages([message])[0] for message in messages]

    def _struck(self, message: Message) -> str | None:
        node = message.metadata.dst_node_id
        if message.metadata.message_type != self._step or not self._left.get(node):
            return None
        self._left[node] -= 1
        message.metadata.__dict__["_message_id"] = str(uuid4())
        self._errors[message.metadata.message_id] = Message(Error(code=ErrorCode.NODE_UNAVAILABLE, reason="away"), reply_to=message)
        return message.metadata.message_id

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        ids = list(message_ids)
        found = [self._errors.pop(each) for each in ids if each in self._errors]
        return found + super().pull_messages([each for each in ids if each not in self._errors])


class Waiting(Quiet):
    def __init__(self) -> None:
        self.why: list[str] = []

    def waiting(self, number: int, why: str) -> None:
        self.why.append(why)


@pytest.mark.parametrize("step", [pytest.param("SHARE", marks=pytest.mark.slow), "UNMASK"])
def test_a_deployed_coordinator_holds_an_attempt_until_enough_sites_are_back(tmp_path: Path, nursery: Nursery, step: str) -> None:
    """Two of four are away for three messages, where three sites are needed. Nothing is given up, nobody trains or pays again."""
    stage = made_stage(tmp_path / "run", made_scenario(private=True).with_changes(rounds=1))
    told = Waiting()
    federation = replace(made_federation(stage), persistence=Persistence())
    journal = Journal(stage.folder / "journal.sqlite", plan=digest_of(federation.plan), session=bytes(16), power_cut_safe=True)
    with Struck(nursery.client_app, 4, workers=2, env=environment(stage), nursery=nursery) as engine:
        engine.strike(step, times=3)
        federation.coordinate(engine, journal, told).run()
    [done] = journal.committed()
    journal.close()
    assert (done.attempt, done.missing, done.fallen) == (0, (), ())
    assert {tuple(reserved_rounds(stage, site)) for site in stage.sites} == {(1,)}
    assert len(told.why) == 2
    assert all(why.startswith(f"{step}: 2 sites answered") and stage.sites[0] in why for why in told.why)


def test_a_simulation_asks_once_more_and_gives_the_attempt_up(tmp_path: Path, nursery: Nursery) -> None:
    stage = made_stage(tmp_path / "run", made_scenario(private=False).with_changes(rounds=1))
    journal = Journal(stage.folder / "journal.sqlite", plan=digest_of(stage.scenario.plan), session=bytes(16), power_cut_safe=True)
    with Struck(nursery.client_app, 4, workers=2, env=environment(stage), nursery=nursery) as engine:
        engine.strike("MASK", times=4)
        with pytest.raises(SurvivorSet):
            made_federation(stage).coordinate(engine, journal, Quiet()).run()
    journal.close()
