# SPDX-License-Identifier: Apache-2.0
"""Images that are shown together: in their order, evenly many, with one truth; and rows that have no image at all."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.imaging import cases, inventory, manifest
from client.imaging.dataset import Dataset, Images
from client.imaging.identity import load_or_create
from client.imaging.intake import DataSource, open_dataset
from client.imaging.prepared import load_prepared, save_prepared
from client.imaging.rejection import Reason
from common.errors import LabelsMismatch, SnapshotMismatch
from common.plan import Plan, parse

PLAN = """\
[plan]
name = "cases"
purpose = "a test"
[input]
{input}
[task]
kind = "{kind}"
classes = ["a", "b"]
[model]
{model}
[training]
rounds = 1
local_steps = 1
batch = 1
learning_rate = 0.1
[privacy]
unit = "none"
[aggregation]
"""
SEQUENCE = 'modality = "any"\nheight = 8\nwidth = 8\nsequence = 3', 'family = "sequence"\nhow = "gru"'
RECORD = 'modality = "none"\n[[input.record]]\ncolumn = "age"\nmean = 50.0\nstd = 10.0', 'family = "mlp"'
TEXT = 'modality = "none"\n[input.text]\nbuckets = 64\nlength = 4', 'family = "text"'


def plan_of(given: tuple[str, str], kind: str = "classification") -> Plan:
    return parse(PLAN.format(input=given[0], model=given[1], kind=kind))


def folder_of(root: Path, rows: list[dict[str, object]]) -> Path:
    """An index, and for each row with a file a picture as bright as its column `light`."""
    root.mkdir()
    for row in rows:
        if "file" in row:
            Image.fromarray(np.full((8, 8), row["light"], dtype=np.uint8)).save(root / str(row["file"]))
    with (root / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root


def opened(root: Path, plan: Plan) -> Dataset:
    key = load_or_create(root.parent / "patient.key")
    return open_dataset(DataSource(root=root), plan, cache=root.parent / "cache", key=key, workers=1)[0]


def visit(patient: str, case: str, day: float, light: int, **cells: object) -> dict[str, object]:
    return {
        "file": f"{patient}-{case}-{day}.png",
        "patient_id": patient,
        "case": case,
        "position": day,
        "light": light,
        "label": 0 if patient == "p" else 1,
        **cells,
    }


VISITS = [visit("p", "1", 9, 90), visit("p", "1", 2.5, 20), visit("q", "1", 1, 11), visit("p", "1", 30, 200), visit("p", "1", 4, 40)]


def test_a_case_is_shown_in_its_order_and_evenly(tmp_path: Path) -> None:
    data = opened(folder_of(tmp_path / "data", [*VISITS, visit("p", "2", 1, 7)]), plan_of(SEQUENCE))
    shown = [tuple(int(value) // 257 for value in row[:, 0, 0, 0]) for row in data.images[:]]
    assert data.images.shape == (3, 3, 1, 8, 8)
    assert sorted(shown) == [(7, 7, 7), (11, 11, 11), (20, 90, 200)]
    assert [data.patient_keys[patient] for patient in data.patients].count(data.patient_keys[data.patients[shown.index((7, 7, 7))]]) == 2


def test_images_of_a_case_lie_in_the_cache_and_are_read_when_they_are_wanted(tmp_path: Path) -> None:
    data = opened(folder_of(tmp_path / "data", VISITS), plan_of(SEQUENCE))
    assert isinstance(data.images.base, np.memmap) or isinstance(data.images.base.base, np.memmap)
    assert len(data.images.base) == len(VISITS)
    assert data.images.nbytes == data.images[:].nbytes == np.asarray(data.images).nbytes
    part = data.subset(np.array([1]))
    assert np.array_equal(part.images[0], data.images[1])


@pytest.mark.parametrize("change", [{"label": 1}, {"split": "test"}, {"site": "south"}])
def test_images_of_one_case_that_disagree_are_refused(change: dict[str, object], tmp_path: Path) -> None:
    rows = [{**row, "split": "train", "site": "north"} for row in VISITS]
    rows[3] |= change
    with pytest.raises(LabelsMismatch, match="1 of 2 cases"):
        opened(folder_of(tmp_path / "data", rows), plan_of(SEQUENCE))


def test_findings_of_one_case_that_disagree_are_refused(tmp_path: Path) -> None:
    rows = [{**row, "a": 1, "b": 0} for row in VISITS]
    plan = plan_of(SEQUENCE, "multi-label")
    assert opened(folder_of(tmp_path / "alike", rows), plan).parts["findings"].shape == (2, 2)
    rows[0]["b"] = ""
    with pytest.raises(LabelsMismatch, match="1 of 2 cases"):
        opened(folder_of(tmp_path / "apart", rows), plan)


def test_a_record_and_a_text_need_no_image_on_the_whole_way_to_a_snapshot(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"patient_id": "p", "age": 60, "text": "No fever.", "label": 0},
        {"patient_id": "p", "age": "", "text": "", "label": 1},
        {"patient_id": "q", "age": 40, "text": "Fever, cough, and more", "label": 1},
        {"patient_id": "", "age": 40, "text": "nobody's", "label": 1},
        {"patient_id": "r", "age": 40, "text": "not labelled", "label": ""},
    ]
    for name, given, part in (("record", RECORD, "record"), ("text", TEXT, "tokens")):
        data = opened(folder_of(tmp_path / name, rows), plan_of(given))
        assert data.images.shape == (3, 0)
        assert data.num_patients == 2
        save_prepared(data, tmp_path / f"prepared {name}")
        again, kept = load_prepared(tmp_path / f"prepared {name}"), manifest.read(tmp_path / f"prepared {name}")
        assert np.array_equal(again.parts[part][:], data.parts[part][:])
        manifest.check(again, kept, pixels=True)
        changed = again.parts[part][:].copy()
        changed[0, 0] += 1
        forged = Dataset(**{**fields(again), "parts": {part: Images(changed, np.arange(3))}})
        with pytest.raises(SnapshotMismatch):
            manifest.check(forged, kept, pixels=True)


def fields(data: Dataset) -> dict[str, object]:
    return {name: getattr(data, name) for name in Dataset.__dataclass_fields__}


def test_rows_without_an_image_are_accounted_for(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"patient_id": "p", "age": 60, "label": 0}, {"patient_id": "q", "age": 1, "label": 1}]
    rows += [{"patient_id": "", "age": 60, "label": 0}, {"patient_id": "s", "age": 60, "label": ""}]
    key = load_or_create(tmp_path / "patient.key")
    source = DataSource(root=folder_of(tmp_path / "data", rows))
    _, report = open_dataset(source, plan_of(RECORD), cache=tmp_path / "cache", key=key, workers=1)
    assert (report.seen, report.used) == (4, 2)
    assert {reason.value: count for reason, count in report.rejected.items()} == {"E_NO_LABEL": 1, "E_NO_PATIENT_ID": 1}


def test_files_of_several_frames_are_cases_and_others_are_by_series() -> None:
    items, series = ["a", "b", "c", "c", "d"], ["s", "s", "s", "s", "t"]
    found = cases.by_series("ppppp", items, series, [2.0, 1.0, 7.0, 6.0, None])
    assert [rows.tolist() for rows in found] == [[1, 0], [3, 2], [4]]


def test_images_without_a_place_stay_in_the_order_in_which_they_came() -> None:
    found = cases.by_series("ppp", ["a", "b", "c"], ["s", "s", "s"], [None, 0.0, None])
    assert [rows.tolist() for rows in found] == [[1, 0, 2]]


def test_a_series_number_that_two_patients_share_makes_no_case_of_both() -> None:
    found = cases.by_series("pqp", ["a", "b", "c"], ["s", "s", "s"], [2.0, 1.0, 0.0])
    assert [rows.tolist() for rows in found] == [[2, 0], [1]]


def series_folder(root: Path, ct: Callable[..., bytes], *, slices: int = 5) -> tuple[Path, dict[str, list[str]]]:
    """Two patients with a series each, names in no order, every slice as bright as it lies high; and which UIDs each has."""
    root.mkdir()
    rng, uids = np.random.default_rng(0), dict[str, list[str]]()
    for number, patient in enumerate(("Ada", "Bea")):
        for place in rng.permutation(slices).tolist():
            uid = f"1.2.3.{number}.{place}"
            uids.setdefault(patient, []).append(uid)
            content = ct(
                np.arange(256, dtype=np.uint16).reshape(16, 16) // 8 + np.uint16(100 * place),
                PatientID=patient,
                SOPInstanceUID=uid,
                SeriesInstanceUID=f"1.2.3.{number}",
                ImagePositionPatient=[0, 0, 5.0 * place],
                ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                WindowCenter="500",
                WindowWidth="1000",
            )
            (root / f"{rng.integers(1 << 30)}.dcm").write_bytes(content)
    return root, uids


def labelled(root: Path, label_of: dict[str, int]) -> Path:
    lines = "".join(f"{uid},{label}\n" for uid, label in label_of.items())
    (root / "labels.csv").write_text(f"sop_instance_uid,label\n{lines}")
    return root


def test_a_series_of_dicom_files_is_a_case_in_the_order_of_its_positions(tmp_path: Path, ct: Callable[..., bytes]) -> None:
    root, uids = series_folder(tmp_path / "data", ct)
    labelled(root, {uid: number for number, of_one in enumerate(uids.values()) for uid in of_one})
    plan = replace(plan_of(SEQUENCE), input=replace(plan_of(SEQUENCE).input, modality="CT"))
    key = load_or_create(tmp_path / "patient.key")
    data, report = open_dataset(DataSource(root=root), plan, cache=tmp_path / "cache", key=key, workers=1)
    assert (report.seen, report.used, report.rejected, report.cases) == (10, 6, {Reason.NOT_SHOWN: 4}, 2)
    taken = inventory.take(root, plan, workers=1)
    assert taken.report == report
    assert taken.findings.images == np.unique(data.images.rows).size == 6
    assert sum(row.reason is None for row in taken.rows) == 6
    assert data.images.shape == (2, 3, 1, 8, 8)
    assert data.num_patients == 2
    for case in data.images[:]:
        lowest, middle, highest = case[:, 0, 4, 4].astype(int)
        assert lowest < middle < highest
        assert middle - lowest == pytest.approx(highest - middle, abs=2)
    assert sorted(data.labels.tolist()) == [0, 1]


def test_of_a_long_cine_the_frames_that_are_shown_are_counted_and_of_short_cases_every_picture(
    tmp_path: Path, ct: Callable[..., bytes]
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    rng = np.random.default_rng(3)
    for number, frames in enumerate((7, 2)):
        values = rng.integers(0, 4096, (frames * 16, 16), dtype=np.uint16)
        (root / f"{number}.dcm").write_bytes(
            ct(values, Rows=16, NumberOfFrames=frames, PatientID=f"P{number}", SOPInstanceUID=f"1.{number}")
        )
    (root / "labels.csv").write_text("sop_instance_uid,label\n1.0,0\n1.1,1\n")
    plan = replace(plan_of(SEQUENCE), input=replace(plan_of(SEQUENCE).input, modality="CT", frames="each"))
    key = load_or_create(tmp_path / "patient.key")
    _, report = open_dataset(DataSource(root=root), plan, cache=tmp_path / "cache", key=key, workers=1)
    assert (report.used, report.images, report.unshown, report.cases, report.rejected) == (2, 5, 4, 2, {})
    assert inventory.take(root, plan, workers=1).report == report
    assert any("5 images" in line and "4 that the plan's [input] sequence passes over" in line for line in report.lines())


def test_pictures_of_a_case_that_are_not_shown_have_their_reason(tmp_path: Path) -> None:
    rows = [visit("p", "1", number, 10 * number) for number in range(1, 8)] + [visit("q", "1", number, 50) for number in (1, 2)]
    root = folder_of(tmp_path / "data", rows)
    key = load_or_create(tmp_path / "patient.key")
    data, report = open_dataset(DataSource(root=root), plan_of(SEQUENCE), cache=tmp_path / "cache", key=key, workers=1)
    assert (report.seen, report.used, report.rejected, len(data)) == (9, 5, {Reason.NOT_SHOWN: 4}, 2)
    taken = inventory.take(root, plan_of(SEQUENCE), workers=1)
    assert taken.report == report
    assert [row.path for row in taken.rows if row.reason] == [f"p-1-{number}.png" for number in (2, 3, 5, 6)]


def test_slices_of_one_series_that_are_labelled_apart_are_no_case(tmp_path: Path, ct: Callable[..., bytes]) -> None:
    root, uids = series_folder(tmp_path / "data", ct)
    labelled(root, {uid: number % 2 for of_one in uids.values() for number, uid in enumerate(of_one)})
    plan = replace(plan_of(SEQUENCE), input=replace(plan_of(SEQUENCE).input, modality="CT"))
    with pytest.raises(LabelsMismatch, match="labels: 2 of 2 cases"):
        inventory.take(root, plan, workers=1)
    with pytest.raises(LabelsMismatch, match="labels: 2 of 2 cases") as caught:
        opened(root, plan)
    assert "Ada" not in str(caught.value)


def test_a_second_image_that_cannot_be_read_is_missing_and_told(tmp_path: Path) -> None:
    given = 'modality = "any"\nheight = 8\nwidth = 8\nsecond = { modality = "any" }', 'family = "fusion"\nhow = "late"'
    rows = [visit("p", "1", 1, 50, second_file="p-1-2.png"), visit("q", "1", 1, 60, second_file="broken.png")]
    rows += [visit("q", "1", 2, 60, second_file=""), visit("p", "1", 2, 70, second_file="")]
    root = folder_of(tmp_path / "data", rows)
    (root / "broken.png").write_bytes(b"no picture")
    key = load_or_create(tmp_path / "patient.key")
    data, report = open_dataset(DataSource(root=root), plan_of(given), cache=tmp_path / "cache", key=key, workers=1)
    assert data.parts["present"][:].sum() == 1
    assert report.as_dict()["lost_second_images"] == 1
    assert any("1 second images" in line for line in report.lines())
