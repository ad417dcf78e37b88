# SPDX-License-Identifier: Apache-2.0
"""`fedward evaluate`: a model judged on a folder, by group, at a threshold from other patients; and a page that tells what was found."""

import csv
import json
import re
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from typer.testing import CliRunner

from common.errors import LabelsMismatch, ModelHash, PatientStraddles, PlanValue
from common.models import initial_weights
from common.plan import Plan, parse
from common.tasks.scoring.operating import Rule
from fedward import house
from server.export import export
from simulations.evaluation import Answer, Question, evaluate_folder
from simulations.report import judged

PLAN = """
[plan]
name = "judged"
purpose = "A model for a test."

[input]
modality = "OT"
height = 8
width = 8

[task]
kind = "classification"
classes = ["normal", "nodule"]

[model]
family = "cnn"
widths = [2]
hidden = 4

[training]
rounds = 1
local_steps = 1
batch = 4
learning_rate = 0.1
seed = 3

[privacy]
unit = "none"

[aggregation]
minimum_cohort = 3
"""
YOUDEN = Rule(aim="youden")


def lay_out(folder: Path, *, patients: int = 60, first: int = 0, **columns: Any) -> Path:
    """Two pictures of each patient, brighter for every other one; further columns are functions of the patient's number."""
    folder.mkdir()
    rng = np.random.default_rng(first + 1)
    owners = np.repeat(np.arange(first, first + patients), 2)
    bright = 90 + 60 * (owners % 2)[:, None, None] + rng.normal(scale=40, size=(len(owners), 8, 8))
    np.savez(folder / "images.npz", images=np.clip(bright, 0, 255).astype(np.uint8))
    with (folder / "index.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["row", "label", "patient_id", *columns])
        table.writerows(
            [row, owner % 2, f"MRN{owner:05}", *(say(int(owner)) for say in columns.values())] for row, owner in enumerate(owners)
        )
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("model"), parse(PLAN))


def saved(folder: Path, plan: Plan) -> Path:
    """A model as it is before any training: what it says follows the brightness, in one direction or the other."""
    export(folder, weights=initial_weights(plan), plan=plan, facts={})
    return folder


def ask(model: Path, data: Path, **asked: Any) -> Answer:
    return evaluate_folder(model, Question(data=data, resamples=50, **asked), workers=1, progress=lambda *_: None)


