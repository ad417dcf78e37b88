# SPDX-License-Identifier: Apache-2.0
"""One nursery for all journeys of a worker: each federation then starts in milliseconds."""

from collections.abc import Iterator

import pytest

from simulations.apps import FAULTY_APP
from simulations.engine.nursery import Nursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    with Nursery(FAULTY_APP) as started:
        yield started
