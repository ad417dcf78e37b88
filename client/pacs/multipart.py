# SPDX-License-Identifier: Apache-2.0
"""The one part of a `multipart/related` answer, handed on piece by piece as it comes; nothing is gathered (PS3.18 8.6.1.2).

python-multipart finds the boundaries. Its parser is for forms, and strict in a way that suits here: no text before the first boundary,
headers few and short. An answer to a request for one instance has one part, and ends; a second part is refused.
"""

from collections.abc import Callable
from email.message import Message
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from client.pacs.failure import Failed, Reason

DICOM: Final = "application/dicom"
RELATED: Final = "multipart/related"


def content_type(value: str) -> tuple[str, str]:
    """A Content-Type header's kind, in lower case, and its boundary, if it has one."""
    message = Message()
    message["content-type"] = value
    boundary = message.get_param("boundary", "")
    return message.get_content_type(), boundary if isinstance(boundary, str) else ""


class OnePart:
    """Feed it the body; `write` gets what is inside. `is_over` after the closing boundary."""

    def __init__(self, boundary: str, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._parts = 0
        self._overhead = 0
        self.is_over = False
        if not boundary or not boundary.isascii():
            raise Failed(Reason.MALFORMED)
        try:
            self._parser = MultipartParser(
                boundary.encode("ascii"), {"on_part_begin": self._begin, "on_part_data": self._data, "on_end": self._end}
            )
        except FormParserError:
            raise Failed(Reason.MALFORMED) from None

    def feed(self, piece: bytes) -> None:
        """Raises: Failed with MALFORMED, and what `write` raises."""
        if self.is_over:
            return
        self._overhead += len(piece)
        try:
            self._parser.write(piece)
        except FormParserError:
            raise Failed(Reason.MALFORMED) from None
        if self._parts == 0 and self._overhead > _LONGEST_LEAD:
            raise Failed(Reason.MALFORMED)

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > 1:
            raise Failed(Reason.MALFORMED)

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._write(data[start:end])

    def _end(self) -> None:
        self.is_over = True


_LONGEST_LEAD: Final = 1 << 20
"""Line ends before the first boundary are skipped by the parser, however many."""
