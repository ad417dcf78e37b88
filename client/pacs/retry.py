# SPDX-License-Identifier: Apache-2.0
"""Asking again: what may be better in a moment is asked for a few times, each time later, and no sooner than the archive wants it."""

import time
from collections.abc import Callable
from typing import TypeVar

from client.mailbox.retrying import delays
from client.pacs.failure import PASSING, Failed

T = TypeVar("T")


class Retry:
    """`tries` in all. `wait` returns True where somebody wants an end: nothing is asked again then."""

    def __init__(self, tries: int, wait: Callable[[float], object] = time.sleep) -> None:
        self._tries, self._wait = tries, wait

    def __call__(self, ask: Callable[[], T]) -> T:
        """Raises: Failed with what the last try failed with, or with what no other try can help."""
        for number, pause in enumerate(delays(first=0.5, longest=60.0), start=1):
            try:
                return ask()
            except Failed as failure:
                if failure.reason not in PASSING or number >= self._tries or self._wait(max(pause, failure.wait_s)):
                    raise
        raise AssertionError("delays do not end")
