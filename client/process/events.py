# SPDX-License-Identifier: Apache-2.0
"""What a hospital's long-lived processes say while they run: one line an event, of a closed set of fields.

    2026-03-01T08:15:02Z site north: answered train.fsa1 round 3 in 41.2 s
    {"at": "2026-03-01T08:15:02Z", "who": "site", "event": "answered", "site": "north", "type": "train.fsa1", "round": 3, "seconds": 41.2}

No field is free text: an event is one of a list, a refusal is its code, a message is its type. So whoever collects these lines collects
no patient, no path and no exception's words. The words of a refusal are in `error.log`, in the site's own folder.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import Final, Literal, TextIO

from common.instant import instant

Form = Literal["text", "json"]
What = Literal["started", "failpoint", "stopped", "answered", "refused", "abandoned", "connected", "disconnected", "site_away", "dropped"]
Who = Literal["site", "mailbox"]

_SECONDS_SHOWN: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line. `type` is a message's, `code` a refusal's; `device` is what the site trains on, as PyTorch calls it."""

    event: What
    site: str = ""
    type: str = ""
    round: int | None = None
    code: str = ""
    seconds: float | None = None
    bytes_in: int | None = None
    bytes_out: int | None = None
    device: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """Where events go: standard error, for people or for machines."""

    who: Who
    form: Form = "text"
    to: TextIO | None = None

    def write(self, event: Event) -> None:
        at = instant(int(time.time()))
        said = {key: _short(value) for key, value in asdict(event).items() if value not in ("", None)}
        as_json = json.dumps({"at": at, "who": self.who, **said})
        line = as_json if self.form == "json" else f"{at} {self.who} {_in_words(event)}"
        print(line, file=self.to or sys.stderr, flush=True)


def _in_words(event: Event) -> str:
    parts = [f"{event.site}:" if event.site else "", event.event, event.type]
    parts.append(f"round {event.round}" if event.round is not None else "")
    parts.append(event.code)
    parts.append(f"on {event.device}" if event.device else "")
    parts.append(f"in {event.seconds:.1f} s" if event.seconds is not None else "")
    parts.append(f"{event.bytes_in} bytes in" if event.bytes_in else "")
    parts.append(f"{event.bytes_out} bytes out" if event.bytes_out else "")
    return " ".join(part for part in parts if part)


def _short(value: object) -> object:
    return round(value, _SECONDS_SHOWN) if isinstance(value, float) else value
