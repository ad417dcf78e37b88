# SPDX-License-Identifier: Apache-2.0
"""Rounds that count before they train: noised, charged, near what the simulator knows to be true; and their failure stops nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from client import ledger
from client.account import Account, Release
from client.home import LEDGER_FILE, read_site_file
from client.imaging.prepared import load_prepared
from client.imaging.splits import Split
from client.training import predict
from common.counting import choice, evaluation, form_of, statistics
from common.counting.form import Counted, read
from common.counting.intervals import Estimate
from common.errors import BudgetExceeded
from common.plan import Plan
from common.privacy import epsilon, evaluation_charge, round_charge, statistic_charge
from common.privacy.entries import Spent
from common.secagg.terms import Kind
from common.tasks import by_patient
from common.tasks.bootstrap import auc_by_weight
from common.update import Weights
from server.counts import CountedRound, worths
from server.journal import CommittedRound
from server.phases import Heard, Phase, Phases
from simulations import scenario
from simulations.engine.nursery import Nursery
from simulations.federation import JOURNAL
from simulations.observer import COUNTED_FILE
from simulations.run import Options, simulate
from simulations.scenario import Scenario
from simulations.show import Show
from simulations.stage import Stage, merge
from tests.journeys.made import PLAN, Quiet, made_federation, made_stage, pictures

PRIVACY = 'unit = "patient"\nepsilon = 60\ndelta = 1e-3\nclip_norm = 1'
COUNTS = "[evaluation]\nevery = 2\nepsilon = 30\n[statistics]\nepsilon = 12\n[aggregation]"


def counting(*changes: tuple[str, str]) -> Scenario:
    """Four rounds; the models after the second and the last are judged, by a third of each site's patients."""
    text = PLAN.format(privacy=PRIVACY).replace("[aggregation]", COUNTS).replace("folds = 4", "folds = 10\nvalidation = 0.34")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return scenario.parse(text)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose runs all have the same patients, enough of them to be seen beside the noise."""
    folder = tmp_path_factory.mktemp("counted")
    pictures(folder / "pictures", patients=240, contrast=25)
    return folder


class Listening(Quiet):
    """An observer that keeps what was counted."""

    def __init__(self) -> None:
        self.heard: list[CountedRound] = []

    def counted(self, done: CountedRound) -> None:
        self.heard = [*(each for each in self.heard if (each.round, each.kind) != (done.round, done.kind)), done]


def run(stage: Stage, nursery: Nursery, *faults: str) -> tuple[Weights, list[CountedRound]]:
    listening = Listening()
    weights, committed = made_federation(stage, faults=faults).train(listening, engine="local", workers=2, nursery=nursery)
    assert [done.round for done in committed] == list(range(1, stage.scenario.plan.training.rounds + 1))
    return weights, listening.heard


def spent(stage: Stage, site: str) -> list[tuple[str, int]]:
    """What a site's ledger says was paid for: use and round."""
    _, entries = ledger.read((stage.home(site) / LEDGER_FILE).read_bytes(), name=site)
    return [(entry.fact.kind, entry.fact.round) for entry in entries if isinstance(entry.fact, Spent)]


@pytest.fixture(scope="module")
def whole(shared: Path, nursery: Nursery) -> tuple[Stage, Weights, list[CountedRound]]:
    """A run in which nothing went wrong."""
    stage = made_stage(shared / "whole", counting())
    return (stage, *run(stage, nursery))


CHOOSY = ("every = 2\nepsilon = 30", 'every = 1\nepsilon = 60\nkeep = "best"\npatience = 2')
LONGER = (("rounds = 4", "rounds = 9"), ("epsilon = 60", "epsilon = 90"), CHOOSY)


class Choosing(Listening):
    """Hears which model was chosen; dies once when round `dies` is committed."""

    def __init__(self, *, dies: int = 0) -> None:
        super().__init__()
        self.dies = dies
        self.models: dict[int, Weights] = {}
        self.told: list[tuple[int, int]] = []

    def round_committed(self, done: CommittedRound, weights: Weights) -> None:
        self.models[done.round] = weights
        if done.round == self.dies:
            self.dies = 0
            raise RuntimeError("the coordinator dies")

    def chosen(self, number: int, *, trained: int) -> None:
        self.told.append((number, trained))


