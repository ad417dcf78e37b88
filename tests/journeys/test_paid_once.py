# SPDX-License-Identifier: Apache-2.0
"""What was paid for once is in one sum, under the plan that paid: whatever is approved, or put back from a copy, between two attempts.

The sites are whole ones, with homes and ledgers; what the coordinator says is said here, step by step, so that it can lie.
"""

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from client import ledger
from client.home import LEDGER_FILE
from client.site import Site
from common import credentials
from common.agreement import group_around, terms_of
from common.errors import AlreadyMasked
from common.models import initial_weights
from common.plan import Plan, digest_of
from common.privacy.entries import Spent
from common.secagg.coordinator import Inviting, Masking, Sharing, abandon
from common.secagg.messages import RoundTag, Signed
from common.secagg.terms import Chair
from common.wire import SecureReply, SecureRequest
from simulations.stage import Stage
from tests.attacks.lies import as_signed
from tests.journeys.made import made_stage
from tests.journeys.test_shared_noise import shared_scenario

SESSION = bytes(range(16))
PLAN = shared_scenario(quorum=5, sites=5).plan


@dataclass(frozen=True, kw_only=True)
class Table:
    """One attempt at round 1 of a plan: the coordinator's words to some sites of a stage."""

    stage: Stage
    plan: Plan
    sites: Mapping[str, Site]
    attempt: int = 0
    abandons: tuple[Signed, ...] = ()

    @property
    def chair(self) -> Chair:
        mine = credentials.load(self.stage.coordinator, "coordinator")
        terms = terms_of(self.plan, initial_weights(self.plan), mine.roster, group_around(self.stage.sites[0], self.plan, mine.roster))
        return Chair(signer=mine.signer, terms=terms, roster=mine.roster)

    @property
    def tag(self) -> RoundTag:
        terms = self.chair.terms
        return RoundTag(
            version=1,
            ring_bits=terms.grid.ring_bits,
            plan=terms.plan,
            roster=self.chair.roster.digest,
            session=SESSION,
            round=1,
            attempt=self.attempt,
            model=terms.initial_model,
            layout=terms.layout,
        )

    def ask(self, site: str, control: bytes) -> SecureReply:
        return self.sites[site].secure(SecureRequest(round=1, control=control, model=initial_weights(self.plan).values))

    def keys(self) -> tuple[Sharing, bytes]:
        inviting = Inviting(chair=self.chair, tag=self.tag, abandons=self.abandons)
        said = {site: self.ask(site, inviting.header).control for site in self.sites}
        return inviting.agree(said, now=int(time.time()))

    def deliveries(self) -> tuple[Masking, Mapping[str, bytes]]:
        sharing, cohort = self.keys()
        return sharing.route({site: self.ask(site, cohort).control for site in self.sites})

    def masked(self) -> None:
        _, deliveries = self.deliveries()
        for site, control in deliveries.items():
            assert self.ask(site, control).update is not None

    def given_up(self) -> tuple[Signed, ...]:
        return tuple(as_signed(self.ask(site, abandon(self.chair, self.tag)).control) for site in self.sites)


def table(stage: Stage, plan: Plan, *, sites: int = 5) -> Table:
    return Table(stage=stage, plan=plan, sites={site: Site.open(stage.home(site), plan) for site in stage.sites[:sites]})


def plans_paid(stage: Stage, site: str) -> list[str]:
    _, entries = ledger.read((stage.home(site) / LEDGER_FILE).read_bytes(), name=site)
    return [entry.fact.plan for entry in entries if isinstance(entry.fact, Spent)]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return made_stage(tmp_path / "run", shared_scenario(quorum=5, sites=5))


def test_an_update_made_for_a_quorum_of_five_is_not_summed_under_a_plan_that_asks_for_three(stage: Stage) -> None:
    """Another plan is approved between two attempts: what comes is trained under it, and paid under it."""
    looser = shared_scenario(quorum=3, sites=5).plan
    table(stage, PLAN).keys()
    second = replace(table(stage, looser, sites=3), attempt=1)
    second.masked()
    expected = [digest_of(PLAN), digest_of(looser)]
    assert [plans_paid(stage, site) for site in stage.sites] == [expected] * 3 + [expected[:1]] * 2


@contextmanager
def put_back(folder: Path) -> Iterator[None]:
    """What is done inside is forgotten by this folder, and by nothing else."""
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)
    yield
    shutil.rmtree(folder)
    copy.rename(folder)


def test_an_update_that_has_left_does_not_leave_again_when_the_record_of_it_is_put_back(stage: Stage) -> None:
    first, site = table(stage, PLAN), stage.sites[2]
    _, cohort = first.keys()
    with put_back(stage.home(site) / "fsa1"):
        first.masked()
    with pytest.raises(AlreadyMasked, match="older than"):
        first.ask(site, cohort)
    replace(table(stage, PLAN), attempt=1).keys()
    assert len(plans_paid(stage, site)) == 2, "it was trained anew, and paid for"


def test_an_update_that_all_gave_up_leaves_again_for_nothing(stage: Stage) -> None:
    """The control: twice masked, once paid for, and the second time from a process that remembers nothing."""
    first = table(stage, PLAN)
    first.masked()
    replace(table(stage, PLAN), attempt=1, abandons=first.given_up()).masked()
    assert [len(plans_paid(stage, site)) for site in stage.sites] == [1] * 5


def test_a_record_put_back_between_two_maskings_is_older_than_the_second(stage: Stage) -> None:
    first, site = table(stage, PLAN), stage.sites[2]
    first.masked()
    abandons = first.given_up()
    with put_back(stage.home(site) / "fsa1"):
        replace(first, attempt=1, abandons=abandons).masked()
    with pytest.raises(AlreadyMasked, match="in attempt 1"):
        first.ask(site, abandon(first.chair, first.tag))
    third = replace(first, attempt=2, abandons=abandons)
    third.keys()
    assert len(plans_paid(stage, site)) == 2
