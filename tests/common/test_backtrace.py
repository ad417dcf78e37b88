# SPDX-License-Identifier: Apache-2.0
"""An exception told without its text: where it came from, never what it says."""

import json
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from common.backtrace import outline

NAME = "Doe^Jane 4711"


def caught(action) -> BaseException:
    with pytest.raises(Exception) as info:  # noqa: PT011 - whatever it is
        action()
    return info.value


def chained() -> None:
    try:
        {"a": 1}[NAME]
    except KeyError as error:
        raise ValueError(f"patient {NAME}") from error


def in_passing() -> None:
    try:
        int(NAME)
    except ValueError:
        Path(f"/nowhere/{NAME}").read_bytes()


@pytest.mark.parametrize(
    "action",
    [
        chained,
        in_passing,
        lambda: json.loads(f'{{"patient": {NAME}}}'),
        lambda: np.asarray([NAME], dtype=np.int64),
        lambda: NAME.encode("ascii").decode("utf-16"),
        lambda: zipfile.ZipFile(BytesIO(NAME.encode())),
    ],
)
def test_no_word_of_an_exceptions_text_is_in_its_outline(action) -> None:
    error = caught(action)
    said = outline(error)
    assert type(error).__name__ in said
    assert not any(word in said for word in ("Doe", "Jane", "4711"))
    assert "\n" not in said


def test_an_outline_names_types_and_places_innermost_first() -> None:
    said = outline(caught(chained))
    first, second = said.split("; from ")
    assert first.startswith("ValueError at tests/common/test_backtrace.py:")
    assert " in chained < tests/common/test_backtrace.py:" in first
    assert second.startswith("KeyError at tests/common/test_backtrace.py:")


def test_a_cause_that_was_hushed_up_stays_so() -> None:
    def hushed() -> None:
        try:
            int(NAME)
        except ValueError:
            raise RuntimeError from None

    assert "ValueError" not in outline(caught(hushed))
    assert "ValueError" in outline(caught(in_passing))


def test_an_exception_in_a_circle_ends() -> None:
    error = ValueError()
    error.__cause__ = RuntimeError()
    error.__cause__.__cause__ = error
    assert outline(error) == "ValueError at no known place; from RuntimeError at no known place"


def test_a_librarys_place_is_named_without_the_machines_folders() -> None:
    said = outline(caught(lambda: np.asarray([[1], [1, 2]], dtype=np.int64) + np.linalg.inv(np.zeros((2, 3)))))
    assert "/work" not in said
    assert "/home" not in said
    assert " at tests/" in said
