# SPDX-License-Identifier: Apache-2.0
"""What a prepared data set holds, patient by patient, so that nobody has to open it to count.

A reservation is made from a manifest alone: how many training units there are is read here, and the images are opened afterwards. For each
patient there is the keyed id, the side of the split, the number of images and a digest of their labels, pixels and parts. The site's
ledger names the digest of the manifest that was approved; a manifest, or data, that are other than that are refused.

It holds keyed ids, so it stays at the site like everything else in the folder (0600).
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter

from client.imaging.dataset import Dataset, UnitSource
from client.imaging.splits import Split
from common import canonical
from common.durable import OWNER_ONLY, write_atomically
from common.errors import SnapshotMismatch
from common.privacy import entries

MANIFEST_FILE: Final = "manifest.json"
NAMED_BY_PATIENT: Final[tuple[UnitSource, ...]] = ("patient_id", "group_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientRow:
    """One patient: keyed id, side, number of images, SHA-256 of their labels and pixels."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)
    key: str
    split: Annotated[int, Field(ge=0, le=2)]
    images: Annotated[int, Field(ge=1)]
    sha256: str


@dataclass(frozen=True, kw_only=True)  # no slots: the digest of ten thousand patients is computed once
class Manifest:
    """All patients, in the order of their keys."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)
    unit_source: UnitSource
    patients: tuple[PatientRow, ...]

    @cached_property
    def digest(self) -> str:
        """Its name in the ledger."""
        return hashlib.sha256(entries.render(self)).hexdigest()

    @cached_property
    def training_patients(self) -> int:
        return sum(1 for _ in self._training())

    @cached_property
    def training_records(self) -> int:
        return sum(row.images for row in self._training())

    def _training(self) -> Iterable[PatientRow]:
        return (row for row in self.patients if row.split == Split.TRAIN)


_MANIFEST: TypeAdapter[Manifest] = TypeAdapter(Manifest)


def manifest_of(data: Dataset) -> Manifest:
    """Count and digest a data set; reads every pixel."""
    order = np.argsort(data.patients, kind="stable")
    present, starts = np.unique(data.patients[order], return_index=True)
    rows = []
    for patient, of_patient in zip(present, np.split(order, starts[1:]), strict=True):
        digest = hashlib.sha256(data.labels[of_patient].astype("<i8").tobytes())
        digest.update(data.images[of_patient].astype("<u2", copy=False).tobytes())
        for name in sorted(data.parts):
            part = data.parts[name][of_patient]
            digest.update(canonical.digest(name.encode(), part.dtype.str.encode(), np.ascontiguousarray(part).tobytes()))
        rows.append(
            PatientRow(
                key=data.patient_keys[patient],
                split=int(data.splits[of_patient[0]]),
                images=len(of_patient),
                sha256=digest.hexdigest(),
            )
        )
    return Manifest(unit_source=data.unit_source, patients=tuple(sorted(rows, key=lambda row: row.key)))


def write(manifest: Manifest, folder: Path, *, fsync: bool) -> None:
    """Raises: DiskFull."""
    write_atomically(folder / MANIFEST_FILE, entries.render(manifest), fsync=fsync, mode=OWNER_ONLY)


def read(folder: Path) -> Manifest:
    """Raises: SnapshotMismatch, if there is none or it does not parse."""
    try:
        return _MANIFEST.validate_json((folder / MANIFEST_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise SnapshotMismatch(
            f"'{folder}' has no manifest that can be read.", fix="Take a new snapshot: fedward site snapshot --help."
        ) from error


def check(data: Dataset, manifest: Manifest, *, pixels: bool) -> None:
    """Whether a data set is the one of its manifest: patients and counts, and with `pixels` everything. Raises: SnapshotMismatch."""
    if pixels:
        same = manifest_of(data) == manifest
    else:
        present, counts = np.unique(data.patients, return_counts=True)
        found = {data.patient_keys[patient]: int(count) for patient, count in zip(present, counts, strict=True)}
        same = found == {row.key: row.images for row in manifest.patients}
    if not same:
        raise SnapshotMismatch(
            "the prepared data are not those of the snapshot that was approved.",
            fix="If they were changed on purpose, approve them: fedward site snapshot. Otherwise restore them.",
        )
