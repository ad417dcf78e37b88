# SPDX-License-Identifier: Apache-2.0
"""A listing counts what it will not open, and nothing opened lies outside the root."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from client.imaging.listing import read_beneath, walk
from client.imaging.rejection import Reason, Rejected


@contextmanager
def opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def reason_for(root: Path, path: str, *, largest: int = 1000) -> Reason:
    with opened(root) as descriptor, pytest.raises(Rejected) as refused:
        read_beneath(descriptor, path, largest=largest)
    return refused.value.reason


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "1.dcm").write_bytes(b"inside")
    (tmp_path / "outside.dcm").write_bytes(b"outside")
    return folder


def test_files_are_listed_in_the_order_of_their_paths(root: Path) -> None:
    (root / "z").write_bytes(b"z")
    (root / "a.dcm").write_bytes(b"a")
    (root / "labels.csv").write_bytes(b"")
    listing = walk(root, skip=root / "labels.csv")
    assert [file.path for file in listing.files] == ["a.dcm", "a/b/1.dcm", "z"]
    assert not listing.rejected


def test_links_pipes_and_dicomdirs_are_counted_and_left_alone(root: Path, tmp_path: Path) -> None:
    (root / "file_link").symlink_to(tmp_path / "outside.dcm")
    (root / "folder_link").symlink_to(tmp_path)
    (root / "loop").symlink_to(root)
    (root / "DICOMDIR").write_bytes(b"")
    (root / "a" / "dicomdir").write_bytes(b"")
    os.mkfifo(root / "pipe")
    listing = walk(root)
    assert [file.path for file in listing.files] == ["a/b/1.dcm"]
    assert listing.rejected == {Reason.LINK: 3, Reason.DICOMDIR: 2, Reason.NOT_REGULAR: 1}


def test_the_digest_changes_with_a_file_and_with_nothing_else(root: Path) -> None:
    before = walk(root).digest
    assert walk(root).digest == before
    os.utime(root / "a" / "b" / "1.dcm", ns=(1, 1))
    touched = walk(root).digest
    assert touched != before
    (root / "a" / "b" / "1.dcm").rename(root / "a" / "b" / "2.dcm")
    assert walk(root).digest not in (before, touched)


def test_a_file_beneath_the_root_is_read(root: Path) -> None:
    with opened(root) as descriptor:
        assert read_beneath(descriptor, "a/b/1.dcm", largest=6) == b"inside"


@pytest.mark.parametrize("path", ["../outside.dcm", "a/../../outside.dcm", "/etc/passwd", "a//b/1.dcm", "./a/b/1.dcm", "", "."])
def test_a_path_that_leads_upwards_is_refused(root: Path, path: str) -> None:
    assert reason_for(root, path) is Reason.OUTSIDE


def test_a_folder_that_became_a_link_after_the_listing_is_refused(root: Path, tmp_path: Path) -> None:
    (path,) = [file.path for file in walk(root).files]
    (tmp_path / "elsewhere" / "b").mkdir(parents=True)
    (tmp_path / "elsewhere" / "b" / "1.dcm").write_bytes(b"outside")
    (root / "a").rename(tmp_path / "moved")
    (root / "a").symlink_to(tmp_path / "elsewhere")
    assert reason_for(root, path) is Reason.LINK


def test_a_file_that_became_a_link_or_a_pipe_is_refused(root: Path, tmp_path: Path) -> None:
    (root / "link").symlink_to(tmp_path / "outside.dcm")
    os.mkfifo(root / "pipe")
    assert reason_for(root, "link") is Reason.LINK
    assert reason_for(root, "pipe") is Reason.NOT_REGULAR
    assert reason_for(root, "a/b") is Reason.NOT_REGULAR
    assert reason_for(root, "absent.dcm") is Reason.NO_FILE
    assert reason_for(root, "a/b/1.dcm/x") is Reason.NO_FILE
    assert reason_for(root, "nul\0byte") is Reason.NO_FILE


def test_a_file_over_the_limit_is_not_read(root: Path) -> None:
    assert reason_for(root, "a/b/1.dcm", largest=5) is Reason.TOO_LARGE


@pytest.mark.slow
def test_a_file_is_read_whole_however_little_the_system_gives_at_once(root: Path) -> None:
    """Linux gives 2 GiB less 4 KiB, and a whole slide may be larger: policy.toml's file_gib."""
    with (root / "slide").open("wb") as file:
        file.truncate((2 << 30) + 5)
    with opened(root) as descriptor:
        assert len(read_beneath(descriptor, "slide", largest=4 << 30)) == (2 << 30) + 5


def test_no_descriptor_is_left_open(root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for path in ("a/b/1.dcm", "a/b", "../x", "a/b/absent"):
        with opened(root) as descriptor:
            try:
                read_beneath(descriptor, path, largest=1000)
            except Rejected:
                continue
    assert len(os.listdir("/proc/self/fd")) == before