@pytest.fixture(scope="module")
def answer(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Answer:
    folder = lay_out(
        tmp_path_factory.mktemp("data") / "here", sex=lambda owner: "MF"[owner % 3 > 0], ward=lambda owner: "burns" if owner < 4 else "ICU"
    )
    return ask(model, folder, by="sex")


def test_every_figure_comes_with_its_patients(answer: Answer) -> None:
    assert answer.scores.patients is not None
    assert (answer.scores.patients.count, answer.scores.images.count) == (60, 120)
    assert answer.intake["used"] == 120
    assert answer.curves is not None
    assert answer.curves.probabilities.shape == (60, 2)
    assert answer.threshold == 0.5


def test_a_group_is_scored_as_if_it_were_alone(answer: Answer, model: Path, tmp_path: Path) -> None:
    assert answer.groups is not None
    assert [(group.name, group.patients) for group in answer.groups.shown] == [("F", 40), ("M", 20)]
    women = lay_out(tmp_path / "all", sex=lambda owner: "MF"[owner % 3 > 0])
    keep_rows(women / "index.csv", lambda row: row["sex"] == "F")
    alone = ask(model, women).scores.as_dict()
    assert numbers(answer.groups.shown[0].scores.as_dict()) == pytest.approx(numbers(alone), abs=1e-6)


def test_what_is_left_out_for_its_size_has_no_name_on_the_page_or_in_the_json(model: Path, tmp_path: Path) -> None:
    data = lay_out(tmp_path / "here", ward=lambda owner: "quarantine" if owner < 4 else f"ward {owner % 2}")
    found = ask(model, data, by="ward")
    assert found.groups is not None
    assert found.groups.hidden == 2
    assert "quarantine" not in json.dumps(found.as_dict()) + judged.render(found)


def test_a_column_of_patients_shows_none_of_them(model: Path, tmp_path: Path) -> None:
    found = ask(model, lay_out(tmp_path / "here"), by="patient_id")
    page = judged.render(found)
    assert "MRN" not in json.dumps(found.as_dict()) + page
    assert "60 groups" in page


def test_an_empty_cell_is_a_group_of_its_own(model: Path, tmp_path: Path) -> None:
    found = ask(model, lay_out(tmp_path / "here", sex=lambda owner: "" if owner % 3 == 0 else "F"), by="sex")
    assert found.groups is not None
    assert [group.name for group in found.groups.shown] == ["(not said)", "F"]


def test_sites_of_the_folder_are_groups(model: Path, tmp_path: Path) -> None:
    found = ask(model, lay_out(tmp_path / "here", site=lambda owner: f"site {owner % 2}"), by="site")
    assert found.groups is not None
    # Every other patient is ill: each site has one class, of which no AUC can be said.
    assert [(group.name, group.scores.patients and group.scores.patients.auc) for group in found.groups.shown] == [
        ("site 0", None),
        ("site 1", None),
    ]


def test_a_column_that_is_not_there_is_named(model: Path, tmp_path: Path) -> None:
    with pytest.raises(LabelsMismatch, match="no column 'scanner'"):
        ask(model, lay_out(tmp_path / "here"), by="scanner")


def test_a_threshold_comes_from_other_patients(model: Path, tmp_path: Path) -> None:
    here, there = lay_out(tmp_path / "here"), lay_out(tmp_path / "there", first=1000)
    found = ask(model, here, rule=YOUDEN, validation=there)
    assert found.chosen is not None
    assert found.chosen.patients == 60
    assert found.threshold == found.chosen.threshold != 0.5
    assert found.curves is not None
    said = found.curves.probabilities[:, 1] >= found.threshold
    assert found.scores.patients is not None
    assert found.scores.patients.classes[1].recall == pytest.approx(said[found.curves.labels == 1].mean())
    # Choosing on those who are judged would have been another threshold, or the same by luck; these are 60 others.
    assert ask(model, there, rule=YOUDEN, validation=here).threshold != found.threshold


def test_the_attack_of_judging_a_threshold_on_its_own_patients_is_refused(model: Path, tmp_path: Path) -> None:
    here, there = lay_out(tmp_path / "here"), lay_out(tmp_path / "there", first=50)
    with pytest.raises(PatientStraddles, match=r"^10 patients are in the data and in the validation folder") as caught:
        ask(model, here, rule=YOUDEN, validation=there)
    assert "MRN" not in str(caught.value)


def test_a_split_column_sets_validation_patients_apart(model: Path, tmp_path: Path) -> None:
    sides = ("train", "train", "validation", "validation", "test", "test")
    found = ask(model, lay_out(tmp_path / "here", split=lambda owner: sides[owner % 6]), rule=Rule(aim="sensitivity", least=0.9))
    assert found.chosen is not None
    assert found.chosen.patients == 20
    assert found.chosen.sensitivity >= 0.9
    assert found.curves is not None
    assert len(found.curves.labels) == 20


def test_without_a_split_or_a_folder_of_others_nothing_is_chosen(model: Path, tmp_path: Path) -> None:
    with pytest.raises(LabelsMismatch, match="no column 'split'"):
        ask(model, lay_out(tmp_path / "here"), rule=YOUDEN)
    with pytest.raises(LabelsMismatch, match="0 images for the test"):
        ask(model, lay_out(tmp_path / "half", split=lambda owner: "validation"), rule=YOUDEN)


def test_of_three_classes_no_threshold_is_chosen(tmp_path: Path) -> None:
    plan = parse(PLAN.replace('["normal", "nodule"]', '["normal", "nodule", "mass"]'))
    (tmp_path / "model").mkdir()
    here, there = lay_out(tmp_path / "here"), lay_out(tmp_path / "there", first=1000)
    with pytest.raises(PlanValue, match="has nothing to part"):
        ask(saved(tmp_path / "model", plan), here, rule=YOUDEN, validation=there)


def test_a_card_whose_plan_has_another_digest_names_the_version_that_made_it(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    export(tmp_path / "model", weights=initial_weights(parse(PLAN)), plan=parse(PLAN), facts={"fedward": "0.0.9"})
    path = tmp_path / "model" / "model.json"
    path.write_text(path.read_text(encoding="utf-8").replace("A model for a test.", "Another purpose."), encoding="utf-8")
    with pytest.raises(ModelHash, match="another version of fedward") as caught:
        ask(tmp_path / "model", tmp_path)
    assert "0.0.9" in caught.value.fix


def test_the_same_folder_gives_the_same_figures_whatever_the_secret(model: Path, tmp_path: Path) -> None:
    here = lay_out(tmp_path / "here")
    assert ask(model, here).as_dict() == ask(model, here).as_dict()


def test_the_page_says_what_the_answer_says(answer: Answer) -> None:
    page = judged.render(answer)
    doctype, _, rest = page.partition("\n")
    assert doctype == "<!DOCTYPE html>"
    root = ElementTree.fromstring(rest)
    text = re.sub(r"\s+", " ", " ".join(root.itertext()))
    assert {drawing.get("aria-labelledby", "").split("-")[0] for drawing in root.iter("svg")} == {"roc", "calibration", "decision"}
    assert answer.scores.patients is not None
    for value in (answer.scores.patients.auc, answer.scores.patients.balanced_accuracy, answer.scores.patients.averages.macro.f1):  # type: ignore[union-attr]
        assert f"{value:.3f}" in text
    assert "the plan's: it was fixed beforehand" in text
    assert "This page stays where it was made" in text
    assert not re.search(r"https?:|<script|<link|<img|\bsrc=", page)
    assert judged.render(answer) == page


def test_a_name_from_the_table_is_shown_and_never_obeyed(answer: Answer) -> None:
    assert answer.groups is not None
    evil = "</td><script>alert(1)</script>"
    group = replace(answer.groups.shown[0], name=evil)
    page = judged.render(replace(answer, groups=replace(answer.groups, shown=(group,)), by=evil))
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_the_command_prints_writes_and_keeps_the_page_to_its_owner(model: Path, tmp_path: Path) -> None:
    here, page = lay_out(tmp_path / "here", sex=lambda owner: "MF"[owner % 3 > 0]), tmp_path / "page.html"
    asked = ["evaluate", "--model", str(model), "--data", str(here), "--by", "sex", "--out", str(page), "--resamples", "20"]
    ran = CliRunner().invoke(house(), asked)
    assert ran.exit_code == 0, ran.output
    for said in ("Sensitivity at 90 % specificity", "macro average", "what it said of whom", "calibration", "by sex"):
        assert said in ran.stdout
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    plain = CliRunner().invoke(house(), [*asked, "--json"])
    found = json.loads(plain.stdout)
    assert found["groups"]["shown"][0]["scores"]["patients"]["count"] == 40
    assert found["scores"]["patients"]["averages"]["macro"]["f1"] is not None


@pytest.mark.parametrize("rule", ["often", "sensitivity", "sensitivity=2", "specificity=x", "youden=1"])
def test_a_rule_that_means_nothing_is_refused_before_anything_is_read(rule: str) -> None:
    ran = CliRunner().invoke(house(), ["evaluate", "--model", "nowhere", "--data", "nowhere", "--threshold", rule])
    assert ran.exit_code == 2
    assert "is no rule" in ran.output


def keep_rows(path: Path, keep: Any) -> None:
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if keep(row)]
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def numbers(value: Any) -> list[float]:
    match value:
        case dict():
            return [number for item in value.values() for number in numbers(item)]
        case list() | tuple():
            return [number for item in value for number in numbers(item)]
        case str():
            return []
    return [-1.0 if value is None else float(value)]
