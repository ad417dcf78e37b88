# SPDX-License-Identifier: Apache-2.0
"""A new snapshot: the data set as it stands now, without those who withdrew, prepared and approved.

    folder of images (or what is prepared already) -> without the excluded -> data/ -> manifest -> ledger: SNAPSHOT

Training opens the approved snapshot and nothing else, so new images, corrected labels and withdrawals all take effect here, at a moment
that somebody chose. What is prepared anew replaces what was there: the images of a patient who withdrew are then no longer in data/. If the
machine stops between the two, the site refuses by name until the snapshot is taken again.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from client import exclusion, policy
from client.account import Account
from client.home import CACHE_FOLDER, PATIENT_KEY_FILE, PREPARED_FOLDER, DataSection
from client.imaging import conservation, manifest
from client.imaging.dataset import Dataset
from client.imaging.identity import load_or_create
from client.imaging.manifest import Manifest
from client.imaging.prepared import load_prepared, save_prepared
from client.imaging.report import IntakeReport
from client.ledger import Chain
from common.errors import SnapshotMismatch, TooFewPatients
from common.plan import Plan
from common.privacy.entries import Fact

_NEW: Final = ".data.new"
_OLD: Final = ".data.old"
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What a snapshot holds, and what has changed since the one before: patients who are new, gone, or whose images changed.

    intake: what became of every file, where the folder of images was read.
    """

    digest: str
    patients: int
    records: int
    training_patients: int
    training_records: int
    new: int
    gone: int
    changed: int
    excluded: int
    is_news: bool
    intake: dict[str, Any] | None = None


def take(home: Path, account: Account, source: DataSection | None, plan: Plan | None, progress: Progress | None = None) -> Taken:
    """Prepare, approve, and say what changed.

    Raises: DataError, SnapshotMismatch where a patient withdrew meanwhile among them; TooFewPatients, if nobody is left; LedgerRollback,
    LedgerTampered, DiskFull.
    """
    ledger = account.ledger()
    before, known = _before(home), conservation.read(home / PREPARED_FOLDER)
    anew = _read_anew(home, source, plan, progress) if source and source.root and plan else None
    found = anew[0] if anew else load_prepared(home / PREPARED_FOLDER)
    kept = exclusion.without(found, ledger.refresh().excluded)
    if not len(kept):
        raise TooFewPatients("nobody would be left in this snapshot.", fix="Look at the data folder; nothing was changed.")
    after = manifest.manifest_of(kept)
    if before is None or after != before:
        _replace(home, kept)
    if anew:
        conservation.write(anew[1], home / PREPARED_FOLDER, found=len(found), left_out=len(found) - len(kept))
    elif known is not None:
        conservation.carry(known, home / PREPARED_FOLDER, left_out=len(found) - len(kept))

    def fact(chain: Chain) -> Fact | None:
        if exclusion.pending(after, chain.excluded):
            raise SnapshotMismatch(
                "a patient withdrew while this snapshot was being taken; it was not approved, and nothing is trained on it.",
                fix="Take it again: fedward site snapshot.",
            )
        return account.snapshot_fact(chain, after)

    entry = ledger.note(fact)
    taken = _taken(before, after, excluded=found.num_patients - kept.num_patients, is_news=entry is not None)
    return replace(taken, intake=anew[1].as_dict()) if anew else taken


def _before(home: Path) -> Manifest | None:
    try:
        return manifest.read(home / PREPARED_FOLDER)
    except SnapshotMismatch:
        return None


def _read_anew(home: Path, source: DataSection, plan: Plan, progress: Progress | None) -> tuple[Dataset, IntakeReport]:
    """The folder of images, through the intake."""
    from client.imaging.intake import DataSource, limits_of, open_dataset  # brings the DICOM reader

    assert source.root is not None
    rules = policy.load_or_default(home)
    images = DataSource(
        root=home / source.root,
        labels=home / source.labels if source.labels else None,
        accept_burned_in=rules.images.burned_in == "accept",
    )
    secret = load_or_create(home / PATIENT_KEY_FILE)
    return open_dataset(images, plan, cache=home / CACHE_FOLDER, key=secret, limits=limits_of(rules.images), progress=progress)


def _replace(home: Path, data: Dataset) -> None:
    new, old = home / _NEW, home / _OLD
    shutil.rmtree(new, ignore_errors=True)
    save_prepared(data, new)
    if (home / PREPARED_FOLDER).exists():
        shutil.rmtree(old, ignore_errors=True)
        (home / PREPARED_FOLDER).rename(old)
    new.rename(home / PREPARED_FOLDER)
    if old.is_symlink():
        old.unlink()
    shutil.rmtree(old, ignore_errors=True)


def _taken(before: Manifest | None, after: Manifest, *, excluded: int, is_news: bool) -> Taken:
    was = {row.key: row for row in before.patients} if before else {}
    now = {row.key: row for row in after.patients}
    return Taken(
        digest=after.digest,
        patients=len(now),
        records=sum(row.images for row in after.patients),
        training_patients=after.training_patients,
        training_records=after.training_records,
        new=len(now.keys() - was.keys()),
        gone=len(was.keys() - now.keys()),
        changed=sum(was[key] != now[key] for key in was.keys() & now.keys()),
        excluded=excluded,
        is_news=is_news,
    )
