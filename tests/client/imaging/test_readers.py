# SPDX-License-Identifier: Apache-2.0
"""Workers answer for every file, in order, and a file that kills one costs itself."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import JPEG2000Lossless

from client import policy
from client.imaging import readers, slots
from client.imaging.intake import limits_of
from client.imaging.readers import Outcome, Task, read_all
from client.imaging.rejection import Reason
from client.imaging.worker import Brief, Limits, brief_from_json
from common.errors import DiskFull, EngineError, PlanValue
from common.plan import InputSpec, Window

INPUT = InputSpec(modality="CT", height=16, width=16, window=Window(centre=2000, width=4000))
BRIEF = Brief(kind="dicom", input=INPUT, limits=Limits(), wanted=None)
Ct = Callable[..., bytes]


def run(root: Path, names: list[str], *, brief: Brief = BRIEF, workers: int = 2, **options: Any) -> tuple[list[Outcome], bytes]:
    """Read files into a file of slots; the outcomes and that file's bytes."""
    output = root.parent / "output"
    with output.open("w+b") as file:
        tasks = [Task(slot=slot, path=name) for slot, name in enumerate(names)]
        outcomes = read_all(root, file.fileno(), brief, tasks, workers=workers, **options)
    return outcomes, output.read_bytes()


def children() -> list[int]:
    """Process ids of our own child processes."""
    return [int(child) for task in Path("/proc/self/task").iterdir() for child in (task / "children").read_text().split()]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def slow_file(root: Path, ct: Ct) -> str:
    """An honest file that takes a second of processor time, or nearly, to decode."""
    noise = np.random.default_rng(0).integers(0, 65536, (2000, 2000), dtype=np.uint16)
    (root / "slow.dcm").write_bytes(ct(noise, syntax=JPEG2000Lossless))
    return "slow.dcm"


def test_a_brief_survives_its_journey() -> None:
    brief = Brief(kind="dicom", input=INPUT, limits=Limits(cpu_seconds=1.5), wanted=frozenset({"1.2", "1.3"}))
    assert brief_from_json(brief.to_json()) == brief
    assert brief_from_json(BRIEF.to_json()) == BRIEF


def test_outcomes_come_in_the_order_of_the_tasks_whatever_the_workers(root: Path, ct: Ct) -> None:
    names = []
    for index in range(40):
        names.append(f"{index}.dcm")
        content = b"not DICOM" if index % 5 == 0 else ct(np.full((16, 16), index, dtype=np.uint16) + np.eye(16, dtype=np.uint16))
        (root / names[-1]).write_bytes(content)
    one, first = run(root, names, workers=1)
    three, second = run(root, names, workers=3)
    assert first == second
    assert [outcome.slot for outcome in one] == list(range(40))
    assert [outcome.reason for outcome in one] == [Reason.NOT_DICOM if index % 5 == 0 else None for index in range(40)]
    assert [outcome.reason for outcome in three] == [outcome.reason for outcome in one]
    size = slots.sample_bytes((1, 16, 16))
    corner = [np.frombuffer(first[slots.HEADER_BYTES + slot * size :][:2], "<u2")[0] for slot in (1, 2, 39)]
    assert corner == [round((value + 1) / 4000 * 65535) for value in (1, 2, 39)]


def test_a_file_that_takes_too_long_is_given_up_and_the_others_are_read(root: Path, ct: Ct, slow_file: str) -> None:
    for name in ("a.dcm", "b.dcm", "c.dcm"):
        (root / name).write_bytes(ct())
    brief = Brief(kind="dicom", input=INPUT, limits=Limits(cpu_seconds=0.3), wanted=None)
    outcomes, _ = run(root, ["a.dcm", slow_file, "b.dcm", "c.dcm"], brief=brief, workers=1)
    assert [outcome.reason for outcome in outcomes] == [None, Reason.TIMEOUT, None, None]


def test_a_file_that_needs_too_much_memory_is_given_up_and_the_others_are_read(root: Path, ct: Ct) -> None:
    (root / "vast.dcm").write_bytes(ct(np.zeros((7000, 7000), dtype=np.uint8)))
    (root / "a.dcm").write_bytes(ct())
    brief = Brief(kind="dicom", input=INPUT, limits=Limits(memory_bytes=400 << 20), wanted=None)
    outcomes, _ = run(root, ["a.dcm", "vast.dcm", "a.dcm"], brief=brief, workers=1)
    assert [outcome.reason for outcome in outcomes] == [None, Reason.TOO_LARGE, None]


