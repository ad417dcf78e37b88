# SPDX-License-Identifier: Apache-2.0
"""Sites that misbehave on request: the honest ClientApp, with a hole in it.

A federation is judged by what it does when a hospital fails, so a simulation can be told to let one fail:

    raise     training ends in an exception of the site's own
    crash     the site's process dies
    silent    the site never answers

A fault is written SITE:KIND:ROUND ("hospital_03:silent:5"; ROUND may be * for every round) and reaches the workers by an environment
variable, which only the simulator sets.
"""

import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client import app as honest
from common.errors import PlanValue

FAULTS_VARIABLE: Final = "FEDWARD_FAULTS"
KINDS: Final = ("raise", "crash", "silent")
_EVERY: Final = "*"
_FOREVER_S: Final = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What one site does wrong; `round` None means each time."""

    site: str
    kind: str
    round: int | None

    def __str__(self) -> str:
        return f"{self.site}:{self.kind}:{_EVERY if self.round is None else self.round}"


def parse_faults(texts: Iterable[str]) -> tuple[Fault, ...]:
    """Raises: PlanValue, for anything that is not SITE:KIND:ROUND."""
    return tuple(_parse(text) for text in texts)


def _parse(text: str) -> Fault:
    site, _, rest = text.partition(":")
    kind, _, number = rest.partition(":")
    if not site or kind not in KINDS or not (number == _EVERY or number.isdecimal()):
        raise PlanValue(f"fault '{text}' is not SITE:KIND:ROUND.", fix=f"Kinds are {', '.join(KINDS)}; ROUND is a number or *.")
    return Fault(site=site, kind=kind, round=None if number == _EVERY else int(number))


app = ClientApp()


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """As an honest site."""
    return honest.hello(message, context)


@app.train("delta")
def train(message: Message, context: Context) -> Message:
    """Fail as told, else train honestly."""
    name = honest.home_of(context).name
    for fault in parse_faults(filter(None, os.environ.get(FAULTS_VARIABLE, "").split(","))):
        if fault.site == name and fault.round in (None, message.content["fedward"]["round"]):
            _commit(fault.kind)
    return honest.train(message, context)


def _commit(kind: str) -> None:
    match kind:
        case "raise":
            raise RuntimeError("a fault that was asked for")
        case "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        case "silent":
            time.sleep(_FOREVER_S)
