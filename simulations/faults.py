# SPDX-License-Identifier: Apache-2.0
"""Sites that misbehave on request: the honest ClientApp, with a hole in it.

A federation is judged by what it does when a hospital fails, so a simulation can be told to let one fail:

    raise     training ends in an exception of the site's own
    crash     the site's process dies
    silent    the site never answers
    poison    the site trains against what it found, as far as the plan's norm lets an update reach (where noise is not shared)
    rubbish   at step share: what the site seals for its peers does not open
    misdeal   at step share: what it seals opens, and is shares of nothing
    slander   at step mask: it says of every peer that its shares do not open

A fault is written SITE:KIND:ROUND[:STEP] ("hospital_03:silent:5:mask"; ROUND may be * for every round). STEP is a step of secure
aggregation: keys (training, and the default), share, mask, confirm, unmask. A fault reaches the workers by an environment variable,
which only the simulator sets.
"""

import os
import secrets
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client import app as honest
from client import site
from client.imaging.dataset import Dataset
from client.process import embedded
from client.training import LocalWork
from common import wire
from common.errors import PlanValue
from common.plan import Plan
from common.secagg import field, keys, shamir
from common.update import RawDelta, Weights

FAULTS_VARIABLE: Final = "FEDWARD_FAULTS"
KINDS: Final = ("raise", "crash", "silent", "poison", "rubbish", "misdeal", "slander")
STEPS: Final = ("keys", "share", "mask", "confirm", "unmask")
_EVERY: Final = "*"
_FOREVER_S: Final = 86_400.0
_SEALED: Final = 2 * field.ELEMENT_SIZE + keys.NONCE_SIZE + keys.TAG_SIZE
_BOOST: Final = np.float32(1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What one site does wrong; `round` None means each time."""

    site: str
    kind: str
    round: int | None
    step: str = STEPS[0]

    def __str__(self) -> str:
        return f"{self.site}:{self.kind}:{_EVERY if self.round is None else self.round}:{self.step}"


def parse_faults(texts: Iterable[str]) -> tuple[Fault, ...]:
    """Raises: PlanValue, for anything that is not SITE:KIND:ROUND[:STEP]."""
    return tuple(_parse(text) for text in texts)


def _parse(text: str) -> Fault:
    site, _, rest = text.partition(":")
    kind, _, rest = rest.partition(":")
    number, _, step = rest.partition(":")
    if not site or kind not in KINDS or (step or STEPS[0]) not in STEPS or not (number == _EVERY or number.isdecimal()):
        raise PlanValue(
            f"fault '{text}' is not SITE:KIND:ROUND[:STEP].",
            fix=f"Kinds are {', '.join(KINDS)}; ROUND is a number or *; steps are {', '.join(STEPS)}.",
        )
    return Fault(site=site, kind=kind, round=None if number == _EVERY else int(number), step=step or STEPS[0])


app = ClientApp()


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """As an honest site."""
    return honest.hello(message, context)


@app.train("delta")
def train(message: Message, context: Context) -> Message:
    """Fail as told, else train honestly."""
    with _failing(message, context, STEPS[0]):
        return honest.train(message, context)


@app.train("ideal")
def train_ideal(message: Message, context: Context) -> Message:
    """Fail as told, else train honestly."""
    with _failing(message, context, STEPS[0]):
        return honest.train_ideal(message, context)


def secure(message: Message, context: Context) -> Message:
    """Fail as told, else answer honestly."""
    with _failing(message, context, _STEP_OF[message.metadata.message_type]):
        return honest.secure(message, context)


_STEP_OF: Final = {message_type: step.lower() for step, message_type in wire.SECURE.items()}
for message_type in _STEP_OF:
    category, _, action = message_type.partition(".")
    (app.train if category == "train" else app.query)(action)(secure)


@contextmanager
def _failing(message: Message, context: Context, step: str) -> Iterator[None]:
    """What the site does within this, it does with the faults that it was told to have."""
    name = embedded.home_of(context.node_config).name
    with ExitStack() as poison:
        for fault in parse_faults(filter(None, os.environ.get(FAULTS_VARIABLE, "").split(","))):
            if (fault.site, fault.step) == (name, step) and fault.round in (None, message.content["fedward"]["round"]):
                _commit(fault.kind, poison)
        yield


def _commit(kind: str, poison: ExitStack) -> None:
    match kind:
        case "raise":
            raise RuntimeError("a fault that was asked for")
        case "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        case "silent":
            time.sleep(_FOREVER_S)
        case "poison":
            poison.enter_context(_poisoned())
        case "rubbish":
            poison.enter_context(_instead(keys, "seal", lambda key, plaintext, **_: bytes(_SEALED)))
        case "misdeal":
            poison.enter_context(
                _instead(shamir, "share", lambda secret, *, count, **_: tuple(secrets.randbits(256) for _ in range(count)))
            )
        case "slander":
            poison.enter_context(_instead(keys, "unseal", lambda *_, **__: None))


@contextmanager
def _poisoned() -> Iterator[None]:
    """Training gives the opposite of what it found, and far more of it than may leave."""
    honestly = vars(site)["train_locally"]

    def poisoned(weights: Weights, data: Dataset, plan: Plan, work: LocalWork) -> RawDelta:
        return RawDelta(values=-_BOOST * honestly(weights, data, plan, work).values)

    with _instead(site, "train_locally", poisoned):
        yield


@contextmanager
def _instead(module: ModuleType, name: str, rogue: Callable[..., Any]) -> Iterator[None]:
    """One function of a module does something else."""
    names = vars(module)
    honestly = names[name]
    names[name] = rogue
    try:
        yield
    finally:
        names[name] = honestly
