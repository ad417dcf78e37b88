# SPDX-License-Identifier: Apache-2.0
"""What peers remember of this site's ledger, and the ledger does not: written down, so that it is not forgotten with the round.

A peer shows a line of this ledger that is not there (`echo`): the disk was rolled back, sealed head and all. From then on nothing is
charged until an entry RESTORE covers that line. The witness says how many lines at least were lost.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from client.ledger.chain import Chain
from client.ledger.head import PUT_BACK
from common.durable import OWNER_ONLY, write_atomically
from common.errors import LedgerRollback, LedgerTampered
from common.privacy import entries
from common.privacy.entries import STRICT, Count


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """A line that a peer has seen: its branch, number, and the beginning of its hash."""

    __pydantic_config__ = STRICT
    branch: Annotated[int, Field(ge=0, lt=2**32)]
    seq: Count
    head: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    peer: str


_WITNESS: TypeAdapter[Witness] = TypeAdapter(Witness)


def read(path: Path) -> Witness | None:
    """Raises: LedgerTampered, if the file does not parse."""
    try:
        return _WITNESS.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise LedgerTampered(f"'{path}' does not parse.", fix="Remove it; the peers will show it again if it still holds.") from error


def keep(path: Path, seen: Witness, *, power_cut_safe: bool) -> None:
    """Keep the furthest that was seen of the newest branch. Raises: DiskFull."""
    before = read(path)
    if before is None or (before.branch, before.seq) < (seen.branch, seen.seq):
        write_atomically(path, entries.render(seen), fsync=power_cut_safe, mode=OWNER_ONLY)


def check(path: Path, chain: Chain) -> None:
    """Raises: LedgerRollback while a line that a peer has seen is neither here nor charged."""
    seen = read(path)
    if seen is not None and not chain.holds(seen.branch, seen.seq, bytes.fromhex(seen.head)):
        raise missing(seen, path.with_suffix(".jsonl"))


def missing(seen: Witness, ledger: Path) -> LedgerRollback:
    return LedgerRollback(
        f"site '{seen.peer}' remembers line {seen.seq + 1} of this site's ledger, and ledger '{ledger}' does not have that line.",
        fix=PUT_BACK,
    )
