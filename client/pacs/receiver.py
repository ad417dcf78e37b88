# SPDX-License-Identifier: Apache-2.0
"""Where an archive sends by C-MOVE: a storage SCP of our own, open while an import runs, for this archive alone.

C-MOVE names a destination by its AE title, and the archive has to know at which address that is. Whoever else calls here is turned away:
by address before a byte is read, by AE title before an instance is offered, and with TLS by a certificate of the hospital's authority.
"""

import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from pynetdicom import AllStoragePresentationContexts, evt

from client.pacs.guard import GuardedEntity, GuardedHandler, GuardedServer, Watch, cut, drop_unfinished
from client.pacs.reception import Reception
from client.pacs.syntaxes import SYNTAXES
from common.errors import AddressTaken

_ASSOCIATIONS: Final = 8
_MOMENT_S: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Where to listen, as whom, and for whom: AE titles and addresses of the archive."""

    host: str
    port: int
    title: str
    callers: Sequence[str]
    addresses: frozenset[str]
    tls: ssl.SSLContext | None


class Receiver:
    """Listens until `close`. What comes goes to `reception`."""

    def __init__(self, listening: Listening, reception: Reception, watch: Watch) -> None:
        """Raises: AddressTaken."""
        entity = GuardedEntity(listening.title, watch)
        entity.require_called_aet = True
        entity.require_calling_aet = list(listening.callers)
        entity.maximum_associations = _ASSOCIATIONS
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(str(context.abstract_syntax), SYNTAXES)
        try:
            self._server = GuardedServer(
                entity,
                (listening.host, listening.port),
                listening.title,
                entity.supported_contexts,
                listening.tls,
                [(evt.EVT_C_STORE, reception.on_store), (evt.EVT_DIMSE_RECV, reception.on_message)],
                GuardedHandler,
            )
        except OSError as error:
            raise AddressTaken(
                f"'{listening.host}:{listening.port}' cannot be listened on ({error.strerror}).",
                fix="Give --move-to an address of this computer and a free port, as the archive knows it.",
            ) from None
        entity._servers.append(self._server)  # where shutdown looks for it
        self._server.addresses = listening.addresses
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        self._thread.start()

    @property
    def is_busy(self) -> bool:
        """Whether the archive is connected."""
        return bool(self._server.active_associations)

    def wait(self) -> None:
        """A moment."""
        time.sleep(_MOMENT_S)

    def close(self) -> None:
        self._server.shutdown()
        for association in self._server.active_associations:
            cut(association)
            association.join(timeout=2)
            drop_unfinished(association)
        self._thread.join(timeout=2)


def addresses_of(host: str) -> frozenset[str]:
    """All addresses of a name; none where it has none, so that nobody may call."""
    with suppress(OSError):
        return frozenset(str(found[4][0]) for found in socket.getaddrinfo(host, None))
    return frozenset()
