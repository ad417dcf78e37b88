# SPDX-License-Identifier: Apache-2.0
"""The rig's nginx is the deployed one with the rig's places in it, and a change that the rig does not know is noticed."""

import shutil
import subprocess
from pathlib import Path

import pytest

from common.errors import EngineError
from simulations.rig import front
from simulations.rig.commands import fedward, tool
from simulations.rig.places import Places


def test_only_places_and_ports_are_exchanged(tmp_path: Path) -> None:
    file = front.configure(Places(tmp_path), listen=("127.0.0.1", 4433), superlink=9999)
    ours, deployed = file.read_text().splitlines(), front._DEPLOYED.read_text().splitlines()
    changed = [line.strip() for line in deployed if line not in ours]
    assert len(changed) == 20, changed
    assert "listen 127.0.0.1:4433 ssl;" in {line.strip() for line in ours}
    assert not any("/etc/" in line for line in ours if not line.strip().startswith("#"))
    assert any("location ~ ^/v1/fleet/" in line for line in ours)


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed (apt-get install nginx)")
def test_nginx_takes_the_file(tmp_path: Path) -> None:
    places = Places(tmp_path)
    tls = Path(__file__).parents[3] / "deploy/pki/tls.sh"
    commands: list[list[str | Path]] = [
        ["authority", places.authority],
        ["request", places.proxy, "localhost"],
        ["sign", places.authority, places.proxy / "next/server.csr"],
        ["install", places.proxy, places.proxy / "next/server.crt", places.authority / "ca.crt", "localhost"],
    ]
    for command in commands:
        tool(["bash", tls, *command])
    (places.coordinator / "tls").mkdir(parents=True)
    shutil.copy(places.authority / "ca.crt", places.coordinator / "tls" / "ca.crt")
    file = front.configure(places, listen=("127.0.0.1", 4433), superlink=9999)
    done = subprocess.run([*front.command(file), "-t"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_deployed_file_that_has_changed_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "nginx.conf"
    other.write_text(front._DEPLOYED.read_text().replace("listen 8443 ssl", "listen 443 ssl"))
    monkeypatch.setattr(front, "_DEPLOYED", other)
    with pytest.raises(EngineError, match="listen 8443 ssl"):
        front.configure(Places(tmp_path), listen=("127.0.0.1", 1), superlink=2)


def test_a_command_that_is_refused_says_which_and_why(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"site status --home .*E_DATA_NOT_FOUND"):
        fedward(["site", "status", "--home", tmp_path])
    with pytest.raises(EngineError, match="not installed"):
        tool(["no-such-program"])