def test_the_model_judged_best_is_kept_and_training_ends_when_it_is_in_vain(shared: Path, nursery: Nursery) -> None:
    """Whatever noise made of the judgements: what was done follows from what they say, and from nothing else; also after a death."""
    stage = made_stage(shared / "choosy", counting(*LONGER))
    plan, watching = stage.scenario.plan, Choosing(dies=2)
    with pytest.raises(RuntimeError, match="dies"):
        made_federation(stage).train(watching, engine="local", workers=2, nursery=nursery)
    weights, committed = made_federation(stage).train(watching, engine="local", workers=2, nursery=nursery)
    said = worths(plan, watching.heard)
    trained = len(committed)
    assert set(said) == set(range(1, trained + 1)), "every model was judged, the last one too"
    kept = max(sorted(said), key=lambda number: said[number])
    assert watching.told == [(kept, trained)]
    assert weights.digest == watching.models[kept].digest
    ends = [number for number in said if choice.is_enough(plan, {each: said[each] for each in said if each <= number})]
    assert trained == (min(ends) if ends else 9), "not a round more, and not one less"
    for site in stage.sites:
        assert [number for use, number in spent(stage, site) if use == "RESERVE"] == list(range(1, trained + 1)), "untrained is unpaid"
    again, _ = made_federation(stage).train(watching, engine="local", workers=2, nursery=nursery)
    assert again.digest == weights.digest, "a run that is over stays as it is"


def counted(plan: Plan, done: CountedRound) -> Counted:
    return read(form_of(plan, done.kind), np.array(done.steps), num_sites=len(done.sites))


def test_a_round_counts_when_the_plan_says_so(whole: tuple[Stage, Weights, list[CountedRound]]) -> None:
    stage, _, heard = whole
    assert [(done.kind, done.round, done.attempt, done.failure, done.missing) for done in heard] == [
        (Kind.STAT, 1, 0, "", ()),
        (Kind.EVAL, 3, 0, "", ()),
        (Kind.EVAL, 5, 0, "", ()),
    ]
    assert all(done.sites == stage.sites for done in heard)


def test_every_site_pays_for_what_it_counts_and_before_it_counts(whole: tuple[Stage, Weights, list[CountedRound]]) -> None:
    stage, _, _ = whole
    plan = stage.scenario.plan
    expected = [("STAT", 1), ("RESERVE", 1), ("RESERVE", 2), ("EVAL", 3), ("RESERVE", 3), ("RESERVE", 4), ("EVAL", 5)]
    for site in stage.sites:
        assert spent(stage, site) == expected
        chain, entries = ledger.read((stage.home(site) / LEDGER_FILE).read_bytes(), name=site)
        charges = {entry.fact.kind: entry.fact.charge for entry in entries if isinstance(entry.fact, Spent)}
        assert charges["EVAL"] == evaluation_charge(plan)
        assert charges["STAT"] == statistic_charge(plan)
        last = entries[-1].fact
        assert isinstance(last, Spent)
        every = [charges["RESERVE"].times(4), charges["EVAL"].times(2), charges["STAT"]]
        assert last.after.outside == pytest.approx(epsilon([charge.outside for charge in every], 1e-3), rel=1e-9)
        assert chain.plans


def is_near(truth: float, interval: Estimate) -> bool:
    """Within twice the interval: who looks at four intervals of 95 % finds the truth outside of one now and then."""
    middle, half = (interval.low + interval.high) / 2, (interval.high - interval.low) / 2
    return abs(truth - middle) <= 2 * half


def test_what_is_read_off_the_counts_is_near_the_truth(whole: tuple[Stage, Weights, list[CountedRound]]) -> None:
    """The simulator may look at what no coordinator can: the sites' own patients, without noise."""
    stage, weights, heard = whole
    plan, data = stage.scenario.plan, merge({site: load_prepared(stage.home(site) / "data") for site in stage.sites})
    judged, trained = (data.subset(data.rows_of(side)) for side in (Split.VALIDATION, Split.TRAIN))
    assert judged.num_patients == pytest.approx(0.34 * data.num_patients, abs=4)
    probabilities, labels = by_patient(predict(weights, judged, plan), judged.labels, judged.patients)
    exact = evaluation.count(plan, probabilities, labels) / form_of(plan, Kind.EVAL).steps
    noised = counted(plan, heard[-1])
    assert np.abs(noised.values - exact).max() < 5 * noised.noise_sd
    assert not np.array_equal(noised.values, exact)
    found = evaluation.figures(plan, noised)
    assert found.auc is not None
    assert is_near(auc_by_weight(probabilities, labels, np.ones((1, len(labels))))[0], found.auc)
    assert found.auc.high - found.auc.low < 0.6, (
        "an interval that says nothing proves nothing"
    )  # half, where most probabilities share a cell
    known = statistics.figures(plan, counted(plan, heard[0]))
    assert is_near(trained.num_patients, known.units)
    intensity = trained.images[:] / 65535
    assert known.mean is not None
    assert known.std is not None
    assert is_near(intensity.mean(), known.mean)
    assert is_near(intensity.std(), known.std)


