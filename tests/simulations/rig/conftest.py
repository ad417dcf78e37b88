# SPDX-License-Identifier: Apache-2.0
"""A folder that other users can reach: pytest's own are for one user alone, and a rig's processes are many."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def open_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="fedward-rig-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
