# SPDX-License-Identifier: Apache-2.0
"""What a newcomer gets wrong first: each mistake has its own name, says what was found and expected, and what to do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common.errors import (
    DataNotFound,
    DataUnreadable,
    DiskFull,
    EpsilonImpossible,
    FedwardError,
    LabelsMismatch,
    PlanConflict,
    PlanSyntax,
    PlanUnknownKey,
    PlanValue,
    RunFolderTaken,
    TooFewPatients,
)
from simulations import phantoms, scenario
from simulations.cli import without_paths
from simulations.faults import parse_faults
from simulations.phantoms import PhantomSpec
from simulations.scenario import Scenario
from simulations.stage import Workshop, find_stage, set_stage
from tests.journeys.made import OPEN, PLAN, PRIVATE, made_scenario, pictures


def stage(tmp_path: Path, played: Scenario, data: Path | None) -> None:
    set_stage(played, data, tmp_path / "run", Workshop(cache=tmp_path / "cache", workers=1, progress=lambda *_: None))


def refusal(kind: type[FedwardError], tmp_path: Path, played: Scenario, data: Path | None) -> str:
    with pytest.raises(FedwardError) as caught:
        stage(tmp_path, played, data)
    assert type(caught.value) is kind
    assert caught.value.fix
    return str(caught.value)


def test_a_data_folder_that_does_not_exist(tmp_path: Path) -> None:
    said = refusal(DataNotFound, tmp_path, made_scenario(private=False), tmp_path / "nowhere")
    assert "nowhere" in said
    assert "--data" in said


def test_a_plan_without_data_of_its_own(tmp_path: Path) -> None:
    assert "--data DIR" in refusal(DataNotFound, tmp_path, made_scenario(private=False), None)


def test_a_folder_without_labels(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    said = refusal(DataNotFound, tmp_path, made_scenario(private=False), tmp_path / "bare")
    assert "labels.csv" in said
    assert "index.csv" in said


def test_labels_that_match_nothing(tmp_path: Path) -> None:
    phantoms.write(PhantomSpec(hospitals=1, patients_per_hospital=4, slices_per_patient=1, size_px=48), tmp_path / "made")
    data = tmp_path / "made" / "hospital_00"
    (data / "labels.csv").write_text("sop_instance_uid,label\n" + "".join(f"1.2.3.{number},{number % 2}\n" for number in range(7)))
    said = refusal(LabelsMismatch, tmp_path, made_scenario(private=False), data)
    assert "7 images are labelled" in said
    assert "4" in said
    assert "sop_instance_uid" in said


def test_what_a_person_typed_is_quoted_and_what_was_found_is_not(tmp_path: Path) -> None:
    """The second of two hospitals' folders is at fault, and is called after a patient."""
    made, root = tmp_path / "made", tmp_path / "given"
    phantoms.write(PhantomSpec(hospitals=2, patients_per_hospital=4, slices_per_patient=1, size_px=48), made)
    root.mkdir()
    for found, name in (("hospital_00", "A"), ("hospital_01", "Doe^Jane")):
        (made / found).rename(root / name)
    (root / "Doe^Jane" / "labels.csv").write_text("sop_instance_uid,label\n1.2.3,0\n1.2.4,1\n")
    said = refusal(LabelsMismatch, tmp_path, made_scenario(private=False), root)
    assert f"hospital folder 2 of 2 in '{root}'" in said
    assert "Doe" not in said


def test_folders_that_cannot_be_sites_are_not_named(tmp_path: Path) -> None:
    root = tmp_path / "made"
    phantoms.write(PhantomSpec(hospitals=3, patients_per_hospital=6, slices_per_patient=1, size_px=48), root)
    (root / "hospital_01").rename(root / "Doe^Jane")
    played = made_scenario(private=False, change=('partition = "iid"', 'partition = "by-site"')).with_changes(sites=3)
    said = refusal(LabelsMismatch, tmp_path, played, root)
    assert "1 of the 3 sites" in said
    assert "Doe" not in said
    assert not list((tmp_path / "run").rglob("*Doe*"))


