# SPDX-License-Identifier: Apache-2.0
"""Why an instance did not come: one word for each reason, and whether asking again can help.

Words and counts are all that is shown on a screen. Which instance it was stands in the report alone, which is its owner's.
"""

from enum import StrEnum
from typing import Final


class Reason(StrEnum):
    """The word is for machines and documentation; `REMEDY[reason]` is for people."""

    AWAY = "away"
    BUSY = "busy"
    SILENT = "silent"
    SLOW = "slow"
    BROKEN_OFF = "broken_off"
    PACS_ERROR = "pacs_error"
    NOT_SENT = "not_sent"
    NOT_FOUND = "not_found"
    FORBIDDEN = "forbidden"
    REFUSED = "refused"
    NOT_OFFERED = "not_offered"
    REDIRECTED = "redirected"
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    NOT_DICOM = "not_dicom"
    HEADER = "header"
    OTHER_INSTANCE = "other_instance"
    NOT_REACHED = "not_reached"


REMEDY: Final[dict[Reason, str]] = {
    Reason.AWAY: "The archive could not be reached.",
    Reason.BUSY: "The archive said that it is busy. Ask at another hour, or slower (--per-second).",
    Reason.SILENT: "The archive accepted the request and sent nothing for as long as --timeout.",
    Reason.SLOW: "The archive sent, but far too slowly to come to an end.",
    Reason.BROKEN_OFF: "The archive broke off in the middle.",
    Reason.PACS_ERROR: "The archive answered with a fault of its own; its log says more.",
    Reason.NOT_SENT: "The archive said that it was done and had not sent it.",
    Reason.NOT_FOUND: "The archive lists it and does not have it (any more).",
    Reason.FORBIDDEN: "The archive does not give this instance to this user.",
    Reason.REFUSED: "The archive refused the request.",
    Reason.NOT_OFFERED: "The archive does not send this kind of object, or not in a transfer syntax that is read here.",
    Reason.REDIRECTED: "The archive pointed to another address. Nobody follows: give the right address.",
    Reason.MALFORMED: "The answer is not put together as the standard says.",
    Reason.TOO_LARGE: "Larger than --largest-mib.",
    Reason.NOT_DICOM: "What was sent is no DICOM file.",
    Reason.HEADER: "The header does not parse.",
    Reason.OTHER_INSTANCE: "Another instance, series or study was sent than was asked for.",
    Reason.NOT_REACHED: "The import ended before it was this one's turn. Run it again.",
}

PASSING: Final = frozenset({Reason.AWAY, Reason.BUSY, Reason.SILENT, Reason.SLOW, Reason.BROKEN_OFF, Reason.PACS_ERROR, Reason.NOT_SENT})
"""What may be better in a moment."""


class Failed(Exception):
    """Raised to give one instance up, for now. `wait_s`: how long the archive asked to be left alone."""

    def __init__(self, reason: Reason, *, wait_s: float = 0.0) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.wait_s = wait_s
