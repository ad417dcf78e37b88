# SPDX-License-Identifier: Apache-2.0
"""Further columns of the table beside the images, joined over the images' keyed names, whichever column names them."""

from pathlib import Path

import pytest

from client.imaging.columns import NOT_SAID, column_of, has_splits
from client.imaging.identity import PatientSecret, item_key
from common.errors import DataNotFound, LabelsMismatch

SECRET = PatientSecret(value=bytes(range(32)))


def table(folder: Path, name: str, *lines: str) -> Path:
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("name", "key", "cells", "names"),
    [
        ("index.csv", "file", ("./a/1.png", "a\\2.png"), ("a/1.png", "a/2.png")),
        ("index.csv", "row", ("007", " 8"), ("7", "8")),
        ("labels.csv", "sop_instance_uid", ("1.2.3 ", "1.2.4"), ("1.2.3", "1.2.4")),
        ("labels.csv", "path", ("a/1.dcm", "./a/2.dcm"), ("a/1.dcm", "a/2.dcm")),
    ],
)
def test_each_image_has_its_own_value_in_the_order_of_the_data(
    tmp_path: Path, name: str, key: str, cells: tuple[str, str], names: tuple[str, str]
) -> None:
    table(tmp_path, name, f"{key},label,sex", f"{cells[0]},0, F ", f"{cells[1]},1,M")
    items = [item_key(SECRET, key, names[1]), item_key(SECRET, key, names[0]), item_key(SECRET, key, names[1])]
    assert column_of(tmp_path, "sex", items, SECRET) == ("M", "F", "M")


def test_an_empty_cell_and_an_image_that_the_table_does_not_know_are_not_said(tmp_path: Path) -> None:
    table(tmp_path, "index.csv", "file,sex", "a.png,", "b.png,F", ",M")
    items = [item_key(SECRET, "file", name) for name in ("a.png", "b.png", "c.png")]
    assert column_of(tmp_path, "sex", items, SECRET) == (NOT_SAID, "F", NOT_SAID)


def test_under_another_secret_nothing_is_joined(tmp_path: Path) -> None:
    table(tmp_path, "index.csv", "file,sex", "a.png,F")
    other = PatientSecret(value=bytes(32))
    assert column_of(tmp_path, "sex", [item_key(other, "file", "a.png")], SECRET) == (NOT_SAID,)


def test_a_column_that_is_missing_is_named_and_no_other(tmp_path: Path) -> None:
    table(tmp_path, "index.csv", "file,Jane Doe", "a.png,1")
    with pytest.raises(LabelsMismatch, match="no column 'sex'") as caught:
        column_of(tmp_path, "sex", ["x"], SECRET)
    assert "Jane" not in str(caught.value)


def test_data_that_do_not_name_their_images_cannot_be_grouped(tmp_path: Path) -> None:
    table(tmp_path, "index.csv", "file,sex", "a.png,F")
    with pytest.raises(LabelsMismatch, match="do not name the images"):
        column_of(tmp_path, "sex", [], SECRET)
    with pytest.raises(DataNotFound):
        column_of(tmp_path / "nowhere", "sex", ["x"], SECRET)


def test_only_an_index_says_who_is_on_which_side(tmp_path: Path) -> None:
    assert not has_splits(tmp_path)
    assert not has_splits(table(tmp_path, "labels.csv", "path,label,split", "a,0,test"))
    assert not has_splits(table(tmp_path, "index.csv", "file,label", "a,0"))
    assert has_splits(table(tmp_path, "index.csv", "file,label,split", "a,0,test"))
