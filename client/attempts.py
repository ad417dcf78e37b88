# SPDX-License-Identifier: Apache-2.0
"""Where a site stands in secure aggregation, on disk: what must survive a kill at any step.

    fsa1/lock             held while one message is answered: several processes may serve one site
    fsa1/record-N         stage, keys of the living attempt, answers given (common.secagg.durable); a new one after each step
    fsa1/update-N         the quantised update that the record has committed to, until it is released or forgotten
    fsa1/model-N          the last global model that was accepted: what the next one is compared with
    fsa1/peers-N          the tokens of peers' ledgers and heads of their audit logs, as last announced (client.echoes)

All files are for the site's own user alone; each new content gets the next number (`common.durable.Newest`).

Nothing is remembered in the process. What this does not do: it cannot make a disk forget; a removed record's keys may be found by who
takes the disk apart.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from common import failpoints
from common.durable import OWNER_ONLY, Newest, forget_unfinished
from common.errors import CheckpointCorrupt
from common.secagg import durable
from common.secagg.model import Reference
from common.secagg.site import Record

_FOLDER_MODE: Final = 0o700
_ROUND_BYTES: Final = 8


class AttemptStore:
    """One site's attempts, in a folder that holds nothing else. Call the rest between `locked()`."""

    def __init__(self, folder: Path, *, power_cut_safe: bool) -> None:
        folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)
        self._folder = folder
        self._record = Newest(folder, "record", fsync=power_cut_safe)
        self._update = Newest(folder, "update", fsync=power_cut_safe)
        self._model = Newest(folder, "model", fsync=power_cut_safe)
        self._peers = Newest(folder, "peers", fsync=power_cut_safe)
        with self.locked():
            forget_unfinished(folder)  # a process that was killed in its last step of a run may have left a key half written

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else answers for this site meanwhile; the lock dies with its process."""
        with os.fdopen(os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, OWNER_ONLY), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def record(self, *, update_is_used: bool = True) -> Record:
        """Where this site stands; at the beginning, if it never stood anywhere.

        A step that neither masks nor announces the update need not read it: told so, this maps the file and checks nothing about it.
        Raises: CheckpointCorrupt.
        """
        content, update = self._record.read(), self._update.mapped()
        if content is None:
            return Record()
        return durable.load_record(content, update=None if update is None else durable.load_update(update), check_update=update_is_used)

    def keep(self, before: Record, after: Record) -> None:
        """Write down what a step changed; only then may its reply be sent. Raises: DiskFull."""
        if after is before:
            return
        was, living = durable.living_update(before), durable.living_update(after)
        if living is not None and living is not was:
            self._update.write(durable.save_update(living))
            failpoints.reach("after_update_stored")
        self._record.write(durable.save_record(after))
        if living is None:
            self._update.remove()

    def peers(self) -> bytes | None:
        """What is remembered of peers' ledgers; None before the first."""
        return self._peers.read()

    def keep_peers(self, content: bytes) -> None:
        """Raises: DiskFull."""
        self._peers.write(content)

    def reference(self) -> Reference | None:
        """The last model that was accepted, and in which round. Raises: CheckpointCorrupt."""
        content = self._model.mapped()
        if content is None:
            return None
        if len(content) < _ROUND_BYTES or (len(content) - _ROUND_BYTES) % 4:
            raise CheckpointCorrupt("the last accepted model on file is torn.", fix="Remove it; the next model is compared with the first.")
        values = np.frombuffer(content, dtype="<f4", offset=_ROUND_BYTES)
        return Reference(values=values, round=int.from_bytes(content[:_ROUND_BYTES], "big"))

    def keep_reference(self, reference: Reference) -> None:
        """After the record that accepted it: a kill in between only makes the next comparison less strict. Raises: DiskFull."""
        values = np.ascontiguousarray(reference.values, dtype="<f4")
        self._model.write((reference.round.to_bytes(_ROUND_BYTES, "big"), values.data.cast("B")))
