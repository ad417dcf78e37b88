# SPDX-License-Identifier: Apache-2.0
"""Rounds of secure aggregation, as deployed: the same bits as the sum without masks, through faults and deaths at every step."""

import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.home import SiteFile, SiteName
from client.imaging.prepared import load_prepared
from client.site import Site
from common import credentials
from common.agreement import grid_of, groups_of
from common.errors import CohortTooSmall, ConfirmQuorum, PlanMismatch, SurvivorSet
from common.models import initial_weights
from common.plan import digest_of, dump
from common.wire import Step, TrainRequest
from server.absences import Absence
from server.phases import Heard, Phase, Phases
from simulations.engine.nursery import Nursery
from simulations.faults import STEPS
from simulations.observer import score
from tests.journeys.made import Quiet, made_federation, made_scenario, made_stage, pictures, reserved_rounds, train

PROTOCOL_STEPS = ("KEYS", "SHARE", "MASK", "CONFIRM", "UNMASK")


def test_masks_do_not_change_a_bit_of_the_model(tmp_path: Path, nursery: Nursery) -> None:
    masked, ideal = (
        train(made_stage(tmp_path / way, made_scenario(private=True), aggregation=way), nursery)[0] for way in ("fsa1", "ideal")
    )
    assert masked.digest == ideal.digest


def test_the_quantiser_costs_half_a_step_a_coordinate_and_no_accuracy(tmp_path: Path, nursery: Nursery) -> None:
    once, played = made_scenario(private=False).with_changes(rounds=1), made_scenario(private=False)
    first = {way: train(made_stage(tmp_path / f"one round {way}", once, aggregation=way), nursery)[0].values for way in ("fsa1", "plain")}
    half_a_step = grid_of(once.plan, credentials.load_roster(tmp_path / "one round fsa1" / "coordinator")).step / 2
    assert 0 < np.abs(first["fsa1"] - first["plain"]).max() <= half_a_step + np.finfo(np.float32).eps * np.abs(first["plain"]).max()
    auc = {}
    for way in ("fsa1", "plain"):
        stage = made_stage(tmp_path / way, played, aggregation=way)
        scores = score(train(stage, nursery)[0], load_prepared(stage.folder / "holdout"), played.plan, resamples=0)
        assert scores.patients is not None
        auc[way] = scores.patients.auc
    assert auc["fsa1"] is not None
    assert auc["plain"] is not None
    assert auc["fsa1"] > 0.8, "nothing was learnt, so nothing was compared"
    assert abs(auc["fsa1"] - auc["plain"]) <= 0.001


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose runs all have the same patients."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def whole(shared: Path, nursery: Nursery) -> bytes:
    """The model of a run in which nothing went wrong."""
    return train(made_stage(shared / "whole", made_scenario(private=False)), nursery)[0].digest


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", PROTOCOL_STEPS)
def test_a_coordinator_that_dies_at_a_step_resumes_the_same_attempt(
    shared: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch, whole: bytes, step: str, when: str
) -> None:
    """It dies with the answers in hand: before they are in the journal, or when they just are."""
    stage = made_stage(shared / f"{step} {when}", made_scenario(private=False))
    cut(monkeypatch, 2, step, when)
    with pytest.raises(KeyboardInterrupt):
        train(stage, nursery)
    monkeypatch.undo()
    weights, committed = train(stage, nursery)
    assert weights.digest == whole
    assert [(done.attempt, done.missing) for done in committed] == [(0, ())] * 4


