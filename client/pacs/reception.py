# SPDX-License-Identifier: Apache-2.0
"""What an archive sends by C-STORE while it is asked for something: kept, if it is that; refused, if it is not.

An archive chooses the name and kind of what it sends, and may send what nobody asked for, once more, or for ever. Only instances of the
request in hand are looked at; whatever else comes is dropped and told apart by a status, and after a few of them the connection ends.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Final, cast

from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event

from client.pacs.failure import Failed, Reason
from client.pacs.guard import cut, message_ended
from client.pacs.landing import Landing, flush_path
from client.pacs.wanted import Wanted
from common.errors import DiskFull

_SUCCESS: Final = 0x0000
_NO_ROOM: Final = 0xA700
_NOT_AS_ASKED: Final = 0xA900
_MOST_UNASKED: Final = 8


class Reception:
    """What one request may bring. Handlers run in the threads of connections."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._landing: Landing | None = None
        self._expected: dict[str, Wanted] = {}
        self._failed: dict[Wanted, Failed] = {}
        self._unasked = self._landing_now = 0
        self.looked_at = 0
        """Instances of the request that have come, whether they were kept or not."""
        self.full: DiskFull | None = None

    def expect(self, wanted: Sequence[Wanted], landing: Landing) -> None:
        """From now on these, and no others."""
        with self._lock:
            self._landing, self._expected = landing, {each.instance: each for each in wanted}
            self._failed, self._unasked, self.looked_at, self.full = {}, 0, 0, None

    def close(self) -> Mapping[Wanted, Failed]:
        """Nothing more is taken. What was sent and could not be kept; what was not sent is not in it."""
        with self._lock:
            waiting, failed = list(self._expected.values()), dict(self._failed)
            self._expected, self._landing = {}, None
        if self._unasked:
            failed = {**{each: Failed(Reason.OTHER_INSTANCE) for each in waiting}, **failed}
        return failed

    @property
    def waits(self) -> bool:
        """Whether something has not come yet, or is being looked at."""
        return bool(self._expected) or self._landing_now > 0

    def on_message(self, event: Event) -> None:
        """EVT_DIMSE_RECV."""
        message_ended(event.assoc)

    def on_store(self, event: Event) -> int:
        """EVT_C_STORE: keep it, or say why not. Returns the status for the archive."""
        request = cast(C_STORE, event.request)
        path = _file_of(request)
        try:
            return self._keep(event, str(request.AffectedSOPInstanceUID), path)
        finally:
            if path is not None:
                path.unlink(missing_ok=True)

    def _keep(self, event: Event, uid: str, path: Path | None) -> int:
        with self._lock:
            wanted, landing = self._expected.pop(uid, None), self._landing
            if wanted is None:
                self._unasked += 1
            else:
                self._landing_now += 1
                self.looked_at += 1
        if wanted is None:
            if self._unasked > _MOST_UNASKED:
                cut(event.assoc)
            return _NOT_AS_ASKED
        try:
            return self._land(wanted, landing, path)
        finally:
            with self._lock:
                self._landing_now -= 1

    def _land(self, wanted: Wanted, landing: Landing | None, path: Path | None) -> int:
        if landing is None or path is None:
            return _NOT_AS_ASKED
        try:
            flush_path(path)
            landing.land(path, wanted)
        except Failed as failure:
            self._failed[wanted] = failure
            return _NOT_AS_ASKED
        except DiskFull as full:
            self.full = full
            return _NO_ROOM
        return _SUCCESS


def _file_of(request: C_STORE) -> Path | None:
    """Where pynetdicom has put what came, closed; None where it came without a data set."""
    if request._dataset_file is None:
        return None
    request._dataset_file.close()
    return Path(request._dataset_file.name)
