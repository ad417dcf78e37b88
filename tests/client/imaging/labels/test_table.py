# SPDX-License-Identifier: Apache-2.0
"""Labels mean what the plan says, and a mistake in them is found by row number and never quoted."""

from pathlib import Path

import pytest

from client.imaging import labels
from common.errors import DataNotFound, LabelsMismatch
from common.plan import ClassificationSpec

TASK = ClassificationSpec(kind="classification", classes=("normal", "nodule"))


@pytest.fixture
def csv_file(tmp_path: Path) -> Path:
    return tmp_path / "labels.csv"


def test_a_cell_is_a_class_name_or_an_index(csv_file: Path) -> None:
    csv_file.write_text("sop_instance_uid,label\n1.2,nodule\n1.3,0\n1.4, 1 \n1.5,\n")
    table = labels.read(csv_file, TASK)
    assert table.by_item == {"1.2": 1, "1.3": 0, "1.4": 1}
    assert (table.key, table.rows) == ("sop_instance_uid", 4)


def test_a_class_name_wins_over_an_index() -> None:
    task = ClassificationSpec(kind="classification", classes=("1", "0"))
    assert labels.class_of("1", task, where="here") == 0


def test_the_plan_names_the_column(csv_file: Path) -> None:
    csv_file.write_text("path,label,label3\na.dcm,1,0\n")
    assert labels.read(csv_file, ClassificationSpec(kind="classification", classes=("a", "b"), label_column="label3")).by_item == {
        "a.dcm": 0
    }


@pytest.mark.parametrize(
    "text", ["\ufeffpath,label\na.dcm,1\n", "path;label\r\na.dcm;1\r\n", 'path,label\n"a.dcm","1"', "path,label\n.\\a.dcm,1\n"]
)
def test_what_spreadsheets_write_is_read(csv_file: Path, text: str) -> None:
    csv_file.write_text(text, encoding="utf-8")
    assert labels.read(csv_file, TASK).by_item == {"a.dcm": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sop_instance_uid,diagnosis\n1.2,nodule\n", "no column 'label'.*Its columns: sop_instance_uid, diagnosis.*Set label_column"),
        ("name,label\nx,1\n", "no column 'sop_instance_uid' or 'path' among its 2 columns"),
        (
            "path,label\na,1\nb,2\n",
            r"row 3: the cell in column 'label' is none of the plan's classes \(normal, nodule\) and no index from 0 to 1",
        ),
        ("path,label\na,1\n\nb,Jane Doe\n", "row 4: the cell in column 'label'"),
        ("path,label\na,1\na,0\n", "row 3: this image has another label further up"),
        ("path,label\na,1,7\n", "row 2: 3 cells, 2 expected"),
        ("path,path\na,1\n", "name each column once"),
        ("", "name each column once|no column"),
        ('path,label\n"a,1\n', "not valid CSV"),
        ('"path"s,label\na,1\n', "row 1: not valid CSV"),
        ('"path,label\na,1\n', "row 1: not valid CSV"),
        (f"path,label\na,{'1' * 5000}\n", "row 2: the cell in column 'label'.*no index"),
    ],
)
def test_a_mistake_is_named_with_its_row(csv_file: Path, text: str, message: str) -> None:
    csv_file.write_text(text)
    with pytest.raises(LabelsMismatch, match=message):
        labels.read(csv_file, TASK)


def test_a_cell_is_never_quoted(csv_file: Path) -> None:
    csv_file.write_text("path,label\nDOE_JANE.dcm,Jane Doe\n")
    with pytest.raises(LabelsMismatch) as refused:
        labels.read(csv_file, TASK)
    assert "Jane" not in str(refused.value)
    assert "DOE" not in str(refused.value)


def test_a_file_that_is_not_there_or_not_text_is_said_so(csv_file: Path) -> None:
    with pytest.raises(DataNotFound, match="does not exist"):
        labels.read(csv_file, TASK)
    csv_file.write_bytes(b"path,label\n\xff\xfe,1\n")
    with pytest.raises(LabelsMismatch, match=r"not UTF-8 text\. Save it as CSV UTF-8"):
        labels.read(csv_file, TASK)


def test_one_class_only_is_refused_by_name() -> None:
    with pytest.raises(LabelsMismatch, match="every usable image is 'nodule'"):
        labels.check_classes([1, 1, 1], TASK)
    labels.check_classes([0, 1], TASK)
