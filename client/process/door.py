# SPDX-License-Identifier: Apache-2.0
"""The site's socket, from outside: one question, one answer, in pieces (`common.envelope`).

A Unix-domain socket and nothing else: gRPC is given no host, no port, no proxy, and no name to resolve. Who may speak is the file's mode
and its folder's group (`client.process.place`). The other end is `client.process.serve`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import grpc

from common import envelope
from common.envelope import CHUNK_BYTES, Envelope
from common.errors import SiteAway

METHOD: Final = "/fedward.Site/Handle"
LARGEST_REPLY: Final = 4 << 30
"""A site's masked update is as long as the model that its plan names; the mailbox knows no plan, and trusts the site so far."""
OPTIONS: Final = (
    ("grpc.max_receive_message_length", CHUNK_BYTES),
    ("grpc.max_send_message_length", CHUNK_BYTES),
    ("grpc.enable_http_proxy", 0),
)


def ask(socket: Path, question: Envelope, *, patience_s: float) -> Envelope:
    """The site's answer, which may take as long as training does.

    Raises: SiteAway, if nobody answers or the answer breaks off: then ask again, the site answers the same. MessageFormat, MessageTooLarge.
    """
    with grpc.insecure_channel(f"unix:{socket.absolute()}", options=OPTIONS) as channel:
        call = channel.stream_stream(METHOD)(envelope.pieces(question), timeout=patience_s)
        return envelope.read(_arriving(call, socket), largest_vector=LARGEST_REPLY)


def _arriving(call: Iterator[bytes], socket: Path) -> Iterator[bytes]:
    try:
        yield from call
    except grpc.RpcError as error:
        raise SiteAway(
            f"the site process does not answer at '{socket}' ({error.code().name.lower()}).",
            fix="Is it running? fedward site serve. May this user open the socket? ls -l it, and its folder.",
        ) from None
