# SPDX-License-Identifier: Apache-2.0
"""One file examined: what it is, whether the plan would use it, and the SHA-256 of its stored values. In the child.

The verdict is the one that an intake would give, by the same functions. The hash is told of whatever decodes, used or not, so that a site
can compare its files with another reader's: over the bytes of what pydicom's `pixel_array` gives, all frames in their order, row by row, in
the width and byte order that the file has, palettes as their entries, YBR as RGB, one bit as one byte.
"""

import hashlib
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.dataset import Dataset

from client.imaging import dicom, frame_groups, geometry, pixels
from client.imaging.rejection import Rejected

if TYPE_CHECKING:
    from client.imaging.worker import Brief

ABOUT = {"modality": "Modality", "photometric": "PhotometricInterpretation"}
MOST_PLACES = 4096  # slices of one file that are looked at for gaps
HASHING = 0.6
"""After this part of a file's time no further frame is hashed: a long cine that an intake reads one frame of must not time out here."""


def examine(content: bytes, brief: "Brief") -> dict[str, Any]:
    """Facts about one DICOM file, "reason" among them: null for one that would be used. Raises: Rejected, if nothing can be told."""
    until = time.process_time() + HASHING * brief.limits.cpu_seconds
    dataset = dicom.header(content)
    facts: dict[str, Any] = {name: _word(dataset, keyword) for name, keyword in ABOUT.items()}
    facts["syntax"] = str(dataset.file_meta.get("TransferSyntaxUID", ""))[:64]
    facts |= _verdict(dataset, content, brief)  # first: what is left of the file's time is for the hash
    facts |= _values_of(dataset, until)
    facts |= _place_of(dataset)
    return facts


def examine_picture(content: bytes, brief: "Brief") -> dict[str, Any]:
    """The same of a PNG, JPEG or NIfTI file, of which no hash is told."""
    from client.imaging.worker import read_picture, tell_count

    try:
        _, placed = read_picture(content, brief)
        images = sum(1 for _ in placed)
        return {"reason": None, "images": images, "skipped": tell_count(content, brief) - images}
    except Rejected as rejected:
        return {"reason": rejected.reason}


def _values_of(dataset: Dataset, until: float) -> dict[str, Any]:
    """Shape and hash of what decodes; a reason for what does not, or "unhashed" where it would take too long (process time)."""
    try:
        claims = pixels.claims_of(dataset)
        facts = {"shape": list(claims.shape), "bits": [claims.stored, claims.allocated], "frames": claims.frames}
    except Rejected as rejected:
        return {"undecoded": rejected.reason}
    hasher = hashlib.sha256()
    try:
        for stored in pixels.decode_frames(dataset, claims, range(claims.frames)):
            hasher.update(np.ascontiguousarray(stored.values).data.cast("B"))
            if time.process_time() > until:
                return {**facts, "unhashed": True}
    except Rejected as rejected:
        return {**facts, "undecoded": rejected.reason}
    return {**facts, "sha256": hasher.hexdigest()}


def _verdict(dataset: Dataset, content: bytes, brief: "Brief") -> dict[str, Any]:
    """What an intake would say: a reason, or whose it is and how many images it gives."""
    from client.imaging.worker import read_dicom

    try:
        identity, placed = read_dicom(content, brief)
        images = sum(1 for _ in placed)
        whose = [identity.issuer, identity.patient_id, identity.sop_instance_uid, identity.series_uid]
        return {"reason": None, "images": images, "skipped": dicom.count(dataset, brief.input.frames) - images, "whose": whose}
    except Rejected as rejected:
        return {"reason": rejected.reason}


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
