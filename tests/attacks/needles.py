# SPDX-License-Identifier: Apache-2.0
"""Looking for half a million needles at once: what is known of a thousand patients, in every spelling in which it could leak.

The idea of Wu and Manber (1994, "A fast algorithm for multi-pattern searching"), with numpy for the inner loop. Of each needle the last
eight bytes, a 64-bit number, go into a sorted table and, hashed, into a table of bits. A haystack is read as 64-bit numbers at all eight
alignments; few pass the bits, fewer are in the table, and those are compared whole. A hundred megabytes take seconds, however many needles.

A name is looked for by its parts, so that their order does not matter. Plain hashes count as leaks as well: whoever has a list of
candidates can try them all, which is why the house uses keyed ones.

Not found: what was compressed or encrypted first, and spellings that nobody thought of.
"""

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from urllib.parse import quote, quote_plus

import numpy as np
from numpy.typing import NDArray

WINDOW = 8  # bytes; no needle is shorter
_BITS = 24
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio: multiplicative hashing, Knuth, volume 3, section 6.4
_OF_A_NUMBER = {bytes([digit]) for digit in b"0123456789abcdef."}
_HASHES = (hashlib.md5, hashlib.sha1, hashlib.sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Needle:
    """One spelling of one value. `what` says whose, and which; `how` names the spelling."""

    form: bytes
    what: str
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A needle, and where in the haystack it begins."""

    needle: Needle
    position: int


def spellings_of_date(day: date) -> set[str]:
    """A date as DICOM, ISO 8601, Germans, Britons and Americans write it."""
    return {day.strftime(form) for form in ("%Y%m%d", "%Y-%m-%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d %b %Y", "%b %d, %Y")}


def spellings(text: str) -> dict[str, set[bytes]]:
    """Every form in which a text could leak, by the name of the spelling."""
    found: dict[str, set[bytes]] = {}
    for cased, case in {text.lower(): "lower ", text.upper(): "upper ", text: ""}.items():
        for how, form in _encodings(cased):
            found.setdefault(case + how, set()).add(form)
    for digest in _HASHES:
        whole = digest(text.encode()).digest()
        found.setdefault("plain hash", set()).update((whole[:16], whole.hex()[:24].encode(), whole.hex()[:24].upper().encode()))
    return found


def _encodings(text: str) -> Iterator[tuple[str, bytes]]:
    raw = text.encode()
    yield "raw", raw
    yield "backwards", text[::-1].encode()
    yield "latin-1", text.encode("latin-1", "replace")
    yield "utf-16-le", text.encode("utf-16-le")
    yield "utf-16-be", text.encode("utf-16-be")
    yield "hex", raw.hex().encode()
    yield "upper hex", raw.hex().upper().encode()
    for ahead in range(3):
        yield f"base64 at {ahead}", _base64(raw, ahead)
        yield f"base64url at {ahead}", _base64(raw, ahead).translate(bytes.maketrans(b"+/", b"-_"))
    yield "url", quote(text, safe="").encode()
    yield "url plus", quote_plus(text).encode()
    yield "json", json.dumps(text)[1:-1].encode()
    yield "html", html.escape(text).encode()
    yield "repr", repr(raw)[2:-1].encode()


def _base64(raw: bytes, ahead: int) -> bytes:
    """The characters that follow from `raw` alone when `ahead` other bytes come before it."""
    return base64.b64encode(bytes(ahead) + raw)[-(-ahead * 8 // 6) : (ahead + len(raw)) * 8 // 6]


def needles(values: Mapping[str, Iterable[str]]) -> list[Needle]:
    """All spellings of all texts; `values` says which texts are whose."""
    first: dict[bytes, Needle] = {}
    for what, texts in values.items():
        for text in texts:
            if len(text) < WINDOW:
                raise ValueError(f"{what} is too short to be looked for")
            for how, forms in spellings(text).items():
                for form in forms:
                    first.setdefault(form, Needle(form=form, what=what, how=how))
    return [needle for needle in first.values() if len(needle.form) >= WINDOW]


class Magnet:
    """Many needles, ready to be looked for in many haystacks."""

    def __init__(self, wanted: Iterable[Needle]) -> None:
        by_tail: dict[int, list[Needle]] = {}
        for needle in wanted:
            by_tail.setdefault(int.from_bytes(needle.form[-WINDOW:], "little"), []).append(needle)
        self._by_tail = by_tail
        self._tails = np.sort(np.fromiter(by_tail, dtype=np.uint64, count=len(by_tail)))
        self._bits = np.zeros(1 << _BITS, dtype=bool)
        self._bits[_hashed(self._tails)] = True

    def hits(self, haystack: bytes) -> list[Hit]:
        """Every needle in the haystack."""
        found = []
        for alignment in range(min(WINDOW, len(haystack))):
            windows = np.frombuffer(haystack, dtype="<u8", offset=alignment, count=max(0, (len(haystack) - alignment) // WINDOW))
            for index in self._candidates(windows):
                end = alignment + (index + 1) * WINDOW
                found += [
                    Hit(needle=needle, position=end - len(needle.form))
                    for needle in self._by_tail[int(windows[index])]
                    if haystack.endswith(needle.form, 0, end) and _stands_alone(needle.form, haystack, end)
                ]
        return found

    def _candidates(self, windows: NDArray[np.uint64]) -> list[int]:
        likely = np.flatnonzero(self._bits[_hashed(windows)])
        places = np.searchsorted(self._tails, windows[likely])
        there = self._tails[np.minimum(places, self._tails.size - 1)] == windows[likely]
        return [int(index) for index in likely[there]]


def _hashed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    hashes: NDArray[np.uint64] = (numbers * _MIX) >> np.uint64(64 - _BITS)
    return hashes


def _stands_alone(form: bytes, haystack: bytes, end: int) -> bool:
    """Digits within a decimal or hexadecimal number are that number's: every eight digits occur somewhere in a megabyte of digests."""
    if not form.isdigit():
        return True
    start = end - len(form)
    return haystack[max(0, start - 1) : start] not in _OF_A_NUMBER and haystack[end : end + 1] not in _OF_A_NUMBER
