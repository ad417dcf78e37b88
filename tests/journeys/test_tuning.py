# SPDX-License-Identifier: Apache-2.0
"""Searches from beginning to end: what is bad loses, what is spent is what ledgers say, and a kill costs no more than the round it hit."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from dp_accounting.rdp import RdpAccountant
from typer.testing import CliRunner

from client import ledger
from client.home import LEDGER_FILE, AggregationName
from common.errors import RunFolderTaken, TrainFailed, TuningBeyondBudget
from common.privacy.entries import Spent
from fedward import app
from simulations import scenario
from simulations.engine.nursery import Nursery
from simulations.scenario import Scenario
from simulations.stage import Workshop
from simulations.tuning import outcome, page, search, space
from simulations.tuning.book import SCORES_FILE, Book
from simulations.tuning.command import TUNING_APP
from simulations.tuning.outcome import Outcome
from simulations.tuning.race import placed, race
from simulations.tuning.search import Search
from simulations.tuning.trials import ledger_folder
from tests.journeys.made import OPEN, PLAN, pictures

DELTA = 1e-4
PRIVATE = f'unit = "patient"\nepsilon = 16\ndelta = {DELTA}\nclip_norm = 1'
BAD = 1e-6
SPACE = f"[tuning]\ntrials = 3\nfolds = {{folds}}\n[space.training]\nlearning_rate = [0.2, {BAD}, {10 * BAD}]\n"
NOISE_SEED = 11


EIGHT = (("batch = 8", "batch = 32"), ("[aggregation]", "[evaluation]\nevery = 3\nepsilon = 2\nbins = 4\n[aggregation]"))
"""What makes the plan one that 900 patients can be told apart by, for half of its epsilon: 8."""


def asked(privacy: str, *changes: tuple[str, str]) -> Scenario:
    text = PLAN.format(privacy=privacy).replace("rounds = 4", "rounds = 3").replace("sites = 4", "sites = 3")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return scenario.parse(text)


def prepared(folder: Path, played: Scenario, text: str, *, aggregation: AggregationName = "ideal", seed: int | None = None) -> Search:
    shop = Workshop(cache=folder.parent / "cache", workers=1, progress=lambda *_: None, unsafe_noise_seed=seed, aggregation=aggregation)
    return search.prepare(played, space.parse(text), folder.parent / "pictures", folder, shop)


def finished(found: Search, nursery: Nursery) -> Outcome:
    result = outcome.conclude(found, race(found, nursery, workers=1, tell=lambda *_: None))
    outcome.write(result)
    return result


def paid(found: Search, site: str) -> list[Spent]:
    """What a site's ledger was charged for; every signature is looked at."""
    _, entries = ledger.read((ledger_folder(found.folder, site) / LEDGER_FILE).read_bytes(), name=site)
    return [entry.fact for entry in entries if isinstance(entry.fact, Spent)]