def test_names_of_folders_do_not_reach_the_sites_data(tmp_path: Path) -> None:
    root = tmp_path / "made"
    phantoms.write(PhantomSpec(hospitals=2, patients_per_hospital=12, slices_per_patient=1, size_px=48), root)
    (root / "hospital_01").rename(root / "Doe^Jane")
    stage(tmp_path, made_scenario(private=False), root)
    columns = [path.read_text() for path in (tmp_path / "run").rglob("columns.json")]
    assert len(columns) == 5
    assert not any("Doe" in text or "hospital" in text for text in columns)


def test_a_report_does_not_say_where_the_images_lay() -> None:
    command = ["simulate", "mine.toml", "--data", "/srv/Doe^Jane", "--sites", "4", "--cache=/srv/Doe^Jane/cache", "--out", "run"]
    assert " ".join(without_paths(command)) == "simulate mine.toml --data ... --sites 4 --cache=... --out run"


def test_an_index_whose_rows_are_not_in_the_archive(tmp_path: Path) -> None:
    data = pictures(tmp_path / "pictures")
    rows = "".join(f"{9000 + number},{number % 2},made {number}\n" for number in range(20))
    (data / "index.csv").write_text("row,label,patient_id\n" + rows)
    assert "none of its 20 files" in refusal(DataUnreadable, tmp_path, made_scenario(private=False), data)


def test_a_label_that_the_plan_does_not_know(tmp_path: Path) -> None:
    data = pictures(tmp_path / "pictures")
    text = (data / "index.csv").read_text().replace("\n3,", "\n3,9", 1)
    (data / "index.csv").write_text(text)
    said = refusal(LabelsMismatch, tmp_path, made_scenario(private=False), data)
    assert "left" in said


def test_one_class_only(tmp_path: Path) -> None:
    data = pictures(tmp_path / "pictures")
    lines = (data / "index.csv").read_text().splitlines()
    (data / "index.csv").write_text("\n".join([lines[0], *(line for line in lines[1:] if line.split(",")[1] == "1")]) + "\n")
    said = refusal(LabelsMismatch, tmp_path, made_scenario(private=False), data)
    assert "right" in said


def test_too_few_patients_for_the_sites(tmp_path: Path) -> None:
    played = made_scenario(private=False).with_changes(sites=30)
    said = refusal(TooFewPatients, tmp_path, played, pictures(tmp_path / "pictures"))
    assert "30 sites" in said


def test_too_few_patients_for_the_batch(tmp_path: Path) -> None:
    played = made_scenario(private=True, change=("batch = 8", "batch = 800"))
    said = refusal(TooFewPatients, tmp_path, played, pictures(tmp_path / "pictures"))
    assert "site 'site_00'" in said
    assert "800" in said
    assert "batch" in said


def test_an_epsilon_that_no_noise_reaches(tmp_path: Path) -> None:
    played = made_scenario(private=True, change=("epsilon = 8", "epsilon = 0.0001"))
    said = refusal(EpsilonImpossible, tmp_path, played, pictures(tmp_path / "pictures"))
    assert "epsilon 0.0001" in said
    assert "or more" in said


def test_no_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pictures(tmp_path / "pictures")
    usage = type("usage", (), {"total": 100, "used": 99, "free": 1})()
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    said = refusal(DiskFull, tmp_path, made_scenario(private=False), data)
    assert "free" in said.lower()


def test_a_run_folder_that_is_taken(tmp_path: Path) -> None:
    data = pictures(tmp_path / "pictures")
    stage(tmp_path, made_scenario(private=False), data)
    assert "--resume" in refusal(RunFolderTaken, tmp_path, made_scenario(private=False), data)


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match="holds no run to resume"):
        find_stage(tmp_path)


def test_a_plan_that_does_not_ship(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match="there is no plan 'ct-long'") as caught:
        scenario.find("ct-long")
    assert "ct-lung" in caught.value.fix