def test_no_patient_is_both_trained_on_and_judged(whole: tuple[Stage, Weights, list[CountedRound]]) -> None:
    stage, _, _ = whole
    for site in stage.sites:
        data = load_prepared(stage.home(site) / "data")
        trained, judged = (set(data.patients[data.rows_of(side)]) for side in (Split.TRAIN, Split.VALIDATION))
        assert trained
        assert judged
        assert not trained & judged


def test_masks_do_not_change_a_count(shared: Path, nursery: Nursery, whole: tuple[Stage, Weights, list[CountedRound]]) -> None:
    _, weights, heard = whole
    ideal, counts = run(made_stage(shared / "ideal", counting(), aggregation="ideal"), nursery)
    assert ideal.digest == weights.digest
    assert [done.steps for done in counts] == [done.steps for done in heard]
    plain, _ = run(made_stage(shared / "plain", counting(), aggregation="plain"), nursery)
    assert plain.digest != weights.digest


@pytest.fixture(scope="module")
def short(shared: Path, nursery: Nursery) -> tuple[Stage, Weights, list[CountedRound]]:
    """Two rounds, for what is tried many times: a statistic, and every model judged by few patients."""
    stage = made_stage(shared / "short", SHORT)
    return (stage, *run(stage, nursery))


SHORT = counting(("every = 2", "every = 1"), ("validation = 0.34", "validation = 0.1")).with_changes(rounds=2)


@pytest.mark.parametrize(
    ("kind", "number", "step", "when"),
    [
        ("STAT", 1, "MASK", "after"),
        ("STAT", 1, "UNMASK", "before"),
        ("EVAL", 2, "KEYS", "before"),
        ("EVAL", 2, "UNMASK", "after"),
        ("EVAL", 3, "CONFIRM", "before"),
        ("EVAL", 3, "UNMASK", "after"),
    ],
)
def test_a_coordinator_that_dies_while_counting_goes_on_and_nobody_pays_twice(
    shared: Path,
    nursery: Nursery,
    monkeypatch: pytest.MonkeyPatch,
    short: tuple[Stage, Weights, list[CountedRound]],
    kind: str,
    number: int,
    step: str,
    when: str,
) -> None:
    stage = made_stage(shared / f"{kind} {number} {step} {when}", SHORT)
    write = Phases.hear

    def hear(self: Phases, phase: Phase, heard: Heard) -> None:
        due = (phase.round, phase.kind, phase.step) == (number, kind, step)
        if due and when == "before":
            raise KeyboardInterrupt
        write(self, phase, heard)
        if due:
            raise KeyboardInterrupt

    monkeypatch.setattr(Phases, "hear", hear)
    with pytest.raises(KeyboardInterrupt):
        run(stage, nursery)
    monkeypatch.undo()
    weights, heard = run(stage, nursery)
    assert weights.digest == short[1].digest
    assert [done.steps for done in heard] == [done.steps for done in short[2]]
    assert {tuple(spent(stage, site)) for site in stage.sites} == {tuple(spent(short[0], site)) for site in short[0].sites}


def test_a_site_that_falls_after_masking_is_counted_and_one_that_falls_before_is_not(shared: Path, nursery: Nursery) -> None:
    stage = made_stage(shared / "falls", SHORT)
    _, heard = run(stage, nursery, f"{stage.sites[1]}:raise:3:confirm")
    assert stage.sites[1] in heard[-1].sites
    assert [absence.site for absence in heard[-1].fallen] == [stage.sites[1]]
    stage = made_stage(shared / "falls early", SHORT)
    _, heard = run(stage, nursery, f"{stage.sites[1]}:raise:3:keys")
    assert stage.sites[1] not in heard[-1].sites
    assert [absence.why for absence in heard[-1].missing] == ["E_SITE_FAILED"]


def test_a_count_that_fails_costs_no_second_charge_and_is_not_asked_again(
    shared: Path, nursery: Nursery, short: tuple[Stage, Weights, list[CountedRound]]
) -> None:
    """Two of four fall before masking, where three are needed, in both attempts: the second masked the same counts again, for free."""
    stage = made_stage(shared / "fails", SHORT)
    _, heard = run(stage, nursery, *(f"{site}:raise:3:mask" for site in stage.sites[:2]))
    assert (heard[-1].failure, heard[-1].steps) == ("E_SURVIVOR_SET", ())
    assert {tuple(spent(stage, site)) for site in stage.sites} == {tuple(spent(short[0], site)) for site in short[0].sites}
    assert run(stage, nursery)[1][-1] == heard[-1]


def test_counts_of_an_attempt_in_which_shares_left_are_made_anew_and_paid_for_from_the_spare(shared: Path, nursery: Nursery) -> None:
    """Two of four open their shares, where three are needed: nobody can prove that the old sum stays closed."""
    stage = made_stage(shared / "released", SHORT)
    _, heard = run(stage, nursery, *(f"{site}:raise:3:unmask" for site in stage.sites[:2]))
    assert heard[-1].failure == "E_CONFIRM_QUORUM"
    assert {tuple(spent(stage, site))[-2:] for site in stage.sites} == {(("EVAL", 3), ("EVAL", 3))}


