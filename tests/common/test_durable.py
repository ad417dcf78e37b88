# SPDX-License-Identifier: Apache-2.0
"""A file is written whole or not at all, also by two threads of one process at once."""

import threading
from pathlib import Path

from common.durable import write_atomically


def test_two_threads_that_write_one_file_leave_one_whole_content_and_nothing_beside(tmp_path: Path) -> None:
    """As when two messages of news arrive in the same moment: neither may tear the other's file, or fail for it."""
    place, contents = tmp_path / "roster", tuple(bytes([letter]) * (1 << 20) for letter in b"ab")
    failures: list[BaseException] = []

    def write(content: bytes) -> None:
        try:
            for _ in range(40):
                write_atomically(place, content, fsync=False)
                assert place.read_bytes() in contents
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert [path.name for path in tmp_path.iterdir()] == ["roster"]
