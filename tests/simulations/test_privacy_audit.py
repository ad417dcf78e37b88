# SPDX-License-Identifier: Apache-2.0
"""Canary patients through the client's own training: sound plans are never refuted, and every way of breaking one is caught."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from client.training import dpsgd
from client.training.sampler import pick
from client.training.units import units_of
from common.errors import PrivacyError
from common.plan import Plan, to_toml
from common.privacy import lattice_of, plan_charge
from fedward import app
from simulations import scenario
from simulations.audits.canaries import gradient_canaries, mislabelled_canaries, probe_bench, probed
from simulations.audits.findings import Audit, Kind
from simulations.audits.observed import Training, black_box, crowds_of, seen, seen_together
from simulations.audits.privacy import audit, usual_patients

PLAN = """
[plan]
name = "audited"
purpose = "A small plan for a test."

[input]
modality = "any"
height = 16
width = 16

[task]
kind = "classification"
classes = ["normal", "nodule"]

[model]
family = "cnn"
widths = [8]
hidden = 8

[training]
strategy = "fedsgd"
rounds = 30
local_steps = 1
batch = 16
learning_rate = 0.05
optimiser = "adam"

[privacy]
unit = "patient"
epsilon = 2.0
delta = 1e-6
clip_norm = 0.5
images_per_patient = 2
spare_rounds = 0

