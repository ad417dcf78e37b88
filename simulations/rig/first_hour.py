# SPDX-License-Identifier: Apache-2.0
"""From an empty machine to the first round, by docs/operations.md alone: its lists typed as they stand, and how long each took.

    python -m simulations.rig.first_hour                            from a bundle, installed into a folder of its own without a network
    python -m simulations.rig.first_hour --prefix /opt/fedward      with what is installed there

One coordinator, its custodian and three hospitals, each in a folder of its own, all on loopback, with the page's own proxy in front. What
the page leaves to its reader is given: an address that exists, a plan that is small, names, images that are made. What it sends by courier
is copied, and whoever is asked says yes. Lines that are fenced change the machine: of those only the bundle and its installation are typed.

Seconds are the machine's, and beside them those that its processors worked for the lines, since a machine may be busy with other things.
What a person needs to read, to telephone and to decide is not in them; the words that a role reads and the lines that it types are counted.
"""

import argparse
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from common.errors import EngineError
from common.plan import Plan, load
from simulations.rig import evidence, front, toy
from simulations.rig.commands import tool

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
COORDINATOR: Final = "A coordinator's first hour"
HOSPITAL: Final = "A hospital's first hour"
INSTALLING: Final = "Installing, everywhere alike"
HOSPITALS: Final = ("north", "south", "west")
ENVIRONMENT: Final[Mapping[str, str]] = {"HOME": "/nonexistent", "LANG": "C.UTF-8", "COLUMNS": "160", "OMP_NUM_THREADS": "1"}
_SYSTEM: Final = "/usr/sbin:/usr/bin:/sbin:/bin"
_AFTER: Final = "when it is done"
_NO_IMAGES: Final = '# root = "/data/images"'
_SOCKET: Final = "/run/fedward/site.sock"
_LINE_S: Final = 900.0
_SITE_S: Final = 300.0
_ROUND_S: Final = 900.0
_LOOK_S: Final = 0.2


def section(heading: str) -> str:
    """The page's text below a heading."""
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def blocks(heading: str) -> list[list[str]]:
    """Every group of indented lines below a heading, in order."""
    found = re.findall(r"(?:^    \S.*\n)+", section(heading), re.MULTILINE)
    return [[line.strip() for line in group.splitlines()] for group in found]


def fenced(heading: str) -> list[str]:
    """Every line below a heading that changes the machine."""
    return [line for block in re.findall(r"```sh\n(.+?)```", section(heading), re.DOTALL) for line in block.splitlines()]


