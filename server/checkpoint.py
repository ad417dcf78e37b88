# SPDX-License-Identifier: Apache-2.0
"""Atomic checkpoints: a round's model and its strategy's memory, written whole or not at all.

safetensors, never pickle. Written beside its place, renamed into it, hashed; the hash stands in the journal and is checked before a single
value is used. The last three are kept, so that a damaged newest one costs a round and not the run.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as parse_tensors
from safetensors.numpy import save as write_tensors

from common.durable import write_atomically
from common.errors import CheckpointCorrupt
from server.journal import CommittedRound
from server.strategies import StrategyState

KEPT = 3
_WEIGHTS = "weights"
_MEMORY = "memory."


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A restored round: `round` is the last one committed, 0 for the initial model."""

    round: int
    state: StrategyState


class CheckpointFolder:
    """Where a run's checkpoints lie. `power_cut_safe` adds fsync of file and folder."""

    def __init__(self, folder: Path, *, power_cut_safe: bool) -> None:
        self._folder = folder
        self._fsync = power_cut_safe
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, number: int, state: StrategyState) -> tuple[str, str]:
        """Write round `number`; returns (file name, SHA-256). Raises: DiskFull, with the last checkpoint untouched."""
        tensors = {_WEIGHTS: state.weights, **{_MEMORY + name: vector for name, vector in state.memory.items()}}
        content = write_tensors({name: np.ascontiguousarray(vector) for name, vector in tensors.items()})
        path = self._folder / f"round-{number:06d}.safetensors"
        write_atomically(path, content, fsync=self._fsync)
        return path.name, hashlib.sha256(content).hexdigest()

    def load(self, done: CommittedRound) -> Checkpoint:
        """Read a committed round. Raises: CheckpointCorrupt, when the file is missing or is not the one that was committed."""
        path = self._folder / done.checkpoint
        try:
            content = path.read_bytes()
        except OSError as error:
            raise CheckpointCorrupt(f"checkpoint '{path}' cannot be read: {error.strerror}.", fix=_RESTORE) from error
        if hashlib.sha256(content).hexdigest() != done.sha256:
            raise CheckpointCorrupt(
                f"checkpoint '{path}' is not the file that round {done.round} committed (SHA-256 differs).", fix=_RESTORE
            )
        try:
            tensors = parse_tensors(content)
        except SafetensorError as error:
            raise CheckpointCorrupt(f"checkpoint '{path}' does not parse: {error}.", fix=_RESTORE) from error
        memory = {name.removeprefix(_MEMORY): vector for name, vector in tensors.items() if name.startswith(_MEMORY)}
        return Checkpoint(round=done.round, state=StrategyState(weights=tensors[_WEIGHTS], memory=memory))

    def has(self, done: CommittedRound) -> bool:
        """Whether a committed round's file is there, whole or not."""
        return (self._folder / done.checkpoint).exists()

    def holds_any(self) -> bool:
        """Whether any round was ever saved here."""
        return any(self._folder.glob("round-*.safetensors"))

    def prune(self, committed: Iterable[CommittedRound]) -> None:
        """Drop every file but those of these rounds: older checkpoints, and orphans of crashed commits."""
        kept = {done.checkpoint for done in committed}
        for path in self._folder.iterdir():
            if path.name not in kept:
                path.unlink(missing_ok=True)


_RESTORE = "The run goes back to the round before; remove the damaged file once you have looked at it."
