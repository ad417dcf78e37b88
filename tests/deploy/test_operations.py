# SPDX-License-Identifier: Apache-2.0
"""docs/operations.md: the first hours of a coordinator, a custodian and three hospitals, typed as they stand, with real processes.

The test gives what the page says is the reader's: an address that exists, a plan that is small, names. Images are made. What the page sends
by courier is copied. Processes that it puts into the background run until the model is there.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedward import app
from simulations.rig import toy
from tests.deploy.test_nginx import free_port, placed
from tests.deploy.units import ROOT

PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
HOSPITALS = ("north", "south", "west")
PATIENCE_S = 420
ENVIRONMENT = {
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), str(ROOT / "deploy" / "pki"), "/usr/sbin:/usr/bin:/sbin:/bin"]),
    "HOME": "/nonexistent",
    "LANG": "C.UTF-8",
    "COLUMNS": "160",
    "OMP_NUM_THREADS": "1",
}
needs = pytest.mark.skipif(
    not (shutil.which("nginx") and shutil.which("openssl")), reason="needs the Debian packages nginx-light and openssl"
)


def blocks(heading: str) -> list[list[str]]:
    """Every group of indented lines below a heading, in order."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.findall(r"(?:^    \S.*\n)+", section, re.MULTILINE)
    return [[line.strip() for line in group.splitlines()] for group in found]


@dataclass
class Typist:
    """One person in a folder of their own, who says yes to everything. `yours` are the words that the page leaves to its reader."""

    folder: Path
    yours: dict[str, str] = field(default_factory=dict)
    exported: dict[str, str] = field(default_factory=dict)
    running: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    def types(self, lines: list[str]) -> str:
        """What the last line said."""
        said = ""
        for line in lines:
            for theirs, ours in self.yours.items():
                line = line.replace(theirs, ours)
            if line.startswith("export "):
                name, _, value = line.removeprefix("export ").partition("=")
                self.exported[name] = value
            elif line.endswith(" &"):
                self.starts(line.removesuffix(" &"))
            else:
                said = self.runs(line)
        return said

    def runs(self, line: str, *, fails: tuple[int, ...] = (0,)) -> str:
        """Commands of fedward in this process, which has everything loaded; others by the shell."""
        environment = {**ENVIRONMENT, **self.exported}
        if line.startswith("fedward "):
            with contextlib.chdir(self.folder):
                result = CliRunner().invoke(app, shlex.split(line)[1:], input="y\n" * 6, env=environment)
            assert result.exit_code in fails, (line, result.output, result.exception)
            return result.stdout
        done = subprocess.run(line, shell=True, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode in fails, (line, done.stdout, done.stderr)
        return done.stdout

    def starts(self, line: str) -> None:
        with (self.folder / "said.log").open("ab") as said:
            self.running.append(
                subprocess.Popen(
                    line.split(), cwd=self.folder, env={**ENVIRONMENT, **self.exported}, stdout=said, stderr=said, start_new_session=True
                )
            )

    def gets(self, *files: Path) -> None:
        for file in files:
            shutil.copy(file, self.folder / file.name)

    def stops(self) -> None:
        for process in self.running:
            process.send_signal(signal.SIGTERM)
        for process in self.running:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)


def at_a_desk(folder: Path, yours: dict[str, str]) -> Typist:
    folder.mkdir()
    return Typist(folder, yours)


def furnish(hospital: Typist, number: int) -> None:
    """What its IT does with an editor, and the folder that systemd would make."""
    images = toy.write_pictures(hospital.folder / "images", seed=number)
    file = hospital.folder / "site" / "site.toml"
    text = file.read_text()
    assert '# root = "/data/images"' in text
    file.write_text(text.replace('# root = "/data/images"', f'root = "{images}"'))
    (hospital.folder / "door").mkdir(mode=0o750)
    for settings in (file, hospital.folder / "mailbox" / "mailbox.toml"):
        assert "/run/fedward/site.sock" in settings.read_text()
        settings.write_text(settings.read_text().replace("/run/fedward/site.sock", str(hospital.folder / "door" / "site.sock")))


