# SPDX-License-Identifier: Apache-2.0
"""Decoded once, read for ever after: samples in a memory-mapped NPY, and beside it what they are.

    cache/<key>/images.npy    (N, C, H, W) uint16
                index.json    keyed names of images and patients, what was seen and rejected; first line: SHA-256 of the rest

The key is a digest of everything that the content follows from: the plan's input, the files with sizes and times, which of them have a
label, the secret's fingerprint, the decoders' versions. So nothing is ever updated in place: another input is another folder, and an
old one can be deleted at any time. Names in the index are keyed hashes; no identifier and no file name is in either file. The pixels are
still a patient's: the folder is private (0700) and belongs on a volume that the hospital encrypts.

A cache is built in a folder of its own and renamed when whole and on disk, under a lock, so that of two builders one waits and finds it
done. What was left by a crash is removed by the next builder. A cache is checked when opened: the index by its hash, the images by size,
header and, up to 256 MiB, by hash; one that fails is built anew.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.imaging import slots
from client.imaging.pictures import Grid
from client.imaging.rejection import Reason
from client.imaging.slots import Shape
from common.errors import DiskFull

IMAGES, INDEX = "images.npy", "index.json"
HASHED_UP_TO = 256 << 20  # bytes; beyond it, hashing would cost seconds at every start


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a build found: for each image the slot it was written to, its keyed name and its patient's key; and the rest, counted.

    series, places: the keyed name of each image's series and how far along it the image lies, where files say so; else empty.
    grids: what each image lies on, of pictures and volumes. skipped: beside a file's first image, how many of its frames showed nothing.
    """

    slots: tuple[int, ...]
    items: tuple[str, ...]
    patients: tuple[str, ...]
    seen: int
    rejected: Counter[Reason]
    series: tuple[str, ...] = ()
    places: tuple[float | None, ...] = ()
    grids: tuple[Grid, ...] = ()
    skipped: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cached:
    """An opened cache: images (N, C, H, W) on disk, names and patient keys row by row."""

    images: NDArray[np.uint16]
    items: tuple[str, ...]
    patients: tuple[str, ...]
    seen: int
    rejected: Counter[Reason]
    series: tuple[str, ...] = ()
    places: tuple[float | None, ...] = ()
    grids: tuple[Grid, ...] = ()
    skipped: tuple[int, ...] = ()


Fill = Callable[[int], Contents]  # writes samples to their slots of the open file


def open_or_build(folder: Path, key: str, shape: Shape, fill: Fill, *, capacity: int) -> Cached:
    """The cache of that key, built by `fill` if it is absent or damaged. `capacity`: how many images it will hold at most.

    Raises: DiskFull, before anything is decoded if it cannot fit; what `fill` raises, leaving nothing behind.
    """
    home = folder / key
    if (cached := _open(home, key, shape)) is not None:
        return cached
    _make_private(folder)
    with _locked(folder / f"{key}.lock"):
        if (cached := _open(home, key, shape)) is not None:  # another process built it while we waited
            return cached
        for leftover in (home, *folder.glob(f".{key}-*")):
            shutil.rmtree(leftover, ignore_errors=True)
        _check_room(folder, capacity * slots.sample_bytes(shape))
        building = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=folder))
        try:
            _build(building, key, shape, fill)
            _install(building, home)
        except OSError as error:
            raise DiskFull(f"imaging cache '{folder}': {error.strerror}.", fix="Free some room, or name another folder.") from error
        finally:
            shutil.rmtree(building, ignore_errors=True)
    built = _open(home, key, shape)
    if built is None:
        raise DiskFull(f"imaging cache '{folder}': what was just written does not read back.", fix="Check the disk.")
    return built


def _build(building: Path, key: str, shape: Shape, fill: Fill) -> None:
    with (building / IMAGES).open("w+b", buffering=0) as images:
        contents = fill(images.fileno())
        slots.finish(images.fileno(), contents.slots, shape)
    body = json.dumps(
        {
            "key": key,
            "shape": [len(contents.slots), *shape],
            "images_sha256": _hash_of(building / IMAGES),
            "items": contents.items,
            "patients": contents.patients,
            "seen": contents.seen,
            "rejected": contents.rejected,
            "series": contents.series,
            "places": contents.places,
            "grids": contents.grids,
            "skipped": contents.skipped,
        }
    ).encode("ascii")
    with (building / INDEX).open("wb") as index:
        index.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        index.flush()
        os.fsync(index.fileno())


def _install(building: Path, home: Path) -> None:
    try:
        building.rename(home)
    except OSError:
        if not home.exists():  # where locks do not work, another builder may have been first: its cache is as good
            raise


def _open(home: Path, key: str, shape: Shape) -> Cached | None:
    """The cache, or None if it is not there or not sound."""
    try:
        fingerprint, _, body = (home / INDEX).read_bytes().partition(b"\n")
        index: dict[str, Any] = json.loads(body)
        if hashlib.sha256(body).hexdigest().encode() != fingerprint or index["key"] != key:
            return None
        images = _map(home / IMAGES, (len(index["items"]), *shape), index["images_sha256"])
        return Cached(
            images=images,
            items=tuple(index["items"]),
            patients=tuple(index["patients"]),
            seen=index["seen"],
            rejected=Counter({Reason(reason): count for reason, count in index["rejected"].items()}),
            series=tuple(index["series"]),
            places=tuple(index["places"]),
            grids=tuple(map(tuple, index["grids"])),
            skipped=tuple(index["skipped"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _map(path: Path, shape: tuple[int, ...], sha256: str | None) -> NDArray[np.uint16]:
    """The images, mapped from disk. Raises: ValueError, if the file is not the one that was written."""
    with path.open("rb") as file:
        is_ours = file.read(slots.HEADER_BYTES) == slots.header(shape)
    size = slots.HEADER_BYTES + int(np.prod(shape)) * slots.SAMPLE_DTYPE.itemsize
    if not is_ours or path.stat().st_size != size or _hash_of(path) != sha256:
        raise ValueError("not what was written")
    return np.asarray(np.memmap(path, dtype=slots.SAMPLE_DTYPE, mode="r", offset=slots.HEADER_BYTES, shape=shape))


def _hash_of(path: Path) -> str | None:
    if path.stat().st_size > HASHED_UP_TO:
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFull(
            f"imaging cache '{folder}': {free >> 20} MiB free, up to {needed >> 20} MiB needed.",
            fix="Free some room, name a folder on another disk, or choose a smaller [input] height and width.",
        )


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise DiskFull(f"imaging cache '{folder}' cannot be made: {error.strerror}.", fix="Name a folder that can be written.") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        with suppress(OSError):  # some network file systems have no locks: then two builders both work, and one is first
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