[aggregation]
minimum_cohort = 4
max_group = 8
"""
SHARED = """images_per_patient = 2
noise = "distributed"
noise_quorum = 4
colluders = 1
minimum_patients = 64
"""
PLANS = {"local": PLAN, "distributed": PLAN.replace("images_per_patient = 2\n", SHARED)}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(params=PLANS)
def plan(request: pytest.FixtureRequest) -> Plan:
    return scenario.parse(PLANS[request.param]).plan


def asked(plan: Plan, *, canaries: int = 400, kind: Kind = "gradient", seed: int = 0) -> Audit:
    return Audit(canaries=canaries, kind=kind, patients=usual_patients(plan), seed=seed)


def silent(*_: Any) -> None:
    pass


def test_sound_training_is_refuted_in_none_of_twenty_audits(plan: Plan) -> None:
    bounds = [audit(plan, asked(plan, seed=seed), with_controls=False, progress=silent).plan.bound.epsilon for seed in range(20)]
    assert plan.privacy.epsilon is not None
    assert max(bounds) <= plan.privacy.epsilon
    assert max(bounds) > 0.2  # and the auditor is not asleep


def test_every_way_of_breaking_training_is_caught(plan: Plan) -> None:
    report = audit(plan, asked(plan, canaries=2000), with_controls=True, progress=silent)
    caught = {trial.name: trial.is_refuted for trial in report.controls}
    assert caught == {
        "nothing is broken": False,
        "no noise": True,
        "no clipping": True,
        "drawn 4 times too often": True,
        "50 slices, 50 records": True,
    }
    assert report.passes


def test_too_few_canaries_are_a_blind_auditor_and_it_is_said(plan: Plan) -> None:
    report = audit(plan, asked(plan, canaries=20), with_controls=True, progress=silent)
    assert not report.passes
    assert report.ceiling < 2


def test_fifty_slices_move_no_more_than_a_patient_may(plan: Plan) -> None:
    report = audit(plan, asked(plan, kind="slices"), with_controls=False, progress=silent)
    assert not report.plan.is_refuted


def test_a_promise_to_records_is_no_promise_to_a_patient_of_fifty(plan: Plan) -> None:
    """Whoever takes a record's epsilon for a patient's is refuted."""
    promise = replace(plan.privacy, unit="record", minimum_patients=3200 if plan.shares_noise else None)
    records = replace(plan, privacy=promise)
    at = Audit(canaries=1000, kind="slices", patients=64, seed=0)
    assert audit(records, at, with_controls=False, progress=silent).plan.is_refuted


def test_what_the_auditor_sees_is_what_was_accounted(plan: Plan) -> None:
    """A canary that is in is drawn with probability q and moves one clip norm; sigma is that of as few sites as the promise counts on."""
    charge = plan_charge(plan, 64)
    training = Training(plan=plan, charge=charge, clip_norm=0.5, patients=64)
    coins = np.random.default_rng(1).random(64 * seen_together(plan)) < 0.5
    steps = np.stack(list(seen(training, coins)))
    q, sigma, count = charge.outside.sampling_rate, charge.outside.noise_multiplier, steps[:, ~coins].size
    assert len(steps) == charge.outside.steps
    assert steps[:, ~coins].std() == pytest.approx(sigma, rel=5 / np.sqrt(2 * count))
    assert steps[:, ~coins].mean() == pytest.approx(0, abs=5 * sigma / np.sqrt(count))
    assert steps[:, coins].mean() == pytest.approx(q, abs=5 * np.hypot(sigma, 0.5) / np.sqrt(steps[:, coins].size))
    assert steps[:, coins].var() == pytest.approx(sigma**2 + q * (1 - q), rel=5 * np.sqrt(2 / count) + 0.05)


def test_a_gradient_canary_is_as_long_as_clipping_allows_and_nobody_else_moves(plan: Plan) -> None:
    side = 8
    data = gradient_canaries(np.array([True, False, True]), coordinates=np.array([5, 6, 60]), patients=9, slices=3, side=side)
    with_pictures = probed(plan, side, clip_norm=0.5)
    units = units_of(data, with_pictures)
    assert len(units) == 9
    assert set(units.sizes.tolist()) == {3}
    drawn = pick(units, np.arange(9), 2, lambda size: bytes(size))
    total = dpsgd.sum_of_clipped(probe_bench(side), data, with_pictures, drawn).numpy()
    full = lattice_of(plan).clip_steps
    assert np.flatnonzero(total).tolist() == [5, 60]
    assert (0.998 * full < total[[5, 60]]).all()
    assert (total[[5, 60]] <= full).all()


def test_canaries_that_do_not_fit_in_one_crowd_fill_several() -> None:
    crowds = crowds_of(1000, 192)
    assert np.array_equal(np.concatenate(crowds), np.arange(1000))
    assert max(map(len, crowds)) <= 192


def test_an_observer_sees_the_sum_of_the_honest_among_a_quorum() -> None:
    local, shared = (scenario.parse(text).plan for text in PLANS.values())
    assert (seen_together(local), seen_together(shared)) == (1, 3)


def test_mislabelled_canaries_are_in_the_data_if_their_coin_says_so(plan: Plan) -> None:
    coins = np.array([True, False, True, True])
    data, everybody = mislabelled_canaries(coins, patients=30, plan=plan, rng=np.random.default_rng(2))
    assert (data.num_patients, len(everybody)) == (33, 4)
    brightness = data.images[:].mean(axis=(1, 2, 3))
    as_labelled = (brightness > 2**15) == (data.labels == 1)
    assert np.flatnonzero(~as_labelled).tolist() == [0, 1, 2]


def test_the_model_alone_refutes_nothing_under_a_promise(plan: Plan) -> None:
    report = audit(plan, asked(plan, kind="mislabelled", canaries=100), with_controls=False, progress=silent)
    assert not report.plan.is_refuted


def test_the_model_alone_shows_who_was_in_it_where_next_to_no_noise_is_added() -> None:
    """The control: the same scores, from a promise of nothing."""
    text = PLANS["local"].replace("epsilon = 2.0", "epsilon = 100000.0").replace("rounds = 30", "rounds = 150").replace("0.05", "0.01")
    plan = scenario.parse(text.replace("widths = [8]", "widths = [16]").replace("hidden = 8", "hidden = 32")).plan
    coins = np.random.default_rng(3).random(32) < 0.5
    scores = black_box(plan, coins, patients=16, rng=np.random.default_rng(4), progress=silent)
    assert scores[coins].mean() > scores[~coins].mean() + 2.5 * scores.std() * np.sqrt(4 / 32)


def test_a_plan_that_promises_nothing_is_not_audited(plan: Plan) -> None:
    open_plan = replace(plan, privacy=replace(plan.privacy, unit="none", noise="local", minimum_patients=None))
    with pytest.raises(PrivacyError, match="nothing to audit"):
        audit(open_plan, asked(plan), with_controls=False, progress=silent)


# The command


def typed(*words: str) -> Any:
    return CliRunner().invoke(app, ["audit", "privacy", *words])


def test_the_command_states_the_bound_beside_the_claim(plan: Plan, tmp_path: Path) -> None:
    file, out = tmp_path / "plan.toml", tmp_path / "audit.json"
    file.write_text(to_toml(plan))
    result = typed(str(file), "--canaries", "300", "--no-controls", "--json", "--out", str(out))
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found == json.loads(out.read_text())
    assert found["plan"]["claimed"] == 2.0
    assert 0 <= found["plan"]["bound"]["epsilon"] <= 2.0
    assert found["passes"]
    assert found["controls"] == []


def test_a_claim_that_does_not_hold_is_an_exit_code(tmp_path: Path) -> None:
    """A plan for records, asked what it does for patients of fifty slices."""
    plan = scenario.parse(PLANS["local"].replace('unit = "patient"', 'unit = "record"')).plan
    (tmp_path / "plan.toml").write_text(to_toml(plan))
    result = typed(str(tmp_path / "plan.toml"), "--canaries", "1000", "--kind", "slices", "--no-controls")
    assert result.exit_code == 1
    assert "REFUTED" in result.stdout
    assert "Do not train this plan" in result.stdout.replace("\n", " ")


def test_what_no_audit_of_this_size_could_show_is_said(tmp_path: Path) -> None:
    plan = scenario.parse(PLANS["local"].replace("epsilon = 2.0", "epsilon = 8.0")).plan
    (tmp_path / "plan.toml").write_text(to_toml(plan))
    said = typed(str(tmp_path / "plan.toml"), "--canaries", "100", "--no-controls").stdout.replace("\n", " ")
    assert "no audit can show more than" in said
    assert "--canaries 16384" in said
