# SPDX-License-Identifier: Apache-2.0
"""One file examined: what it is, whether the plan would use it, and the SHA-256 of its stored values. In the child.

The verdict is the one that an intake would give, by the same functions, and the values are hashed on their way through it, so that nothing
is decoded twice. The hash is told of whatever decodes, used or not, so that a site can compare its files with another reader's:

    DICOM      the bytes of what pydicom's `pixel_array` gives, all frames in their order, row by row, in the width and byte order that the
               file has, palettes as their entries, YBR as RGB, one bit as one byte
    PNG, JPEG  the bytes of `numpy.asarray(PIL.Image.open(file))`: before any turning, palettes as their entries, one bit as one byte
    NIfTI      the bytes of the image itself as the file has them, unscaled; of a packed one those that were packed
"""

import hashlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from client.imaging import dicom, frame_groups, geometry, nifti, pixels
from client.imaging.rejection import Rejected

if TYPE_CHECKING:
    from client.imaging.worker import Brief, Taken

ABOUT = {"modality": "Modality", "photometric": "PhotometricInterpretation"}
MOST_PLACES = 4096  # slices of one file that are looked at for gaps
HASHING = 0.6
"""After this part of a file's time no further frame is hashed: a long cine that an intake reads one frame of must not time out here."""


class _Fingerprint:
    """The SHA-256 of all stored values that pass by."""

    def __init__(self) -> None:
        self._hasher = hashlib.sha256()
        self.frames = 0
        self.shape: tuple[int, ...] = ()

    def __call__(self, values: NDArray[Any]) -> None:
        self._hasher.update(np.ascontiguousarray(values).data.cast("B"))
        self.frames += 1
        self.shape = values.shape

    @property
    def sha256(self) -> str:
        return self._hasher.hexdigest()


def examine(content: bytes, brief: "Brief") -> dict[str, Any]:
    """Facts about one DICOM file, "reason" among them: null for one that would be used. Raises: Rejected, if nothing can be told."""
    from client.imaging.worker import read_dataset

    until = time.process_time() + HASHING * brief.limits.cpu_seconds
    dataset = dicom.header(content)
    facts: dict[str, Any] = {name: _word(dataset, keyword) for name, keyword in ABOUT.items()}
    facts["syntax"] = str(dataset.file_meta.get("TransferSyntaxUID", ""))[:64]
    seen = _Fingerprint()
    facts |= _verdict(lambda: read_dataset(dataset, brief, tap=seen))  # first: what is left of the file's time is for the hash
    if facts["reason"] is None:
        facts["skipped"] = dicom.count(dataset, brief.input.frames) - facts["images"]
    facts |= _values_of(dataset, seen, until, begins=brief.input.frames != "middle")
    facts |= _place_of(dataset)
    return facts


def examine_picture(content: bytes, brief: "Brief") -> dict[str, Any]:
    """The same of a PNG, JPEG or NIfTI file."""
    from client.imaging.worker import read_flat, read_volume

    seen = _Fingerprint()
    if nifti.is_nifti(content):
        volume = nifti.open_volume(content)
        facts = _verdict(lambda: read_volume(volume, brief, tap=seen))
        if facts["reason"] is None:
            facts["skipped"] = len(nifti.wanted(volume, brief.input)) - facts["images"]
    else:
        facts = _verdict(lambda: read_flat(content, brief, tap=seen))
    return {**facts, **({"shape": list(seen.shape), "sha256": seen.sha256} if seen.frames else {})}


def _verdict(read: Callable[[], "Taken"]) -> dict[str, Any]:
    """What an intake would say: a reason, or whose it is, how many images it gives, where they lie and on what grid."""
    try:
        taken = read()
        places = [place for place, _ in taken.placed]
    except Rejected as rejected:
        return {"reason": rejected.reason}
    identity = taken.identity
    whose = [identity.issuer, identity.patient_id, identity.sop_instance_uid, identity.series_uid]
    return {"reason": None, "images": len(places), "skipped": 0, "places": places, "whose": whose, "grid": list(taken.grid)}


def _values_of(dataset: Dataset, seen: _Fingerprint, until: float, *, begins: bool) -> dict[str, Any]:
    """Shape and hash of what decodes; a reason for what does not, or "unhashed" where it would take too long (process time).

    `begins`: whether what was seen so far are the file's first frames; else all are decoded from the first one on.
    """
    try:
        claims = pixels.claims_of(dataset)
        facts = {"shape": list(claims.shape), "bits": [claims.stored, claims.allocated], "frames": claims.frames}
    except Rejected as rejected:
        return {"undecoded": rejected.reason}
    if not begins and seen.frames < claims.frames:
        seen = _Fingerprint()
    try:
        if rest := range(seen.frames, claims.frames):
            for stored in pixels.decode_frames(dataset, claims, rest):
                seen(stored.values)
                if time.process_time() > until and seen.frames < claims.frames:
                    return {**facts, "unhashed": True}
    except Rejected as rejected:
        return {**facts, "undecoded": rejected.reason}
    return {**facts, "sha256": seen.sha256}


def _place_of(dataset: Dataset) -> dict[str, Any]:
    """Where its slices lie, for whoever sorts a series."""
    try:
        frames = min(int(dataset.get("NumberOfFrames") or 1), MOST_PLACES)
        found = [geometry.geometry_of(frame_groups.attributes_of(dataset, frame)) for frame in range(frames)]
    except (Rejected, TypeError, ValueError):
        return {}
    return {"slices": [[each.normal, each.place_mm] for each in found]}


def _word(dataset: Dataset, keyword: str) -> str:
    """A short code of the standard's; what is no code is not told."""
    try:
        text = str(dataset.get(keyword, "") or "").strip(" \0")
    except Exception:  # a header of any kind may stand here
        return ""
    return text if len(text) <= 16 and text.isascii() and text.isprintable() else ""
