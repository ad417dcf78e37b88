# SPDX-License-Identifier: Apache-2.0
"""A simulated consortium: its roster outlasts the run, and its sites' names are a roster's, capitals or not."""

import time
from pathlib import Path

import pytest

from common import credentials, roster
from common.errors import LabelsMismatch, RosterExpired
from simulations.consortium import YEAR_S, found
from simulations.engine.nursery import Nursery
from simulations.stage import Stage
from tests.common.secagg.federation import NOW, seeded
from tests.journeys.made import made_scenario, made_stage, pictures, train


def test_a_run_can_be_resumed_for_as_long_as_its_folder_is_kept(tmp_path: Path) -> None:
    """The same roster for everybody, and for good: another one in mid-run would be another round to every site."""
    stage = made_stage(tmp_path / "run", made_scenario(private=False))
    held = credentials.load_roster(stage.coordinator)
    for later in (0, 40 * 24 * 3600, 2 * YEAR_S, 50 * YEAR_S):
        now = int(time.time()) + later
        roster.check_valid(held, now=now)
        for site in stage.sites:
            assert credentials.load_roster(stage.home(site)).digest == held.digest
            assert roster.active_member(held, site, now=now)


def test_a_roster_like_a_hospitals_lapses_after_a_month() -> None:
    lasting = found(["a", "b", "c"], entropy=seeded(0), now=NOW).roster
    with pytest.raises(RosterExpired):
        roster.check_valid(lasting, now=NOW + 40 * 24 * 3600)


def test_hospitals_whose_folders_have_capitals_train_together(tmp_path: Path, nursery: Nursery) -> None:
    stage = by_site(tmp_path, ("St_Mary", "CHARITE", "north", "B-7"))
    _, [done] = train(stage, nursery)
    assert (done.sites, done.missing) == (("b-7", "charite", "north", "st_mary"), ())


@pytest.mark.parametrize("names", [("St_Mary", "st_mary", "north", "south"), ("Hans Huber", "north", "south", "west")], ids=str)
def test_names_that_are_one_but_for_capitals_or_cannot_be_a_sites_are_refused_unseen(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(LabelsMismatch) as refusal:
        by_site(tmp_path, names)
    assert not any(name.lower() in str(refusal.value).lower() for name in ("Mary", "Huber"))


def by_site(folder: Path, names: tuple[str, ...]) -> Stage:
    pictures(folder / "pictures", sites=names)
    played = made_scenario(private=False, change=('partition = "iid"', 'partition = "by-site"')).with_changes(rounds=1)
    return made_stage(folder / "run", played)
