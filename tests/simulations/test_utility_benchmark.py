# SPDX-License-Identifier: Apache-2.0
"""The benchmark of private training's utility: what it runs and in which order, its arithmetic, how it goes on, one small run."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from typer import Typer
from typer.testing import CliRunner

from common.errors import DataUnreadable
from common.plan import Plan
from common.plan import parse as parse_plan
from common.plan import to_toml as plan_toml
from common.privacy import public_count
from simulations.benchmarks import utility, utility_cells, utility_plot
from simulations.benchmarks.utility import Pace, finished, play_all, record
from simulations.benchmarks.utility_cells import (
    AIMS,
    MODES,
    SOURCES,
    USUAL,
    Cell,
    Kind,
    Setting,
    Source,
    Wanted,
    plan_of,
    scenario_of,
    schedule,
)
from simulations.benchmarks.utility_figures import markdown, masked_twins, rows
from simulations.benchmarks.utility_play import Outcome, Score
from simulations.scenario import parse, to_toml

XRAY = Setting(dataset="xray", sites=5)
EVERYTHING = Wanted(datasets=USUAL, epsilons=[1.0, 2.0, 4.0, 8.0, None], modes=MODES, sites=[5, 10], patients=[1000, 2000], seeds=range(5))


def _cell(kind: Kind, epsilon: float | None, seed: int = 0, *, masked: bool = False) -> Cell:
    return Cell(setting=XRAY, kind=kind, epsilon=epsilon, seed=seed, masked=masked)


def _outcome(cell: Cell, *auc: float, model: str | None = "00") -> Outcome:
    scores = tuple(Score(auc=value, balanced_accuracy=value / 2) for value in auc)
    return Outcome(cell=cell, scores=scores, model=model, spent=None, fewest=900, num_training=4500, num_holdout=650, seconds=1.0)


def test_every_cell_is_run_once_and_those_of_the_aims_come_first() -> None:
    cells = schedule(EVERYTHING)
    assert len(set(cells)) == len(cells)
    aimed = {(aim.setting, kind) for aim in AIMS for kind in (aim.kind, aim.rival)}
    first = cells[: len(aimed) * 5]
    assert {(cell.setting, cell.kind) for cell in first} == aimed
    assert all(cell.epsilon == (None if cell.kind == "federated" else 8.0) and not cell.masked for cell in first)
    assert [cell.seed for cell in first] == sorted(cell.seed for cell in first), "seed by seed, so that there are whole pairs early"
    assert not any(cell.setting in {aim.setting for aim in AIMS} for cell in cells[-5:])


def test_each_setting_has_every_epsilon_and_its_rivals() -> None:
    found = {(cell.kind, cell.epsilon) for cell in schedule(EVERYTHING) if cell.setting == XRAY and not cell.masked}
    private = {(kind, epsilon) for kind in ("local", "distributed", "central") for epsilon in (1.0, 2.0, 4.0, 8.0)}
    assert found == private | {("tolerant", 8.0), ("federated", None), ("central", None), ("alone", None)}


def test_more_patients_are_tried_with_the_fewest_sites_alone() -> None:
    settings = {cell.setting for cell in schedule(EVERYTHING) if cell.setting.dataset == "phantoms"}
    assert {(setting.sites, setting.patients) for setting in settings} == {(5, 1000), (5, 2000), (10, 1000)}


def test_three_sites_cannot_spare_one() -> None:
    kinds = {cell.kind for cell in schedule(replace(EVERYTHING, sites=[3]))}
    assert kinds == {"federated", "distributed", "local", "central", "alone"}


@pytest.mark.parametrize("dataset", SOURCES)
def test_a_plan_file_survives_being_written_and_read(dataset: str) -> None:
    scenario = scenario_of(Setting(dataset=dataset, sites=7, patients=100), 3)
    assert parse(to_toml(scenario)) == scenario


@pytest.mark.parametrize("cell", [cell for cell in schedule(EVERYTHING) if cell.seed == 0 and cell.setting.sites == 10])
def test_every_cell_has_a_plan_without_contradictions(cell: Cell) -> None:
    plan = plan_of(scenario_of(cell.setting, cell.seed), cell, fewest_units=500)
    assert parse_plan(plan_toml(plan)) == plan
    assert plan.is_private == (cell.epsilon is not None)
    assert plan.shares_noise == (cell.kind in ("distributed", "tolerant"))


def test_a_rival_without_privacy_sees_as_many_images_a_step() -> None:
    for dataset, images in (("xray", 64), ("phantoms", 64 * 4)):
        setting = Setting(dataset=dataset, sites=5, patients=100)
        plan = plan_of(scenario_of(setting, 0), Cell(setting=setting, kind="federated", epsilon=None, seed=0), fewest_units=500)
        rate = 0.002 if dataset == "phantoms" else 0.2  # a network needs a shorter step without noise, a linear model does not
        assert (plan.training.batch, plan.training.learning_rate, plan.is_private) == (images, rate, False)


def _shared(kind: Kind) -> Plan:
    return plan_of(scenario_of(XRAY, 0), _cell(kind, 8.0), fewest_units=915)


def test_shared_noise_is_enough_for_the_smallest_site_and_a_quorum_of_all_or_all_but_one() -> None:
    assert _shared("distributed").privacy.minimum_patients == public_count(915)
    assert (_shared("distributed").noise_quorum, _shared("tolerant").noise_quorum) == (5, 4)


def test_a_made_hospital_trains_on_as_many_patients_as_the_setting_says() -> None:
    simulation = scenario_of(Setting(dataset="phantoms", sites=5, patients=1000), 0).simulation
    assert simulation.phantoms
    assert simulation.phantoms.patients_per_hospital * (simulation.folds - 1) == 1000 * simulation.folds


def test_losses_are_paired_and_their_interval_is_that_of_a_t_test() -> None:
    open_auc, private_auc = [0.99, 0.95, 0.97, 0.98], [0.97, 0.94, 0.95, 0.97]
    outcomes = [_outcome(_cell("federated", None, seed), auc) for seed, auc in enumerate(open_auc)]
    # The private runs arrive in another order, and one seed more has no rival yet.
    outcomes += [_outcome(_cell("local", 8.0, seed), auc) for seed, auc in reversed(list(enumerate([*private_auc, 0.5])))]
    loss = next(row for row in rows(outcomes) if row.kind == "local").auc.loss  # type: ignore[union-attr] # it has scores
    expected = stats.ttest_rel(open_auc, private_auc).confidence_interval(0.95)
    assert loss
    assert (loss.mean - loss.margin, loss.mean + loss.margin) == pytest.approx((expected.low, expected.high))
    assert loss.mean > 0, "what is lost is positive"


def test_alone_counts_as_the_mean_of_the_sites_and_central_is_its_rival_only_at_the_same_epsilon() -> None:
    outcomes = [
        _outcome(_cell("federated", None), 0.9),
        _outcome(_cell("central", 8.0), 0.8),
        _outcome(_cell("alone", None), 0.7, 0.8, model=None),
    ]
    alone = next(row for row in rows(outcomes) if row.kind == "alone").auc
    assert alone
    assert alone.loss
    assert (alone.mean, alone.loss.mean, alone.loss_to_central) == (pytest.approx(0.75), pytest.approx(0.15), None)


def test_the_table_says_what_aims_were_met_what_was_refused_and_that_masks_changed_nothing() -> None:
    outcomes = [_outcome(_cell("federated", None, seed), 0.99) for seed in range(5)]
    outcomes += [_outcome(_cell("local", 8.0, seed), 0.98 + 0.001 * seed) for seed in range(5)]
    outcomes += [_outcome(_cell("distributed", 8.0, seed), 0.95) for seed in range(5)]
    outcomes += [replace(_outcome(_cell("central", 1.0)), model=None, refused="E_TOO_FEW_PATIENTS")]
    outcomes += [_outcome(_cell("local", 8.0, masked=True), 0.98), _outcome(_cell("distributed", 8.0, masked=True), 0.9, model="01")]
    text = markdown(outcomes)
    assert "local noise against federation, not private | +0.0080 ± 0.0020 | 0.02 | met |" in text
    assert "distributed noise against federation, not private | +0.0400 ± 0.0000 | 0.015 | **missed** |" in text
    assert "| 1 | central | 0 | refused: `E_TOO_FEW_PATIENTS`" in text
    assert "1 of 2 ended in the same weights" in text
    assert [same for _, same in masked_twins(outcomes)] == [True, False]


def test_an_aim_met_by_the_mean_alone_is_said_so() -> None:
    outcomes = [_outcome(_cell("federated", None, seed), 0.99) for seed in range(3)]
    outcomes += [_outcome(_cell("local", 8.0, seed), auc) for seed, auc in enumerate((0.99, 0.98, 0.95))]
    assert "met by the mean; its interval reaches further" in markdown(outcomes)


def test_the_drawing_has_a_panel_for_each_setting_and_is_the_same_each_time() -> None:
    outcomes = [_outcome(_cell(kind, 8.0, seed), 0.9 + seed / 100) for kind in ("local", "central") for seed in (0, 1)]
    other = replace(XRAY, sites=10)
    outcomes += [replace(outcome, cell=replace(outcome.cell, setting=other)) for outcome in outcomes]
    drawing = utility_plot.draw(rows(outcomes))
    assert ElementTree.fromstring(drawing).tag.endswith("svg")
    assert "xray: 5 sites" in drawing
    assert "xray: 10 sites" in drawing
    assert utility_plot.draw(rows(outcomes)) == drawing


def test_a_killed_benchmark_knows_what_is_finished(tmp_path: Path) -> None:
    file, cells = tmp_path / "results.jsonl", [_cell("local", 8.0, seed) for seed in range(4)]
    record(file, _outcome(cells[0], 0.9))
    record(file, _outcome(cells[1], 0.91))
    with file.open("a") as torn:
        torn.write('{"scenario": "12')
    assert finished(file, cells) == {cells[0]: _outcome(cells[0], 0.9), cells[1]: _outcome(cells[1], 0.91)}
    record(file, _outcome(cells[2], 0.92))
    assert list(finished(file, cells)) == cells[:3]
    assert finished(tmp_path / "none.jsonl", cells) == {}


def test_results_of_a_changed_plan_are_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, cell = tmp_path / "results.jsonl", _cell("local", 8.0)
    record(file, _outcome(cell, 0.9))
    text = SOURCES["xray"].plan_file.read_text()
    (tmp_path / "changed.toml").write_text(text.replace("clip_norm = 1.0", "clip_norm = 2.0"))
    changed = replace(SOURCES["xray"], plan_file=tmp_path / "changed.toml")
    monkeypatch.setattr(utility_cells, "SOURCES", {"xray": changed})
    assert finished(file, [cell]) == {}


def test_a_damaged_line_is_named_and_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text("nonsense\n")
    with pytest.raises(DataUnreadable, match=r"results\.jsonl"):
        finished(tmp_path / "results.jsonl", [])


@pytest.mark.parametrize("workers", [1, 3])
def test_cells_begin_in_order_and_none_after_the_budget(workers: int) -> None:
    cells, begun, told = [_cell("local", 8.0, seed) for seed in range(7)], list[Cell](), list[Outcome]()
    play_all(cells, _playing(begun), told.append, Pace(workers=workers, until=time.monotonic() + 3600))
    assert sorted(begun, key=lambda cell: cell.seed) == cells
    assert {outcome.cell for outcome in told} == set(cells)
    play_all(cells, _playing(begun), told.append, Pace(workers=workers, until=time.monotonic()))
    assert len(told) == len(cells)


def _playing(begun: list[Cell]) -> Callable[[Cell], Outcome]:
    def play(cell: Cell) -> Outcome:
        begun.append(cell)
        return _outcome(cell, 0.9)

    return play


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--dataset", "xray,moon"),
        ("--modes", "magic"),
        ("--epsilons", "8,much"),
        ("--epsilons", "0"),
        ("--sites", "5,-1"),
        ("--patients", ""),
    ],
)
def test_what_is_not_known_is_named(option: str, value: str, tmp_path: Path) -> None:
    app = Typer()
    app.command()(utility.main)
    result = CliRunner().invoke(app, [option, value, "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert f"{option}: found" in result.output
    assert not (tmp_path / "out").exists()


def _write_pictures(folder: Path, patients: int) -> None:
    """Patients of two to four pictures; class 1 has a bright left half, so that anybody can learn it."""
    rng = np.random.default_rng(0)
    lines = ["file,label,patient_id"]
    for patient in range(patients):
        for picture in range(2 + patient % 3):
            pixels = rng.integers(0, 60, (16, 16), dtype=np.uint8)
            pixels[:, :8] += np.uint8(150 * (patient // 3 % 2))
            name = f"{patient}_{picture}.png"
            Image.fromarray(pixels).save(folder / name)
            lines.append(f"{name},{patient // 3 % 2},p{patient}")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder in place of the real ones, with a plan small enough for a test."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    _write_pictures(folder, 96)
    text = SOURCES["malaria"].plan_file.read_text()
    for old, new in (
        ("= 32", "= 16"),
        ("rounds = 150", "rounds = 3"),
        ("widths = [8, 16, 16]", "widths = [4, 4]"),
        ("batch = 12", "batch = 8"),
    ):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "small.toml").write_text(text)
    sources = {"small": Source(plan_file=tmp_path / "small.toml", judged_by="patients", folder="pictures")}
    for module in ("utility", "utility_cells", "utility_figures", "utility_play"):
        monkeypatch.setattr(f"simulations.benchmarks.{module}.SOURCES", sources)
    monkeypatch.setenv("FEDWARD_CACHE", str(tmp_path / "cache"))
    return tmp_path


def _run(arguments: Sequence[str]) -> str:
    app = Typer()
    app.command()(utility.main)
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_small_data_set_gives_a_table_and_a_second_call_only_what_is_missing(small: Path) -> None:
    out = small / "out"
    wanted = ["--dataset", "small", "--sites", "3", "--seeds", "1", "--epsilons", "8,inf", "--workers", "2", "--data", str(small)]
    _run([*wanted, "--modes", "local", "--out", str(out)])
    before = (out / "results.jsonl").read_text()
    output = _run([*wanted, "--modes", ",".join(MODES), "--out", str(out), "--resume"])
    after = (out / "results.jsonl").read_text()
    assert after.startswith(before)
    assert (len(before.splitlines()), len(after.splitlines())) == (3, 8)
    assert "2 of 2 ended in the same weights" in " ".join(output.split())
    figures = json.loads((out / "utility.json").read_text())
    found = {(row["kind"], row["epsilon"]): row for row in figures["rows"]}
    assert set(found) == {("federated", None), ("central", None), ("alone", None), ("local", 8.0), ("distributed", 8.0), ("central", 8.0)}
    assert len(found["alone", None]["outcomes"][0]["scores"]) == 3
    spent = found["distributed", 8.0]["outcomes"][0]["spent"]
    assert spent["outside"] <= 8.0 < spent["own_share"]
    assert all(0 <= row["auc"]["mean"] <= 1 for row in found.values())
    assert (out / "utility.svg").exists()


def test_results_are_not_overwritten(small: Path) -> None:
    (small / "out").mkdir()
    (small / "out" / "results.jsonl").touch()
    app = Typer()
    app.command()(utility.main)
    result = CliRunner().invoke(app, ["--dataset", "small", "--out", str(small / "out")])
    assert result.exit_code == 1
    assert "--resume" in result.output
