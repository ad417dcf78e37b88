# SPDX-License-Identifier: Apache-2.0
"""What an import needs of an archive, in whatever language it is spoken to."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from client.pacs.failure import Failed
from client.pacs.landing import Landing
from client.pacs.query import Query
from client.pacs.wanted import Wanted

AT_MOST: Final = 2_000_000
"""Instances, or answers to one question: beyond this a listing is taken for one that never ends."""


@dataclass(slots=True)
class Gaps:
    """What a listing leaves out: answers that contradict the query, and studies and series that the archive could not list."""

    contradicting: int = 0
    unlisted: int = 0


class Archive(Protocol):
    """`batch`: how many instances of one series may be asked for at once. `gaps` grow while `find` goes on."""

    batch: int
    gaps: Gaps

    def find(self, query: Query) -> Iterator[Wanted]:
        """List. Raises: Failed where asking again may help; PacsRefused, PacsAnswer."""

    def fetch(self, wanted: Sequence[Wanted], landing: Landing) -> Mapping[Wanted, Failed]:
        """Let instances land; those that did not, and why. What is in neither was not sent. Raises: PacsRefused, DiskFull."""

    def close(self) -> None:
        """Say goodbye."""