def test_sites_that_may_not_count_refuse_and_the_training_goes_on(shared: Path, nursery: Nursery) -> None:
    """Their policies allow training alone: every question ends with the reason, every round as if nothing had been asked."""
    played = counting(("every = 2", "every = 1"), ("minimum_cohort = 2", "minimum_cohort = 3")).with_changes(rounds=2)
    stage = made_stage(shared / "policy", played)
    for site in stage.sites:
        policy = "[budget]\neps_plan = 60.0\neps_total = 60.0\nown_share_plan = 60.0\nown_share_total = 60.0\ndelta = 1e-3\n"
        (stage.home(site) / "policy.toml").write_text(policy + '[plans]\nreleases = ["training"]\n')
    _, heard = run(stage, nursery)
    assert [(done.kind, done.failure) for done in heard] == [(kind, "E_COHORT_TOO_SMALL") for kind in (Kind.STAT, Kind.EVAL, Kind.EVAL)]
    assert {absence.why for done in heard for absence in done.missing} == {"E_POLICY"}
    assert {tuple(spent(stage, site)) for site in stage.sites} == {(("RESERVE", 1), ("RESERVE", 2))}


def test_more_evaluations_than_the_plan_has_are_refused_in_any_session_and_leave_training_its_part(
    shared: Path, nursery: Nursery, short: tuple[Stage, Weights, list[CountedRound]]
) -> None:
    """A coordinator that begins new sessions, to have its models judged again and again, uses up what the plan has for that and no more."""
    stage = made_stage(shared / "greedy", SHORT)
    plan = stage.scenario.plan

    def judge(site: str, session: int) -> None:
        account = Account(stage.home(site), read_site_file(stage.home(site)))
        release = Release(plan=plan, session=f"{session:032x}", round=2, attempt=0, use="EVAL")
        account.pay(release, lambda *_: evaluation_charge(plan))

    for site in stage.sites:
        for session in range(3):  # two evaluations and a spare one
            judge(site, session)
        with pytest.raises(BudgetExceeded, match="the plan does it 3 times"):
            judge(site, 9)
    weights, heard = run(stage, nursery)
    assert weights.digest == short[1].digest
    assert [(done.kind, done.failure) for done in heard] == [
        (Kind.STAT, ""),
        (Kind.EVAL, "E_COHORT_TOO_SMALL"),
        (Kind.EVAL, "E_COHORT_TOO_SMALL"),
    ]
    assert {absence.why for done in heard[1:] for absence in done.missing} == {"E_PRIVACY_BUDGET"}
    for site in stage.sites:  # and the spare round of training is still there
        account = Account(stage.home(site), read_site_file(stage.home(site)))
        account.pay(Release(plan=plan, session="0" * 32, round=2, attempt=1), round_charge)


def test_a_plan_that_asks_nothing_counts_nothing_and_trains_on_everybody(shared: Path, nursery: Nursery) -> None:
    silent = counting((COUNTS.removesuffix("[aggregation]"), ""))
    stage = made_stage(shared / "silent", silent)
    _, heard = run(stage, nursery)
    assert heard == []
    assert {kind for site in stage.sites for kind, _ in spent(stage, site)} == {"RESERVE"}
    data = load_prepared(stage.home(stage.sites[0]) / "data")
    assert len(data.rows_of(Split.TRAIN)) == len(data)
    assert not (stage.folder / COUNTED_FILE).exists()
    assert (stage.folder / JOURNAL).exists()


def test_a_run_folder_the_models_card_and_the_report_say_what_was_counted_once(shared: Path, nursery: Nursery) -> None:
    """Also after a resume, and though one line was cut off by a kill."""
    stage = made_stage(shared / "shown", SHORT)
    file = stage.folder / COUNTED_FILE
    for _ in range(2):
        simulate(stage, Options(workers=2, compare=False), Show(Console(quiet=True)), nursery)
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        assert [(line["kind"], line["round"]) for line in lines] == [("STAT", 1), ("EVAL", 2), ("EVAL", 3)]
        assert all(line["noised"] and line["charged"] for line in lines)
        assert json.loads((stage.folder / "model.json").read_text())["counted"] == lines
        file.write_text(file.read_text()[:-25])
    assert lines[0]["statistic"]["units"]["value"] > 100
    assert lines[2]["evaluation"]["units"] > 5
    page = (stage.folder / "report.html").read_text()
    assert "Noised and charged" in page
    assert "Asked of the sites" in page
