# SPDX-License-Identifier: Apache-2.0
"""What a look at one thing came to: its state, what was found, and exactly what to do where something is to be done."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from common.errors import FedwardError

T = TypeVar("T")


class State(StrEnum):
    """OK: nothing to do. LOOK: works today, and somebody should look. WRONG: a round would fail, or a promise is not kept."""

    OK = "ok"
    LOOK = "look"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`found` is a fact about this machine; `fix` what to type or whom to ask, empty where nothing is to be done."""

    check: str
    state: State
    found: str
    fix: str = ""


def ok(check: str, found: str) -> Finding:
    return Finding(check=check, state=State.OK, found=found)


def look(check: str, found: str, fix: str) -> Finding:
    return Finding(check=check, state=State.LOOK, found=found, fix=fix)


def wrong(check: str, found: str, fix: str) -> Finding:
    return Finding(check=check, state=State.WRONG, found=found, fix=fix)


def refusal(check: str, error: FedwardError | OSError) -> Finding:
    """What kept a look from being taken."""
    if isinstance(error, FedwardError):
        return wrong(check, f"{error.code}: {error.message}", error.fix)
    place = f" at '{error.filename}'" if error.filename else ""
    return wrong(check, f"the system says: {error.strerror or type(error).__name__}{place}.", "Look at its owner and mode: ls -ld")


def gather(check: str, look_at: Callable[[T], Iterable[Finding]], ground: T) -> Iterator[Finding]:
    """What a look finds; a refusal on the way is a finding too, and never the end of the others."""
    try:
        yield from look_at(ground)
    except (FedwardError, OSError) as error:
        yield refusal(check, error)
