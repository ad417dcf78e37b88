# SPDX-License-Identifier: Apache-2.0
"""Made data of every kind: the same from the same spec, whole or not there, and not to be told by brightness."""

from pathlib import Path

import pytest

from common.errors import PlanValue, RunFolderTaken
from simulations.made import KINDS, Kind, MadeSpec, write

SMALL = {"hospitals": 2, "patients_per_hospital": 3, "size_px": 32}


def _bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_spec_gives_the_same_bytes_and_another_seed_others(kind: Kind, tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        write(MadeSpec(kind=kind, seed=seed, **SMALL), tmp_path / name)
    assert _bytes_of(tmp_path / "one") == _bytes_of(tmp_path / "two") != _bytes_of(tmp_path / "other")


@pytest.mark.parametrize("kind", KINDS)
def test_every_hospital_and_every_patient_is_in_the_index(kind: Kind, tmp_path: Path) -> None:
    write(MadeSpec(kind=kind, **SMALL), tmp_path / "made")
    lines = (tmp_path / "made" / "index.csv").read_text().splitlines()
    columns = lines[0].split(",")
    place, whose = columns.index("site"), columns.index("patient_id")
    found = {(line.split(",")[place], line.split(",")[whose]) for line in lines[1:]}
    assert found == {(f"hospital_{number // 3:02}", f"made {number}") for number in range(6)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_patient_is_the_same_however_many_others_there_are(kind: Kind, tmp_path: Path) -> None:
    write(MadeSpec(kind=kind, hospitals=1, patients_per_hospital=2, size_px=32), tmp_path / "few")
    write(MadeSpec(kind=kind, hospitals=1, patients_per_hospital=4, size_px=32), tmp_path / "many")
    few, many = _bytes_of(tmp_path / "few"), _bytes_of(tmp_path / "many")
    pictures = [name for name in few if name.endswith(".png")]
    assert [few[name] for name in pictures] == [many[name] for name in pictures]
    assert many["index.csv"].startswith(few["index.csv"])


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(RunFolderTaken, match="exists already"):
        write(MadeSpec(kind="cells", **SMALL), tmp_path)


@pytest.mark.parametrize("change", [{"hospitals": 0}, {"patients_per_hospital": 1}, {"size_px": 8}, {"seed": -1}])
def test_sizes_that_nothing_can_be_made_of_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(PlanValue, match=next(iter(change))):
        MadeSpec(kind="cells", **change)