@dataclass(slots=True)
class Typist:
    """One person in a folder of their own, who says yes to everything. `yours` are the words that the page leaves to its reader.

    `tools` is where the programs are that the page has on its reader's PATH.
    """

    folder: Path
    tools: str
    yours: dict[str, str] = field(default_factory=dict)
    exported: dict[str, str] = field(default_factory=dict)
    running: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {**ENVIRONMENT, "PATH": os.pathsep.join([self.tools, _SYSTEM]), **self.exported}

    def types(self, lines: Sequence[str]) -> str:
        """What the last line said. Raises: EngineError, where one fails."""
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
        """A line to its end, by the shell; what it printed."""
        done = subprocess.run(  # noqa: S602 - the page's own lines, as a person types them
            line,
            shell=True,
            cwd=self.folder,
            env=self.environment,
            input="y\n" * 6,
            capture_output=True,
            text=True,
            timeout=_LINE_S,
            check=False,
        )
        self.holds(done.returncode in fails, f"'{line}' ended with {done.returncode}: {done.stdout[-2000:]} {done.stderr[-2000:]}")
        return done.stdout

    def starts(self, line: str) -> None:
        with (self.folder / "said.log").open("ab") as said:
            self.running.append(
                subprocess.Popen(  # noqa: S603 - the page's own lines
                    line.split(), cwd=self.folder, env=self.environment, stdout=said, stderr=said, start_new_session=True
                )
            )

    def gets(self, *files: Path) -> None:
        for file in files:
            shutil.copy(file, self.folder / file.name)

    def holds(self, what: bool, otherwise: str) -> None:
        if not what:
            raise EngineError(otherwise, fix=f"Type it by hand in '{self.folder}', and mend docs/operations.md.")

    def stops(self) -> None:
        for process in self.running:
            process.send_signal(signal.SIGTERM)
        for process in self.running:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds on the clock, and seconds of processors: of commands that have ended."""

    seconds: float = 0.0
    processor_s: float = 0.0

    def __add__(self, other: "Took") -> "Took":
        return Took(self.seconds + other.seconds, self.processor_s + other.processor_s)


@dataclass(slots=True)
class Told:
    """What came of it. `parts` is by role and by part of the page; `wrong` is what the doctor found at the first hospital."""

    parts: dict[str, dict[str, Took]] = field(default_factory=dict)
    wrong: set[str] = field(default_factory=set)
    model: Path = Path()

    def note(self, role: str, part: str, took: Took) -> None:
        parts = self.parts.setdefault(role, {})
        parts[part] = parts.get(part, Took()) + took


def play(folder: Path, tools: str, *, rounds: int = 2, kind: type[Typist] = Typist) -> Told:
    """The two first hours, and on until the model is there. Raises: EngineError, where the page does not lead there."""
    told, port, superlink = Told(), _free_port(), _free_port()
    yours = {"fed.example.org:443": f"localhost:{port}", "fed.example.org": "localhost"}
    desks = {name: _desk(kind, folder / name, tools, yours) for name in ("coordinator", "custodian")}
    coordinator, custodian = desks["coordinator"], desks["custodian"]
    hospitals = [_desk(kind, folder / name, tools, {**yours, "north": name}) for name in HOSPITALS]
    try:
        (coordinator.folder / "ct.toml").write_text(toy.plan_text(rounds=rounds))
        _until_signed(told, coordinator, custodian, hospitals, superlink)
        with _door(coordinator, port, superlink):
            _until_done(told, coordinator, custodian.folder, hospitals)
    finally:
        for each in (coordinator, *hospitals):
            each.stops()
    told.model = coordinator.folder / "model" / "model.safetensors"
    coordinator.holds(told.model.exists(), "there is no model")
    return told


def _until_signed(told: Told, coordinator: Typist, custodian: Typist, hospitals: Sequence[Typist], superlink: int) -> None:
    """Everything before anybody is reached: folder, keys, requests, the ceremony, the certificate."""
    folder, ceremony, signed, certificate, _, _ = blocks(COORDINATOR)
    keys, _, _ = blocks(HOSPITAL)
    with _timed(told, "coordinator", "the folder"):
        coordinator.types([*folder[:-1], f"{folder[-1]} --port {superlink} --live-port 0"])
    for number, hospital in enumerate(hospitals):
        with _timed(told, hospital.folder.name, "keys and request"):
            hospital.types(keys)
        _furnish(hospital, number)
        custodian.gets(hospital.folder / f"{hospital.folder.name}.request")
    custodian.gets(coordinator.folder / "coordinator" / "identity.pub", coordinator.folder / "ct.toml")
    with _timed(told, "custodian", "the custodian"):
        custodian.types(ceremony)
    consortium = custodian.folder / "consortium"
    coordinator.gets(consortium / "roster", consortium / "roots", custodian.folder / "ct.sig", *(consortium / "nodes").glob("*.pub"))
    with _timed(told, "coordinator", "what the custodian signed"):
        coordinator.types(signed)
    with _timed(told, "coordinator", "the door"):
        coordinator.holds("until" in coordinator.types(certificate), "the certificate's end is not told")


def _until_done(told: Told, coordinator: Typist, custodian: Path, hospitals: Sequence[Typist]) -> None:
    """The run, the hospitals' approvals and processes, the first round, and the last."""
    *_, run, done = blocks(COORDINATOR)
    _, approval, start = blocks(HOSPITAL)
    consortium = custodian / "consortium"
    with _timed(told, "coordinator", "the run"):
        coordinator.types(run)
    for hospital in hospitals:
        hospital.gets(consortium / "roster", consortium / "roots", custodian / "ct.toml", custodian / "ct.sig")
        hospital.gets(coordinator.folder / "authority" / "ca.crt")
        with _timed(told, hospital.folder.name, "who else is in, and what is asked"):
            hospital.types(approval)
        with _timed(told, hospital.folder.name, "start and look"):
            hospital.types(start[:-2])
            if hospital is hospitals[0]:
                told.wrong = _examined(hospital, start[-2])
                hospital.holds("site north" in hospital.types(start[-1:]), "status does not name the site")
    began = time.monotonic()
    _wait(coordinator, "the first round", lambda: bool(evidence.committed(coordinator.folder / "coordinator" / "run", _plan(coordinator))))
    for role in ("coordinator", HOSPITALS[0]):
        told.note(role, "until the first round is committed", Took(time.monotonic() - began))
    _wait(coordinator, "the end", lambda: coordinator.running[0].poll() == 0)
    with _timed(told, "coordinator", _AFTER):
        coordinator.types(done)


