# SPDX-License-Identifier: Apache-2.0
"""One message to the site process and back, for a ClientApp that holds nothing itself (`client.app`).

A site process that is being restarted is waited for; one that stays away is said to be, so that the coordinator need not wait for it.
"""

import time
from pathlib import Path
from typing import Final

from client.mailbox.retrying import delays
from client.process import door
from common import wire
from common.envelope import Envelope
from common.errors import FedwardError, SiteAway
from common.records import to_content, to_envelope
from common.wire import Content

TRAINING_S: Final = 24 * 3600.0
AWAY_S: Final = 60.0


def answer(socket: str, message_type: str, content: Content, *, away_s: float = AWAY_S) -> Content:
    """The site's answer, or a refusal in nobody's name where the message has no form or the site is away."""
    try:
        return to_content(_asked(Path(socket), to_envelope(message_type, content), away_s))
    except FedwardError as error:
        return wire.encode_refusal(wire.Refusal(site="", code=error.code))


def _asked(socket: Path, question: Envelope, away_s: float) -> Envelope:
    until = time.monotonic() + away_s
    for delay in delays():
        try:
            return door.ask(socket, question, patience_s=TRAINING_S)
        except SiteAway:
            if time.monotonic() + delay > until:
                raise
            time.sleep(delay)
    raise AssertionError("delays never end")
