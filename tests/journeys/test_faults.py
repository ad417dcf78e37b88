# SPDX-License-Identifier: Apache-2.0
"""A hospital that fails costs the round its voice, not the round; and the record says who, when and why."""

import json
import shutil
from pathlib import Path

import pytest

from common.errors import CohortTooSmall
from server.absences import Absence
from simulations.engine.nursery import Nursery
from simulations.stage import Stage
from tests.journeys.made import made_scenario, made_stage, reserved_rounds, train

SHORT = ("deadline_s = 60", "deadline_s = 6")


@pytest.mark.parametrize(
    ("kind", "why"),
    [("raise", "E_SITE_FAILED"), ("crash", "E_SITE_FAILED"), ("silent", "E_SILENT")],
    ids=["raises", "dies", "never answers"],
)
def test_the_round_goes_on_without_a_site_that(tmp_path: Path, nursery: Nursery, kind: str, why: str) -> None:
    stage = made_stage(tmp_path / "run", made_scenario(private=False, change=SHORT))
    _, rounds = train(stage, nursery, f"site_02:{kind}:2")
    assert [done.round for done in rounds] == [1, 2, 3, 4]
    assert rounds[1].sites == ("site_00", "site_01", "site_03")
    assert [absent.site for absent in rounds[1].missing] == ["site_02"]
    assert rounds[1].missing[0].why in (why, "E_SITE_FAILED")
    for done in (rounds[0], rounds[2], rounds[3]):
        assert (len(done.sites), done.missing) == (4, ())


def test_a_site_whose_folder_is_damaged_refuses_by_code_and_keeps_the_words(tmp_path: Path, nursery: Nursery) -> None:
    stage = made_stage(tmp_path / "run", made_scenario(private=False))
    (stage.home("site_01") / "data" / "images.npy").write_bytes(b"no array")
    _, rounds = train(stage, nursery)
    assert all(done.missing == (Absence(site="site_01", why="E_DATA_UNREADABLE"),) for done in rounds)
    assert "damaged" in (stage.home("site_01") / "error.log").read_text()


def test_a_site_whose_budget_is_spent_refuses(tmp_path: Path, nursery: Nursery) -> None:
    stage = made_stage(tmp_path / "run", made_scenario(private=True))
    train(stage, nursery)
    spent = reserved_rounds(stage, "site_03")
    forget_everything_but(stage, "site_03")
    _, rounds = train(stage, nursery)
    # One spare round was left; then the budget binds, before anything is trained.
    assert [bool(done.missing) for done in rounds] == [False, True, True, True]
    assert rounds[1].missing == (Absence(site="site_03", why="E_PRIVACY_BUDGET"),)
    assert reserved_rounds(stage, "site_03") == [*spent, 1]


def forget_everything_but(stage: Stage, kept: str) -> None:
    """As if the federation were begun anew, on a machine where one site's ledger is the old one.

    How far its updates had left goes too: a seeded run has the same session again, and in that one they are gone for good.
    """
    for name in ("checkpoints", "vectors"):
        shutil.rmtree(stage.folder / name)
    for path in stage.folder.glob("journal.sqlite*"):
        path.unlink()
    for site in stage.sites:
        shutil.rmtree(stage.home(site) / "fsa1")
        for path in stage.home(site).glob("ledger.*"):
            if site != kept or path.name.startswith("ledger.sent-"):
                path.unlink()


def test_below_the_minimum_cohort_the_run_stops_by_name_and_goes_on_once_mended(tmp_path: Path, nursery: Nursery) -> None:
    stage = made_stage(tmp_path / "run", made_scenario(private=False))
    faults = [f"site_0{number}:raise:3" for number in range(3)]
    with pytest.raises(CohortTooSmall, match="round 3 failed 2 times: 1 sites announced keys, expected at least 3") as refusal:
        train(stage, nursery, *faults)
    assert "site_00: E_SITE_FAILED" in str(refusal.value)
    assert [done.round for done in train(stage, nursery)[1]] == [1, 2, 3, 4]


def test_partial_participation_asks_as_many_as_the_plan_says(tmp_path: Path, nursery: Nursery) -> None:
    change = ("minimum_cohort = 2", "minimum_cohort = 2\nsites_per_round = 3")
    _, rounds = train(made_stage(tmp_path / "run", made_scenario(private=False, change=change).with_changes(rounds=6)), nursery)
    assert {len(done.sites) for done in rounds} == {3}
    assert len({done.sites for done in rounds}) > 1


def test_what_a_site_stores_about_a_refusal_is_for_its_own_eyes(tmp_path: Path, nursery: Nursery) -> None:
    stage = made_stage(tmp_path / "run", made_scenario(private=False))
    (stage.home("site_01") / "data" / "columns.json").write_text(json.dumps({"labels": []}))
    train(stage, nursery)
    assert (stage.home("site_01") / "error.log").stat().st_mode & 0o777 == 0o600
