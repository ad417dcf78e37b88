# SPDX-License-Identifier: Apache-2.0
"""What the engine's tests share: a folder of small ClientApps that worker processes can import."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def engine_app() -> Iterator[str]:
    """The reference of `engine_apps.app`, importable by whoever gets this process's sys.path."""
    folder = str(Path(__file__).parent)
    sys.path.append(folder)
    yield "engine_apps:app"
    sys.path.remove(folder)