def _examined(hospital: Typist, line: str) -> set[str]:
    """What the doctor finds wrong once both processes had time to start."""
    until = time.monotonic() + _SITE_S
    while not (hospital.folder / "door" / "site.sock").exists() and time.monotonic() < until:
        time.sleep(_LOOK_S)
    found = json.loads(hospital.runs(f"{line} --json", fails=(0, 1)))["findings"]
    return {each["check"] for each in found if each["state"] == "wrong"}


def _desk(kind: type[Typist], folder: Path, tools: str, yours: Mapping[str, str]) -> Typist:
    folder.mkdir()
    return kind(folder, tools, dict(yours))


def _furnish(hospital: Typist, number: int) -> None:
    """What its IT does with an editor, and the folder that systemd would make."""
    door = hospital.folder / "door"
    door.mkdir(mode=0o750)
    images = toy.write_pictures(hospital.folder / "images", seed=number)
    file = hospital.folder / "site" / "site.toml"
    for settings, there, here in (
        (file, _NO_IMAGES, f'root = "{images}"'),
        (file, _SOCKET, str(door / "site.sock")),
        (hospital.folder / "mailbox" / "mailbox.toml", _SOCKET, str(door / "site.sock")),
    ):
        text = settings.read_text()
        hospital.holds(there in text, f"'{there}' is not in '{settings}'")
        settings.write_text(text.replace(there, here))


@contextmanager
def _door(coordinator: Typist, port: int, superlink: int) -> Iterator[None]:
    """nginx with the deployed file, as the page's fenced lines start it."""
    tls = coordinator.folder / "coordinator" / "tls" / "ca.crt"
    listen = ("127.0.0.1", port)
    placed = front.placed(
        coordinator.folder / "nginx", live=coordinator.folder / "tls" / "live", authority=tls, listen=listen, superlink=superlink
    )
    with subprocess.Popen(front.command(placed), stderr=subprocess.DEVNULL) as process:  # noqa: S603 - the page's own proxy
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)


def _wait(coordinator: Typist, what: str, happened: Callable[[], bool]) -> None:
    until, process = time.monotonic() + _ROUND_S, coordinator.running[0]
    while not happened():
        said = (coordinator.folder / "said.log").read_text()[-4000:]
        coordinator.holds(time.monotonic() < until, f"{what}: not within {_ROUND_S:.0f} s: {said}")
        coordinator.holds(process.poll() in (None, 0), f"{what}: the coordinator ended with {process.returncode}: {said}")
        time.sleep(_LOOK_S)


