# SPDX-License-Identifier: Apache-2.0
"""A ledger that passes to another identity key: with the old key's signature, or without it where that key is lost.

    hand over     the old key signs a line that names the new one, and the new one seals the head
    carry over    nobody can sign for the old key. A new ledger begins whose first lines charge everything that the old one had charged,
                  exclude everybody whom it had excluded, and keep its caps; the old file stays beside it, under the old key's name

Carrying over believes the old ledger only under the key that the roster names for this site, so that an empty one, made up with another
key, is no way to a fresh budget. Where ledger and sealed head differ, both are charged: never less than either. The new ledger is another
branch, and answers for every line of the old one.

What this does not do: know of lines that are in neither file. Ask the coordinator how many rounds this site took part in.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from client.ledger import head as sealed
from client.ledger import witness
from client.ledger.chain import Chain, read
from client.ledger.head import Head
from client.ledger.store import Ledger, Pen, Place
from common.durable import OWNER_ONLY, write_atomically
from common.errors import LedgerRollback, LedgerTampered
from common.instant import instant
from common.privacy.entries import SPELLING, Caps, Entry, Fact, Opened, Restored, Tallied
from common.privacy.tally import tally_of
from common.secagg.keys import SigningKey
from common.version import code_version

_ASK = "Put back the newest ledger, or state its lost rounds to the custodian before anything is trained here."


@dataclass(frozen=True, slots=True, kw_only=True)
class Old:
    """A ledger whose key is lost: what is left of it, `chain` or `head` or both."""

    chain: Chain | None
    head: Head | None

    @property
    def namespace(self) -> str:
        found = self.chain or self.head
        assert found is not None
        return found.namespace

    @property
    def charges(self) -> tuple[Tallied, ...]:
        """All that either has charged, none of it twice."""
        if self.chain is None or self.head is None:
            return self.chain.tally.items() if self.chain else self.head.charges if self.head else ()
        return tally_of((*self.chain.tally.items(), *self.head.tally.beyond(self.chain.tally))).items()

    @property
    def excluded(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*(self.chain.excluded if self.chain else ()), *(self.head.excluded if self.head else ()))))

    @property
    def furthest(self) -> tuple[int, int]:
        """Branch and number of the last line that is known of."""
        of_chain = (self.chain.position.branch, self.chain.position.seq) if self.chain else (0, 0)
        return max(of_chain, (self.head.branch, self.head.seq) if self.head else (0, 0))


def exists(place: Place) -> bool:
    """Whether there is, or was, a ledger."""
    return place.file.exists() or sealed.read(place.head) is not None


def hand_over(place: Place, pen: Pen, new: SigningKey) -> Entry | None:
    """Let `new` go on with the ledger of the pen's key; None, if it does already. May be repeated.

    Raises: LedgerRollback, LedgerTampered, DiskFull.
    """
    chain, _ = read(place.file.read_bytes(), name=f"ledger '{place.file}'")
    if chain.key != new.public.hex():
        return Ledger(place, pen).take_key(new)
    with suppress(LedgerTampered):  # it was stopped between line and seal: then the old key's seal is one line behind
        sealed.check(chain, _head(place, pen.signer.public), name=str(place.head))
        _seal(place, replace(pen, signer=new), chain)
    return None


def carry_over(place: Place, pen: Pen, *, lost: bytes, site: str, caps: Caps, reason: str) -> Chain:
    """Begin the ledger of the pen's key with all that the ledger of the key `lost` had charged. May be repeated.

    `caps` are asked only where the old ledger's are lost with it. Raises: LedgerTampered, LedgerRollback, DiskFull.
    """
    found = _read(place.file)
    if found is not None and found.key == pen.signer.public.hex():
        _seal(place, pen, found)
        return found
    if found is not None and found.key != lost.hex():
        raise LedgerTampered(
            f"ledger '{place.file}' is signed by key {found.key[:16]}; the roster's key for site '{site}' is {lost.hex()[:16]}.", fix=_ASK
        )
    old = Old(chain=found, head=_head(place, lost))
    if found is None and old.head is None:
        raise LedgerRollback(f"there is neither ledger '{place.file}' nor its sealed head '{place.head}'.", fix=_ASK)
    if found is not None:
        witness.check(place.witness, found)
    chain, data = _begun(old, pen, Opened(site=site, key=pen.signer.public.hex(), caps=found.caps if found else caps), reason)
    if found is not None:
        with suppress(FileExistsError):
            os.link(place.file, place.file.with_name(f"{place.file.stem}.{lost.hex()[:16]}{place.file.suffix}"))
    write_atomically(place.file, data, fsync=pen.power_cut_safe, mode=OWNER_ONLY)
    _seal(place, pen, chain)
    return chain


def _begun(old: Old, pen: Pen, opened: Opened, reason: str) -> tuple[Chain, bytes]:
    chain, lines = Chain(name="the new ledger"), []
    for fact in (opened, *_facts(old, pen, reason)):
        lines.append(_line(chain, fact, pen, old.namespace))
        chain.extend(lines[-1])
    return chain, b"".join(line + b"\n" for line in lines)


def _facts(old: Old, pen: Pen, reason: str) -> Iterator[Fact]:
    branch, last = old.furthest
    if old.chain is not None:
        yield from old.chain.plans.values()
    yield Restored(
        branch=max(pen.clock(), branch + 1),
        lost_branch=branch,
        lost_through=last,
        charges=old.charges,
        excluded=old.excluded,
        reason=reason,
    )
    if old.chain is not None:
        yield from old.chain.snapshots.values()


def _line(chain: Chain, fact: Fact, pen: Pen, namespace: str) -> bytes:
    entry = Entry(seq=len(chain), prev=chain.prev, t_utc=instant(pen.clock()), namespace=namespace, code=code_version(), fact=fact)
    return SPELLING.signed(entry, pen.signer.sign)


def _read(file: Path) -> Chain | None:
    return read(file.read_bytes(), name=f"ledger '{file}'")[0] if file.exists() else None


def _head(place: Place, public: bytes) -> Head | None:
    content = sealed.read(place.head)
    return None if content is None else sealed.parse(content, public=public, name=str(place.head))


def _seal(place: Place, pen: Pen, chain: Chain) -> None:
    sealed.write(place.head, sealed.head_of(chain, pen.signer), power_cut_safe=pen.power_cut_safe)
