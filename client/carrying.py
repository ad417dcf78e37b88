# SPDX-License-Identifier: Apache-2.0
"""One message to the site process and back, for a ClientApp that holds nothing itself (`client.app`)."""

from pathlib import Path
from typing import Final

from client import door
from common import wire
from common.errors import FedwardError
from common.records import to_content, to_envelope
from common.wire import Content

PATIENCE_S: Final = 600.0


def answer(socket: str, message_type: str, content: Content) -> Content:
    """The site's answer, or a refusal in nobody's name where the message has no form or the site is away."""
    try:
        return to_content(door.ask(Path(socket), to_envelope(message_type, content), patience_s=PATIENCE_S))
    except FedwardError as error:
        return wire.encode_refusal(wire.Refusal(site="", code=error.code))
