# SPDX-License-Identifier: Apache-2.0
"""The documents are held to the code: tests, files and codes that they name exist, and numbers that they count are counted."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.imaging.labels.agreement import Why
from client.imaging.rejection import Reason
from common import errors
from common.secagg import checks
from common.secagg.terms import threshold
from server.aggregation import FAILED, LEFT_OUT, SILENT
from tests.attacks import lies, lies_about_kinds, lies_about_survivors, lies_about_the_cohort, lies_in_headers

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
ROSTER_CODE = ["common/roster.py", "common/keyfile.py", "server/membership/roster_folder.py", "server/membership/roster_cli.py"]

TEST = re.compile(r"(tests/[\w/]+\.py)::(\w+)(?:\[([\w-]+)\])?")
FILE = re.compile(r"\b((?:common|client|server|simulations|tests)/[\w/.-]*\w\.(?:py|toml|json))\b")
LINK = re.compile(r"\]\((?!https?://|mailto:)([^)#]+)(?:#[\w-]+)?\)")
CODE = re.compile(r"\bE_[A-Z][A-Z_]*[A-Z]\b")


@pytest.fixture(params=DOCUMENTS, ids=[path.relative_to(ROOT).as_posix() for path in DOCUMENTS])
def document(request: pytest.FixtureRequest) -> Path:
    path = request.param
    assert isinstance(path, Path)
    return path


def functions(file: str) -> set[str]:
    return {node.name for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)}


def tree() -> Iterator[tuple[str, str, str]]:
    """Name, code and cause of every error, as the drawn tree says them."""
    assert errors.__doc__
    for found in re.finditer(r"(\w+) +(E_[A-Z_]+) +(.+)", errors.__doc__):
        yield found[1], found[2], found[3].strip()


def refusals() -> dict[str, tuple[str, str]]:
    """The protocol page's table: code -> (cause, what to do)."""
    table = PROTOCOL.partition("\n## Refusals\n")[2]
    return {code: (cause, fix) for code, cause, fix in re.findall(r"^\| `(E_\w+)` \| (.+?) \| (.+?) \|$", table, re.MULTILINE)}


def test_every_test_that_a_document_names_exists(document: Path) -> None:
    for file, name, case in TEST.findall(document.read_text(encoding="utf-8")):
        assert (ROOT / file).exists(), file
        assert name in functions(file), f"{file}::{name}"
        assert not case or case in lies.ATTACKS, f"{file}::{name}[{case}]"


def test_every_file_and_page_that_a_document_names_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for file in FILE.findall(text):
        assert (ROOT / file).exists(), file
    for page in LINK.findall(text):
        assert (document.parent / page).exists(), page


def test_every_code_that_a_document_names_exists(document: Path) -> None:
    known = {code for _, code, _ in tree()} | set(Reason) | set(Why) | {SILENT, FAILED, LEFT_OUT}
    assert set(CODE.findall(document.read_text(encoding="utf-8"))) <= known


def test_the_names_would_be_missed() -> None:
    """The control: what this file looks for is there to be found."""
    assert len(TEST.findall(PROTOCOL)) > 30
    assert "tests/test_docs.py" in FILE.findall("see `tests/test_docs.py`")
    assert "test_no_such_thing" not in functions("tests/test_docs.py")


def test_the_protocol_page_explains_every_refusal_of_the_protocol_and_the_roster() -> None:
    table = refusals()
    code_of = {name: code for name, code, _ in tree()}
    files = [*(ROOT / "common" / "secagg").glob("*.py"), *(ROOT / file for file in ROSTER_CODE)]
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "common.errors":
                missing = [each.name for each in node.names if each.name in code_of and code_of[each.name] not in table]
                assert not missing, f"{path.name}: {missing}"


def test_the_protocol_page_says_the_causes_that_the_tree_says() -> None:
    cause_of = {code: cause for _, code, cause in tree()}
    assert len(refusals()) >= 40
    for code, (cause, fix) in refusals().items():
        assert cause == cause_of[code], code
        assert fix.strip()


def test_every_error_in_the_tree_has_its_code() -> None:
    for name, code, _ in tree():
        if name != "FedwardError":
            assert getattr(errors, name).code == code


def test_the_protocol_page_counts_attacks_and_checks_rightly() -> None:
    assert all((lies_in_headers, lies_about_kinds, lies_about_the_cohort, lies_about_survivors))  # importing them registered their attacks
    assert re.findall(r"(\d+) lies of a coordinator", PROTOCOL) == [str(len(lies.ATTACKS))]
    assert re.findall(r"each of the (\d+) checks", PROTOCOL) == [str(sum(map(len, checks.TABLE.values())))]


def test_the_protocol_pages_thresholds_are_the_codes() -> None:
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (\d+) \|$", PROTOCOL, re.MULTILINE)
    assert len(rows) == 9
    for row in rows:
        size, needed, spare = map(int, row)
        assert (needed, spare) == (threshold(size), size - threshold(size))
