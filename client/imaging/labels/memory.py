# SPDX-License-Identifier: Apache-2.0
"""A survey kept beside the cache of samples, so that a folder that has not changed is not read again, header by header, at every start.

What is kept names nobody: images, studies and patients by their keyed names, files by their number in the listing, of headers the modality
and the geometry alone, since people type the rest. It is for its owner (0600). Another listing, secret or reader is another name; what does
not read back is surveyed anew. labels.toml is no part of it: correcting a rule reads no image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from client.imaging.labels.survey import Survey
from client.imaging.listing import Listing
from client.imaging.rejection import Reason
from common import canonical
from common.durable import OWNER_ONLY, write_atomically

FORMAT: Final = 2  # raise it when the same files would give another survey
READ_BY: Final = ("pydicom", "highdicom")
_SURVEY: TypeAdapter[Survey] = TypeAdapter(Survey)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Where surveys are kept, and whose secret their names are keyed with."""

    folder: Path
    fingerprint: str

    def recall(self, listing: Listing) -> Survey | None:
        """The survey of exactly these files, if it was kept and is whole."""
        try:
            kept = _SURVEY.validate_json(self._file(listing).read_bytes())
            return _with_paths(kept, [file.path for file in listing.files])
        except (OSError, ValidationError, IndexError, ValueError):
            return None

    def keep(self, survey: Survey, listing: Listing) -> None:
        """Raises: DiskFull."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        number = {file.path: str(place) for place, file in enumerate(listing.files)}
        slim = Survey(
            images=tuple(
                replace(each, path=number[each.path], years=None, about={"modality": each.about.get("modality", "")})
                for each in survey.images
            ),
            documents=tuple(replace(each, path=number[each.path]) for each in survey.documents),
            rejected={number[path]: reason for path, reason in survey.rejected.items()},
        )
        write_atomically(self._file(listing), _SURVEY.dump_json(slim), fsync=False, mode=OWNER_ONLY)

    def _file(self, listing: Listing) -> Path:
        readers = canonical.encode([FORMAT, *(f"{package} {version(package)}" for package in READ_BY)])
        return self.folder / f"survey-{canonical.digest(readers, listing.digest, self.fingerprint.encode()).hex()[:40]}.json"


def _with_paths(kept: Survey, paths: Sequence[str]) -> Survey:
    return Survey(
        images=tuple(replace(each, path=paths[int(each.path)]) for each in kept.images),
        documents=tuple(replace(each, path=paths[int(each.path)]) for each in kept.documents),
        rejected={paths[int(place)]: Reason(reason) for place, reason in kept.rejected.items()},
    )
