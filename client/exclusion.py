# SPDX-License-Identifier: Apache-2.0
"""Patients who withdrew: out from the next snapshot on, and never in clear.

An id is keyed as the intake keys it, and the keyed id hashed once more; that mark goes into the ledger as an entry EXCLUDE. From the mark
nobody finds a patient, not even with the manifest's keyed ids at hand on another machine; the next snapshot leaves out whoever has one.

What was learnt from them before cannot be taken out of a model; what the promise of differential privacy says of it stays true. An
exclusion has no way back: a patient who returns is a new decision, under a new id or in a new namespace.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from client.imaging.dataset import Dataset
from client.imaging.identity import PatientSecret, patient_key, unit_key
from client.imaging.manifest import Manifest
from client.ledger import Chain, Ledger
from common.errors import DataNotFound
from common.privacy.entries import Excluded, Fact


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """How many were newly excluded, and how many had been before."""

    new: int
    before: int


def mark_of(key: str) -> str:
    """What the ledger says of a keyed id. A simulation that pools hospitals puts a name before the key: that is not part of it."""
    return hashlib.sha256(b"fedward excluded 1\n" + key.rpartition("/")[2].encode()).hexdigest()[:32]


def key_of(secret: PatientSecret, unit_source: str, issuer: str, patient_id: str) -> str:
    """The keyed id, as the intake made it. Picture folders without patient ids key what they have (client.imaging.picture_folder)."""
    if unit_source == "patient_id":
        return patient_key(secret, issuer, patient_id)
    return unit_key(secret, unit_source, patient_id)


def exclude(ledger: Ledger, keys: Sequence[str], approved: Manifest | None, *, not_yet_here: bool) -> Withdrawn:
    """Write an entry for each patient who has none.

    Raises: DataNotFound, if one is not in the approved snapshot and `not_yet_here` does not say that this is meant: a mistyped id must
    not look like a withdrawal. Then nothing is written.
    """
    here = {row.key.rpartition("/")[2] for row in approved.patients} if approved else set()
    done = ledger.refresh().excluded
    unknown = [number for number, key in enumerate(keys, start=1) if key not in here and mark_of(key) not in done]
    if unknown and not not_yet_here:
        raise DataNotFound(
            f"of {len(keys)} patient ids given, number {', '.join(map(str, unknown))} is not in the approved snapshot; nothing was done.",
            fix="Look for a slip, and for the issuer (--issuer). For patients whose images may come later: --not-yet-here.",
        )
    written = sum(ledger.note(_fact(mark_of(key))) is not None for key in dict.fromkeys(keys))
    return Withdrawn(new=written, before=len(set(keys)) - written)


def without(data: Dataset, excluded: Collection[str]) -> Dataset:
    """The rows of everybody who is not excluded."""
    if not excluded:
        return data
    out = np.array([mark_of(key) in excluded for key in data.patient_keys], dtype=bool)
    return data.subset(~out[data.patients])


def pending(manifest: Manifest, excluded: Iterable[str]) -> int:
    """Patients who are excluded and still in this snapshot."""
    marks = set(excluded)
    return sum(mark_of(row.key) in marks for row in manifest.patients)


def staying(manifest: Manifest, keys: Iterable[str], excluded: Collection[str]) -> int:
    """How many of these patients are in this snapshot and not excluded."""
    here = {row.key.rpartition("/")[2] for row in manifest.patients}
    return sum(key in here and mark_of(key) not in excluded for key in set(keys))


def _fact(mark: str) -> Callable[[Chain], Fact | None]:
    def fact(chain: Chain) -> Fact | None:
        return None if mark in chain.excluded else Excluded(mark=mark)

    return fact
