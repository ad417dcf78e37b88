# SPDX-License-Identifier: Apache-2.0
"""A bundle from a stranger: nothing is unpacked, followed or believed, and nothing but a refusal comes of a bad one."""

import os
import random
import shutil
import zipfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from common.audit import bundle
from common.audit.bundle import Bundle, Party
from common.audit.log import LOG_FILE
from common.errors import AuditTampered, BundleFormat, RunFolderTaken
from tests.common.audit.logs import NOON, SIGNER, asked, opened

WHO = Party(role="site", name="north", signer=SIGNER, now=NOON)


@pytest.fixture(params=["folder", "zip"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make(tmp_path, zipped=request.param == "zip")


def make(folder: Path, *, zipped: bool = False) -> Path:
    opened(folder).say(asked(1), asked(2))
    (folder / "plan").write_bytes(b"a plan")
    target = folder / ("north.zip" if zipped else "north")
    bundle.write(target, WHO, {LOG_FILE: folder / LOG_FILE, "evidence/plan-1.toml": folder / "plan"})
    return target


def test_what_was_put_in_comes_out(made: Path, tmp_path: Path) -> None:
    read = Bundle(made)
    assert (read.manifest.name, read.manifest.lines, read.manifest.t_utc) == ("north", 3, "2027-01-15T08:00:00Z")
    assert read.read(LOG_FILE) == (tmp_path / LOG_FILE).read_bytes()
    assert read.read("evidence/plan-1.toml") == b"a plan"


def test_a_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    opened(tmp_path).say(asked(1))
    whole = (tmp_path / LOG_FILE).read_bytes()
    with (tmp_path / LOG_FILE).open("ab") as file:
        file.write(b'{"fact":')
    bundle.write(tmp_path / "north", WHO, {LOG_FILE: tmp_path / LOG_FILE})
    assert Bundle(tmp_path / "north").read(LOG_FILE) == whole


def test_a_broken_log_is_not_put_into_a_bundle(tmp_path: Path) -> None:
    opened(tmp_path).say(asked(1))
    path = tmp_path / LOG_FILE
    path.write_bytes(path.read_bytes().replace(b'"round":1', b'"round":2'))
    with pytest.raises(AuditTampered):
        bundle.write(tmp_path / "north", WHO, {LOG_FILE: path})


def test_a_bundle_is_not_overwritten(made: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFolderTaken):
        bundle.write(made, WHO, {LOG_FILE: tmp_path / LOG_FILE})


@pytest.mark.parametrize("change", ["more", "less", "other", "longer"])
def test_files_beyond_the_manifest_are_refused(tmp_path: Path, change: str) -> None:
    made = make(tmp_path)
    match change:
        case "more":
            (made / "evidence" / "note.txt").write_text("hello")
        case "less":
            (made / "evidence" / "plan-1.toml").unlink()
        case "other":
            (made / "evidence" / "plan-1.toml").write_bytes(b"a plot")
        case "longer":
            with (made / "evidence" / "plan-1.toml").open("ab") as file:
                file.write(b"!")
    with pytest.raises(BundleFormat):
        Bundle(made).check("evidence/plan-1.toml")


@pytest.mark.parametrize("what", ["a link", "a pipe", "a linked folder"])
def test_nothing_is_followed_and_nothing_is_waited_for(tmp_path: Path, what: str) -> None:
    made = make(tmp_path)
    file = made / "evidence" / "plan-1.toml"
    match what:
        case "a link":
            file.unlink()
            file.symlink_to(tmp_path / "plan")
        case "a pipe":
            file.unlink()
            os.mkfifo(file)
        case "a linked folder":
            shutil.move(made / "evidence", tmp_path / "elsewhere")
            (made / "evidence").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleFormat):
        Bundle(made).check("evidence/plan-1.toml")


WAYS_OUT = ["../../etc/passwd", "/etc/passwd", "evidence/../../x", "evidence/a/b", "C:\\x", ".hidden", "evidence/" + "x" * 300]


@pytest.mark.parametrize("name", WAYS_OUT)
def test_a_manifest_cannot_name_a_way_out(tmp_path: Path, name: str) -> None:
    """Not even its owner can sign one that does: such a name is none."""
    manifest = Bundle(make(tmp_path)).manifest
    with pytest.raises(ValueError, match="pattern"):
        bundle.SPELLING.signed(replace(manifest, files=((name, manifest.head, 1),)), SIGNER.sign)
    assert bundle.SPELLING.parse(bundle.SPELLING.signed(manifest, SIGNER.sign)) == manifest


def test_a_zip_with_a_way_out_or_a_name_twice_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    made = make(tmp_path, zipped=True)
    for number, name in enumerate(["../escaped", "/escaped", "audit.jsonl"]):
        bad = tmp_path / f"bad-{number}.zip"
        shutil.copy(made, bad)
        with zipfile.ZipFile(bad, "a") as packed, pytest.warns() if name == "audit.jsonl" else nullcontext():
            packed.writestr(name, b"x")
        with pytest.raises(BundleFormat):
            Bundle(bad)
    assert not [path for path in [tmp_path / "escaped", tmp_path.parent / "escaped", Path("/escaped")] if path.exists()]


def test_a_file_that_unpacks_to_more_than_it_says_is_not_unpacked(tmp_path: Path) -> None:
    """A zip bomb: a hundred megabytes of zeros in a hundred kilobytes, under a name that the manifest has for six bytes."""
    made = make(tmp_path, zipped=True)
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(made) as good, zipfile.ZipFile(bomb, "w", compression=zipfile.ZIP_DEFLATED) as packed:
        for name in good.namelist():
            packed.writestr(name, bytes(100 * 2**20) if name == "evidence/plan-1.toml" else good.read(name))
    read = Bundle(bomb)
    with pytest.raises(BundleFormat, match="longer than the 6 bytes"):
        read.read("evidence/plan-1.toml")
    with pytest.raises(BundleFormat, match="is not the file"):
        read.check("evidence/plan-1.toml")


def test_a_damaged_zip_is_refused_by_name_or_says_the_same(tmp_path: Path) -> None:
    """A thousand bytes of a .zip: whatever the standard library makes of them, it is a refusal or the very same content."""
    made = make(tmp_path, zipped=True)
    content = made.read_bytes()
    same = {name: Bundle(made).read(name) for name in Bundle(made).names}
    rng, refused = random.Random(3), 0
    bad = tmp_path / "bad.zip"
    for _ in range(1000):
        at = rng.randrange(len(content))
        bad.write_bytes(content[:at] + bytes([content[at] ^ rng.randrange(1, 256)]) + content[at + 1 :])
        try:
            read = Bundle(bad)
            assert {name: read.read(name) for name in read.names} == same
        except BundleFormat:
            refused += 1
    assert refused > 800


@pytest.mark.parametrize("what", ["nothing", "text", "half a zip", "an empty folder"])
def test_what_is_no_bundle_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "given"
    match what:
        case "nothing":
            path.write_bytes(b"")
        case "text":
            path.write_text("a letter")
        case "half a zip":
            path.write_bytes(make(tmp_path, zipped=True).read_bytes()[:300])
        case "an empty folder":
            path.mkdir()
    with pytest.raises(BundleFormat):
        Bundle(path)
