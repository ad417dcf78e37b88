# SPDX-License-Identifier: Apache-2.0
"""Small audit logs for tests: one site, a clock that stands."""

from dataclasses import replace
from pathlib import Path

from common.audit.entries import SPELLING, Answered, Asked, At, Entry, Exchange, Fact
from common.audit.log import Log, Pen
from common.secagg.keys import SigningKey

SIGNER = SigningKey(b"\x01" * 32)
OTHER = SigningKey(b"\x02" * 32)
NOON = 1_800_000_000
HASH = "ab" * 32
SESSION = "cd" * 16


def pen(signer: SigningKey = SIGNER, *, power_cut_safe: bool = False) -> Pen:
    return Pen(role="site", name="north", signer=signer, clock=lambda: NOON, power_cut_safe=power_cut_safe)


def opened(folder: Path, signer: SigningKey = SIGNER) -> Log:
    return Log(folder / "audit.jsonl", pen(signer))


def asked(number: int = 1) -> Asked:
    return Asked(at=at(number), tag=HASH, model=HASH, request=HASH)


def answered(number: int = 1, reply: str = HASH) -> Answered:
    return Answered(exchange=Exchange(at=at(number), tag=HASH, request=HASH, reply=reply), step="KEYS", transcript=HASH)


def at(number: int = 1) -> At:
    return At(session=SESSION, round=number, attempt=0, kind="UPDATE")


def facts(folder: Path) -> list[Fact]:
    return [entry.fact for entry in entries(folder)]


def entries(folder: Path) -> list[Entry]:
    return [SPELLING.parse(line) for line in (folder / "audit.jsonl").read_bytes().splitlines()]


def resealed(entry: Entry, **changes: object) -> bytes:
    """The same entry, changed and signed again."""
    return SPELLING.signed(replace(entry, **changes), SIGNER.sign)  # type: ignore[arg-type]
