# SPDX-License-Identifier: Apache-2.0
"""A ledger for an auditor: the lines as they are, the public key, and how to check them without fedward.

    export/ledger.jsonl      every whole line, byte for byte
           site.pub          the key that signs, as the roster has it
           summary.json      what it adds up to
           check_ledger.py   chain, signatures and sums, in a hundred lines that use nothing of ours
           README.txt        what to do with them, and what it proves

There is no name, no patient id, keyed or not, and no true count in any of it: a ledger never held them.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from client.ledger.chain import Chain
from client.ledger.summary import Summary, summary_of
from common.durable import write_atomically
from common.errors import RunFolderTaken
from common.fingerprint import Fingerprint
from common.privacy.entries import Entry
from common.privacy.entries import render as spell

CHECKER: Final = Path(__file__).with_name("check_ledger.py.txt")

_README: Final = """\
The privacy ledger of site '{site}', namespace '{namespace}': {lines} lines, {opened} to {last}.

Check it
  1. Get the site's public key by another way than this folder: from the consortium's signed roster, or by telephone. In six words:
         {words}
     In digits:
         {key}
  2. python check_ledger.py ledger.jsonl {key}
     It needs Python and the package cryptography; with dp-accounting 0.6.0 it also adds everything up again.

By hand: the SHA-256 of each line, without its newline, is the "prev" of the next. A signature is Ed25519 over the 17 bytes
"fedward ledger 1" and newline, followed by the line with "sig":"" in place of its signature.

What it proves: these lines were written by the holder of that key, in this order, and none is missing between the first and the last. The
last line's hash is
         {head}
Other sites of the consortium were shown a token that begins with its first 32 digits if they met this site after that line was written.

What it does not prove: that nothing was trained without being written down. That follows from the program, whose version and source digest
each line names ("code").
"""


def write(folder: Path, chain: Chain, entries: Sequence[Entry]) -> Summary:
    """Raises: RunFolderTaken, if there is such a folder already; DiskFull."""
    if folder.exists():
        raise RunFolderTaken(f"'{folder}' exists already.", fix="Choose another --out; exports are not overwritten.")
    folder.mkdir(parents=True)
    found = summary_of(chain, entries)
    key = bytes.fromhex(chain.key)
    _write(folder / "ledger.jsonl", b"".join(spell(entry) + b"\n" for entry in entries))
    _write(folder / "site.pub", f"fedward-public-key 1 site {chain.key}\n".encode())
    _write(folder / "summary.json", json.dumps(as_json(found), indent=1).encode() + b"\n")
    shutil.copyfile(CHECKER, folder / "check_ledger.py")
    text = _README.format(
        site=found.site,
        namespace=found.namespace,
        lines=found.lines,
        opened=found.opened,
        last=found.last,
        words=Fingerprint.of(key).words,
        key=chain.key,
        head=chain.digests[-1].hex(),
    )
    _write(folder / "README.txt", text.encode())
    return found


def as_json(found: Summary) -> dict[str, Any]:
    """A summary as JSON has it: a sum without limit is the word "inf"."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(found)), parse_constant=lambda word: "inf" if word == "Infinity" else word)
    del plain["moments"], plain["caps_history"]
    return plain


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, content, fsync=False)
