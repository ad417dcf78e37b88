# SPDX-License-Identifier: Apache-2.0
"""An exception that nobody foresaw, without its text.

Whoever reads the text of an exception may read a patient's name: parsers, dictionaries and the operating system quote what they choked on,
and a file's path is often a patient. The words of our own errors are written with that in mind (`common.errors`); those of all others are
never printed, logged or sent. What an exception is and which lines it came through says enough to find the fault:

    KeyError at client/imaging/labels.py:77 in read < client/imaging/intake.py:61 in open_dataset < fedward.py:36 in main

Who needs the text asks for it on the machine itself: FEDWARD_DEBUG names a file, for its owner alone, that whole tracebacks are added to.
What this does not do: keep that file out of a backup, or a debugger from looking at variables.
"""

import os
import traceback
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final

from common.durable import OWNER_ONLY

DEBUG_VARIABLE: Final = "FEDWARD_DEBUG"
_HOUSE: Final = Path(__file__).resolve().parents[1]
_PACKAGES: Final = "site-packages"
_DEEPEST: Final = 12


def outline(error: BaseException) -> str:
    """The type of an exception and of what caused it, each with the innermost places that it came through; one line."""
    parts, seen = [], set[int]()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        parts.append(f"{type(cause).__name__} at {' < '.join(_places(cause.__traceback__)) or 'no known place'}")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "; from ".join(parts)


def keep_whole(error: BaseException) -> None:
    """Add the whole traceback, texts included, to the file that FEDWARD_DEBUG names, if it names one that can be written."""
    if name := os.environ.get(DEBUG_VARIABLE):
        with suppress(OSError), os.fdopen(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, OWNER_ONLY), "a") as file:
            file.write("".join(traceback.format_exception(error)))


def _places(trace: TracebackType | None) -> list[str]:
    """Innermost first. File and function names are code's own: no value is among them."""
    frames = traceback.StackSummary.extract(traceback.walk_tb(trace), lookup_lines=False)
    return [f"{_short(frame.filename)}:{frame.lineno} in {frame.name}" for frame in reversed(frames)][:_DEEPEST]


def _short(filename: str) -> str:
    path = Path(filename)
    if path.is_relative_to(_HOUSE) and _PACKAGES not in path.parts:
        return path.relative_to(_HOUSE).as_posix()
    after = path.parts.index(_PACKAGES) + 1 if _PACKAGES in path.parts else -2
    return "/".join(path.parts[after:])
