# SPDX-License-Identifier: Apache-2.0
"""The same plan on Flower's own simulation runtime ends with the same bits: past one machine it is still the same program."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulations.stage import Stage
from tests.journeys.made import made_scenario, made_stage

pytest.importorskip("ray", reason="the ray extra is not installed: pip install 'fedward[ray]'")


def simulate(stage: Stage, engine: str) -> bytes:
    command = [
        sys.executable,
        "-m",
        "fedward",
        "simulate",
        "--resume",
        "--out",
        str(stage.folder),
        "--no-compare",
        "--workers",
        "2",
        "--json",
    ]
    environment = {**os.environ, "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    done = subprocess.run([*command, "--engine", engine], check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return (stage.folder / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_ray_and_the_local_engine_end_with_the_same_bits(tmp_path: Path) -> None:
    change = ("rounds = 4", "rounds = 2")
    local = simulate(made_stage(tmp_path / "local", made_scenario(private=True, change=change)), "local")
    on_ray = simulate(made_stage(tmp_path / "ray", made_scenario(private=True, change=change)), "ray")
    assert on_ray == local
