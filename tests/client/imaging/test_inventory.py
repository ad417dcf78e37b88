# SPDX-License-Identifier: Apache-2.0
"""Every file of a folder has its row, its verdict is the intake's, and nothing of it is printed."""

import csv
import gzip
import hashlib
import json
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom import uid
from typer.testing import CliRunner

from client.cli import app
from client.imaging import inventory, inventory_file, pixels
from client.imaging.examination import examine
from client.imaging.identity import PatientSecret
from client.imaging.intake import DataSource, open_dataset
from client.imaging.rejection import REMEDY, Reason
from client.imaging.rows import Inventory, Row, inventory_of
from client.imaging.worker import Brief, Limits
from common.errors import DataNotFound, LabelsMismatch
from common.plan import DetectionSpec, Plan, RestorationSpec, SegmentationSpec, dump

Ct = Callable[..., bytes]
Hospital = Callable[..., Path]
Plans = Callable[..., Plan]


@pytest.fixture
def messy(hospital: Hospital, ct: Ct, tmp_path: Path) -> Path:
    """A folder as hospitals have them."""
    root = hospital(patients=4, slices=2)
    labelled = [line.split(",")[0] for line in (root / "labels.csv").read_text().splitlines()[1:]]
    (root / "notes.txt").write_text("Doe, Jane")
    (root / "empty.dcm").write_bytes(b"")
    (root / "nobody.dcm").write_bytes(ct(PatientID="ANONYMOUS"))
    (root / "mr.dcm").write_bytes(ct(Modality="MR"))
    (root / "unlabelled.dcm").write_bytes(ct())
    (root / "zz_copy.dcm").write_bytes(ct(np.eye(8, dtype=np.uint16), SOPInstanceUID=labelled[0]))
    (root / "loop.dcm").write_bytes(ct(Rows=20, NumberOfFrames=2, SOPInstanceUID="1.7"))
    (root / "burned.dcm").write_bytes(ct(BurnedInAnnotation="YES", SOPInstanceUID="1.8"))
    (root / "=cmd.dcm").write_bytes(ct(np.zeros((8, 8), dtype=np.uint16), SOPInstanceUID="1.9"))
    (root / "link.dcm").symlink_to(tmp_path)
    (root / "DICOMDIR").write_bytes(b"")
    with (root / "labels.csv").open("a") as file:
        file.write("1.7,normal\n1.8,normal\n1.9,normal\n1.2.3.4.5,normal\n")
    return root


def take(root: Path, plan: Plan, **options: Any) -> Inventory:
    return inventory.take(root, plan, workers=1, **options)


def written(taken: Inventory, path: Path) -> dict[str, dict[str, str]]:
    inventory_file.write(taken, path)
    with path.open(encoding="utf-8", newline="") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def test_the_verdict_on_every_file_is_the_intakes(messy: Path, plan_for: Plans, secret: PatientSecret, tmp_path: Path) -> None:
    taken = take(messy, plan_for())
    _, report = open_dataset(DataSource(root=messy), plan_for(), cache=tmp_path / "cache", key=secret, workers=1)
    assert taken.report == report
    assert taken.report.seen == len(taken.rows) == 19
    assert Counter(row.reason for row in taken.rows if row.reason) == report.rejected
    assert report.rejected[Reason.BURNED_IN] == report.rejected[Reason.MULTIFRAME] == report.rejected[Reason.DUPLICATE] == 1
    assert taken.findings.patients == 4


