# SPDX-License-Identifier: Apache-2.0
"""A data set on disk, ready to train from: pixels and parts as memory-mapped arrays, columns as JSON beside them, and the manifest of all.

Keyed patient hashes, class numbers and splits are in it; identifiers, file names and UIDs are not. Files are 0600: it is still a
patient's image.
"""

import json
import os
from pathlib import Path

import numpy as np

from client.imaging import manifest
from client.imaging.dataset import Dataset, whole
from common.durable import OWNER_ONLY, write_atomically
from common.errors import DataNotFound, DataUnreadable, DiskFull

PIXELS_FILE = "images.npy"
COLUMNS_FILE = "columns.json"


def save_prepared(data: Dataset, folder: Path) -> None:
    """Write a data set; columns last, so that a folder which has them is whole. Raises: DiskFull."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for name, array in {PIXELS_FILE: data.images, **{_file_of(name): part for name, part in data.parts.items()}}.items():
            with os.fdopen(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, OWNER_ONLY), "wb") as file:
                np.save(file, array[:], allow_pickle=False)
    except OSError as error:
        raise DiskFull(f"'{folder}' could not be written: {error.strerror}.", fix="Free some room, or name a folder elsewhere.") from error
    columns = {
        "labels": data.labels.tolist(),
        "patients": data.patients.tolist(),
        "patient_keys": data.patient_keys,
        "splits": data.splits.tolist(),
        "unit_source": data.unit_source,
        "sites": data.sites,
        "site_index": None if data.site_index is None else data.site_index.tolist(),
        "parts": sorted(data.parts),
    }
    manifest.write(manifest.manifest_of(data), folder, fsync=False)
    write_atomically(folder / COLUMNS_FILE, json.dumps(columns).encode(), fsync=False, mode=OWNER_ONLY)


def load_prepared(folder: Path) -> Dataset:
    """Open a data set; pixels stay on disk until they are read. Raises: DataNotFound, DataUnreadable."""
    if not (folder / COLUMNS_FILE).is_file():
        raise DataNotFound(f"'{folder}' holds no prepared data.", fix="Run `fedward simulate` again with --fresh.")
    try:
        columns = json.loads((folder / COLUMNS_FILE).read_bytes())
        pixels = np.load(folder / PIXELS_FILE, mmap_mode="r", allow_pickle=False)
        return Dataset(
            images=whole(pixels),
            labels=np.asarray(columns["labels"], dtype=np.int64),
            patients=np.asarray(columns["patients"], dtype=np.int32),
            patient_keys=tuple(columns["patient_keys"]),
            splits=np.asarray(columns["splits"], dtype=np.int8),
            unit_source=columns["unit_source"],
            sites=None if columns["sites"] is None else tuple(columns["sites"]),
            site_index=None if columns["site_index"] is None else np.asarray(columns["site_index"], dtype=np.int32),
            parts={name: whole(np.load(folder / _file_of(name), mmap_mode="r", allow_pickle=False)) for name in columns.get("parts", ())},
        )
    except (OSError, ValueError, KeyError) as error:
        raise DataUnreadable(f"prepared data in '{folder}' are damaged.", fix="Remove the folder and prepare them again.") from error


def _file_of(part: str) -> str:
    return f"part-{part}.npy"