def test_a_file_over_the_size_limit_is_not_read(root: Path, ct: Ct) -> None:
    (root / "a.dcm").write_bytes(ct())
    brief = Brief(kind="dicom", input=INPUT, limits=Limits(file_bytes=100), wanted=None)
    outcomes, _ = run(root, ["a.dcm"], brief=brief)
    assert outcomes[0].reason is Reason.TOO_LARGE


def test_a_killed_worker_costs_one_file(root: Path, ct: Ct) -> None:
    for index in range(60):
        (root / f"{index}.dcm").write_bytes(ct())
    before = set(children())

    def kill_one(done: int, _: int) -> None:
        if done == 1:
            os.kill(next(child for child in children() if child not in before), signal.SIGKILL)

    outcomes, _ = run(root, [f"{index}.dcm" for index in range(60)], workers=1, progress=kill_one)
    assert len(outcomes) == 60
    assert [outcome.reason for outcome in outcomes if outcome.reason is not None] in ([Reason.CRASHED], [])
    assert set(children()) == before


def test_workers_that_cannot_start_are_said_so_and_not_blamed_on_files(root: Path, ct: Ct, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "a.dcm").write_bytes(ct())
    monkeypatch.setattr(readers, "BOOT", "import a_module_that_is_not_installed")
    with pytest.raises(EngineError, match="did not start"):
        run(root, ["a.dcm"])


def test_a_full_disk_is_said_so(root: Path, ct: Ct) -> None:
    (root / "a.dcm").write_bytes(ct())
    with Path("/dev/full").open("wb") as full, pytest.raises(DiskFull, match="could not be written"):
        read_all(root, full.fileno(), BRIEF, [Task(slot=0, path="a.dcm")])


def test_only_wanted_images_are_decoded(root: Path, ct: Ct) -> None:
    (root / "a.dcm").write_bytes(ct(SOPInstanceUID="1.2.3"))
    (root / "b.dcm").write_bytes(ct(SOPInstanceUID="1.2.4"))
    brief = Brief(kind="dicom", input=INPUT, limits=Limits(), wanted=frozenset({"1.2.4"}))
    outcomes, written = run(root, ["a.dcm", "b.dcm"], brief=brief)
    assert [outcome.reason for outcome in outcomes] == [Reason.NO_LABEL, None]
    size = slots.sample_bytes((1, 16, 16))
    assert not any(written[slots.HEADER_BYTES :][:size])
    assert any(written[slots.HEADER_BYTES + size :])


def test_a_link_is_not_followed_by_a_worker(root: Path, ct: Ct, tmp_path: Path) -> None:
    (tmp_path / "outside.dcm").write_bytes(ct())
    (root / "link.dcm").symlink_to(tmp_path / "outside.dcm")
    outcomes, written = run(root, ["link.dcm", "../outside.dcm"])
    assert [outcome.reason for outcome in outcomes] == [Reason.LINK, Reason.OUTSIDE]
    assert not any(written)


def test_a_strange_file_name_is_a_file_name(root: Path, ct: Ct) -> None:
    names = ["two\nlines.dcm", 'quote".dcm', os.fsdecode(b"latin-\xe9.dcm"), "x" * 250]
    for name in names:
        (root / name).write_bytes(ct())
    outcomes, _ = run(root, names)
    assert [outcome.reason for outcome in outcomes] == [None] * 4


def test_no_process_and_no_descriptor_is_left(root: Path, ct: Ct) -> None:
    (root / "a.dcm").write_bytes(ct())
    run(root, ["a.dcm"])
    before = len(os.listdir("/proc/self/fd")), children()
    run(root, ["a.dcm"] * 40)

    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(root, ["a.dcm"] * 40, progress=interrupt)
    assert (len(os.listdir("/proc/self/fd")), children()) == before


def test_no_files_are_no_work(root: Path) -> None:
    assert run(root, []) == ([], b"")


def test_what_a_file_may_cost_is_the_sites_to_say() -> None:
    assert limits_of(policy.Policy().images) == Limits()
    said = policy.parse("[images]\nseconds = 900\nmemory_gib = 12\nfile_gib = 4\n")
    assert limits_of(said.images) == Limits(memory_bytes=12 << 30, cpu_seconds=900.0, file_bytes=4 << 30)
    with pytest.raises(PlanValue, match="line 2"):
        policy.parse("[images]\nseconds = 0\n")
