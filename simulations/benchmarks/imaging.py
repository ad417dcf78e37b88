# SPDX-License-Identifier: Apache-2.0
"""How fast pixels come in: `python -m simulations.benchmarks.imaging [--size 512] [--images 400] [--repeats 5]`.

Made CT files are read in turns by plain pydicom (`dcmread(path).pixel_array`, one process, nothing else done) and by our readers with one
and with two workers (starting them, identity, window, fit and writing included), in images a second and in processor time, which a busy
machine disturbs less. Beside it, an epoch over the cache: rows drawn at random in batches of sixteen, as stored and turned into float32,
next to copying the same memmap from front to back. Medians, and the best of all repeats, which a busy machine spoils least; compare within
one run only.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray

from client.imaging import slots
from client.imaging.readers import Task, read_all
from client.imaging.worker import Brief, Limits
from common.plan import InputSpec, Window
from simulations.phantoms import PhantomSpec, write

BATCH = 16
SLICES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What some work took by the clock, and in processor time of this process and of its ended children."""

    wall_s: float
    cpu_s: float


def cost(work: Callable[[], object]) -> Cost:
    before, started = os.times(), time.perf_counter()
    work()
    wall_s, after = time.perf_counter() - started, os.times()
    return Cost(wall_s=wall_s, cpu_s=sum(after[:4]) - sum(before[:4]))


def plain(files: list[Path]) -> None:
    for file in files:
        _ = pydicom.dcmread(file).pixel_array


def by_readers(files: list[Path], output: int, brief: Brief, workers: int) -> None:
    tasks = [Task(slot=slot, path=file.name) for slot, file in enumerate(files)]
    outcomes = read_all(files[0].parent, output, brief, tasks, workers=workers)
    if any(outcome.reason is not None for outcome in outcomes):
        raise SystemExit("a made file was rejected")


def epoch(images: NDArray[np.uint16], order: NDArray[np.int64], *, as_float: bool) -> None:
    batch = np.empty((BATCH, *images.shape[1:]), dtype=np.float32)
    for start in range(0, len(order), BATCH):
        drawn = images[order[start : start + BATCH]]
        if as_float:
            np.multiply(drawn, np.float32(1 / 65535), out=batch[: len(drawn)])


def front_to_back(images: NDArray[np.uint16]) -> None:
    for start in range(0, len(images), BATCH):
        images[start : start + BATCH].copy()


def measure(folder: Path, size: int, count: int, repeats: int) -> dict[str, list[float]]:
    write(
        PhantomSpec(hospitals=1, patients_per_hospital=-(-count // SLICES), slices_per_patient=SLICES, size_px=size, seed=1),
        folder / "made",
    )
    files = sorted((folder / "made").rglob("*.dcm"))
    spec = InputSpec(modality="CT", height=size, width=size, window=Window(centre=-600, width=1500))
    brief = Brief(kind="dicom", input=spec, limits=Limits(), wanted=None)
    order = np.random.default_rng(0).permutation(len(files))
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    with (folder / "images").open("w+b") as output:
        ways = {
            "pydicom": partial(plain, files),
            "readers, 1 worker": partial(by_readers, files, output.fileno(), brief, 1),
            "readers, 2 workers": partial(by_readers, files, output.fileno(), brief, 2),
        }
        for _ in range(repeats):
            for name, work in ways.items():
                taken = cost(work)
                note(name, len(files) / taken.wall_s)
                note(f"{name}: CPU ms an image", 1000 * taken.cpu_s / len(files))
            images = np.memmap(folder / "images", "<u2", "r", slots.HEADER_BYTES, (len(files), 1, size, size)).view(np.ndarray)
            epochs = {
                "cache, front to back": partial(front_to_back, images),
                "cache, random batches": partial(epoch, images, order, as_float=False),
                "cache, random batches to float32": partial(epoch, images, order, as_float=True),
            }
            for name, work in epochs.items():
                taken = cost(work)
                note(name, len(files) / taken.wall_s)
                note(f"{name}: CPU ms an image", 1000 * taken.cpu_s / len(files))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), options.size, options.images, options.repeats)
    rows = {}
    for name, values in found.items():
        digits, best = (3, min) if "CPU" in name else (None, max)
        rows[name] = {"median": round(statistics.median(values), digits), "best": round(best(values), digits)}
    print(json.dumps(rows, indent=2))  # noqa: T201 - a benchmark's output


if __name__ == "__main__":
    main()
