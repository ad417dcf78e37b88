# SPDX-License-Identifier: Apache-2.0
"""Tables, sentences, the page and the JSON object say the same, and say what does not work."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from common.plan import EvaluationSpec, ScatteringSpec
from common.privacy import group_privacy
from fedward import app
from simulations import scenario
from simulations.planner import Hospitals, Outlook, outlook, page, record, tables, wording
from simulations.planner.command import patients_of
from simulations.planner.sweep import Point, Sweep
from tests.simulations.planner.planned import TEXT, local, outlook_without_alternatives, shared

SIZES = (100, 160, 160, 800, 3200)


def point(noise: float, auc: float) -> Point:
    return Point(relative_noise=noise, learning_rate=shared().training.learning_rate, auc=auc, low=auc - 0.02, high=min(1.0, auc + 0.02))


@pytest.fixture(scope="module")
def known() -> Outlook:
    return outlook(shared(), Hospitals(patients=SIZES))


@pytest.fixture(scope="module")
def measured(known: Outlook) -> Outlook:
    noises = [0.0, *sorted(entry.relative_noise or 0.0 for entry in known.forecast.possible)]
    noises.append(2 * noises[-1])
    own = tuple(point(noise, auc) for noise, auc in zip(noises, (0.95, 0.85, 0.75, 0.6), strict=True))
    linear = tuple(point(noise, auc) for noise, auc in zip(noises[:-1], (0.93, 0.91, 0.9), strict=True))
    return replace(known, measured=Sweep(model=own, scattering=linear, sites=5, patients=640, held_out=640, rounds=40, seconds=60.0))


def cells(grid: tables.Grid) -> list[tuple[str, ...]]:
    return [row.cells for row in grid.rows]


def test_every_row_has_a_cell_for_every_heading(measured: Outlook) -> None:
    for grid in tables.of(measured):
        assert grid.rows
        assert {len(row.cells) for row in grid.rows} == {len(grid.headings)}, grid.title


def test_the_plans_own_noise_stands_first(known: Outlook) -> None:
    assert tables.hospitals(known).headings[4] == "shared noise: σ"
    other = outlook_without_alternatives(local(), *SIZES)
    assert tables.hospitals(other).headings[4] == "local noise: σ"


def test_a_refused_hospital_is_marked_in_the_table_and_told_what_works(known: Outlook) -> None:
    [first, *others] = tables.hospitals(known).rows
    assert first.kind == "alarm"
    assert "refused" in first.cells
    assert not any(row.kind for row in others)
    assert [row.cells[0] for row in others] == ["2–3", "4", "5"]
    [alarm] = wording.alarms(known.forecast)
    assert alarm.startswith("Hospital 1 cannot take part: 96 training patients here")
    assert 'set noise = "local"' in alarm


def test_a_plan_that_would_hold_no_round_says_so() -> None:
    said = wording.alarms(outlook_without_alternatives(shared(), 100, 100, 400, 800, 800).forecast)
    assert said[0].startswith("Hospitals 1–2 cannot take part")
    assert said[1] == "No round would be held: 3 of 5 hospitals can take part, and 4 are needed."


def test_hospitals_with_too_few_patients_are_told_so_in_numbers_with_a_way_out(known: Outlook) -> None:
    said = wording.advice(known)
    [few] = [sentence for sentence in said if sentence.startswith("Hospitals 2–3,")]
    assert "160 patients: too few" in few
    assert "needs 775 to 1,550" in few
    assert few.endswith('With family = "scattering" they may do.')
    assert not any(sentence.startswith("Hospital 5,") for sentence in said)


def test_where_nothing_helps_that_is_said() -> None:
    plan = replace(shared(epsilon=1.0, minimum_patients=64), model=ScatteringSpec(family="scattering"))
    said = wording.advice(outlook_without_alternatives(plan, *[64] * 5))
    assert "more hospitals would" in said[0]
    assert "scattering" not in said[0]


def test_hospitals_that_have_enough_are_told_so() -> None:
    said = wording.advice(outlook_without_alternatives(shared(minimum_patients=6000), *[6000] * 5))
    assert said[0] == "Every hospital has at least 1,550 patients: by the rule of thumb, enough for this plan."


def test_noise_for_smaller_hospitals_than_there_are_is_called_waste() -> None:
    said = wording.advice(outlook_without_alternatives(shared(), *[600] * 5))
    [sentence] = [sentence for sentence in said if "at the same ε" in sentence]
    assert "for hospitals of 128 patients, and the smallest counts 512: with minimum_patients = 512" in sentence
    fitting = outlook_without_alternatives(shared(minimum_patients=512), *[600] * 5)
    assert not any("at the same ε" in sentence for sentence in wording.advice(fitting))


def test_what_a_policy_as_it_ships_would_refuse_is_said(known: Outlook) -> None:
    [sentence] = wording.policies(known)
    assert "delta = 1e-05, at most 1e-06" in sentence
    assert "own_share_plan = 8, and this plan takes" in sentence
    assert not wording.policies(outlook_without_alternatives(local(delta=1e-6), *[800] * 5))


def test_what_was_measured_is_worded_by_the_intervals(measured: Outlook) -> None:
    said = [sentence for sentence in wording.advice(measured) if "made images" in sentence or sentence.startswith("There ")]
    assert said == [
        "On made images this noise took 0.100 of AUC from 0.950, more than 0.03.",
        'There family = "scattering" did clearly better: 0.910 against 0.850.',
    ]
    assert [row[0] for row in cells(tables.measured(measured))] == ["not private", "shared noise", "local noise", "twice the most"]


def test_a_plan_that_may_end_early_is_said_to_cost_at_most_so_much() -> None:
    early = EvaluationSpec(every=5, epsilon=0.5, patience=2)
    said = [wording.advice(outlook_without_alternatives(replace(local(), evaluation=spec), *SIZES)) for spec in (early, None)]
    for words in ("they are the most that it costs", "what a ledger shows by PLD after an early end is no bound"):
        assert [any(words in sentence for sentence in each) for each in said] == [True, False]


def test_a_shorter_step_without_noise_is_told(measured: Outlook) -> None:
    sweep = measured.measured
    assert sweep is not None
    first = replace(sweep.model[0], learning_rate=measured.plan.training.learning_rate / 8)
    [row, *_] = cells(tables.measured(replace(measured, measured=replace(sweep, model=(first, *sweep.model[1:])))))
    assert row[0] == f"not private (step {first.learning_rate:g})"


def test_a_plan_that_counts_images_says_what_is_left_of_it_for_a_patient() -> None:
    known = outlook_without_alternatives(local(unit="record", epsilon=1.0, delta=1e-6), *[300] * 5, images_each=3)
    grid = tables.groups(known.plan)
    assert [row[:2] for row in cells(grid)] == [("1", "1.00"), ("2", "2.00"), ("3", "3.00"), ("5", "5.00"), ("10", "10.00")]
    assert grid in tables.of(known)
    [*_, last] = record.as_dict(known)["patients"]
    assert (last["epsilon"], last["delta"]) == group_privacy(1.0, 1e-6, 10)


def test_the_page_is_whole_and_fetches_nothing(measured: Outlook, tmp_path: Path) -> None:
    page.write(measured, tmp_path / "plan.html")
    text = (tmp_path / "plan.html").read_text(encoding="utf-8")
    assert text.count("<svg") == 4
    assert "http://" not in text
    assert "https://" not in text
    assert "<script" not in text
    for grid in tables.of(measured):
        assert f"<b>{grid.title}.</b>" in text
    assert "Hospital 1 cannot take part" in text
    assert page.render(measured) == text


def test_a_page_without_anybody_still_says_why() -> None:
    nobody = outlook_without_alternatives(shared(), *[20] * 5)
    text = page.render(nobody)
    assert "Hospitals 1–5 cannot take part" in text
    assert 'id="trade-title"' not in text


# The command


def plan_file(folder: Path, text: str = TEXT) -> str:
    path = folder / "plan.toml"
    path.write_text(text)
    return str(path)


def test_the_command_prints_tables(tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["plan", "privacy", plan_file(tmp_path), "--patients", "100,160,160,800,3200"], env={"COLUMNS": "200"})
    assert said.exit_code == 0
    for words in ("At the end of the plan", "Patients that each hospital needs", "Other batches", "Hospital 1 cannot take part"):
        assert words in said.stdout


def test_the_json_object_has_every_number(tmp_path: Path, known: Outlook) -> None:
    out = tmp_path / "page.html"
    arguments = ["plan", "privacy", plan_file(tmp_path), "--patients", "100,160,160,800,3200", "--json", "--out", str(out)]
    found = json.loads(CliRunner().invoke(app, arguments).stdout)
    assert found == json.loads(json.dumps(record.as_dict(known)))
    hospitals = found["modes"]["distributed"]["hospitals"]
    assert hospitals[0]["refused"]["code"] == "E_TOO_FEW_PATIENTS"
    assert hospitals[1]["epsilon"] < hospitals[1]["epsilon_own_share"]
    assert out.exists()


@pytest.mark.parametrize("patients", ["", "800;900", "0,5,5,5", "-3", "many"])
def test_a_list_that_is_none_is_refused(tmp_path: Path, patients: str) -> None:
    said = CliRunner().invoke(app, ["plan", "privacy", plan_file(tmp_path), "--patients", patients])
    assert said.exit_code == 2
    assert "is not a list of numbers" in " ".join(said.output.split())


def test_a_plan_that_makes_its_own_data_knows_its_patients() -> None:
    default = scenario.load(scenario.find("default"))
    assert patients_of(None, default) == (200,) * 10
    judged = replace(default, plan=replace(default.plan, evaluation=EvaluationSpec(every=10, epsilon=1.0)))
    assert patients_of(None, judged) == (160,) * 10
    assert CliRunner().invoke(app, ["plan", "privacy", "ct-lung"]).exit_code == 2


def test_show_says_what_a_promise_per_image_leaves(tmp_path: Path) -> None:
    text = TEXT.replace('"patient"', '"record"')
    said = " ".join(CliRunner().invoke(app, ["plan", "show", plan_file(tmp_path, text)]).stdout.split())
    assert "with 2 images epsilon 16, delta 0.03; with 3 images epsilon 24, where delta allows everything" in said
