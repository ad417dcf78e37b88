# SPDX-License-Identifier: Apache-2.0
"""The machine under a site: room on its disk, processor and GPU, the folder of images and the volume it lies on, what is installed."""

import os
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from client.doctor.agreed import Ground
from client.doctor.findings import Finding, look, ok, wrong
from client.doctor.volumes import Volume, is_encrypted, volume_of
from client.home import CACHE_FOLDER, PREPARED_FOLDER, ledger_place
from client.training.device import called, found
from common.errors import GpuMissing
from common.models import layout_of_plan

DEVICES: Final = Path("/dev")
LOCK: Final = Path(sys.prefix) / "share" / "fedward" / "locked.txt"
_WORD_BYTES: Final = 4
_ROUND_VECTORS: Final = 6
"""What a round writes, in vectors of the model's size: stored update, last model, masked reply, each beside the one it replaces."""
_AROUND_BYTES: Final = 64 * 2**20
"""Ledger, logs, records: nothing grows with the model."""
_TIMES: Final = 3
_GIB: Final = 2**30
_GPU_FREE: Final = 0.5
_GPU_FIX: Final = "Install the CUDA profile (deploy/locked), and a driver for it: nvidia-smi has to answer as this user."
_NAMED: Final = ("fedward", "flwr", "torch", "opacus")
_FORBIDDEN: Final = "ray"


def disk(ground: Ground) -> Iterator[Finding]:
    """Three times what a round of the approved plan may write, on each volume that the site writes to."""
    size = layout_of_plan(ground.plan).size if ground.plan else 0
    need = _TIMES * (_ROUND_VECTORS * _WORD_BYTES * size + _AROUND_BYTES)
    place = ledger_place(ground.home, ground.file)
    asked = "three rounds of the approved plan need" if ground.plan else "logs and ledger alone need"
    volumes = {folder.stat().st_dev: folder for folder in (place.head.parent, place.file.parent, ground.home) if folder.is_dir()}
    for folder in volumes.values():
        free = shutil.disk_usage(folder).free
        say = f"{_gib(free)} free at '{folder}', {asked} {_gib(need)}"
        yield (
            ok("disk", say) if free >= need else wrong("disk", f"E_DISK_FULL: {say}.", "Free some space there; nothing is trained before.")
        )


def processor(ground: Ground) -> Iterator[Finding]:
    """What the site trains on: the GPU or the cores that site.toml asks for, if they are there."""
    cores, asked = len(os.sched_getaffinity(0)), ground.file.training.device
    try:
        device = found(asked)
    except GpuMissing as error:
        yield wrong("gpu", f"{error.code}: {error.message}", _GPU_FIX)
        return
    if device.is_gpu:
        free, total = torch.cuda.mem_get_info(device.where)
        said = f"training uses {called(device)}, {_gib(free)} of {_gib(total)} free"
        yield (
            ok("gpu", said)
            if free >= _GPU_FREE * total
            else look(
                "gpu", f"{said}; another program holds the rest.", "nvidia-smi shows which; training takes what is left, in smaller parts."
            )
        )
    elif asked == "cpu":
        yield ok("gpu", f"not asked for ([training] device = 'cpu'); training uses {cores} cores")
    elif any(DEVICES.glob("nvidia[0-9]*")):
        built = (
            f"PyTorch {torch.__version__} is built for CUDA {torch.version.cuda}" if torch.version.cuda else "PyTorch is built without CUDA"
        )
        yield look(
            "gpu",
            f"this machine has a GPU that PyTorch does not see ({built}); training uses {cores} cores.",
            _GPU_FIX,
        )
    else:
        yield ok("gpu", f"none; training uses {cores} cores")


def images(ground: Ground) -> Iterator[Finding]:
    """The folder of images: there, readable by the site, not writable by it."""
    data = ground.file.data
    if data is None:
        yield wrong("data", "site.toml has no [data]: whose patients are these?", "Set namespace and root: docs/ledger.md.")
        return
    if data.root is None:
        prepared = ground.home / PREPARED_FOLDER
        yield (
            ok("data", "prepared data only; no folder of images is named")
            if prepared.is_dir()
            else look(
                "data",
                "neither a folder of images nor prepared data.",
                "Set [data] root in site.toml, then: fedward site snapshot --plan PLAN",
            )
        )
        return
    for named, path in (("folder of images", data.root), ("labels", data.labels)):
        if path is not None:
            yield from _readable(named, ground.home / path)


