# SPDX-License-Identifier: Apache-2.0
"""The benchmark of a site's answers times every step of every site, and leaves the site's code as it was."""

from pathlib import Path

import pytest
from flwr.supercore.task_identity import TaskIdentity

from client import site
from common import wire
from simulations.benchmarks.secagg_site import TRAINING, measure


def test_every_step_of_every_site_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    train = vars(site)["train_locally"]
    num_values, spent = measure(3, 4, 2, tmp_path)
    assert num_values > 1000
    steps = [kind for step, kind in wire.SECURE.items() if step != "ABANDON"]
    assert {kind: len(seconds) for kind, seconds in spent.items()} == dict.fromkeys([TRAINING, *steps], 3 * 2)
    assert min(spent[wire.SECURE["KEYS"]]) > min(spent[TRAINING]) > 0
    assert vars(site)["train_locally"] is train
