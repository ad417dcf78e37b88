# SPDX-License-Identifier: Apache-2.0
"""Masked vectors and opened sums of the open round, on disk: memory does not grow with the cohort.

A vector is one file of ring words as its site sent them; it is dropped once its round is committed. The sum over a group stays for the
last rounds, so that a lost checkpoint can be made again without asking anyone: it is what the coordinator was entitled to learn.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.durable import forget_unfinished, write_atomically
from common.update import Words

_VECTOR, _SUM = "vector", "sum"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Whose vectors: one attempt at one sum of a round."""

    round: int
    kind: str
    attempt: int


class VectorFolder:
    """Where they lie, of one coordinator: open the journal first, which locks. `power_cut_safe` adds fsync of file and folder."""

    def __init__(self, folder: Path, *, power_cut_safe: bool) -> None:
        self._folder = folder
        self._fsync = power_cut_safe
        folder.mkdir(parents=True, exist_ok=True)
        forget_unfinished(folder)

    def keep_vector(self, of: Attempt, site: str, words: Words) -> None:
        """Raises: DiskFull."""
        write_atomically(self._vector(of, site), np.ascontiguousarray(words).data.cast("B"), fsync=self._fsync)

    def vector(self, of: Attempt, site: str, word: np.dtype[Any]) -> Words:
        """Shapes: (P,). What was kept; the protocol checks it against its site's signature."""
        return np.fromfile(self._vector(of, site), dtype=word)

    def path(self, of: Attempt, site: str) -> Path:
        """Where a vector lies until its round is committed."""
        return self._vector(of, site)

    def keep_sum(self, number: int, kind: str, group: int, words: Words) -> str:
        """Returns its SHA-256. Raises: DiskFull."""
        content = np.ascontiguousarray(words).data.cast("B")
        write_atomically(self._sum(number, kind, group), content, fsync=self._fsync)
        return hashlib.sha256(content).hexdigest()

    def sum(self, number: int, kind: str, group: int, word: np.dtype[Any], sha256: str) -> Words | None:
        """None, if it is gone or is not the one that was kept."""
        path = self._sum(number, kind, group)
        if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            return None
        return np.fromfile(path, dtype=word)

    def drop(self, *, vectors_to: int, sums_to: int) -> None:
        """Remove the vectors of rounds up to one number and the sums up to another."""
        for path in self._folder.iterdir():
            kind, number = path.name.split("-", 2)[:2]
            if int(number) <= (vectors_to if kind == _VECTOR else sums_to):
                path.unlink(missing_ok=True)

    def _vector(self, of: Attempt, site: str) -> Path:
        return self._folder / f"{_VECTOR}-{of.round:06d}-{of.kind}-{of.attempt}-{site}"

    def _sum(self, number: int, kind: str, group: int) -> Path:
        return self._folder / f"{_SUM}-{number:06d}-{kind}-{group}"
