# SPDX-License-Identifier: Apache-2.0
"""What could be found at the coordinator, by whoever has its disk and its wire for a whole run.

    disk     the coordinator's folder as it is afterwards, and Flower's database as it was every few seconds meanwhile: there, what sites
             sent lies without TLS
    wire     every packet at the coordinator (tcpdump), and the headers of every packet at each hospital

In it is looked for: every site's plain update of every round, as whole numbers and as floats (windows of `WINDOW` bytes, so that a
database's pages may cut it); sites' keys, and the secret that turns patients' numbers into keys, raw, in hexadecimal and in base 64;
every patient's number; rows of every image. Masked updates are there, of course.

A search that finds nothing must be able to find: where the needles come from, a hospital's own folder, they are found (`control`).
"""

import base64
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client.home import PATIENT_KEY_FILE
from common import credentials
from simulations.rig.commands import tool
from simulations.rig.places import Hospital, Places

WINDOW: Final = 48
_EVERY_S: Final = 3.0
_MOST_COPIES: Final = 400
_START: Final = 8
Needles = Mapping[str, bytes]


class DiskWatch:
    """Copies Flower's database every few seconds, until closed."""

    def __init__(self, places: Places, into: Path) -> None:
        self._source, self._into = places.coordinator / "superlink", into
        into.mkdir(parents=True, exist_ok=True)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def close(self) -> int:
        """How many times it was copied."""
        self._closing.set()
        self._thread.join()
        return len({path.name.split("-")[0] for path in self._into.iterdir()})

    def _watch(self) -> None:
        number = 0
        while not self._closing.wait(_EVERY_S) and number < _MOST_COPIES:
            for path in self._source.glob("state.db*"):
                with suppress(OSError):
                    shutil.copyfile(path, self._into / f"{number:04d}-{path.name}")
            number += 1


def secrets_of(hospital: Hospital) -> Iterator[tuple[str, bytes]]:
    """A hospital's keys, in every spelling."""
    # Read as text: the loader refuses a key to anybody but its owner, and a thief would not ask it.
    lines = dict(line.split(" ", 1) for line in (hospital.home / credentials.KEY_FILE).read_text().splitlines())
    transport = b"".join((hospital.mailbox / "node.key").read_bytes().splitlines()[1:-1])
    for what, secret in {
        "identity key": bytes.fromhex(lines["seed"]),
        "patient key": (hospital.home / PATIENT_KEY_FILE).read_bytes(),
    }.items():
        yield f"{hospital.name}: {what}, raw", secret
        yield f"{hospital.name}: {what}, hexadecimal", secret.hex().encode()
        yield f"{hospital.name}: {what}, base 64", base64.b64encode(secret).rstrip(b"=")[:40]
    yield f"{hospital.name}: transport key", transport[:WINDOW]


def patients_of(hospital: Hospital) -> Iterator[tuple[str, bytes]]:
    """Patients' numbers, and a row of each image."""
    rows = (hospital.images / "index.csv").read_text().splitlines()[1:]
    for number in sorted({row.split(",")[2] for row in rows}):
        yield f"{hospital.name}: patient {number}", number.encode()
    for place, image in enumerate(np.load(hospital.images / "images.npz")["images"]):
        yield f"{hospital.name}: image {place}", image[6:9].tobytes()


def update_windows(name: str, vector: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """Windows of a vector, where it says something: a run of zeros is everywhere."""
    raw = np.ascontiguousarray(vector).tobytes()
    for start in range(0, len(raw) - WINDOW, max(WINDOW, len(raw) // 8)):
        window = raw[start : start + WINDOW]
        if len(set(window)) > WINDOW // 4:
            yield f"{name}, from byte {start}", window


def found_in(files: Iterable[Path], needles: Needles) -> list[str]:
    """Which needle is in which file. The first eight bytes of all needles are looked for at once; what they hit is looked at whole."""
    by_start: dict[int, list[str]] = {}
    for name, needle in needles.items():
        by_start.setdefault(int.from_bytes(needle[:_START], "little"), []).append(name)
    starts = np.array(sorted(by_start), dtype="<u8")
    complaints = []
    for path in files:
        content = path.read_bytes()
        hits = {name for at, start in _hits(content, starts) for name in by_start[start] if content.startswith(needles[name], at)}
        complaints += [f"{name} is in {path.name}" for name in sorted(hits)]
    return complaints


def _hits(content: bytes, starts: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    """Where in a content eight bytes stand that are among `starts`."""
    for shift in range(min(_START, max(0, len(content) - _START + 1))):
        words = np.frombuffer(content, dtype="<u8", offset=shift, count=(len(content) - shift) // _START)
        nearest = starts[np.minimum(np.searchsorted(starts, words), len(starts) - 1)]
        for at in np.flatnonzero(nearest == words):
            yield shift + _START * int(at), int(words[at])


def control(hospital: Hospital) -> list[str]:
    """That the search finds what is there: keys in their files, patients in their list. What it does not find is a complaint."""
    files = [path for path in hospital.folder.rglob("*") if path.is_file()]
    kinds = {
        "patient key": dict(secrets_of(hospital))[f"{hospital.name}: patient key, raw"],
        "patient": next(needle for name, needle in patients_of(hospital) if ": patient " in name),
    }
    return [f"the search would not find {kind} of {hospital.name}" for kind, needle in kinds.items() if not found_in(files, {kind: needle})]


def destinations(capture: Path) -> set[str]:
    """Where packets in a capture went that this host sent first words to: address and port of every SYN."""
    text = tool(["tcpdump", "-nn", "-r", capture, "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn"])
    return {line.split(" > ")[1].split(":")[0].strip() for line in text.splitlines() if " > " in line}


def others(capture: Path) -> int:
    """How many packets in a capture are neither TCP nor ARP."""
    return len(tool(["tcpdump", "-nn", "-r", capture, "not tcp and not arp"]).splitlines())