def test_deaths_at_many_steps_charge_nobody_twice(tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = made_stage(tmp_path / "cut", made_scenario(private=True))
    for number, step in ((1, "MASK"), (2, "UNMASK")):
        cut(monkeypatch, number, step, "before")
        with pytest.raises(KeyboardInterrupt):
            train(stage, nursery)
        monkeypatch.undo()
    weights, _ = train(stage, nursery)
    assert weights.digest == train(made_stage(tmp_path / "whole", made_scenario(private=True)), nursery)[0].digest
    assert {tuple(reserved_rounds(stage, site)) for site in stage.sites} == {(1, 2, 3, 4)}


def cut(monkeypatch: pytest.MonkeyPatch, number: int, step: str, when: str) -> None:
    """Pull the plug on the coordinator when a step's answers are to be written down."""
    write = Phases.hear

    def hear(self: Phases, phase: Phase, heard: Heard) -> None:
        due = (phase.round, phase.step) == (number, step)
        if due and when == "before":
            raise KeyboardInterrupt
        write(self, phase, heard)
        if due:
            raise KeyboardInterrupt

    monkeypatch.setattr(Phases, "hear", hear)


@pytest.mark.parametrize("kind", ["raise", "crash"])
def test_a_site_may_fail_at_any_step_and_is_named(tmp_path: Path, nursery: Nursery, kind: str) -> None:
    """Five sites, one of which fails at another step in each round. What arrived masked before its site fell is in the sum."""
    stage = made_stage(tmp_path / "run", made_scenario(private=False).with_changes(sites=5, rounds=len(STEPS)))
    faulty = stage.sites[2]
    _, committed = train(stage, nursery, *(f"{faulty}:{kind}:{number}:{step}" for number, step in enumerate(STEPS, start=1)))
    absence = (Absence(site=faulty, why="E_SITE_FAILED"),)
    assert [done.missing for done in committed] == [absence, absence, absence, (), ()]
    assert [done.fallen for done in committed] == [(), (), (), absence, absence]
    for done in committed:
        assert set(done.sites) == set(stage.sites) - {each.site for each in done.missing}


def test_a_site_that_falls_silent_after_training_costs_a_grace_and_not_the_deadline(tmp_path: Path, nursery: Nursery) -> None:
    played = made_scenario(private=False, change=("deadline_s = 60", "deadline_s = 40")).with_changes(sites=5, rounds=4)
    stage = made_stage(tmp_path / "run", played)
    faulty, later = stage.sites[2], STEPS[1:]
    _, committed = train(stage, nursery, *(f"{faulty}:silent:{number}:{step}" for number, step in enumerate(later, start=1)))
    silent = (Absence(site=faulty, why="E_SILENT"),)
    assert [(done.missing, done.fallen) for done in committed] == [(silent, ()), (silent, ()), ((), silent), ((), silent)]
    assert all(4 <= done.seconds < 40 for done in committed)


def test_too_few_survivors_give_a_named_error_no_sum_and_a_free_retry(tmp_path: Path, nursery: Nursery) -> None:
    """Two of four fall before masking, where three are needed: all give the attempt up, and the stored updates are masked again."""
    stage = made_stage(tmp_path / "run", made_scenario(private=True))
    with pytest.raises(SurvivorSet, match=rf"round 2 failed 2 times.*{stage.sites[0]}: E_SITE_FAILED"):
        train(stage, nursery, *(f"{site}:raise:2:mask" for site in stage.sites[:2]))
    assert sorted(path.name for path in (stage.folder / "checkpoints").iterdir()) == ["round-000001.safetensors"]
    assert not list((stage.folder / "vectors").glob("sum-000002-*"))
    weights, committed = train(stage, nursery)
    assert [done.attempt for done in committed] == [0, 2, 0, 0]
    assert {tuple(reserved_rounds(stage, site)) for site in stage.sites} == {(1, 2, 3, 4)}
    ideal, _ = train(made_stage(tmp_path / "ideal", made_scenario(private=True), aggregation="ideal"), nursery)
    assert weights.digest == ideal.digest


def test_updates_of_an_attempt_in_which_shares_left_are_trained_anew(tmp_path: Path, nursery: Nursery) -> None:
    """Two of four open their shares, where three are needed: nobody can prove that the old sum stays closed."""
    played = made_scenario(private=True, change=("[aggregation]", "spare_rounds = 3\n[aggregation]"))
    stage = made_stage(tmp_path / "run", played)
    with pytest.raises(ConfirmQuorum, match="round 1 failed 2 times"):
        train(stage, nursery, *(f"{site}:raise:1:unmask" for site in stage.sites[:2]))
    assert not list((stage.folder / "vectors").glob("sum-*"))
    _, committed = train(stage, nursery)
    assert [done.attempt for done in committed] == [2, 0, 0, 0]
    assert {tuple(reserved_rounds(stage, site)) for site in stage.sites} == {(1, 1, 1, 2, 3, 4)}


@pytest.mark.parametrize(("sites", "combine"), [(6, "mean"), (9, "median"), (9, "trimmed")])
def test_groups_sum_apart_and_give_the_same_bits_as_without_masks(tmp_path: Path, nursery: Nursery, sites: int, combine: str) -> None:
    change = ("[simulation]", f'max_group = 3\ncombine = "{combine}"\n[simulation]')
    played = made_scenario(private=False, change=change).with_changes(sites=sites, rounds=2)
    masked = made_stage(tmp_path / "fsa1", played)
    ideal = made_stage(tmp_path / "ideal", played, aggregation="ideal")
    assert train(masked, nursery)[0].digest == train(ideal, nursery)[0].digest
    assert len(list((masked.folder / "vectors").glob("sum-000002-*"))) == sites // 3


@pytest.fixture(scope="module")
def fifteen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose runs all have the same 120 patients, at fifteen sites."""
    folder = tmp_path_factory.mktemp("fifteen")
    pictures(folder / "pictures", patients=120)
    return folder


def auc_with_a_poisoned_group(folder: Path, nursery: Nursery, combine: str, *, bad_groups: int) -> float:
    """Five groups of three sites; every site of the bad ones works against the model, as hard as the norm gate lets it, in every round."""
    change = ("[simulation]", f'max_group = 3\ncombine = "{combine}"\n[simulation]')
    stage = made_stage(folder / f"{combine} {bad_groups}", made_scenario(private=False, change=change).with_changes(sites=15))
    groups = groups_of(stage.scenario.plan, credentials.load_roster(stage.coordinator))
    assert [len(group) for group in groups] == [3] * 5
    poisoned = [f"{site}:poison:*" for group in groups[:bad_groups] for site in sorted(group)]
    weights, committed = train(stage, nursery, *poisoned)
    assert all((len(done.sites), done.missing) == (15, ()) for done in committed), "poison is not refused: nobody can see it"
    scores = score(weights, load_prepared(stage.folder / "holdout"), stage.scenario.plan, resamples=0)
    assert scores.patients is not None
    assert scores.patients.auc is not None
    return scores.patients.auc


@pytest.mark.parametrize("combine", ["median", "trimmed"])
def test_a_poisoned_group_does_not_drag_a_robust_mean_away(fifteen: Path, nursery: Nursery, combine: str) -> None:
    assert auc_with_a_poisoned_group(fifteen, nursery, combine, bad_groups=1) > 0.95


def test_a_poisoned_group_ruins_a_plain_mean(fifteen: Path, nursery: Nursery) -> None:
    """The control: without it, nothing was resisted."""
    assert auc_with_a_poisoned_group(fifteen, nursery, "mean", bad_groups=1) < 0.7


def test_two_poisoned_groups_of_five_are_too_many_for_a_trim_of_one_and_not_for_the_median(fifteen: Path, nursery: Nursery) -> None:
    assert auc_with_a_poisoned_group(fifteen, nursery, "median", bad_groups=2) > 0.95
    assert auc_with_a_poisoned_group(fifteen, nursery, "trimmed", bad_groups=2) < 0.95


class Steps(Quiet):
    """An observer that writes down which step was closed when."""

    def __init__(self) -> None:
        self.closed: list[str] = []

    def phase_closed(self, number: int, phase: str, *, answered: int, asked: int) -> None:
        self.closed.append(phase)


def test_groups_take_each_step_side_by_side(tmp_path: Path, nursery: Nursery) -> None:
    played = made_scenario(private=False, change=("[simulation]", "max_group = 3\n[simulation]")).with_changes(sites=9, rounds=1)
    watch = Steps()
    made_federation(made_stage(tmp_path / "run", played)).train(watch, engine="local", workers=2, nursery=nursery)
    assert watch.closed == [step for step in PROTOCOL_STEPS for _ in range(3)]


def test_a_coordinator_that_dies_between_groups_resumes_both_where_they_were(
    tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One group's step is in the journal and the other's is not: the one behind is asked first, and the model is the same."""
    played = made_scenario(private=False, change=("[simulation]", "max_group = 3\n[simulation]")).with_changes(sites=6, rounds=2)
    undisturbed, _ = train(made_stage(tmp_path / "whole", played), nursery)
    stage = made_stage(tmp_path / "cut", played)
    cut(monkeypatch, 2, "MASK", "after")
    with pytest.raises(KeyboardInterrupt):
        train(stage, nursery)
    monkeypatch.undo()
    weights, committed = train(stage, nursery)
    assert weights.digest == undisturbed.digest
    assert [(done.attempt, done.missing) for done in committed] == [(0, ())] * 2


def test_a_draw_of_sites_leaves_no_group_too_small(tmp_path: Path, nursery: Nursery) -> None:
    """Three groups of three, of which a round asks five sites: drawn without regard to groups, hardly any group would have enough."""
    change = ("[simulation]", "sites_per_round = 5\nmax_group = 3\n[simulation]")
    played = made_scenario(private=False, change=change).with_changes(sites=9)
    masked, committed = train(made_stage(tmp_path / "fsa1", played), nursery)
    assert {(len(done.sites), done.missing) for done in committed} == {(3, ())}
    assert len({done.sites for done in committed}) > 1
    assert masked.digest == train(made_stage(tmp_path / "ideal", played, aggregation="ideal"), nursery)[0].digest


def test_a_group_that_fails_is_missing_and_the_others_go_on(tmp_path: Path, nursery: Nursery) -> None:
    played = made_scenario(private=False, change=("[simulation]", "max_group = 3\n[simulation]")).with_changes(sites=6, rounds=1)
    stage = made_stage(tmp_path / "run", played)
    _, [done] = train(stage, nursery, f"{stage.sites[0]}:raise:1:share")
    assert len(done.sites) == 3
    assert {absence.site for absence in done.missing} == set(stage.sites) - set(done.sites)
    assert stage.sites[0] not in done.sites


def test_two_sites_are_never_summed(tmp_path: Path, nursery: Nursery) -> None:
    """Each would read the other's update off the sum: refused before anybody trains, whatever the plan's minimum."""
    stage = made_stage(tmp_path / "run", made_scenario(private=True).with_changes(sites=2))
    with pytest.raises(CohortTooSmall, match="needs 3 to hide one of them"):
        train(stage, nursery)
    assert not any((stage.home(site) / "ledger.jsonl").exists() for site in stage.sites)


def test_nothing_that_was_masked_stays_and_secrets_are_the_sites_own(tmp_path: Path, nursery: Nursery) -> None:
    stage = made_stage(tmp_path / "run", made_scenario(private=False).with_changes(rounds=1))
    train(stage, nursery)
    assert [path.name for path in (stage.folder / "vectors").iterdir()] == ["sum-000001-UPDATE-0"]
    for site in stage.sites:
        kept = [*(stage.home(site) / "fsa1").iterdir(), stage.home(site) / "identity.key"]
        assert {path.name.partition("-")[0] for path in kept} == {"lock", "record", "model", "peers", "identity.key"}
        assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}


def test_a_deployed_site_sends_no_update_without_masks(tmp_path: Path) -> None:
    """No [simulation] table, no other aggregation: whatever the coordinator asks."""
    stage = made_stage(tmp_path / "run", made_scenario(private=False), aggregation="plain")
    home, plan = stage.home(stage.sites[0]), stage.scenario.plan
    step = Step(session=bytes(16), round=1, attempt=0, plan=digest_of(plan))
    request = TrainRequest(step=step, weights=initial_weights(plan))
    assert Site.open(home, plan).train(request).update.values.size == request.weights.layout.size
    (home / "site.toml").write_text(dump(SiteFile(site=SiteName(name=stage.sites[0]))))
    deployed = Site.open(home, plan)
    for ask in (deployed.train, deployed.train_ideal):
        with pytest.raises(PlanMismatch, match="not masked"):
            ask(replace(request, step=replace(step, round=2)))