@contextmanager
def _timed(told: Told, role: str, part: str) -> Iterator[None]:
    began = _now()
    yield
    told.note(role, part, _since(began))


def _now() -> Took:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Took(time.monotonic(), children.ru_utime + children.ru_stime)


def _since(began: Took) -> Took:
    now = _now()
    return Took(now.seconds - began.seconds, now.processor_s - began.processor_s)


def _plan(coordinator: Typist) -> Plan:
    return load(coordinator.folder / "ct.toml")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def install(folder: Path, wheels: Path | None) -> tuple[Path, dict[str, Took]]:
    """The two fenced lines of the page, from this checkout: where it is installed then, and how long each line took."""
    bundling, installing = fenced(INSTALLING)
    prefix, bundle = folder / "opt" / "fedward", folder / "fedward-bundle"
    prefix.parent.mkdir()
    if wheels is not None:
        bundling = re.sub(r"--extra-index-url \S+", f"--find-links {wheels}", bundling)
    took = {}
    for part, line in (("bundle", bundling.replace("fedward-bundle", str(bundle))), ("installation", installing)):
        line = line.replace("fedward-bundle/", f"{bundle}/").replace("/opt/fedward", str(prefix))
        began = _now()
        tool(["env", f"PYTHON={_interpreter()}", "bash", "-c", line], cwd=ROOT)
        took[part] = _since(began)
    return prefix, took


def _interpreter() -> str:
    """The Python that this one's environment was made with: an empty machine has no environment yet."""
    return str(Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}")


def table(told: Told, installed: Mapping[str, Took]) -> str:
    """For docs/figures: each part of the page, and each role until the first round; the words that it reads, the lines that it types."""
    lines = ["| who | part of the page | s | processor s |", "|---|---|---:|---:|"]
    parts = {"anybody": installed, **told.parts}
    lines += [f"| {who} | {part} | {took.seconds:.0f} | {took.processor_s:.0f} |" for who in parts for part, took in parts[who].items()]
    lines += ["", "| who | to the first round, s | processor s | lines typed | words read |", "|---|---:|---:|---:|---:|"]
    for who, heading in (("coordinator", COORDINATOR), (HOSPITALS[0], HOSPITAL)):
        before = [took for part, took in told.parts[who].items() if part != _AFTER]
        whole = sum(before, installed.get("installation", Took()))
        typed = sum(map(len, blocks(heading))) + len(fenced(heading)) + len(fenced(INSTALLING))
        words = len((section(heading) + section(INSTALLING)).split())
        lines.append(f"| {who} | {whole.seconds:.0f} | {whole.processor_s:.0f} | {typed} | {words} |")
    return "\n".join([*lines, "", f"the doctor finds wrong: {', '.join(sorted(told.wrong)) or 'nothing'}"])


def main() -> int:
    """Exit code 0: the page led to a model."""
    parser = argparse.ArgumentParser(description="From an empty machine to the first round, by the page alone.")
    parser.add_argument("--prefix", type=Path, help="with what is installed there, instead of a fresh installation")
    parser.add_argument("--wheels", type=Path, help="a folder with the CPU wheel of torch, instead of PyTorch's own index")
    parser.add_argument("--folder", type=Path, help="where everything lies afterwards; a temporary folder, if not given")
    asked = parser.parse_args()
    folder = (asked.folder or Path(tempfile.mkdtemp(prefix="fedward-hour-"))).resolve()
    folder.mkdir(exist_ok=True)
    load = os.getloadavg()[0]
    prefix, installed = (asked.prefix.resolve(), {}) if asked.prefix else install(folder, asked.wheels)
    told = play(folder, os.pathsep.join([str(prefix / "bin"), str(prefix / "libexec")]))
    sys.stdout.write(f"{table(told, installed)}\nload {load:.1f} before, {os.getloadavg()[0]:.1f} after\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
