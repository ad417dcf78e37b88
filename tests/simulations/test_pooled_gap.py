# SPDX-License-Identifier: Apache-2.0
"""The benchmark of federated against pooled training: its arithmetic by hand and against scipy, and one small pair from end to end."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from typer import Typer
from typer.testing import CliRunner

from simulations import scenario as scenarios
from simulations.benchmarks.pooled_gap import Accuracy, Pair, gap_of, gaps, main, of_seed, table
from simulations.scenario import to_toml


def _accuracy(images: float, patients: float = 0.5) -> Accuracy:
    return Accuracy(images=images, patients=patients)


def _pair(seed: int, federated: float, pooled: float) -> Pair:
    return Pair(
        seed=seed,
        fold=seed % 5,
        num_training=60,
        num_holdout=15,
        federated=_accuracy(federated),
        pooled=_accuracy(pooled),
        alone=(_accuracy(0.5), _accuracy(0.6)),
    )


def test_the_interval_is_that_of_a_paired_t_test() -> None:
    federated, pooled = [0.71, 0.64, 0.80, 0.55, 0.69], [0.70, 0.70, 0.78, 0.60, 0.66]
    expected = stats.ttest_rel(federated, pooled).confidence_interval(0.95)
    gap = gap_of([f - p for f, p in zip(federated, pooled, strict=True)], holdout_share=0.25)
    assert gap.mean - gap.margin == pytest.approx(expected.low)
    assert gap.mean + gap.margin == pytest.approx(expected.high)


def test_overlapping_training_sets_widen_the_interval_by_nadeau_and_bengio() -> None:
    gap = gap_of([0.01, -0.02, 0.03, 0.0, 0.02], holdout_share=0.25)
    assert gap.corrected / gap.margin == pytest.approx(np.sqrt((1 / 5 + 1 / 4) / (1 / 5)))


def test_a_single_pair_says_nothing_about_the_next_one() -> None:
    assert gap_of([0.01], holdout_share=0.25).margin == np.inf


def test_a_federation_behind_has_a_negative_gap() -> None:
    gap = gaps([_pair(0, 0.70, 0.75), _pair(1, 0.60, 0.61)])["images"]
    assert gap.mean == pytest.approx(-0.03)


def test_a_gap_does_not_see_how_hard_a_fold_is() -> None:
    even = gaps([_pair(0, 0.70, 0.72), _pair(1, 0.70, 0.73)])
    uneven = gaps([_pair(0, 0.50, 0.52), _pair(1, 0.90, 0.93)])
    assert uneven["images"].margin == pytest.approx(even["images"].margin)


def test_each_seed_has_its_own_fold_and_weights_and_the_rest_of_the_plan_stays() -> None:
    scenario = scenarios.load(scenarios.find("ct-lung"))
    runs = [of_seed(scenario, seed) for seed in range(7)]
    assert [run.simulation.fold for run in runs] == [0, 1, 2, 3, 4, 0, 1]
    assert [run.plan.training.seed for run in runs] == list(range(7))
    assert all(replace(run.plan, training=scenario.plan.training) == scenario.plan for run in runs)


def test_the_table_ends_with_means_over_the_seeds() -> None:
    shown = table([_pair(0, 0.70, 0.75), _pair(1, 0.60, 0.61)], "t")
    assert [list(column.cells)[-1] for column in shown.columns[2:5]] == ["0.650 | 0.500", "0.680 | 0.500", "-0.030 | +0.000"]


def _write_pictures(folder: Path) -> None:
    """Twelve patients of three pictures: class 1 has a bright left half, so that anybody can learn it."""
    rng = np.random.default_rng(0)
    lines = ["file,label,patient_id"]
    for patient in range(12):
        for picture in range(3):
            pixels = rng.integers(0, 60, (16, 16), dtype=np.uint8)
            pixels[:, :8] += np.uint8(150 * (patient % 2))
            name = f"{patient}_{picture}.png"
            Image.fromarray(pixels).save(folder / name)
            lines.append(f"{name},{patient % 2},p{patient}")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")


def test_a_small_plan_gives_pairs_a_table_and_json(tmp_path: Path) -> None:
    scenario = scenarios.load(scenarios.find("ct-lung"))
    plan = replace(
        scenario.plan,
        input=replace(scenario.plan.input, height=16, width=16),
        training=replace(scenario.plan.training, rounds=2),
        aggregation=replace(scenario.plan.aggregation, minimum_cohort=3),
    )
    simulation = replace(scenario.simulation, sites=3, partition="iid", alpha=None, folds=3)
    (tmp_path / "small.toml").write_text(to_toml(scenarios.Scenario(plan=plan, simulation=simulation)))
    (tmp_path / "data").mkdir()
    _write_pictures(tmp_path / "data")
    app = Typer()
    app.command()(main)
    file = tmp_path / "gap.json"
    arguments = [str(tmp_path / "small.toml"), "--data", str(tmp_path / "data"), "--seeds", "2", "--workers", "1", "--json", str(file)]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "gap by patients" in result.output
    report = json.loads(file.read_text())
    assert [pair["seed"] for pair in report["pairs"]] == [0, 1]
    assert all(len(pair["alone"]) == 3 and pair["num_training"] == 8 and pair["num_holdout"] == 4 for pair in report["pairs"])
    differences = [pair["federated"]["images"] - pair["pooled"]["images"] for pair in report["pairs"]]
    assert report["gaps"]["images"]["mean"] == pytest.approx(np.mean(differences))


def test_missing_data_are_named(tmp_path: Path) -> None:
    app = Typer()
    app.command()(main)
    result = CliRunner().invoke(app, ["ct-lung", "--data", str(tmp_path / "nowhere")])
    assert result.exit_code == 1
    assert "does not exist" in " ".join(result.output.split())
