# SPDX-License-Identifier: Apache-2.0
"""Looking for replies without waiting for them: each look is a call of its own, in a thread of its own.

A look may last: Flower's own `pull_messages` does not return before the last byte of each reply that it was asked for is uploaded, so that
a site that dies meanwhile would hold up all the others. The thread of a look that never ends is left to itself: it is a daemon, and whoever
waited for it has gone on.
"""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

Key = TypeVar("Key")
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Seen(Generic[Key, Found]):
    """What a look found, or what it failed with."""

    key: Key
    found: Found | None
    error: Exception | None = None


class Looks(Protocol[Key, Found]):
    """Looks under way; what they found comes in the order in which they ended."""

    def begin(self, key: Key, look: Callable[[], Found]) -> None: ...

    def next(self, timeout_s: float) -> Seen[Key, Found] | None:
        """The next result; None, if there is none in time."""
        ...

    @property
    def unread(self) -> int:
        """Results that are there and nobody has taken."""
        ...


class ThreadedLooks(Generic[Key, Found]):
    """`Looks`, in threads that are kept for the next one."""

    def __init__(self) -> None:
        self._ended: queue.SimpleQueue[Seen[Key, Found]] = queue.SimpleQueue()
        self._due: queue.SimpleQueue[tuple[Key, Callable[[], Found]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = self._threads = 0

    def begin(self, key: Key, look: Callable[[], Found]) -> None:
        with self._lock:
            if self._idle:
                self._idle -= 1
            else:
                self._threads += 1
                threading.Thread(target=self._work, name="fedward-look", daemon=True).start()
        self._due.put((key, look))

    def next(self, timeout_s: float) -> Seen[Key, Found] | None:
        try:
            return self._ended.get(timeout=timeout_s) if timeout_s > 0 else self._ended.get_nowait()
        except queue.Empty:
            return None

    @property
    def unread(self) -> int:
        return self._ended.qsize()

    def close(self) -> None:
        """Let the threads end, each when its look does."""
        for _ in range(self._threads):
            self._due.put(None)

    def _work(self) -> None:
        while (job := self._due.get()) is not None:
            key, look = job
            try:
                seen = Seen(key, look())
            except Exception as error:  # carried to whoever asked, who knows which are passing
                seen = Seen(key, None, error)
            with self._lock:
                self._idle += 1
            self._ended.put(seen)
