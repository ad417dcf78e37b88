# SPDX-License-Identifier: Apache-2.0
"""A consortium that upgrades one hospital at a time: a plan's rounds are held in the version that the plan names, or refused by name."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client.app import PLAN_VARIABLE, SITES_VARIABLE
from client.app import app as client_app
from common.plan import digest_of, to_toml
from common.secagg import terms
from server.journal import Journal
from simulations.stage import SITES, Stage
from tests.journeys.made import Quiet, made_federation, made_scenario, made_stage

OLD, NEW = frozenset({1}), frozenset({1, 2})
UPGRADED = 2
"""Of four sites, the first two have the next version already, as the coordinator has."""


@contextmanager
def speaking(versions: frozenset[int]) -> Iterator[None]:
    """What a machine with these versions does within this."""
    before = terms.SPOKEN
    vars(terms)["SPOKEN"] = versions
    try:
        yield
    finally:
        vars(terms)["SPOKEN"] = before


@dataclass
class OneAfterTheOther:
    """A `Grid` of sites in this process, each with the version that its machine has."""

    num_sites: int
    replies: dict[str, Message] = field(default_factory=dict)

    def get_node_ids(self) -> list[int]:
        return list(range(self.num_sites))

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        return [self._answered(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [self.replies.pop(each) for each in list(message_ids) if each in self.replies]

    def _answered(self, message: Message) -> str:
        site = message.metadata.dst_node_id
        name = f"message {len(self.replies)} to {site}: {id(message)}"
        message.metadata.__dict__["_message_id"] = name
        context = Context(run_id=1, node_id=site, node_config={"partition-id": site}, state=RecordDict(), run_config={})
        with speaking(NEW if site < UPGRADED else OLD):
            self.replies[name] = client_app(message, context)
        return name


def stage_of(folder: Path, monkeypatch: pytest.MonkeyPatch, *, protocol: int) -> Stage:
    played = made_scenario(private=True, change=("minimum_cohort = 2", f"minimum_cohort = 2\nprotocol = {protocol}"))
    stage = made_stage(folder / f"run-{protocol}", played)
    monkeypatch.setenv(PLAN_VARIABLE, str(stage.plan_file))
    monkeypatch.setenv(SITES_VARIABLE, str(stage.folder / SITES))
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    return stage


def run(stage: Stage) -> Any:
    grid: Any = OneAfterTheOther(len(stage.sites))
    journal = Journal(stage.folder / "journal.sqlite", plan=digest_of(stage.scenario.plan), session=bytes(16), power_cut_safe=False)
    try:
        with speaking(NEW):
            made_federation(stage).coordinate(grid, journal, Quiet()).run()
        return journal.committed()
    finally:
        journal.close()


def test_a_coordinator_and_sites_that_are_ahead_keep_to_the_plans_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    committed = run(stage_of(tmp_path, monkeypatch, protocol=1))
    assert [len(done.sites) for done in committed] == [4] * 4
    assert not any(done.missing for done in committed)


def test_sites_that_are_behind_a_plan_are_told_so_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three are needed for a sum, two have the version: nobody trains in the wrong one, and the reason names who and why."""
    stage = stage_of(tmp_path, monkeypatch, protocol=2)
    with pytest.raises(Exception, match="site_02: E_VERSION, site_03: E_VERSION"):
        run(stage)


def test_the_plans_version_is_part_of_what_is_agreed_to() -> None:
    plan = made_scenario(private=True).plan
    later = replace(plan, aggregation=replace(plan.aggregation, protocol=2))
    assert "protocol = 1" in to_toml(plan)
    assert to_toml(later) != to_toml(plan)
