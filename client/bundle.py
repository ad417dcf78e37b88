# SPDX-License-Identifier: Apache-2.0
"""What a site gives to an auditor: its audit log, the plans and rosters that the log names, and, if it is told to, its privacy ledger.

None of it names a patient or counts any. It does say in which rounds of which sessions this site took part, and how many lines its privacy
ledger has; with the ledger, what all its plans have spent. It leaves the hospital when somebody there carries it out, and not otherwise.
"""

import time
from pathlib import Path

from client.home import ledger_place, read_site_file
from common import keyfile
from common.audit import bundle, evidence
from common.audit.bundle import Manifest, Party
from common.audit.log import LOG_FILE
from common.credentials import KEY_FILE, ROOTS_FILE
from common.errors import DataNotFound


def export(home: Path, out: Path, *, with_ledger: bool = False) -> Manifest:
    """Write a bundle; a .zip, if it is called so. Raises: DataNotFound, RunFolderTaken, AuditTampered, SecretFile, DiskFull."""
    file = read_site_file(home)
    if not (home / LOG_FILE).is_file():
        raise DataNotFound(
            f"site '{file.site.name}' has no audit log yet.", fix="It begins with the first round that the site is asked for."
        )
    contents = {LOG_FILE: home / LOG_FILE, bundle.ROOTS: home / ROOTS_FILE}
    contents |= {f"{evidence.FOLDER}/{path.name}": path for path in (home / evidence.FOLDER).glob("[!.]*")}
    ledger = ledger_place(home, file).file
    if with_ledger and ledger.exists():
        contents[bundle.LEDGER] = ledger
    signer = keyfile.load(home / KEY_FILE, "site")
    return bundle.write(out, Party(role="site", name=file.site.name, signer=signer, now=time.time()), contents)
