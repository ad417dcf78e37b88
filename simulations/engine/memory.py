# SPDX-License-Identifier: Apache-2.0
"""Memory that two processes share and nobody can leak.

Every region here is an anonymous file: a memfd on Linux, elsewhere a temporary file unlinked at birth. It has no name, so there is
nothing to clean up: when the last process that holds it is gone, killed with -9 or not, the kernel takes the pages back. It is not
bounded by the size of /dev/shm either, which is 64 MB in many containers.

Arrays are written with `pwrite` and read with `pread`, straight into the `bytes` object that Flower's `Array` demands. That is one copy
each way at the speed of memory, into pages that are already there; mapping the file instead costs more in page faults than the copy
(1.4 MB: 0.06 ms to read, 0.14 ms to map and touch), and turns a full memory into SIGBUS where `pwrite` says ENOSPC.

`Spans` finds room, `Board` is the coordinator's side: each distinct array is placed once, whoever reads it and however often.
"""

import itertools
import os
import tempfile
from bisect import bisect
from dataclasses import dataclass

SLACK_BYTES = 16 * 2**20
"""Pages kept for the next message instead of given back: a bound on what an idle engine holds."""

_LARGEST_READ = 2**30  # Linux moves at most 2 GiB - 4 KiB in one call


class SharedFile:
    """An anonymous file, read and written at offsets."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def create(cls) -> "SharedFile":
        if hasattr(os, "memfd_create"):
            return cls(os.memfd_create("fedward"))
        with tempfile.TemporaryFile() as file:
            return cls(os.dup(file.fileno()))

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: bytes, offset: int) -> None:
        """Raises: OSError, if there is no memory left."""
        rest = memoryview(data)
        while rest.nbytes:
            written = os.pwrite(self._descriptor, rest, offset)
            rest, offset = rest[written:], offset + written

    def read(self, size: int, offset: int) -> bytes:
        """Raises: EOFError, if the file ends before `offset + size`."""
        chunk = os.pread(self._descriptor, min(size, _LARGEST_READ), offset)
        if len(chunk) == size:
            return chunk
        return b"".join((chunk, *self._rest(size - len(chunk), offset + len(chunk))))

    def _rest(self, size: int, offset: int) -> list[bytes]:
        chunks = []
        while size:
            chunk = os.pread(self._descriptor, min(size, _LARGEST_READ), offset)
            if not chunk:
                raise EOFError(f"shared memory ends {size} bytes early at offset {offset}.")
            chunks.append(chunk)
            size, offset = size - len(chunk), offset + len(chunk)
        return chunks

    def resize(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)

    def close(self) -> None:
        os.close(self._descriptor)


class Spans:
    """Which bytes of a file are taken: first fit, holes merged, the end drawn in.

    >>> spans = Spans()
    >>> spans.take(10), spans.take(5)
    (0, 10)
    >>> spans.give(0, 10); spans.take(4), spans.end
    (0, 15)
    >>> spans.give(10, 5); spans.end
    4
    """

    def __init__(self) -> None:
        self.end = 0
        self._holes: list[tuple[int, int]] = []  # (start, stop), sorted, never touching one another nor the end

    def take(self, size: int) -> int:
        """The start of `size` bytes that nobody else holds."""
        for index, (start, stop) in enumerate(self._holes):
            if stop - start >= size:
                self._holes[index : index + 1] = [(start + size, stop)] if stop - start > size else []
                return start
        start, self.end = self.end, self.end + size
        return start

    def give(self, start: int, size: int) -> None:
        """Take back what `take(size)` gave."""
        if not size:
            return
        stop = start + size
        index = bisect(self._holes, (start, stop))
        if index < len(self._holes) and self._holes[index][0] == stop:
            stop = self._holes.pop(index)[1]
        if index and self._holes[index - 1][1] == start:
            start = self._holes.pop(index - 1)[0]
            index -= 1
        if stop == self.end:
            self.end = start
        else:
            self._holes.insert(index, (start, stop))


@dataclass(slots=True, eq=False)
class Blob:
    """Bytes that one or more messages are waiting to hand over. Placed at `offset` once the first of them goes out."""

    data: bytes
    serial: int
    users: int = 0
    offset: int | None = None


class Board:
    """A file that the coordinator writes and every worker reads."""

    def __init__(self) -> None:
        self.file = SharedFile.create()
        self._spans = Spans()
        self._blobs: dict[int, Blob] = {}  # by identity; a Blob keeps its bytes alive, so an identity is never used twice
        self._serials = itertools.count()
        self._allocated = 0

    def reserve(self, data: bytes) -> Blob:
        """The blob of these very bytes, with one more user. Nothing is copied yet."""
        blob = self._blobs.get(id(data))
        if blob is None:
            blob = self._blobs[id(data)] = Blob(data=data, serial=next(self._serials))
        blob.users += 1
        return blob

    def place(self, blob: Blob) -> "Place":
        """Where a worker finds the blob; written the first time. Raises: OSError, if there is no memory left."""
        size = len(blob.data)
        if blob.offset is None:
            offset = self._spans.take(size)
            self._allocated = max(self._allocated, self._spans.end)
            blob.offset = offset  # before the write: if that fails, release gives the span back
            self.file.write(blob.data, offset)
        return blob.serial, blob.offset, size

    def release(self, blob: Blob) -> None:
        """One user less; with the last one the memory is free."""
        blob.users -= 1
        if blob.users:
            return
        del self._blobs[id(blob.data)]
        if blob.offset is not None:
            self._spans.give(blob.offset, len(blob.data))
            if self._allocated - self._spans.end > SLACK_BYTES:
                self._allocated = self._spans.end
                self.file.resize(self._allocated)


Place = tuple[int, int, int]
"""Serial number, offset and size of a blob. A serial number is never used again: who has read it once need not read it again."""
