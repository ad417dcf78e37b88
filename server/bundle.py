# SPDX-License-Identifier: Apache-2.0
"""What the coordinator gives to an auditor: its audit log, plan and rosters, and the replies of every step as the sites signed them.

With masked updates, where the run kept them (`[run] evidence = "vectors"`), the bundle holds four bytes a parameter, site and round, and
the model can be computed from it anew. It is what the coordinator itself saw; docs/evidence.md says why that opens no site's update.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common import keyfile
from common.audit import bundle, evidence
from common.audit.bundle import Manifest, Party
from common.audit.log import LOG_FILE
from common.credentials import KEY_FILE, ROOTS_FILE
from common.errors import DataNotFound
from server.audit import COORDINATOR

_VECTOR: Final = "-vector-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """Where a coordinator's run, key and roots lie."""

    run: Path
    key: Path
    roster: Path


def export(folders: Folders, out: Path, *, with_vectors: bool = False) -> Manifest:
    """Write a bundle; a .zip, if it is called so. Raises: DataNotFound, RunFolderTaken, AuditTampered, SecretFile, DiskFull."""
    kept = sorted((folders.run / evidence.FOLDER).glob("[!.]*"))
    if not (folders.run / LOG_FILE).is_file():
        raise DataNotFound(f"run folder '{folders.run}' has no audit log.", fix="Give the folder of a run of secure aggregation.")
    if with_vectors and not any(_VECTOR in path.name for path in kept):
        raise DataNotFound(
            f"run folder '{folders.run}' kept no masked updates.", fix='Leave --with-vectors away, or run with [run] evidence = "vectors".'
        )
    contents = {LOG_FILE: folders.run / LOG_FILE, bundle.ROOTS: folders.roster / ROOTS_FILE}
    contents |= {f"{evidence.FOLDER}/{path.name}": path for path in kept if with_vectors or _VECTOR not in path.name}
    signer = keyfile.load(folders.key / KEY_FILE, "coordinator")
    return bundle.write(out, Party(role="coordinator", name=COORDINATOR, signer=signer, now=time.time()), contents)
