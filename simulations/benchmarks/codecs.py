# SPDX-License-Identifier: Apache-2.0
"""Which decoder is quickest: `python -m simulations.benchmarks.codecs [--size 512] [--repeats 15]`.

One made CT slice is packed in each transfer syntax that something here can write (pydicom's encoders; dcmtk, a Debian package, for JPEG),
and opened by every plug-in that offers to, in turns. Processor milliseconds an image, medians: a busy machine disturbs them less than the
clock. `chosen` is the order of `client/imaging/codecs.py`; a lossless plug-in that gives other values than went in is called wrong.
"""

import argparse
import json
import logging
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder

from client.imaging import codecs
from simulations.phantoms import PhantomSpec, write

ENCODERS = {
    uid.RLELossless: "pydicom",
    uid.JPEG2000Lossless: "pylibjpeg",
    uid.JPEGLSLossless: "pyjpegls",
    uid.JPEGLSNearLossless: "pyjpegls",
}
BY_DCMTK = {uid.JPEGLosslessSV1: ["+e1"], uid.JPEGExtended12Bit: ["+ee"]}
LOSSY = (uid.JPEGLSNearLossless, uid.JPEGExtended12Bit)


def packed(made: Path, folder: Path) -> Iterator[Dataset]:
    """The slice in every syntax that can be written here, uncompressed first."""
    yield pydicom.dcmread(made)
    for syntax, encoder in ENCODERS.items():
        dataset = pydicom.dcmread(made)
        options: dict[str, Any] = {"jls_error": 2} if syntax == uid.JPEGLSNearLossless else {}
        dataset.compress(syntax, encoding_plugin=encoder, **options)
        yield dataset
    for syntax, options_of_dcmtk in BY_DCMTK.items():
        if shutil.which("dcmcjpeg") is not None:
            target = folder / f"{syntax}.dcm"
            subprocess.run(["dcmcjpeg", *options_of_dcmtk, str(made), str(target)], check=True, capture_output=True)  # noqa: S603, S607
            yield pydicom.dcmread(target)


def plugins_for(syntax: uid.UID) -> list[str]:
    """All that offer to, ours beside them."""
    offered = get_decoder(syntax).available_plugins if syntax.is_encapsulated else (codecs.NATIVE,)
    return [*offered, *(plugin for plugin in codecs.DECODERS[syntax] if plugin not in offered)]


def milliseconds(dataset: Dataset, plugin: str, repeats: int, truth: NDArray[Any] | None) -> float | str:
    """Median processor time of one decoding, or why there is none."""
    syntax, taken = dataset.file_meta.TransferSyntaxUID, []
    for _ in range(repeats):
        before = time.process_time()
        try:
            array = codecs.decode_by(dataset, syntax, plugin, 0)
        except Exception:
            return "does not read it"
        taken.append(1000 * (time.process_time() - before))
    if truth is not None and not np.array_equal(array, truth):
        return "wrong"
    return round(statistics.median(taken), 2)


def measure(folder: Path, size: int, repeats: int) -> list[dict[str, Any]]:
    write(PhantomSpec(hospitals=1, patients_per_hospital=2, slices_per_patient=1, size_px=size, seed=1), folder / "made")
    made = next((folder / "made").rglob("*.dcm"))
    truth = pydicom.dcmread(made).pixel_array
    rows = []
    for dataset in packed(made, folder):
        syntax = dataset.file_meta.TransferSyntaxUID
        found = {
            plugin or "pydicom, NumPy": milliseconds(dataset, plugin, repeats, None if syntax in LOSSY else truth)
            for plugin in plugins_for(syntax)
        }
        rows.append({"syntax": syntax.name, "bytes": len(dataset.PixelData), "chosen": codecs.DECODERS[syntax], "ms": found})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), options.size, options.repeats)
    print(json.dumps(rows, indent=1))  # noqa: T201 - a benchmark's output


if __name__ == "__main__":
    main()