@pytest.mark.parametrize(
    ("old", "new", "kind", "says"),
    [
        ("sites = 4", "site = 4", PlanUnknownKey, "Did you mean 'sites'"),
        ("sites = 4", "sites = 0", PlanValue, "sites"),
        ('partition = "iid"', 'partition = "random"', PlanValue, "partition"),
        ('partition = "iid"', 'partition = "dirichlet"', PlanConflict, "needs an alpha"),
        ("folds = 4", "folds = 4\nfold = 4", PlanConflict, "does not exist"),
        ("folds = 4", "folds = 4\nalpha = 1", PlanConflict, "dirichlet alone"),
    ],
)
def test_a_malformed_simulation_is_refused_with_its_line(old: str, new: str, kind: type[FedwardError], says: str) -> None:
    with pytest.raises(FedwardError, match=r"line \d+") as caught:
        scenario.parse(PLAN.format(privacy=OPEN).replace(old, new))
    assert type(caught.value) is kind
    assert says in str(caught.value)


@pytest.mark.parametrize("text", ["north", "north:sulk:3", "north:raise:three", ":raise:3"])
def test_a_fault_that_is_none(text: str) -> None:
    with pytest.raises(PlanValue, match="SITE:KIND:ROUND"):
        parse_faults([text])


def fedward(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FEDWARD_CACHE": str(cwd / "cache"), "COLUMNS": "200"}
    command = [sys.executable, "-m", "fedward", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_the_command_says_it_in_words_and_in_json(tmp_path: Path) -> None:
    words = fedward("plan", "check", "nowhere", cwd=tmp_path)
    assert words.returncode == 1
    assert "E_DATA_NOT_FOUND: there is no plan 'nowhere'." in words.stderr
    assert "Traceback" not in words.stderr
    machine = fedward("plan", "check", "nowhere", "--json", cwd=tmp_path)
    assert machine.returncode == 1
    assert json.loads(machine.stdout)["error"]["code"] == "E_DATA_NOT_FOUND"


def test_an_exception_that_nobody_foresaw_is_told_without_its_text(tmp_path: Path) -> None:
    """Python names the path in its own words, and a path may be a patient's name."""
    said = fedward("plan", "new", "Doe^Jane/mine.toml", cwd=tmp_path)
    assert said.returncode == 1
    assert "E_UNFORESEEN: FileNotFoundError at " in said.stderr
    assert "simulations/plan_cli.py" in said.stderr
    assert not any(word in said.stderr for word in ("Traceback", "Doe", "directory"))


def test_an_image_for_a_plan(tmp_path: Path) -> None:
    (tmp_path / "image.toml").write_bytes(bytes(range(256)))
    with pytest.raises(PlanSyntax, match="not UTF-8 text"):
        scenario.load(tmp_path / "image.toml")


def test_flower_reports_to_nobody() -> None:
    script = "import fedward; from flwr.supercore import telemetry; print(telemetry.FLWR_TELEMETRY_ENABLED)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLWR_")}
    said = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "0"


def test_a_new_plan_is_complete_and_passes_its_own_check(tmp_path: Path) -> None:
    assert fedward("plan", "new", "mine.toml", cwd=tmp_path).returncode == 0
    checked = fedward("plan", "check", "mine.toml", "--json", cwd=tmp_path)
    assert json.loads(checked.stdout)["ok"] is True
    shown = fedward("plan", "show", "mine.toml", cwd=tmp_path)
    assert "for each patient with all their images" in " ".join(shown.stdout.split())
    again = fedward("plan", "new", "mine.toml", cwd=tmp_path)
    assert "E_RUN_FOLDER" in again.stderr


def test_every_plan_that_ships_is_accepted() -> None:
    plans = sorted(scenario.PLANS.glob("*.toml"))
    assert {"ct-lung", "default"} <= {path.stem for path in plans}
    for path in plans:
        scenario.load(path)


def test_the_journeys_own_plan_is_private_when_it_says_so() -> None:
    assert scenario.parse(PLAN.format(privacy=PRIVATE)).plan.is_private
    assert np.isclose(scenario.parse(PLAN.format(privacy=PRIVATE)).plan.privacy.epsilon or 0, 8)