def encryption(ground: Ground) -> Iterator[Finding]:
    """Whether what was decoded from images lies on an encrypted volume: what a stolen disk would show."""
    seen: set[Path] = set()
    for folder in (ground.home, ground.home / PREPARED_FOLDER, ground.home / CACHE_FOLDER):
        volume = volume_of(folder) if folder.is_dir() else None
        if volume is not None and volume.point not in seen:
            seen.add(volume.point)
            yield _encrypted(volume)


def versions(lock: Path = LOCK) -> Iterator[Finding]:
    """What is installed, beside what fedward asks for and, where a locked list lies in the installation, beside that."""
    installed: dict[str, str] = {canonicalize_name(each.name): each.version for each in metadata.distributions()}
    named = ", ".join(f"{name} {installed[name]}" for name in _NAMED if name in installed)
    python = ".".join(map(str, sys.version_info[:3]))
    outside = [
        f"{name} {installed.get(name, 'missing')} ({wanted})" for name, wanted in _asked() if not _meets(installed.get(name), wanted)
    ]
    fix = "Install from the locked list: deploy/locked/README.md."
    if outside:
        yield wrong("versions", f"outside of what fedward asks for: {', '.join(outside)}.", fix)
    if lock.is_file():
        differs = [
            f"{name} {installed.get(name, 'missing')} (locked: {wanted})" for name, wanted in _locked(lock) if installed.get(name) != wanted
        ]
        yield from [wrong("versions", f"{len(differs)} not as locked: {', '.join(differs[:5])}.", fix)] if differs else []
        yield from [] if outside or differs else [ok("versions", f"{named}, Python {python}; all as locked")]
    elif not outside:
        yield look("versions", f"{named}, Python {python}; no locked list to compare with.", fix)
    if _FORBIDDEN in installed:
        yield wrong(
            "versions", "Ray is installed: it unpickles what it is sent, and a site has no use for it.", f"pip uninstall {_FORBIDDEN}"
        )


def _readable(named: str, path: Path) -> Iterator[Finding]:
    """As the site's user: it can look in, and cannot write."""
    need = os.R_OK | os.X_OK if path.is_dir() else os.R_OK
    if not path.exists() or not os.access(path, need, effective_ids=True):
        state = "cannot be read by the site's user" if path.exists() else "is not there"
        yield wrong("data", f"the {named} '{path}' {state}.", "Mount it, readable for the site's user: deploy/systemd/README.md.")
    elif os.access(path, os.W_OK, effective_ids=True):
        yield look("data", f"the site's user could write to the {named} '{path}'.", "Mount it read-only; training never writes there.")
    else:
        volume = volume_of(path)
        yield ok("data", f"the {named} can be read, and not written" + (", mounted read-only" if volume and volume.read_only else ""))


def _encrypted(volume: Volume) -> Finding:
    match is_encrypted(volume):
        case True:
            return ok("encryption", f"the volume at '{volume.point}' is encrypted by the kernel")
        case False:
            return look(
                "encryption",
                f"no encryption is seen below '{volume.point}'.",
                "Keep the home on an encrypted volume (LUKS): it holds decoded images.",
            )
        case None:
            return look(
                "encryption", f"cannot be seen for '{volume.point}' ({volume.kind}).", "Make sure that what lies below it is encrypted."
            )


def _asked() -> Iterator[tuple[str, str]]:
    """What fedward's own metadata ask for, by canonical name."""
    for line in metadata.requires("fedward") or ():
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
            yield canonicalize_name(wanted.name), str(wanted.specifier)


def _meets(version: str | None, wanted: str) -> bool:
    return version is not None and Requirement(f"x{wanted}").specifier.contains(version, prereleases=True)


def _locked(lock: Path) -> Iterator[tuple[str, str]]:
    """Names and versions of a pip requirements file with hashes."""
    for line in lock.read_text(encoding="utf-8").splitlines():
        if line[:1].isalnum():
            wanted = Requirement(line.partition(" --hash")[0].rstrip("\\ "))
            if wanted.marker is None or wanted.marker.evaluate():
                yield canonicalize_name(wanted.name), next(iter(wanted.specifier)).version


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f} GiB"
