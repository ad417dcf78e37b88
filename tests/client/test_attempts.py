# SPDX-License-Identifier: Apache-2.0
"""Where a site stands survives on disk, whole or refused, and is nobody else's to read."""

import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.attempts import AttemptStore
from common.errors import CheckpointCorrupt
from common.secagg.model import Reference
from common.secagg.site import Record
from common.secagg.stages import Keyed
from tests.common.secagg.federation import federation


@pytest.fixture
def joined() -> Record:
    sites = federation()
    sites.to_keys()
    return sites.records["site-000"]


def store(folder: Path) -> AttemptStore:
    return AttemptStore(folder / "fsa1", power_cut_safe=False)


def test_a_site_that_never_took_part_stands_at_the_beginning(tmp_path: Path) -> None:
    assert store(tmp_path).record() == Record()
    assert store(tmp_path).reference() is None


def test_another_process_finds_record_and_update(tmp_path: Path, joined: Record) -> None:
    store(tmp_path).keep(Record(), joined)
    found = store(tmp_path).record()
    assert isinstance(found.stage, Keyed)
    assert isinstance(joined.stage, Keyed)
    assert found == joined
    np.testing.assert_array_equal(found.stage.update.body, joined.stage.update.body)


def test_an_update_goes_when_the_record_lets_it_go(tmp_path: Path, joined: Record) -> None:
    kept = store(tmp_path)
    kept.keep(Record(), joined)
    kept.keep(joined, Record(memory=replace(joined.memory)))
    assert [path.name.partition("-")[0] for path in sorted((tmp_path / "fsa1").iterdir())] == ["lock", "record"]


def test_only_the_owner_can_read(tmp_path: Path, joined: Record) -> None:
    kept = store(tmp_path)
    with kept.locked():
        kept.keep(Record(), joined)
    kept.keep_reference(Reference(values=np.ones(3, np.float32), round=4))
    modes = {path.name.partition("-")[0]: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "fsa1").iterdir()}
    assert modes == dict.fromkeys(("lock", "record", "update", "model"), 0o600)


@pytest.mark.parametrize("name", ["record", "update", "model"])
def test_a_torn_file_is_refused_by_name(tmp_path: Path, joined: Record, name: str) -> None:
    kept = store(tmp_path)
    kept.keep(Record(), joined)
    kept.keep_reference(Reference(values=np.ones(3, np.float32), round=4))
    [path] = (tmp_path / "fsa1").glob(f"{name}-*")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CheckpointCorrupt):
        kept.reference() if name == "model" else kept.record()


def test_an_exchanged_update_is_refused_by_the_step_that_uses_it_and_not_read_by_the_others(tmp_path: Path, joined: Record) -> None:
    kept = store(tmp_path)
    kept.keep(Record(), joined)
    [path] = (tmp_path / "fsa1").glob("update-*")
    path.write_bytes(path.read_bytes()[:-1] + b"\x55")
    assert kept.record(update_is_used=False) == joined
    with pytest.raises(CheckpointCorrupt, match="not the one that this site committed to"):
        kept.record()


def test_an_update_that_is_gone_is_missed_by_every_step(tmp_path: Path, joined: Record) -> None:
    kept = store(tmp_path)
    kept.keep(Record(), joined)
    for content in (b"", None):
        [path] = (tmp_path / "fsa1").glob("update-*")
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(CheckpointCorrupt):
            kept.record(update_is_used=False)


def test_a_step_that_does_not_use_the_update_leaves_its_file_alone(tmp_path: Path, joined: Record) -> None:
    """Read and written anew at each step, a large model's update would cost more than the protocol."""
    kept = store(tmp_path)
    kept.keep(Record(), joined)
    [path] = (tmp_path / "fsa1").glob("update-*")
    before = path.stat()
    record = kept.record(update_is_used=False)
    kept.keep(record, replace(record, answers=(*record.answers, *record.answers)))
    [after] = (tmp_path / "fsa1").glob("update-*")
    assert (after, after.stat().st_mtime_ns) == (path, before.st_mtime_ns)


def test_the_last_model_comes_back_with_its_round(tmp_path: Path) -> None:
    kept = store(tmp_path)
    for number in (4, 5):
        kept.keep_reference(Reference(values=np.full(3, number, np.float32), round=number))
    found = kept.reference()
    assert found is not None
    assert (found.round, found.values.tolist()) == (5, [5.0, 5.0, 5.0])


def test_what_a_killed_process_left_half_written_is_gone_when_the_site_is_opened_again(tmp_path: Path) -> None:
    AttemptStore(tmp_path / "fsa1", power_cut_safe=False)
    left = tmp_path / "fsa1" / ".record-000000000009.1-1.tmp"
    left.write_bytes(b"half a key")
    AttemptStore(tmp_path / "fsa1", power_cut_safe=False)
    assert not left.exists()