@contextlib.contextmanager
def door(coordinator: Typist, port: int, superlink: int) -> Iterator[None]:
    """nginx with the deployed file, as the page's fenced lines start it."""
    configuration = placed(coordinator.folder, port=port, upstream=superlink, ca=coordinator.folder / "coordinator" / "tls" / "ca.crt")
    process = subprocess.Popen(["nginx", "-c", str(configuration), "-e", "stderr"], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def finished(coordinator: Typist) -> None:
    """Wait until the coordinator ends by itself: its last round is committed."""
    until = time.monotonic() + PATIENCE_S
    process = coordinator.running[0]
    while process.poll() is None and time.monotonic() < until:
        time.sleep(0.5)
    assert process.poll() == 0, (coordinator.folder / "said.log").read_text()[-4000:]


@needs
@pytest.mark.slow
def test_the_first_hours_are_typed_as_they_stand(tmp_path: Path) -> None:
    tmp_path = short(tmp_path)
    port, superlink = free_port(), free_port()
    yours = {"fed.example.org:443": f"localhost:{port}", "fed.example.org": "localhost"}
    folder, ceremony, signed, certificate, run, done = blocks("A coordinator's first hour")
    keys, approval, start = blocks("A hospital's first hour")
    coordinator, custodian = at_a_desk(tmp_path / "coordinator", yours), at_a_desk(tmp_path / "custodian", yours)
    hospitals = [at_a_desk(tmp_path / name, {**yours, "north": name}) for name in HOSPITALS]
    everybody = [coordinator, *hospitals]
    try:
        (coordinator.folder / "ct.toml").write_text(toy.plan_text(rounds=2))
        coordinator.types([*folder[:-1], f"{folder[-1]} --port {superlink} --live-port 0"])
        for number, hospital in enumerate(hospitals):
            hospital.types(keys)
            furnish(hospital, number)
            custodian.gets(hospital.folder / f"{hospital.yours['north']}.request")
        custodian.gets(coordinator.folder / "coordinator" / "identity.pub", coordinator.folder / "ct.toml")
        custodian.types(ceremony)

        consortium = custodian.folder / "consortium"
        coordinator.gets(consortium / "roster", consortium / "roots", custodian.folder / "ct.sig", *(consortium / "nodes").glob("*.pub"))
        coordinator.types(signed)
        assert "until" in coordinator.types(certificate)
        with door(coordinator, port, superlink):
            coordinator.types(run)
            for hospital in hospitals:
                hospital.gets(consortium / "roster", consortium / "roots", custodian.folder / "ct.toml", custodian.folder / "ct.sig")
                hospital.gets(coordinator.folder / "authority" / "ca.crt")
                hospital.types(approval)
                hospital.types(start[:-2])
            wrong = examined(hospitals[0], start[-2])
            assert "site north" in hospitals[0].types(start[-1:])
            finished(coordinator)
        coordinator.types(done)
    finally:
        for each in everybody:
            each.stops()
    assert (coordinator.folder / "model" / "model.safetensors").exists()
    # All of this is one user's, who is root on some machines, in an environment of developers: that is wrong, and nothing else is.
    assert wrong <= {"permissions", "separation", "versions", "socket"}, wrong


def examined(hospital: Typist, line: str) -> set[str]:
    """What the doctor finds wrong once both processes had time to start."""
    until = time.monotonic() + 60
    while not (hospital.folder / "door" / "site.sock").exists() and time.monotonic() < until:
        time.sleep(0.5)
    found = json.loads(hospital.runs(f"{line} --json", fails=(0, 1)))["findings"]
    return {each["check"] for each in found if each["state"] == "wrong"}


def short(tmp_path: Path) -> Path:
    """A socket's path has a hundred bytes at most."""
    assert len(str(tmp_path / "west" / "door" / "site.sock")) < 100, "run pytest with a shorter --basetemp"
    return tmp_path


def test_every_indented_line_of_the_page_is_typed() -> None:
    """The control: no command stands on the page that is in none of the lists."""
    typed = sum(len(block) for heading in ("A coordinator's first hour", "A hospital's first hour") for block in blocks(heading))
    assert typed == len(re.findall(r"^    \S", PAGE, re.MULTILINE))
    assert typed > 25


def test_every_fenced_command_is_of_a_part_that_has_a_smoke_test() -> None:
    fenced = [line for block in re.findall(r"```sh\n(.+?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    assert len(fenced) >= 5
    known = {
        "deploy/locked/bundle.sh": "deploy/locked/bundle.sh",
        "fedward-bundle/install.sh": "deploy/locked/install.sh",
        "install": "deploy/nginx/nginx.conf",
        "nginx": "deploy/nginx/nginx.conf",
        "systemctl": "deploy/systemd/fedward-site.service",
        "chown": "deploy/systemd/sysusers.d/fedward-hospital.conf",
    }
    for line in fenced:
        assert (ROOT / known[line.split()[0]]).exists()
        for unit in re.findall(r"fedward-[a-z]+(?:\.timer)?", line) if line.startswith("systemctl") else ():
            assert (ROOT / "deploy" / "systemd" / (unit if unit.endswith(".timer") else f"{unit}.service")).exists(), unit
