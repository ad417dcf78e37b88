# SPDX-License-Identifier: Apache-2.0
"""The sealed head: how far the ledger had come, written apart from it.

A ledger whose last lines are cut off, or an older copy of the whole file, is a good chain as far as it goes. So after every line its
position goes to a second file, signed, best on another mount (`[ledger] head` in site.toml; the name gets a running number) that is not
rolled back with the first. A ledger that does not hold the line which the head names has lost something. The head also says what all
charges came to and who was excluded, so that what was lost is known to the last event.

The head may be one line behind, when a machine stopped between the two writes; it is brought up before anything else is charged, so a disk
on which the head cannot be written costs one reservation, not one for each attempt. More than one line behind means that the head itself
was rolled back.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, TypeAdapter

from client.ledger.chain import Chain, Position
from common.durable import Newest
from common.errors import LedgerRollback, LedgerTampered
from common.privacy import entries
from common.privacy.entries import NO_SIGNATURE, STRICT, Count, Digest, Mark, Tallied
from common.privacy.tally import Tally, tally_of
from common.secagg.keys import SigningKey, signature_holds

PUT_BACK: Final = "Put back the newest ledger; if it is lost: fedward site ledger restore --help."


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where a ledger stood, what it had charged, whom it had excluded."""

    __pydantic_config__ = STRICT
    v: Literal[1] = 1
    namespace: str
    branch: Annotated[int, Field(ge=0, lt=2**32)]
    seq: Count
    head: Digest
    charges: tuple[Tallied, ...]
    excluded: tuple[Mark, ...]
    sig: Annotated[str, Field(pattern=r"^([0-9a-f]{128})?$")] = NO_SIGNATURE

    @property
    def position(self) -> Position:
        return Position(branch=self.branch, seq=self.seq, head=bytes.fromhex(self.head))

    @property
    def tally(self) -> Tally:
        return tally_of(self.charges)


_HEAD: Final[TypeAdapter[Head]] = TypeAdapter(Head)


def head_of(chain: Chain, signer: SigningKey) -> bytes:
    """The sealed head of a chain as it stands."""
    at = chain.position
    unsigned = Head(
        namespace=chain.namespace,
        branch=at.branch,
        seq=at.seq,
        head=at.head.hex(),
        charges=chain.tally.items(),
        excluded=tuple(chain.excluded),
    )
    return entries.render(dataclasses.replace(unsigned, sig=signer.sign(entries.signed_text(unsigned)).hex())) + b"\n"


def write(path: Path, content: bytes, *, power_cut_safe: bool) -> None:
    """Raises: DiskFull."""
    Newest(path.parent, path.name, fsync=power_cut_safe).write(content)


def read(path: Path) -> bytes | None:
    return Newest(path.parent, path.name, fsync=False).read()


def parse(content: bytes, *, public: bytes, name: str) -> Head:
    """Raises: LedgerTampered for anything that this key did not seal."""
    try:
        head = _HEAD.validate_json(content)
        if entries.render(head) + b"\n" != content:
            raise ValueError("not the one spelling of a head")
    except ValueError as error:
        raise LedgerTampered(f"sealed head '{name}' does not parse.", fix=PUT_BACK) from error
    if not signature_holds(public, bytes.fromhex(head.sig), entries.signed_text(head)):
        raise LedgerTampered(f"sealed head '{name}' is not signed by this site's key.", fix=PUT_BACK)
    return head


def check(chain: Chain, head: Head | None, *, name: str) -> None:
    """Whether a ledger is all that its sealed head has seen. Raises: LedgerRollback, with both numbers."""
    if head is None:
        raise LedgerRollback(
            f"{chain.name} has {len(chain)} lines, and its sealed head '{name}' is gone.", fix="Put the head back where site.toml says."
        )
    if head.namespace != chain.namespace:
        raise LedgerRollback(f"sealed head '{name}' belongs to '{head.namespace}', not to '{chain.namespace}'.", fix=PUT_BACK)
    if not chain.holds(head.branch, head.seq, head.position.head):
        raise LedgerRollback(f"{chain.name} ends at line {len(chain)}; its sealed head has seen line {head.seq + 1}.", fix=PUT_BACK)
    if head.branch == chain.branch and len(chain) - 1 - head.seq > 1:
        raise LedgerRollback(
            f"sealed head '{name}' is {len(chain) - 1 - head.seq} lines behind {chain.name}, which one crash cannot explain.",
            fix="The head was rolled back, so the ledger may have been too: fedward site ledger restore --help.",
        )
