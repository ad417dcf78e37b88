# SPDX-License-Identifier: Apache-2.0
"""One nursery for all journeys of a worker: a federation then starts in milliseconds. And one that is deployed, anew for each."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.app import Message, RecordDict

from simulations.apps import FAULTY_APP
from simulations.engine import LocalEngine, Nursery
from tests.journeys.deployed import Federation, deployed


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    with Nursery(FAULTY_APP) as started:
        # Whatever a site without a home says to this, its process is there then: the first test's deadlines are not spent on imports.
        with LocalEngine(FAULTY_APP, num_sites=1, nursery=started) as engine:
            engine.send_and_receive([Message(RecordDict(), node, "query.hello") for node in engine.get_node_ids()], timeout=600)
        yield started


@pytest.fixture
def federation() -> Iterator[Federation]:
    """In a folder with a short name: the path of a Unix-domain socket has room for a hundred bytes."""
    with tempfile.TemporaryDirectory(prefix="fw") as folder:
        yield deployed(Path(folder))
