# SPDX-License-Identifier: Apache-2.0
"""What has come: one line for each instance that lies in its place, with its size and SHA-256. Only ever appended to.

    {"name": "9c4e...", "sha256": "77ab...", "size": 526850}

A line is written after its file has been put in its place, so a kill at any moment leaves at most one whole file without a line; that file
is looked at again, and taken in, before anyone is asked for it. A power cut may cost some lines or some renamings: then files are looked
at again, or asked for again. So a file's content is the one thing that is waited for on its way to the disk.

Names are keyed: the journal says nothing of a patient. It holds nothing that the files do not say themselves, so a damaged journal is put
aside and written anew from them.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from common.appended import LineFile

JOURNAL_FILE: Final = "journal.jsonl"
_TITLE: Final = b'{"fedward_import": 1}'
_NAME: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """A file that lies in its place: its keyed name, its size and the hash of its bytes."""

    name: str
    size: int
    sha256: str


class Journal:
    """The lines of one folder, held by one process from the beginning to the end of an import."""

    def __init__(self, file: LineFile, arrived: dict[str, Arrived], *, was_damaged: bool) -> None:
        self._file, self._arrived = file, arrived
        self.was_damaged = was_damaged

    @classmethod
    @contextmanager
    def opened(cls, folder: Path) -> Iterator[Self]:
        """Read what was done before. Whoever opens holds the folder's lock. Raises: DiskFull."""
        path = folder / JOURNAL_FILE
        path.touch(mode=0o600)
        damaged = _put_aside_if_damaged(path)
        file = LineFile(path, power_cut_safe=False)
        with file.locked():
            lines, torn = file.added()
            for line in lines:
                file.took(line)
            if torn:
                file.cut_torn_line()
            if not lines:
                file.append(_TITLE, what="the import's journal")
            arrived = (_parse(line) for line in lines[1:])
            yield cls(file, {each.name: each for each in arrived}, was_damaged=damaged)

    def get(self, name: str) -> Arrived | None:
        return self._arrived.get(name)

    def add(self, arrived: Arrived) -> None:
        """It lies in its place. A later line about a name counts. Raises: DiskFull."""
        self._file.append(json.dumps(asdict(arrived), sort_keys=True).encode(), what="the import's journal")
        self._arrived[arrived.name] = arrived


def _put_aside_if_damaged(path: Path) -> bool:
    """Whole lines that do not say what they should; a torn last one is nothing but a power cut's."""
    lines = path.read_bytes().split(b"\n")[:-1]
    try:
        if lines and lines[0] != _TITLE:
            raise ValueError
        for line in lines[1:]:
            _parse(line)
    except (ValueError, TypeError):
        path.replace(path.with_name(f"{JOURNAL_FILE}.damaged"))
        path.touch(mode=0o600)
        return True
    return False


def _parse(line: bytes) -> Arrived:
    found = Arrived(**json.loads(line))
    if not _NAME.fullmatch(found.name) or not _SHA256.fullmatch(found.sha256) or type(found.size) is not int:
        raise ValueError
    return found
