# SPDX-License-Identifier: Apache-2.0
"""One rogue site against everybody's rounds: they go on without it, it is named, and nobody pays for it that need not."""

import json
import sqlite3
from pathlib import Path

import pytest

from common.audit import evidence
from common.secagg import codec
from common.secagg.complaints import Complaint
from server.absences import Absence
from server.aggregation import LEFT_OUT
from server.phases import Heard, Phase, Phases
from simulations.engine.nursery import Nursery
from simulations.stage import Stage
from tests.journeys.made import made_scenario, made_stage, reserved_rounds, train


def staged(folder: Path, *, sites: int = 5) -> Stage:
    return made_stage(folder, made_scenario(private=True).with_changes(sites=sites, rounds=2))


def excluded(stage: Stage) -> list[dict[str, object]]:
    """What the coordinator's audit log says of who was left out."""
    facts = [json.loads(line)["fact"] for line in (stage.folder / "audit.jsonl").read_text().splitlines()]
    return [{"round": fact["at"]["round"], **fact} for fact in facts if fact["kind"] == "EXCLUDE"]


def test_a_site_that_seals_rubbish_stops_no_round_and_costs_nobody_a_training(tmp_path: Path, nursery: Nursery) -> None:
    stage = staged(tmp_path / "run")
    rogue, others = stage.sites[1], tuple(site for site in stage.sites if site != stage.sites[1])
    _, committed = train(stage, nursery, f"{rogue}:rubbish:*:share")
    absence = (Absence(site=rogue, why=LEFT_OUT),)
    assert [(done.attempt, done.sites, done.missing) for done in committed] == [(1, others, absence)] * 2
    assert {site: reserved_rounds(stage, site) for site in stage.sites} == {site: [1, 2] for site in stage.sites}
    assert [(fact["round"], fact["site"], fact["accusers"]) for fact in excluded(stage)] == [(n, rogue, list(others)) for n in (1, 2)]
    kept = sorted((stage.folder / evidence.FOLDER).glob("*-complaints"))
    said = [codec.read(Complaint, item.control) for item in evidence.read_replies(kept[0].read_bytes()).items]
    assert [(each.site_id, [one.site_id for one in each.accused]) for each in said] == [(site, [rogue]) for site in others]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> tuple[Path, bytes]:
    """A folder whose runs all have the same patients, and the model of a coordinator that did not die."""
    folder = tmp_path_factory.mktemp("shared")
    stage = staged(folder / "whole")
    return folder, train(stage, nursery, f"{stage.sites[1]}:rubbish:1:share")[0].digest


@pytest.mark.parametrize("moment", ["leave_out", "hear"])
def test_a_coordinator_that_dies_while_it_leaves_a_site_out_goes_on_as_if_it_had_not(
    undisturbed: tuple[Path, bytes], nursery: Nursery, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Before it is in the journal who goes; and after, when the attempt was not yet given up."""
    folder, expected = undisturbed
    stage = staged(folder / moment)
    fault = f"{stage.sites[1]}:rubbish:1:share"
    with monkeypatch.context() as patch:
        honestly = getattr(Phases, moment)

        def dies(self: Phases, *what: object) -> None:
            if moment == "leave_out" or (isinstance(what[0], Phase) and what[0].step == "ABANDON"):
                raise KeyboardInterrupt
            honestly(self, *what)

        patch.setattr(Phases, moment, dies)
        with pytest.raises(KeyboardInterrupt):
            train(stage, nursery, fault)
    weights, committed = train(stage, nursery, fault)
    assert weights.digest == expected
    assert [(done.attempt, [one.why for one in done.missing]) for done in committed] == [(1, [LEFT_OUT]), (0, [])]


def test_a_dealer_whose_shares_fit_nothing_is_left_out_when_the_sum_does_not_open(tmp_path: Path, nursery: Nursery) -> None:
    """That is found only after shares were opened, so that everybody else trains, and pays, once more; and then never for it again."""
    stage = staged(tmp_path / "run")
    rogue = stage.sites[3]
    _, committed = train(stage, nursery, f"{rogue}:misdeal:1:share")
    assert [(done.attempt, done.missing) for done in committed] == [(1, (Absence(site=rogue, why=LEFT_OUT),)), (0, ())]
    assert {site: reserved_rounds(stage, site) for site in stage.sites} == {s: [1, 2] if s == rogue else [1, 1, 2] for s in stage.sites}
    assert [(fact["site"], fact["accusers"]) for fact in excluded(stage)] == [(rogue, [])]


def test_a_site_that_slanders_its_peers_is_out_of_the_round_and_takes_nobody_with_it(tmp_path: Path, nursery: Nursery) -> None:
    stage = staged(tmp_path / "run")
    rogue = stage.sites[0]
    _, committed = train(stage, nursery, f"{rogue}:slander:*:mask")
    assert [(done.attempt, done.missing) for done in committed] == [(0, (Absence(site=rogue, why="E_SHARE_DECRYPT"),))] * 2
    assert excluded(stage) == []


def test_one_who_deals_badly_and_one_who_slanders_leave_the_honest_in(tmp_path: Path, nursery: Nursery) -> None:
    """Seven sites may have two rogues: together they cost one attempt, and no honest site its place."""
    stage = staged(tmp_path / "run", sites=7)
    dealer, slanderer = stage.sites[2], stage.sites[5]
    _, committed = train(stage, nursery, f"{dealer}:rubbish:*:share", f"{slanderer}:slander:*:mask")
    missing = (Absence(site=dealer, why=LEFT_OUT), Absence(site=slanderer, why="E_SHARE_DECRYPT"))
    assert [(done.attempt, done.missing) for done in committed] == [(1, missing)] * 2


def test_slander_counts_for_nothing_where_the_attempt_fails_for_another_reason(tmp_path: Path, nursery: Nursery) -> None:
    """The sum does not open, for the dealer's fault: it alone goes, and not the pair of the slanderer and whom it slandered first."""
    stage = staged(tmp_path / "run")
    dealer, slanderer = stage.sites[1], stage.sites[4]
    _, committed = train(stage, nursery, f"{dealer}:misdeal:1:share", f"{slanderer}:slander:1:mask")
    missing = (Absence(site=dealer, why=LEFT_OUT), Absence(site=slanderer, why="E_SHARE_DECRYPT"))
    assert [(done.attempt, done.missing) for done in committed] == [(1, missing), (0, ())]


def test_a_journal_keeps_complaints_and_who_goes_from_which_attempt_on(tmp_path: Path) -> None:
    phases, phase = Phases(sqlite3.connect(tmp_path / "journal")), Phase(round=1, kind="UPDATE", group=0, attempt=0, step="MASK")
    heard = Heard(replies={"a": b"1"}, missing={"b": "E_SHARE_DECRYPT"}, at=5, complaints={"b": b"of c"})
    phases.hear(phase, heard)
    assert phases.heard(phase) == heard
    phases.leave_out(1, "UPDATE", 0, ["c"])
    phases.leave_out(1, "UPDATE", 1, ["b", "c"])
    assert [phases.left_out(1, "UPDATE", before=attempt) for attempt in (0, 1, 2)] == [set(), {"c"}, {"b", "c"}]
    assert phases.left_out(2, "UPDATE", before=9) == phases.left_out(1, "STAT", before=9) == set()
    phases.forget(1)
    assert phases.left_out(1, "UPDATE", before=9) == set()
    assert phases.heard(phase) is None
