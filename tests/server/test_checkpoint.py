# SPDX-License-Identifier: Apache-2.0
"""A checkpoint is whole and the committed one, or it is refused."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.errors import CheckpointCorrupt, DiskFull
from server.checkpoint import KEPT, CheckpointFolder
from server.journal import CommittedRound
from server.strategies import StrategyState

STATE = StrategyState(weights=np.arange(50, dtype=np.float32), memory={"velocity": np.ones(50, np.float32)})


def saved(folder: Path, number: int = 1) -> tuple[CheckpointFolder, CommittedRound]:
    checkpoints = CheckpointFolder(folder, power_cut_safe=True)
    name, sha256 = checkpoints.save(number, STATE)
    return checkpoints, CommittedRound(
        round=number, attempt=0, sites=("n",), missing=(), checkpoint=name, sha256=sha256, seconds=1.0, update_norm=0.0
    )


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path) -> None:
    checkpoints, done = saved(tmp_path)
    restored = checkpoints.load(done)
    assert restored.round == 1
    assert restored.state.weights.tobytes() == STATE.weights.tobytes()
    assert restored.state.memory["velocity"].tobytes() == STATE.memory["velocity"].tobytes()


@pytest.mark.parametrize("seed", range(100))
def test_any_flipped_byte_is_noticed(tmp_path: Path, seed: int) -> None:
    checkpoints, done = saved(tmp_path)
    content = bytearray((tmp_path / done.checkpoint).read_bytes())
    place = random.Random(seed).randrange(len(content))
    content[place] ^= 1 + random.Random(seed + 1).randrange(255)
    (tmp_path / done.checkpoint).write_bytes(content)
    with pytest.raises(CheckpointCorrupt):
        checkpoints.load(done)


def test_a_truncated_checkpoint_is_noticed(tmp_path: Path) -> None:
    checkpoints, done = saved(tmp_path)
    path = tmp_path / done.checkpoint
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointCorrupt, match="SHA-256 differs"):
        checkpoints.load(done)


def test_a_missing_checkpoint_is_noticed(tmp_path: Path) -> None:
    checkpoints, done = saved(tmp_path)
    with pytest.raises(CheckpointCorrupt, match="cannot be read"):
        checkpoints.load(replace(done, checkpoint="gone.safetensors"))


def test_only_the_named_checkpoints_are_kept(tmp_path: Path) -> None:
    rounds = [saved(tmp_path, number)[1] for number in range(1, 6)]
    (tmp_path / ".round-000009.safetensors.1.tmp").write_bytes(b"an orphan of a crash")
    CheckpointFolder(tmp_path, power_cut_safe=False).prune(rounds[-KEPT:])
    assert sorted(path.name for path in tmp_path.iterdir()) == [done.checkpoint for done in rounds[-KEPT:]]


def test_a_disk_that_refuses_leaves_the_last_checkpoint_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints, done = saved(tmp_path)
    before = (tmp_path / done.checkpoint).read_bytes()

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DiskFull, match="No space left"):
        checkpoints.save(1, STATE)
    assert [path.name for path in tmp_path.iterdir()] == [done.checkpoint]
    assert (tmp_path / done.checkpoint).read_bytes() == before
