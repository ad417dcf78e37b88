# SPDX-License-Identifier: Apache-2.0
"""Pictures with an index: what the index says is honoured, or refused with the row."""

import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from client.exclusion import key_of
from client.imaging import index
from client.imaging.dataset import Dataset
from client.imaging.identity import PatientSecret
from client.imaging.intake import DataSource, IntakeReport, open_dataset
from client.imaging.rejection import Reason
from common.errors import DataUnreadable, LabelsMismatch, PatientStraddles
from common.plan import Plan

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 16, 12), dtype=np.uint8)
Opener = Callable[..., tuple[Dataset, IntakeReport]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "images").mkdir(parents=True)
    for number, image in enumerate(IMAGES):
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
    np.savez_compressed(folder / "images.npz", images=IMAGES)
    return folder


@pytest.fixture
def opened(root: Path, tmp_path: Path, secret: PatientSecret, plan_for: Callable[..., Plan]) -> Opener:
    """opened(index text) -> what `open_dataset` gives for the folder with that index."""

    def run(text: str, **options: Any) -> tuple[Dataset, IntakeReport]:
        (root / "index.csv").write_text(text)
        return open_dataset(DataSource(root=root), plan_for(**options), cache=tmp_path / "cache", key=secret, workers=1)

    return run


def table(header: str, *rows: str) -> str:
    return "\n".join([header, *rows]) + "\n"


def test_without_a_header_the_first_patient_is_not_taken_for_names_of_columns(opened: Opener) -> None:
    """Names of columns are quoted where the label's is not among them; a first row that is no header must not be."""
    with pytest.raises(LabelsMismatch, match="The first row must name the columns") as refused:
        opened(table("images/0.png,1,MRN-4711,Doe^Jane", "images/1.png,0,MRN-4712,Roe^Richard"))
    assert not any(word in str(refused.value) for word in ("4711", "Doe", "0.png"))


def test_files_and_rows_give_the_same_pixels(opened: Opener) -> None:
    by_file, _ = opened(table("file,label", *(f"images/{n}.png,{n % 2}" for n in range(6))))
    by_row, _ = opened(table("row,label", *(f"{n},{n % 2}" for n in range(6))))
    np.testing.assert_allclose(by_file.images[:][:, 0] / 65535, IMAGES / 255, atol=1e-5)
    np.testing.assert_array_equal(by_file.images[:], by_row.images[:])


def test_sites_and_splits_are_honoured(opened: Opener) -> None:
    rows = [f"{n},{n % 2},p{n // 2},{'NS'[n // 2 % 2]},{('train', 'val', 'test')[n // 2]}" for n in range(6)]
    data, report = opened(table("row,label,patient_id,site,split", *rows))
    assert data.sites == ("N", "S")
    assert data.site_index is not None
    assert data.site_index.tolist() == [0, 0, 1, 1, 0, 0]
    assert data.splits.tolist() == [0, 0, 1, 1, 2, 2]
    assert (data.unit_source, data.num_patients, report.used) == ("patient_id", 3, 6)


@pytest.mark.parametrize(
    ("columns", "source", "patients"),
    [("patient_id,group_id", "patient_id", 3), ("group_id,image_id", "group_id", 3), ("image_id", "image_id", 3), ("note", "none", 6)],
)
def test_the_unit_is_the_best_that_is_there_and_is_said(opened: Opener, columns: str, source: str, patients: int) -> None:
    cells = ",".join(f"{{{position}}}" for position in range(columns.count(",") + 1))
    rows = [f"{n},{n % 2}," + cells.format(f"u{n // 2}", f"v{n}") for n in range(6)]
    data, _ = opened(table(f"row,label,{columns}", *rows))
    assert (data.unit_source, data.num_patients) == (source, patients)


@pytest.mark.parametrize("column", ["patient_id", "group_id", "image_id"])
def test_a_unit_is_one_however_its_name_is_spelled_in_unicode(opened: Opener, secret: PatientSecret, column: str) -> None:
    names = ["Mu\u0308ller", "M\u00fcller", "M\u00fcller ", "\u212bngstr\u00f6m", "\u00c5ngstro\u0308m", "Smith"]
    data, _ = opened(table(f"row,label,{column}", *(f"{n},{n % 2},{name}" for n, name in enumerate(names))))
    assert data.num_patients == 3
    assert key_of(secret, column, "", "M\u00fcller") == key_of(secret, column, "", "Mu\u0308ller") == data.patient_keys[data.patients[0]]


@pytest.mark.parametrize("again", ["1,p9", "0,p1"], ids=["another patient", "another label"])
def test_two_rows_that_disagree_about_one_image_are_refused(opened: Opener, again: str) -> None:
    """The first would win in silence: somebody else's image, or the wrong label."""
    with pytest.raises(LabelsMismatch, match="row 4: a row further up says something else") as refused:
        opened(table("file,label,patient_id", "images/0.png,0,p0", "images/1.png,1,p1", f"images/1.png,{again}"))
    assert "p9" not in str(refused.value)


