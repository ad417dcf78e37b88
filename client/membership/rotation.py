# SPDX-License-Identifier: Apache-2.0
"""A new identity key: in place of one that grew old, without a gap; or of one that is lost, with the ledger kept whole.

    rotate    identity.next.key is made and asked for, with the old key's consent; both lie here until a roster names the new one. On that
              day ledger and approval are handed over and the new key takes the old one's place (`finish`, by client/membership/rosters.py)
    recover   the old key is gone, or in wrong hands: a new one takes its place at once. The ledger goes on (client/ledger/succession.py);
              the approval does not, since nobody is left to vouch for it: the operator reads the plan again

Between a rotation and the roster that names it the site works as before, under its old key: a roster has one key for a site, and the
overlap is here. Whatever stops in between may be repeated: each step sees whether it was done.

The patients' key is never renewed: another one would make strangers of the same patients.
"""

import time
from pathlib import Path
from typing import Final

from client import policy
from client.account import Account
from client.home import ledger_place, read_site_file
from client.ledger import Pen, Place, succession
from client.membership import approval
from common import credentials, keyfile
from common.credentials import KEY_FILE
from common.errors import LedgerRollback, RosterKey, SecretFile
from common.secagg.keys import SigningKey

NEXT_KEY_FILE: Final = "identity.next.key"


def waiting_key(home: Path) -> SigningKey | None:
    """The key that a rotation made and no roster names yet. Raises: SecretFile."""
    file = home / NEXT_KEY_FILE
    return keyfile.load(file, "site") if file.exists() else None


def begin(home: Path) -> tuple[SigningKey, SigningKey]:
    """The present key and its successor, which is made if there is none yet. Raises: SecretFile, DiskFull."""
    present = keyfile.load(home / KEY_FILE, "site")
    return present, waiting_key(home) or keyfile.create(home / NEXT_KEY_FILE, "site")


def finish(home: Path) -> None:
    """Hand everything over to the key that a roster names now.

    Raises: SecretFile, LedgerRollback, LedgerTampered, ApprovalBroken, DiskFull.
    """
    old, new = keyfile.load(home / KEY_FILE, "site"), waiting_key(home)
    if new is None:
        return
    file = read_site_file(home)
    place = ledger_place(home, file)
    if succession.exists(place):
        succession.hand_over(place, Account(home, file).pen(), new)
    approval.sign_anew(home, old, new)
    _put_in_place(home)


def recover(home: Path, *, reason: str, stolen: bool = False, never_opened: bool = False) -> SigningKey:
    """A new identity, to be enrolled, under which the ledger goes on. May be repeated.

    `stolen`: the old key is still here, signs the ledger over, and is then overwritten. `never_opened`: there was no ledger yet.
    Raises: SecretFile where there is a key and it is not said to be stolen; LedgerRollback, LedgerTampered, RosterError, DiskFull.
    """
    if (home / KEY_FILE).exists() != stolen:
        found, fix = ("is not there", "Leave --stolen out.") if stolen else ("is there", "If it is in wrong hands, say so: --stolen.")
        raise SecretFile(f"key file '{home / KEY_FILE}' {found}.", fix=fix)
    new = waiting_key(home) or keyfile.create(home / NEXT_KEY_FILE, "site")
    place = ledger_place(home, read_site_file(home))
    if not succession.exists(place):
        if not never_opened:
            raise LedgerRollback(
                f"there is neither ledger '{place.file}' nor its sealed head '{place.head}'.",
                fix="Put them back from the newest backup; what they record is spent. If no ledger was ever opened here: --never-opened.",
            )
    elif stolen:
        succession.hand_over(place, Account(home, read_site_file(home)).pen(), new)
    else:
        _carry_over(home, place, new, reason)
    _put_in_place(home)
    return new


def _carry_over(home: Path, place: Place, new: SigningKey, reason: str) -> None:
    """The lost key cannot sign. Which one it was, the roster says and not the folder."""
    file, caps = read_site_file(home), policy.load(home).budget
    member = credentials.load_roster(home).find(file.site.name)
    if member is None:
        raise RosterKey(
            f"the roster does not name site '{file.site.name}', so nobody can say whose ledger '{place.file}' is.",
            fix="Put the roster back under which this site took part.",
        )
    pen = Pen(signer=new, clock=lambda: int(time.time()), power_cut_safe=file.power_cut_safe)
    succession.carry_over(place, pen, lost=member.public_key, site=file.site.name, caps=caps, reason=reason)


def _put_in_place(home: Path) -> None:
    """The secret half last, in one rename: until then a repetition finds it."""
    new = home / NEXT_KEY_FILE
    public = keyfile.public_path(new)
    if public.exists():
        public.replace(keyfile.public_path(home / KEY_FILE))
    new.replace(home / KEY_FILE)
