# SPDX-License-Identifier: Apache-2.0
"""What both kinds of folder are opened with, and what their caches are named after."""

from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from client.imaging.identity import PatientSecret
from client.imaging.listing import Listing, walk
from client.imaging.readers import Progress
from client.imaging.rejection import REMEDY, Reason
from client.imaging.slots import Shape
from client.imaging.splits import Fractions
from client.imaging.worker import Limits
from common import canonical
from common.errors import DataError, DataNotFound, DataUnreadable
from common.plan import Plan

CACHE_FORMAT = 4  # raise it when the same file would give other samples, or another patient
DECODED_BY = ("pydicom", "pylibjpeg-openjpeg", "pylibjpeg-rle", "pyjpegls", "python-gdcm", "pillow", "nibabel")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One folder to be opened for one plan."""

    root: Path
    name: str  # of the folder, for messages
    plan: Plan
    cache: Path
    secret: PatientSecret
    fractions: Fractions = field(default_factory=Fractions)
    limits: Limits = field(default_factory=Limits)
    workers: int | None = None
    progress: Progress | None = None
    accept_burned_in: bool = False

    @property
    def shape(self) -> Shape:
        spec = self.plan.input
        return (spec.channels, spec.height, spec.width)

    def cache_key(self, listing: Listing, *what: str) -> str:
        """A name for everything the samples follow from. `what`: which images are wanted, and whose they are where that is known."""
        return canonical.digest(
            canonical.encode([CACHE_FORMAT, *(f"{package} {version(package)}" for package in DECODED_BY)]),
            canonical.encode(self.plan.input),
            canonical.encode(self.limits),
            listing.digest,
            self.secret.fingerprint.encode(),
            canonical.encode(self.accept_burned_in),
            "\0".join(what).encode("utf-8", "surrogateescape"),
        ).hex()[:40]


def list_folder(request: Request, *, skip: Path) -> Listing:
    """`walk`, with a folder that cannot be listed said so. Raises: DataUnreadable."""
    try:
        return walk(request.root, skip=skip)
    except OSError as error:
        raise DataUnreadable(
            f"{request.name}: it, or a folder in it, cannot be listed ({error.strerror}), so its files cannot be accounted for.",
            fix="Give read permission on all of its folders, or name one that can be read whole.",
        ) from error


def nothing_usable(name: str, rejected: Counter[Reason]) -> DataError:
    """The error for a folder of which no file can be used: counts by reason, and what to do about the commonest."""
    if not rejected:
        return DataNotFound(f"{name} is empty.", fix="Name the folder that holds the images.")
    (worst, _), *_ = rejected.most_common()
    counts = ", ".join(f"{reason.value} {count}" for reason, count in rejected.most_common())
    return DataUnreadable(
        f"{name}: none of its {sum(rejected.values())} files can be used ({counts}).", fix=f"{worst.value}: {REMEDY[worst]}"
    )