def recomputed(charges: list[Spent]) -> float:
    """Epsilon of these lines by dp-accounting alone, without anything of ours."""
    accountant = RdpAccountant()
    for fact in charges:
        event = fact.charge.outside
        step = PoissonSampledDpEvent(event.sampling_rate, GaussianDpEvent(event.noise_multiplier))
        accountant.compose(SelfComposedDpEvent(step, event.steps))
    return float(accountant.get_epsilon(DELTA))


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """A search's own, which has the accountant in memory."""
    with Nursery(TUNING_APP) as started:
        yield started


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned")
    pictures(folder / "pictures", patients=60, contrast=90)
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough patients to be seen beside the noise."""
    folder = tmp_path_factory.mktemp("tuned")
    pictures(folder / "pictures", patients=900, images_each=1, contrast=90)
    return folder


@pytest.fixture(scope="module")
def open_search(few: Path, nursery: Nursery) -> Outcome:
    return finished(prepared(few / "open", asked(OPEN), SPACE.format(folds=2)), nursery)


@pytest.fixture(scope="module")
def private_search(many: Path, nursery: Nursery) -> Outcome:
    return finished(prepared(many / "private", asked(PRIVATE, *EIGHT), SPACE.format(folds=1), seed=NOISE_SEED), nursery)


def test_learning_rates_that_learn_nothing_lose(open_search: Outcome) -> None:
    assert open_search.winner.trial.keys["training.learning_rate"] == 0.2
    assert open_search.winner.rounds == 3
    assert (open_search.winner.score.value or 0) > 0.9
    assert [each.rounds for each in open_search.placed] == [3, 1, 1]
    assert open_search.spent is None
    assert open_search.left is None


def test_the_winner_is_a_plan_that_is_ready_to_run(open_search: Outcome) -> None:
    played = scenario.load(outcome.winner_file(open_search))
    assert played.plan.name == "journey-tuned"
    assert played.plan.training.learning_rate == 0.2
    assert played.simulation == open_search.search.base.simulation
    assert played.plan.privacy.unit == "none"


def test_a_search_without_privacy_charges_nobody(open_search: Outcome) -> None:
    assert not list(open_search.search.folder.rglob(LEDGER_FILE))


def test_the_ledgers_add_up_to_what_is_claimed_and_to_less_than_was_set_apart(private_search: Outcome) -> None:
    found = private_search.search
    assert private_search.spent is not None
    assert found.budget == 8.0
    for site in found.stage.sites:
        spent = recomputed(paid(found, site))
        assert spent == pytest.approx(private_search.spent.sites[site], rel=1e-9)
        assert spent <= found.cost <= 8.0
    assert private_search.spent.outside == max(private_search.spent.sites.values())


def test_every_round_and_every_judgement_is_charged_once(private_search: Outcome) -> None:
    """Three trials for a round, the best for two more; each is judged after the first, the best after the last, too."""
    for site in private_search.search.stage.sites:
        facts = paid(private_search.search, site)
        per_plan = Counter((fact.plan, fact.kind) for fact in facts)
        assert sorted(times for (_, kind), times in per_plan.items() if kind == "RESERVE") == [1, 1, 3]
        assert sorted(times for (_, kind), times in per_plan.items() if kind == "EVAL") == [1, 1, 2]
        assert max(Counter((fact.plan, fact.kind, fact.round) for fact in facts).values()) == 1
        assert len({fact.snapshot for fact in facts}) == 1


def test_what_is_left_for_the_winner_keeps_the_promise_with_what_was_spent(private_search: Outcome) -> None:
    found, played = private_search.search, scenario.load(outcome.winner_file(private_search))
    assert private_search.left == played.plan.privacy.epsilon
    assert private_search.left is not None
    assert 8 <= private_search.left < 16
    from common.privacy import plan_charge

    for site, units in found.final_units().items():
        final = plan_charge(played.plan, units)
        template = paid(found, site)[0]
        last = Spent(**{name: getattr(template, name) for name in Spent.__dataclass_fields__} | {"charge": final})
        assert recomputed([*paid(found, site), last]) <= 16.0


def test_noised_scores_choose_and_no_other_figure_is_written(private_search: Outcome) -> None:
    assert private_search.winner.trial.keys["training.learning_rate"] == 0.2
    text = (private_search.search.folder / SCORES_FILE).read_text()
    journalled = [json.loads(line) for line in text.splitlines()]
    assert [(line["trial"], line["round"]) for line in journalled] == [(0, 1), (1, 1), (2, 1), (0, 3)]
    assert private_search.winner.score.low is not None
    assert private_search.winner.score.low < (private_search.winner.score.value or 0)


def test_the_page_says_what_the_table_says_and_fetches_nothing(private_search: Outcome) -> None:
    text = page.render(private_search)
    assert page.write(private_search).read_text() == text
    assert "http:" not in text
    assert "https:" not in text
    assert "<script" not in text
    assert "Trial 0 won, the plan as it was." in text
    assert f"promises ε {private_search.left:g}" in text
    assert text.count("<svg") == 2


class Killed(BaseException):
    """As abrupt as a signal, for what runs in this process."""


def test_masked_rounds_give_the_same_search(many: Path, nursery: Nursery, private_search: Outcome) -> None:
    played = asked(PRIVATE, *EIGHT)
    masked = finished(prepared(many / "masked", played, SPACE.format(folds=1), aggregation="fsa1", seed=NOISE_SEED), nursery)
    assert [(each.trial.number, each.score) for each in masked.placed] == [
        (each.trial.number, each.score) for each in private_search.placed
    ]


@pytest.mark.parametrize("after", [4])
def test_a_search_that_was_cut_off_ends_as_one_that_was_not(
    many: Path, nursery: Nursery, private_search: Outcome, after: int, tmp_path: Path
) -> None:
    """Cut off after so many rounds of all; nothing that had been answered is paid for again."""
    folder = many / f"cut-{after}"
    found = prepared(folder, asked(PRIVATE, *EIGHT), SPACE.format(folds=1), seed=NOISE_SEED)
    rounds = 0

    def tell(*_: object) -> None:
        nonlocal rounds
        rounds += 1
        if rounds > after:
            raise Killed

    with pytest.raises(Killed):
        race(found, nursery, workers=1, tell=tell)
    again = search.find(folder)
    assert again.promise == found.promise
    result = finished(again, nursery)
    assert [(each.trial.number, each.rounds, each.score) for each in result.placed] == [
        (each.trial.number, each.rounds, each.score) for each in private_search.placed
    ]
    assert result.left == private_search.left
    for site in found.stage.sites:
        facts = Counter((fact.plan, fact.kind, fact.round) for fact in paid(found, site))
        assert max(facts.values()) == 1, "a round that was committed is not charged again"
    assert placed(again, Book(folder)) == list(result.placed)


def test_a_folder_holds_one_search(few: Path, open_search: Outcome) -> None:
    with pytest.raises(RunFolderTaken, match="holds a search already"):
        prepared(few / "open", asked(OPEN), SPACE.format(folds=2))
    design = open_search.search.folder / search.SPACE_FILE
    before = design.read_text()
    design.write_text(before.replace("0.2", "0.3"))
    try:
        with pytest.raises(RunFolderTaken, match="begun with other trials"):
            search.find(open_search.search.folder)
    finally:
        design.write_text(before)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SPACE.format(folds=1), r"noise of \d+\.\d patients .* 3 trials|noise of \d+\.\d patients"),
        (SPACE.format(folds=1).replace("trials = 3", "trials = 3\nepsilon = 80"), "the plan promises 16 in all"),
    ],
)
def test_a_search_that_its_budget_cannot_hold_is_refused_before_anything_is_trained(
    few: Path, tmp_path: Path, text: str, words: str
) -> None:
    """So few patients cannot be told apart beside such noise."""
    (tmp_path / "pictures").symlink_to(few / "pictures")
    with pytest.raises(TuningBeyondBudget, match=words):
        prepared(tmp_path / "beyond", asked(PRIVATE), text)
    assert not list((tmp_path / "beyond").rglob("journal.sqlite"))


def test_trials_that_all_diverge_are_named_and_there_is_no_winner(few: Path, nursery: Nursery) -> None:
    text = "[tuning]\ntrials = 2\n[space.training]\nlearning_rate = [1e30]\n"
    played = asked(OPEN, ("learning_rate = 0.2", "learning_rate = 1e31"), ("rounds = 3", "rounds = 2"))
    found = prepared(few / "diverged", played, text)
    with pytest.raises(TrainFailed, match="none of 2 trials has a score: E_"):
        finished(found, nursery)


def test_a_dry_run_says_in_numbers_what_it_would_cost_and_trains_nothing(many: Path, tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text(SPACE.format(folds=1))
    (tmp_path / "plan.toml").write_text(scenario.to_toml(asked(PRIVATE, *EIGHT)))
    words = ["tune", str(tmp_path / "plan.toml"), "--space", str(tmp_path / "space.toml"), "--data", str(many / "pictures")]
    words += ["--cache", str(many / "cache"), "--out", str(tmp_path / "tune"), "--dry-run", "--json"]
    known = json.loads(CliRunner().invoke(app, words, catch_exceptions=False).stdout)
    assert known["rungs"] == [{"trials": 3, "rounds": 1}, {"trials": 1, "rounds": 3}]
    assert known["privacy"]["budget"] == 8.0
    assert 0 < known["privacy"]["each_trial"]["epsilon"] < known["privacy"]["at_worst"] <= 8.0
    assert 8.0 <= known["privacy"]["left_at_least"] < 16.0
    assert 0 < known["privacy"]["precision"]["half_width"] < 0.5
    assert not (tmp_path / "tune" / "trials").exists()
    assert not (tmp_path / "tune" / "ledgers").exists()


@pytest.mark.slow
def test_a_search_that_is_killed_by_the_kernel_goes_on_and_ends_the_same(many: Path, private_search: Outcome, tmp_path: Path) -> None:
    """kill -9 in the middle of a round: what each site had begun and not answered is paid for once more, and nothing else."""
    (tmp_path / "space.toml").write_text(SPACE.format(folds=1))
    (tmp_path / "plan.toml").write_text(scenario.to_toml(asked(PRIVATE, *EIGHT)))
    folder = tmp_path / "tune"
    begin = [str(tmp_path / "plan.toml"), "--space", str(tmp_path / "space.toml"), "--data", str(many / "pictures")]
    begin += ["--cache", str(many / "cache"), "--unsafe-noise-seed", str(NOISE_SEED)]
    shown = ["--out", str(folder), "--workers", "1", "--json"]
    command = [sys.executable, "-m", "fedward", "tune"]
    with subprocess.Popen([*command, *begin, *shown], stdout=subprocess.DEVNULL, start_new_session=True) as process:
        deadline = time.monotonic() + 120
        while not _lines(folder / SCORES_FILE) and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    assert 1 <= _lines(folder / SCORES_FILE) < 4
    again = subprocess.run([*command, "--resume", *shown], capture_output=True, text=True, check=True, timeout=180)
    result = json.loads(again.stdout)
    assert [(each["trial"], each["score"]["value"]) for each in result["trials"]] == [
        (each.trial.number, each.score.value) for each in private_search.placed
    ]
    found = search.find(folder)
    for site in found.stage.sites:
        facts = Counter((fact.plan, fact.kind, fact.round) for fact in paid(found, site))
        assert sum(facts.values()) - len(facts) <= 1, "at most the one release in which the site was"
        assert recomputed(paid(found, site)) <= 8.0


def _lines(file: Path) -> int:
    return len(file.read_text().splitlines()) if file.exists() else 0
