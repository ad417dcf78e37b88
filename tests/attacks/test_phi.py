# SPDX-License-Identifier: Apache-2.0
"""A thousand planted patients, the commands that read their images, their ways to fail: nobody is found outside the hospitals' own folders.

One journey (`phi_journey`) is travelled once, in a process of its own, and all that it left is searched. `FEDWARD_PHI_PATIENTS` makes it
smaller.
"""

import json
import os
import re
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from common.secagg import codec
from common.secagg.messages import Step, Up
from tests.attacks import planted
from tests.attacks.needles import Hit, Magnet, needles, spellings
from tests.attacks.phi_journey import PATIENTS_VARIABLE
from tests.attacks.planted import Patient
from tests.common.test_what_leaves import BODIES

ROOT = Path(__file__).parents[2]
WHAT_LEAVES = (ROOT / "docs" / "what-leaves.md").read_text(encoding="utf-8")
SEARCHED = ("desk", "said", "wire")
TYPED = "said/typed"
"""The one place where a person typed a path with a patient's name, and was answered about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Journey:
    """What was left behind, and what to look for in it."""

    folder: Path
    patients: list[Patient]
    magnet: Magnet
    attempts: list[dict[str, Any]]
    shapes: list[dict[str, Any]]


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    """Needles are threaded while the journey is travelled."""
    folder = tmp_path_factory.mktemp("phi")
    count = int(os.environ.get(PATIENTS_VARIABLE, "1000"))
    command = [sys.executable, "-m", "tests.attacks.phi_journey", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), PATIENTS_VARIABLE: str(count), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    patients = planted.make_patients(count)
    values = {f"{what} of {number}": texts for number, patient in enumerate(patients) for what, texts in patient.values().items()}
    magnet = Magnet(needles(values))
    said = process.communicate()[0].decode()
    assert process.returncode == 0, said
    return Journey(
        folder=folder,
        patients=patients,
        magnet=magnet,
        attempts=json.loads((folder / "attempts.json").read_text()),
        shapes=[json.loads(line) for line in (folder / "wire" / "messages.jsonl").read_text().splitlines()],
    )


def haystacks(folder: Path, places: tuple[str, ...] = SEARCHED) -> Iterator[tuple[str, bytes]]:
    """Everything that lies in some places: names, contents, what links point to, and the rows of databases, whose pages may cut a value."""
    for place in places:
        for path in sorted((folder / place).rglob("*")):
            name = path.relative_to(folder).as_posix()
            yield name, name.encode()
            if path.is_symlink():
                yield name, os.readlink(path).encode()
            elif path.is_file():
                yield name, path.read_bytes()
                if path.suffix == ".sqlite":
                    yield name, _rows(path)


def _rows(path: Path) -> bytes:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        cells = [cell for table in tables for row in database.execute(f"SELECT * FROM {table}") for cell in row]
    return b"\n".join(cell if isinstance(cell, bytes) else str(cell).encode() for cell in cells)


def found(journey: Journey, places: tuple[str, ...] = SEARCHED) -> list[tuple[str, Hit]]:
    return [(name, hit) for name, haystack in haystacks(journey.folder, places) for hit in journey.magnet.hits(haystack)]


def test_every_command_ended_as_it_should(journey: Journey) -> None:
    """Or nothing was proven about it: a failure that did not happen says nothing."""
    for attempt in journey.attempts:
        said = (journey.folder / "said" / attempt["name"]).read_text()
        succeeds = attempt["expected"] == "0"
        assert attempt["exit"] == (0 if succeeds else 1), (attempt, said)
        assert succeeds or all(code in said for code in attempt["expected"].split()), (attempt, said)
    assert len(journey.attempts) > 50


def test_nobody_is_found_outside_the_hospitals_folders(journey: Journey) -> None:
    leaks = [(name, hit.needle.what, hit.needle.how) for name, hit in found(journey) if name != TYPED]
    assert not leaks, leaks[:20]


def test_what_a_person_typed_is_quoted_to_that_person_and_nothing_beside_it(journey: Journey) -> None:
    said = {hit.needle.what for name, hit in found(journey, ("said",)) if name == TYPED}
    assert said == {"family of 0"}


AROUND = 50_000  # bytes of an artefact on each side of what is planted
ARTEFACTS = (
    r"desk/whole/(report\.html|run\.json|model\.json|model\.safetensors|journal\.sqlite|metrics\.jsonl|counted\.jsonl|predictions\.json|comparison\.json)",
    r"desk/whole/(checkpoints|vectors|ledgers|holdout)/.+",
    r"desk/whole/sites/south/(data/columns\.json|data/manifest\.json|ledger\.jsonl|fsa1/record-\d+)",
    r"desk/album/sites/site_00/answers/answer-.+",
    r"desk/labels of text/sites/south/error\.log",
    r"desk/cache/images/\w+/index\.json",
    r"desk/house/sites/south/cache/\w+/index\.json",
    r"desk/ledger(\.html|/.+)",
    r"desk/tmp/fedward-\w+/images/\.\w+-\w+/images\.npy",
    r"said/(processes|whole way|wrecks)",
    r"wire/messages\.bin",
)


def test_there_was_something_to_search(journey: Journey) -> None:
    """Each kind of artefact was written, and is not empty; what a kill left behind is among them."""
    sizes = {name: max(len(content), len(name)) for name, content in haystacks(journey.folder)}
    for artefact in ARTEFACTS:
        assert any(size > len(name) for name, size in sizes.items() if re.fullmatch(artefact, name)), artefact


def test_everybody_is_found_where_they_are(journey: Journey) -> None:
    """The first control: the search finds each patient in the hospitals' folders, and of those with whole files all that is known."""
    at_home = {hit.needle.what for _, hit in found(journey, ("data",))}
    assert {int(what.rpartition(" ")[2]) for what in at_home} == set(range(len(journey.patients)))
    whole = range(len(journey.patients) * 4 // 10 - 20)
    assert {f"{what} of {number}" for number in whole for what in journey.patients[number].values()} <= at_home


@pytest.mark.parametrize("how", sorted(spellings("Zörvask & Quilphan")))
def test_a_planted_value_is_found_in_every_spelling(journey: Journey, how: str) -> None:
    """The second control: values of one patient, written into the middle of an artefact of each kind."""
    values = journey.patients[10].values()
    forms = {what: spellings(min(values[what])).get(how, set()) for what in ("family", "patient_id", "sop_uid", "birth", "comment")}
    written = b"'" + b"','".join(form for some in forms.values() for form in some) + b"'"
    assert len(written) > 8
    for artefact in (
        "desk/whole/report.html",
        "desk/whole/journal.sqlite",
        "desk/whole/model.safetensors",
        "said/whole way",
        "wire/messages.bin",
    ):
        content = (journey.folder / artefact).read_bytes()
        middle = len(content) // 2
        hits = journey.magnet.hits(content[max(0, middle - AROUND) : middle] + written + content[middle : middle + AROUND])
        assert {hit.needle.what for hit in hits} == {f"{what} of 10" for what, some in forms.items() if some}, artefact


@pytest.mark.parametrize(
    "written",
    ["{0.family}^{0.given}", "{0.given} {0.family}", "{0.family}, {0.given}", "{0.given}{0.family}", "{0.family}_{0.given}_CT_thorax.dcm"],
)
def test_a_name_is_found_in_any_order(journey: Journey, written: str) -> None:
    patient = journey.patients[3]
    for text in (written.format(patient), written.format(patient).upper(), written.format(patient).encode("utf-16-le").decode("latin-1")):
        assert {"family of 3", "given of 3"} <= {hit.needle.what for hit in journey.magnet.hits(b"said: " + text.encode("latin-1"))}


def test_digits_within_a_longer_number_are_that_numbers(journey: Journey) -> None:
    birth = journey.patients[5].birth.strftime("%Y%m%d").encode()
    assert journey.magnet.hits(b"born " + birth + b".") == []  # behind a full stop it could be a fraction
    assert journey.magnet.hits(b"born " + birth + b",")[0].needle.what == "birth of 5"
    assert journey.magnet.hits(b"0.1" + birth) == journey.magnet.hits(b"7" + birth + b"f") == []


# What crosses.


def test_no_message_knows_where_on_the_machine_a_site_lives(journey: Journey) -> None:
    """Paths, users' names and exceptions' words stay at the site; on the terminal, the control, paths are quoted."""
    magnet = Magnet(needles({"a path": [str(journey.folder)]}))
    assert magnet.hits((journey.folder / "said" / "typed").read_bytes())
    assert not magnet.hits((journey.folder / "wire" / "messages.bin").read_bytes())


def test_only_the_engines_own_words_come_instead_of_a_reply(journey: Journey) -> None:
    """Flower's error replies carry text. The faults that were asked for make some; a site of ours makes none."""
    words = {shape["error"] for shape in journey.shapes if "error" in shape}
    assert words == {"the worker process died", "<class 'RuntimeError'>:<'a fault that was asked for'>"}


def test_replies_hold_what_is_listed_and_no_metrics(journey: Journey) -> None:
    replies = [shape["records"] for shape in journey.shapes if shape["up"] and "error" not in shape]
    assert len(replies) > 300
    for records in replies:
        assert set(records) <= {"fedward", "vector"}
        assert set(records["fedward"]) == {"ConfigRecord"}
        kind = records["fedward"]["ConfigRecord"]["type"]
        listed = re.findall(rf"^\| `{re.escape(kind)}` \| (.+?) \|", WHAT_LEAVES, re.MULTILINE)
        assert len(listed) == 1, kind
        assert set(records["fedward"]["ConfigRecord"]) - {"version", "type"} <= set(re.findall(r"`(\w+)`", listed[0])) - {"vector"}
        assert set(records.get("vector", {"array": {}})["array"]) <= {"vector"}


def test_what_a_site_signs_is_the_body_that_its_step_has_and_nothing_beside_it(journey: Journey) -> None:
    """Read back by the types that the page lists: the reader refuses a byte too many."""
    signed = [codec.read(Up, bytes.fromhex(shape["control"])) for shape in journey.shapes if "control" in shape and shape["up"]]
    assert {up.step for up in signed} == set(Step)
    for up in signed:
        codec.read(BODIES[up.step], up.body)


def test_no_length_tells_how_many_patients_there_are(journey: Journey) -> None:
    """Of two hospitals, one with twice the patients of the other and a name as long, each step is as long."""
    lengths: dict[str, dict[str, set[tuple[int, int]]]] = {"north": {}, "south": {}}
    for shape in journey.shapes:
        if shape["up"] and "control" in shape and (site := shape["records"]["fedward"]["ConfigRecord"]["site"]) in lengths:
            vector = shape["records"].get("vector", {"array": {"vector": 0}})["array"]["vector"]
            lengths[site].setdefault(shape["type"], set()).add((len(shape["control"]), vector))
    answered = lengths["north"].keys() & lengths["south"].keys()
    assert len(answered) >= 5
    assert {step: lengths["north"][step] for step in answered} == {step: lengths["south"][step] for step in answered}


def test_a_site_keeps_what_is_listed_and_for_itself(journey: Journey) -> None:
    """The files of a site's home are those of the page, and what is private there is its owner's alone."""
    listed = {
        name: private == "0600" for name, private in re.findall(r"^\| `([^`]+)` \| .+? \| (0600|0644) \|$", WHAT_LEAVES, re.MULTILINE)
    }
    assert len(listed) > 8
    homes = [home for home in (journey.folder / "desk").glob("*/sites/*") if home.is_dir()]
    assert len(homes) > 20
    for home in homes:
        for path in home.rglob("*"):
            if path.is_symlink() or path.is_dir():
                continue
            name = path.relative_to(home).as_posix()
            names = [pattern for pattern in listed if Path(name).match(pattern)]
            assert names, f"{name} is not on the page"
            if listed[names[0]]:
                inside = [path, *(folder for folder in path.parents if folder.is_relative_to(home))]
                assert any(stat.S_IMODE(each.stat().st_mode) & 0o077 == 0 for each in inside), name