def test_the_list_names_each_file_with_what_was_decoded_of_it(messy: Path, plan_for: Plans, tmp_path: Path, ct: Ct) -> None:
    rows = written(take(messy, plan_for()), tmp_path / "list.csv")
    assert stat.S_IMODE((tmp_path / "list.csv").stat().st_mode) == 0o600
    assert len(rows) == 19
    pixels = np.random.default_rng(4).integers(0, 4096, (16, 12), dtype=np.uint16)  # the first that the fixture drew
    first = rows["series/0000_0.dcm"]
    assert (first["status"], first["reason"], first["shape"]) == ("used", "", "16x12")
    assert first["sha256"] == hashlib.sha256(pixels.tobytes()).hexdigest()
    assert (rows["mr.dcm"]["status"], rows["mr.dcm"]["reason"]) == ("rejected", "E_MODALITY")
    assert rows["mr.dcm"]["sha256"], "what is not used is told as well, if it decodes"
    assert rows["notes.txt"]["sha256"] == ""
    assert "./=cmd.dcm" in rows
    assert {row["patient"] for row in rows.values() if row["status"] == "used"} == {"1", "2", "3", "4"}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("name", ["=cmd", "\t=cmd", "\r\n=cmd", " +cmd", "a;=cmd", "a\t@cmd", "a,-cmd", 'a";=cmd'])
def test_no_file_is_named_so_that_a_spreadsheet_calculates(name: str, delimiter: str, tmp_path: Path) -> None:
    """Whichever sign the spreadsheet of a country takes for the end of a cell."""
    rows = [Row(path=name, reason=Reason.NOT_DICOM)]
    inventory_file.write(inventory_of(rows, has_labels=False, unmatched=0), tmp_path / "list.csv")
    with (tmp_path / "list.csv").open(encoding="utf-8", newline="") as file:
        cells = [cell for row in csv.reader(file, delimiter=delimiter) for cell in row]
    assert any("cmd" in cell for cell in cells)
    assert not [cell for cell in cells if cell.strip().startswith(("=", "+", "-", "@"))]


def test_a_list_for_programs_has_an_example_and_a_remedy_for_each_reason(messy: Path, plan_for: Plans, tmp_path: Path) -> None:
    taken = take(messy, plan_for())
    inventory_file.write(taken, tmp_path / "list.json")
    found = json.loads((tmp_path / "list.json").read_text())
    assert len(found["files"]) == taken.report.seen
    assert {each["reason"]: each["count"] for each in found["examples"]} == taken.report.rejected
    for each in found["examples"]:
        assert each["remedy"] == REMEDY[Reason(each["reason"])]
        assert next(row for row in found["files"] if row["path"] == each["example"])["reason"] == each["reason"]


def test_no_identifier_is_in_the_list(messy: Path, plan_for: Plans, tmp_path: Path) -> None:
    inventory_file.write(take(messy, plan_for()), tmp_path / "list.csv")
    text = (tmp_path / "list.csv").read_text()
    for word in ("MRN-", "NORTH", "1.2.826", "Doe"):
        assert word not in text


def test_without_labels_files_are_examined_as_if_each_had_one(messy: Path, plan_for: Plans) -> None:
    (messy / "labels.csv").unlink()
    taken = take(messy, plan_for())
    assert not taken.has_labels
    assert taken.report.used == 9
    assert Reason.NO_LABEL not in taken.report.rejected


def test_the_sites_policy_may_accept_what_is_burned_in(messy: Path, plan_for: Plans) -> None:
    taken = take(messy, plan_for(), accept_burned_in=True)
    assert taken.report.used == 9
    assert Reason.BURNED_IN not in taken.report.rejected


def test_one_id_under_two_issuers_is_reported(ct: Ct, plan_for: Plans, tmp_path: Path) -> None:
    for name, issuer in (("a", "NORTH"), ("b", "SOUTH"), ("c", "NORTH"), ("d", "")):
        patient = "17" if name in "ab" else f"9{name}"
        (tmp_path / f"{name}.dcm").write_bytes(ct(PatientID=patient, IssuerOfPatientID=issuer))
    taken = take(tmp_path, plan_for())
    assert (taken.findings.patients, taken.findings.under_two_issuers) == (4, 2)
    assert [row.note for row in taken.rows] == ["PatientID stands under 2 issuers"] * 2 + [""] * 2