def test_a_patient_on_two_sides_is_refused(opened: Opener) -> None:
    with pytest.raises(PatientStraddles, match=r"1 patients are on more than one side.*split column"):
        opened(table("row,label,patient_id,split", "0,0,p0,train", "1,1,p0,val", "2,0,p1,train"))


def test_unusable_rows_are_counted(opened: Opener, root: Path, tmp_path: Path) -> None:
    Image.fromarray(IMAGES[0]).save(tmp_path / "outside.png")
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    (root / "text.png").write_text("no picture")
    (root / "cut.png").write_bytes((root / "images" / "0.png").read_bytes()[:80])
    rows = [
        "images/0.png,0,p0", "images/1.png,1,p1", "images/1.png,1,p1", "../outside.png,0,p2", "link.png,0,p3", "absent.png,0,p4",
        "text.png,0,p5", "cut.png,1,p6", "images/2.png,,p7", "images/3.png,0,", "images/4.png,0,UNKNOWN",
    ]  # fmt: skip
    _, report = opened(table("file,label,patient_id", *rows))
    assert (report.seen, report.used) == (13, 2)
    assert report.rejected == {
        Reason.NOT_LISTED: 2,  # images/5.png, images.npz
        Reason.DUPLICATE: 1,
        Reason.OUTSIDE: 1,
        Reason.LINK: 1,
        Reason.NO_FILE: 1,
        Reason.NOT_A_PICTURE: 1,
        Reason.UNDECODABLE: 1,
        Reason.NO_LABEL: 1,
        Reason.NO_PATIENT_ID: 2,
    }


def test_a_row_beyond_the_archive_is_counted(opened: Opener) -> None:
    _, report = opened(table("row,label", "0,0", "1,1", "6,0"))
    assert report.rejected == {Reason.NO_FILE: 1, Reason.NOT_LISTED: 6}, "the pictures beside the archive"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (table("file,diagnosis", "images/0.png,0"), "no column 'label'.*file, diagnosis"),
        (table("name,label", "images/0.png,0"), "neither a column 'file' nor a column 'row'"),
        (table("row,label", "x,0"), "row 2: column 'row' must hold a whole number"),
        (table("row,label", f"{'9' * 5000},0"), "row 2: column 'row' must hold a whole number"),
        (table("row,label,split", "0,0,train", "1,1,holdout"), "row 3: the cell in column 'split' is none of train, validation and test"),
        (table("row,label", "0,0", "1,0"), "every usable image is 'normal'"),
    ],
)
def test_a_mistake_in_the_index_is_named(opened: Opener, text: str, message: str) -> None:
    with pytest.raises(LabelsMismatch, match=message):
        opened(text)


def test_an_index_of_rows_needs_the_archive(opened: Opener, root: Path) -> None:
    (root / "images.npz").unlink()
    with pytest.raises(DataUnreadable, match=r"images\.npz is not readable there \(E_NO_FILE\)"):
        opened(table("row,label", "0,0", "1,1"))


def archive(content: bytes, member: str = "images.npy") -> bytes:
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as members:
        members.writestr(member, content)
    return stream.getvalue()


def npy(array: Any, **options: Any) -> bytes:
    stream = BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def test_colour_rows_are_read() -> None:
    images = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(index.unpack(archive(npy(images))), images)


VAST = npy(IMAGES).replace(b"6, 16, 12", b"6, 16, 99")
GARBLED = npy(IMAGES).replace(b"6, 16, 12)", b"6, 16, 12(")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 not a zip",
        archive(npy(IMAGES), member="other.npy"),
        archive(b"not an array"),
        archive(npy(IMAGES)[:-1]),
        archive(VAST),
        archive(GARBLED),
        archive(npy(IMAGES.astype(np.float32))),
        archive(npy(np.asfortranarray(IMAGES))),
        archive(npy(IMAGES[0])),
        archive(npy(np.array([{}], dtype=object), allow_pickle=True)),
        archive(npy(np.zeros((2, 8, 8, 4), dtype=np.uint8))),
    ],
    ids=[
        "empty",
        "no zip",
        "no member",
        "no array",
        "cut",
        "header claims more",
        "header garbled",
        "float",
        "fortran",
        "one image",
        "pickle",
        "four channels",
    ],
)
def test_an_archive_that_is_not_images_is_refused(content: bytes) -> None:
    with pytest.raises(DataUnreadable, match=r"no readable array 'images'.*savez_compressed"):
        index.unpack(content)


def test_an_archive_that_unpacks_to_more_than_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = archive(npy(np.zeros((200, 100, 100), dtype=np.uint8)))
    assert len(bomb) < 20_000
    monkeypatch.setattr(index, "LARGEST_ARCHIVE", 1_000_000)
    with pytest.raises(DataUnreadable):
        index.unpack(bomb)