def test_gaps_and_copies_in_a_series_are_counted(ct: Ct, plan_for: Plans, tmp_path: Path) -> None:
    for number, place in enumerate([0, 5, 5, 10, 25, 30]):
        geometry = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0, 0, place], "SeriesInstanceUID": "1.5"}
        (tmp_path / f"{number}.dcm").write_bytes(ct(**geometry))
    (tmp_path / "6.dcm").write_bytes(ct(SeriesInstanceUID="1.6"))
    found = take(tmp_path, plan_for()).findings
    assert (found.series, found.series_with_gaps, found.missing_slices, found.duplicate_slices) == (2, 1, 2, 1)


def test_pictures_are_accounted_for_by_their_index(plan_for: Plans, tmp_path: Path) -> None:
    Image.fromarray(np.arange(144, dtype=np.uint8).reshape(12, 12)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    (tmp_path / "index.csv").write_text("file,label,patient_id\na.png,0,P1\nb.png,1,P2\nc.png,1,P3\nd.png,1,unknown\n")
    taken = take(tmp_path, plan_for(modality="any"))
    assert (taken.report.seen, taken.report.used) == (4, 1)
    assert taken.report.rejected == {Reason.NOT_A_PICTURE: 1, Reason.NO_FILE: 1, Reason.NO_PATIENT_ID: 1}


def test_rows_of_an_archive_are_there_or_not(plan_for: Plans, tmp_path: Path) -> None:
    np.savez(tmp_path / "images.npz", images=np.arange(288, dtype=np.uint16).astype(np.uint8).reshape(2, 12, 12))
    (tmp_path / "index.csv").write_text("row,label,patient_id\n0,0,P1\n1,1,P2\n2,1,P3\n")
    assert take(tmp_path, plan_for(modality="any")).report.rejected == {Reason.NO_FILE: 1}


def test_a_picture_without_the_mask_that_its_plan_asks_for_is_counted(plan_for: Plans, secret: PatientSecret, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for name in ("a", "b", "c"):
        Image.fromarray(np.arange(144, dtype=np.uint8).reshape(12, 12)).save(root / f"{name}.png")
    Image.fromarray(np.eye(12, dtype=np.uint8)).save(root / "mask.png")
    (root / "index.csv").write_text("file,mask_file,patient_id\na.png,mask.png,P1\nb.png,absent.png,P2\nc.png,,P3\n")
    plan = replace(plan_for(modality="any"), task=SegmentationSpec(kind="segmentation", classes=("background", "lesion")))
    taken = take(root, plan)
    _, report = open_dataset(DataSource(root=root), plan, cache=tmp_path / "cache", key=secret, workers=1)
    assert taken.report.rejected == report.rejected
    assert taken.report.used == report.used == 1


def same_verdicts(root: Path, plan: Plan, secret: PatientSecret, cache: Path) -> Mapping[Reason, int]:
    """What both say of a folder: before anyone trains, and when somebody does."""
    taken = take(root, plan)
    _, report = open_dataset(DataSource(root=root), plan, cache=cache, key=secret, workers=1)
    assert (taken.report.seen, taken.report.used, taken.report.rejected) == (report.seen, report.used, report.rejected)
    assert report.seen == report.used + sum(report.rejected.values())
    return report.rejected


def picture(path: Path, values: np.ndarray | None = None) -> None:
    Image.fromarray(np.arange(144, dtype=np.uint8).reshape(12, 12) if values is None else values).save(path)


def test_what_dicom_files_cannot_say_is_refused_by_both_before_anything_is_read(
    hospital: Hospital, plan_for: Plans, secret: PatientSecret, tmp_path: Path
) -> None:
    root = hospital(patients=2)
    (root / "labels.csv").unlink()
    plan = replace(plan_for(), task=RestorationSpec(kind="restoration", degradation="noise", strength=0.1))
    with pytest.raises(LabelsMismatch, match="cannot be said of DICOM files"):
        take(root, plan)
    with pytest.raises(LabelsMismatch, match="cannot be said of DICOM files"):
        open_dataset(DataSource(root=root), plan, cache=tmp_path / "cache", key=secret, workers=1)


def test_a_long_cine_of_which_the_plan_takes_one_frame_is_not_timed_out_by_its_hash(ct: Ct, plan_for: Plans, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 4096, (200, 256, 256), dtype=np.uint16)
    (tmp_path / "cine.dcm").write_bytes(ct(frames.reshape(-1, 256), Rows=256, NumberOfFrames=200))
    taken = take(tmp_path, plan_for(frames="first"), limits=Limits(cpu_seconds=2.0))
    [row] = taken.rows
    assert row.reason is None
    assert ("sha256" in row.facts) != ("unhashed" in row.facts)


def test_a_picture_that_no_row_names_is_counted(plan_for: Plans, secret: PatientSecret, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "more").mkdir(parents=True)
    for name in ("a.png", "b.PNG", "d.png", "more/c.jpg"):
        picture(root / name)
    (root / "notes.txt").write_text("no picture")
    (root / "boxes.csv").write_text("part of the index")
    (root / "link.png").symlink_to(root / "a.png")
    (root / "index.csv").write_text("file,label,patient_id\na.png,0,P1\nb.PNG,,P2\nd.png,1,P3\nscan.tiff,1,P3\n")
    (root / "scan.tiff").write_bytes(b"II*\0")
    rejected = same_verdicts(root, plan_for(modality="any"), secret, tmp_path / "cache")
    assert rejected == {Reason.NO_LABEL: 1, Reason.NOT_LISTED: 2, Reason.LINK: 1, Reason.NOT_A_PICTURE: 1}


def test_one_picture_makes_an_index_one_of_pictures_wherever_its_row_stands(plan_for: Plans, tmp_path: Path) -> None:
    others = "".join(f"scan-{number}.tiff,0,P1\n" for number in range(150))
    picture(tmp_path / "a.png")
    (tmp_path / "index.csv").write_text(f"file,label,patient_id\n{others}a.png,0,P1\n")
    taken = take(tmp_path, plan_for(modality="any"))
    assert (taken.report.used, taken.report.rejected) == (1, {Reason.NO_FILE: 150})


def test_the_list_has_shape_and_hash_of_pictures_and_volumes(plan_for: Plans, tmp_path: Path) -> None:
    rng, root = np.random.default_rng(5), tmp_path / "root"
    root.mkdir()
    values = {"grey.png": rng.integers(0, 256, (9, 7), dtype=np.uint8), "deep.png": rng.integers(0, 65536, (9, 7), dtype=np.uint16)}
    values["colour.png"] = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
    for name, stored in values.items():
        picture(root / name, stored)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(values["grey.png"]).save(root / "turned.jpg", exif=exif)
    volume = nibabel.Nifti1Image(rng.integers(0, 99, (4, 5, 6), dtype=np.int16), np.diag([-1.0, 1, 1, 1])).to_bytes()
    (root / "packed.nii.gz").write_bytes(gzip.compress(volume))
    with Image.open(root / "turned.jpg") as jpeg:
        expected = {
            name: hashlib.sha256(pixels.tobytes()).hexdigest() for name, pixels in {**values, "turned.jpg": np.asarray(jpeg)}.items()
        }
    expected["packed.nii.gz"] = hashlib.sha256(volume[352:]).hexdigest()
    (root / "index.csv").write_text("file,label,patient_id\n" + "".join(f"{name},0,P1\n" for name in expected))
    rows = written(take(root, plan_for(modality="any", frames="each")), tmp_path / "list.csv")
    assert {name: row["sha256"] for name, row in rows.items()} == expected
    assert [rows[name]["shape"] for name in ("colour.png", "turned.jpg", "packed.nii.gz")] == ["9x7x3", "9x7", "6x5x4"]


@pytest.mark.parametrize(("frames", "decoded"), [("single", 3), ("first", 3), ("middle", 4), ("each", 3)])
def test_no_frame_is_decoded_twice_but_the_middle_one(
    ct: Ct, plan_for: Plans, monkeypatch: pytest.MonkeyPatch, frames: str, decoded: int
) -> None:
    seen: list[int] = []
    decode_frames = pixels.decode_frames

    def counting(dataset: Any, claims: Any, wanted: Sequence[int]) -> Iterator[Any]:
        for frame, stored in zip(wanted, decode_frames(dataset, claims, wanted), strict=True):
            seen.append(frame)
            yield stored

    monkeypatch.setattr(pixels, "decode_frames", counting)
    values = np.random.default_rng(0).integers(0, 4096, (3 * 16, 16), dtype=np.uint16)
    brief = Brief(kind="inventory", input=plan_for(frames=frames).input, limits=Limits(), wanted=None)
    facts = examine(ct(values, Rows=16, NumberOfFrames=3), brief)
    assert facts["sha256"] == hashlib.sha256(values.tobytes()).hexdigest()
    assert (sorted(set(seen)), len(seen)) == ([0, 1, 2], decoded)


@pytest.mark.parametrize(("classes", "rejected"), [(3, {Reason.MASK_VALUES: 1}), (2, {})])
def test_a_mask_of_other_classes_is_counted_unless_there_is_but_one_thing_to_find(
    plan_for: Plans, secret: PatientSecret, tmp_path: Path, classes: int, rejected: dict[Reason, int]
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for name in ("a.png", "b.png"):
        picture(root / name)
    picture(root / "ma.png", np.eye(12, dtype=np.uint8) * 2)
    picture(root / "mb.png", np.eye(12, dtype=np.uint8) * 7)
    (root / "index.csv").write_text("file,mask_file,patient_id\na.png,ma.png,P1\nb.png,mb.png,P2\n")
    task = SegmentationSpec(kind="segmentation", classes=("background", "lesion", "organ")[:classes])
    assert same_verdicts(root, replace(plan_for(modality="any"), task=task), secret, tmp_path / "cache") == rejected


@pytest.mark.parametrize(
    ("boxes", "rejected"),
    [
        (["b.png,cell,1,1,5,5"], {}),
        (["b.png,cell,20,20,30,30"], {Reason.BOXES: 1}),
        (["b.png,cell,-9,-9,5,5"], {}),
        (["b.png,cell,1,1,5,5"] * 3, {Reason.BOXES: 1}),
    ],
)
def test_boxes_that_training_could_not_be_given_are_counted_and_never_bent(
    plan_for: Plans, secret: PatientSecret, tmp_path: Path, boxes: list[str], rejected: dict[Reason, int]
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for name in ("a.png", "b.png"):
        picture(root / name)
    (root / "index.csv").write_text("file,width,height,patient_id\na.png,12,12,P1\nb.png,12,12,P2\n")
    (root / "boxes.csv").write_text("\n".join(["file,cls,x_min,y_min,x_max,y_max", "a.png,cell,1,1,5,5", *boxes]) + "\n")
    task = DetectionSpec(kind="detection", classes=("cell",), most_boxes=2)
    assert same_verdicts(root, replace(plan_for(modality="any"), task=task), secret, tmp_path / "cache") == rejected


def test_a_list_of_dicom_files_beside_labels_is_no_index_for_training_either(
    hospital: Hospital, plan_for: Plans, secret: PatientSecret, tmp_path: Path
) -> None:
    root = hospital(patients=4, slices=2)
    files = sorted(path.relative_to(root) for path in root.rglob("*.dcm"))
    (root / "index.csv").write_text("\n".join(["file,remark", *(f"{file},fine" for file in files)]) + "\n")
    rejected = same_verdicts(root, plan_for(), secret, tmp_path / "cache")
    assert rejected == {Reason.NOT_DICOM: 1}, "the list itself"


def test_somebodys_list_of_dicom_files_is_no_index_of_pictures(ct: Ct, plan_for: Plans, tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(ct())
    (tmp_path / "index.csv").write_text("file,remark\na.dcm,fine\n")
    taken = take(tmp_path, plan_for())
    assert (taken.report.used, taken.report.rejected) == (1, {Reason.NOT_DICOM: 1})


def test_a_folder_that_is_not_there_is_said(plan_for: Plans, tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match="does not exist"):
        take(tmp_path / "absent", plan_for())


def test_the_command_prints_counts_and_nothing_else(messy: Path, plan_for: Plans, tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(dump(plan_for()))
    common = ["check-data", str(messy), "--plan", str(plan), "--workers", "1"]
    people = CliRunner().invoke(app, [*common, "--report", str(tmp_path / "list.csv")])
    assert people.exit_code == 0
    assert "19 files seen: 8 used, 11 rejected" in people.stdout
    assert "8 images of 4 patients" in people.stdout
    machines = CliRunner().invoke(app, [*common, "--json"])
    found = json.loads(machines.stdout)
    assert found["seen"] == found["used"] + sum(found["rejected"].values())
    assert found["patients"] == 4
    for said in (people.stdout.replace(str(tmp_path / "list.csv"), ""), machines.stdout):
        for word in (".dcm", "MRN-", "NORTH", "Doe", "1.2.826", str(messy)):
            assert word not in said


def test_the_command_fails_if_nothing_can_be_used(ct: Ct, plan_for: Plans, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.dcm").write_bytes(ct(Modality="MR"))
    (tmp_path / "plan.toml").write_text(dump(plan_for()))
    done = CliRunner().invoke(app, ["check-data", str(folder), "--plan", str(tmp_path / "plan.toml")])
    assert done.exit_code == 1
    assert "1 E_MODALITY" in done.stdout


def test_the_command_follows_the_policy_of_the_sites_home(ct: Ct, plan_for: Plans, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.dcm").write_bytes(ct(BurnedInAnnotation="YES"))
    (tmp_path / "plan.toml").write_text(dump(plan_for()))
    command = ["check-data", str(folder), "--plan", str(tmp_path / "plan.toml"), "--json", "--home", str(tmp_path)]
    assert json.loads(CliRunner().invoke(app, command).stdout)["used"] == 0
    (tmp_path / "policy.toml").write_text('[images]\nburned_in = "accept"\n')
    assert json.loads(CliRunner().invoke(app, command).stdout)["used"] == 1


LOSSY = {uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit}
NOT_ALIKE = 12  # files of those syntaxes, whose listed hash is another decoder's; ours is dcmtk's


@pytest.mark.slow
def test_every_real_file_is_found_as_others_found_it(real_data: Callable[[str], Path], plan_for: Plans, tmp_path: Path) -> None:
    """Lossless values hash as listed, whatever decodes elsewhere decodes here, and each broken file costs a reason."""
    root = real_data("dicom")
    taken = inventory.take(root, plan_for(modality="any", frames="each", height=32, width=32))
    rows = written(taken, tmp_path / "list.csv")
    assert taken.report.seen == len(rows) == sum(path.is_file() for path in root.rglob("*"))
    assert not {Reason.CRASHED, Reason.TIMEOUT} & set(taken.report.rejected)
    found: Counter[str] = Counter()
    with (root / "index.csv").open(encoding="utf-8") as file:
        entries = list(csv.DictReader(file))
    for entry in entries:
        row = rows[entry["file"]]
        if entry["pixel_sha256_16"]:
            assert row["shape"] == entry["decoded_shape"], entry["file"]
            alike = row["sha256"].startswith(entry["pixel_sha256_16"])
            assert alike or entry["transfer_syntax"] in LOSSY, entry["file"]
            found["alike" if alike else "lossy"] += 1
        if entry["status"] in ("broken:reject", "broken:reject_or_no_pixels", "no_pixels"):
            assert row["status"] == "rejected", entry["file"]
    assert found["lossy"] <= NOT_ALIKE
    assert found["alike"] >= 250
