# SPDX-License-Identifier: Apache-2.0
"""One rig: enrolled hospitals, a coordinator behind nginx, a line to each hospital, and their processes, started and hurt from here.

Parties by name: "coordinator" (the supervisor), "nginx", and for each hospital "line hN", "site hN" and "mailbox hN", or "supernode hN"
where Flower's own program has its place. The coordinator's own children ("superlink", "superexec", "serverapp") can be killed too; it
brings them back itself.
"""

import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NoReturn, Self

from common.errors import EngineError
from common.plan import Plan, load
from server.home import PAUSE_FILE
from server.journal import CommittedRound
from server.live.status import STATUS_FILE
from simulations.rig import capture, enrolment, evidence, supernode
from simulations.rig.crew import Crew, Service, end_leftovers
from simulations.rig.front import command, configure
from simulations.rig.network import Loopback, Namespaces, Network, missing
from simulations.rig.places import MOST_HOSPITALS, Hospital, Places
from simulations.rig.proxy import Line

SUPERLINK_PORT: Final = 8000
_DONE: Final = frozenset({0, 1, 2, 3, 5})
_CHILDREN: Final = {"superlink": "flower-superlink", "superexec": "flower-superexec", "serverapp": "serverapp"}
_LOOK_S: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How a rig is to be: hospitals, plan, whether in namespaces, how their lines are; `noise_seed` only to compare two runs.

    `stock` are the numbers of hospitals with a stock SuperNode in their mailbox's place.
    """

    sites: int
    plan: str
    namespaces: bool
    line: Line = field(default_factory=Line)
    noise_seed: int | None = None
    stock: frozenset[int] = frozenset()


class Rig:
    """A context manager: whatever happens, everything that it started is ended and every namespace is gone."""

    def __init__(self, folder: Path, setting: Setting, *, tell: Callable[[str], None] = lambda _: None) -> None:
        """Raises: EngineError, where namespaces were asked for and are refused."""
        self.places, self.setting, self._tell = Places(folder.resolve()), setting, tell
        self.hospitals = [self._hospital(number) for number in range(1, setting.sites + 1)]
        self._superlink_port = SUPERLINK_PORT if setting.namespaces else _free_port()
        self.network: Network = Namespaces(self.places.tag) if setting.namespaces else _loopback()
        if setting.namespaces and (why := missing()):
            raise EngineError(f"there can be no namespaces here: {why}.", fix="Leave --namespaces away, or run as root on Linux.")
        self._closing = ExitStack()
        self.crew: Crew

    def _hospital(self, number: int) -> Hospital:
        return self.places.hospital(number, stock=number in self.setting.stock)

    def __enter__(self) -> Self:
        folder = self.places.folder
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        end_leftovers(self.places.state)
        self.crew = Crew(self.places.state)
        self._closing.callback(self.network.down)
        self._closing.callback(self.crew.close)
        if threading.current_thread() is threading.main_thread():
            before = signal.signal(signal.SIGTERM, _leave)
            self._closing.callback(signal.signal, signal.SIGTERM, before)
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    # Setting up.

    def enrol(self) -> None:
        """From nothing to approved plans, by the commands that people type. The network is up from here on."""
        self._tell(f"network: {'namespaces' if self.setting.namespaces else 'loopback'}")
        self._prepare(self.hospitals)
        self.network.up(self.hospitals)
        self._tell("the custodian adds their requests and signs the roster, then the plan")
        enrolment.admit(self.places, self.hospitals)
        enrolment.sign_plan(self.places)
        self._tell("hospitals approve roots, roster, data and plan")
        enrolment.approve(self.places, self.hospitals)
        self.network.own(self.places, self.hospitals)

    def begin(self) -> None:
        """Custodian and coordinator."""
        self._tell("the custodian makes the root, the coordinator its folder and the proxy's certificate")
        enrolment.begin(self.places, self.setting.plan, names=self.network.names(), port=self._superlink_port)

    def _prepare(self, hospitals: Sequence[Hospital]) -> None:
        self._tell(f"{', '.join(names_of(hospitals))}: keys, folders, requests")
        enrolment.prepare(self.places, hospitals, [_spelt(self.network.line(hospital)) for hospital in hospitals])

    def revoke(self, hospital: Hospital) -> None:
        """The custodian takes trust from a hospital, while everything runs."""
        self._tell(f"{hospital.name} is revoked")
        enrolment.revoke(self.places, hospital)

    def add(self, number: int) -> Hospital:
        """One hospital more, while everything runs: it approves what is in force, and its peers' operators approve it."""
        newcomer = self._hospital(number)
        self._prepare([newcomer])
        self.network.add(newcomer)
        enrolment.admit(self.places, [newcomer])
        enrolment.approve(self.places, [newcomer])
        enrolment.approve_roster(self.places, self.hospitals, self.network.operators(self.hospitals))
        self.hospitals.append(newcomer)
        self.network.own(self.places, [newcomer])
        self.start_hospital(newcomer)
        return newcomer

    # Running.

    def start(self) -> None:
        """Everything, coordinator last."""
        configuration = configure(self.places, listen=self.network.front(), superlink=self._superlink_port)
        self.network.own(self.places, [])
        nginx = [*self.network.of_coordinator(), *command(configuration)]
        self.crew.start("nginx", Service(command=nginx, log=self.places.logs / "nginx.log"))
        if isinstance(self.network, Namespaces) and shutil.which("tcpdump"):
            self._capture("coordinator", self.network.coordinator, "any", [])
        for hospital in self.hospitals:
            self.start_hospital(hospital)
        self.start_coordinator()

    def _capture(self, name: str, namespace: str, interface: str, options: Sequence[str]) -> None:
        folder = self.places.folder / "captured"
        folder.mkdir(exist_ok=True)
        dump = ["tcpdump", "-i", interface, "-nn", "-U", "-Z", "root", "-w", str(folder / f"{name}.pcap"), *options]
        command = ["ip", "netns", "exec", namespace, *dump]
        self.crew.start(f"capture {name}", Service(command=command, log=self.places.logs / f"tcpdump-{name}.log"))

    def stop_captures(self) -> list[str]:
        """End the captures; whether any hospital sent anything elsewhere than to its line, as they tell."""
        for name in self.crew.names():
            if name.startswith("capture "):
                self.crew.stop(name)
        complaints = []
        for hospital in self.hospitals:
            file = self.places.folder / "captured" / f"{hospital.name}.pcap"
            if file.exists():
                to, (host, port) = capture.destinations(file), self.network.line(hospital)
                if to != {f"{host}.{port}"}:
                    complaints.append(f"{hospital.name} connected to {sorted(to)}, and should to {host}.{port} alone")
                if strange := capture.others(file):
                    complaints.append(f"{hospital.name} sent or got {strange} packets that are neither TCP nor ARP")
        return complaints

    def start_hospital(self, hospital: Hospital) -> None:
        """Its line, its site process, its mailbox or what it has in its place."""
        if isinstance(self.network, Namespaces) and shutil.which("tcpdump"):
            self._capture(hospital.name, self.network.namespace(hospital), "line0", ["-s", "96"])
        self.set_line(hospital, self.setting.line)
        here, there = self.network.line(hospital), self.network.front()
        line = [sys.executable, "-m", "simulations.rig.proxy", "--listen", _spelt(here), "--to", _spelt(there)]
        files = ["--settings", str(hospital.logs / "line.json"), "--counts", str(hospital.logs / "line-counts.json")]
        self.crew.start(
            f"line {hospital.name}",
            Service(command=[*self.network.of_wan(), *line, *files], log=hospital.logs / "line.log", environment=_PYTHON),
        )
        self.start_site(hospital)
        self.start_carrier(hospital)

    def start_site(self, hospital: Hospital, **environment: str) -> None:
        seed = self.setting.noise_seed
        program = ["fedward"] if seed is None else ["simulations.rig.seeded_site", str(seed)]
        serve = [sys.executable, "-m", *program, *(["site", "serve"] if seed is None else []), "--home", str(hospital.home)]
        self.crew.start(
            f"site {hospital.name}",
            Service(
                command=[*self.network.of_site(hospital), *serve, "--log-format", "json"],
                log=hospital.logs / "site.log",
                environment={**_PYTHON, "HOME": str(hospital.home), "OMP_NUM_THREADS": "1", **environment},
            ),
        )

    def start_carrier(self, hospital: Hospital) -> None:
        join = [sys.executable, "-m", "client.mailbox", "--mailbox", str(hospital.mailbox), "--log-format", "json"]
        environment: Mapping[str, str] = {}
        if hospital.stock:
            to, port = _spelt(self.network.line(hospital)), self.network.runtime(hospital)
            stock = supernode.started(hospital.mailbox, superlink=to, socket=hospital.socket, port=port)
            join, environment = stock.command, stock.environment
        self.crew.start(
            hospital.carrier,
            Service(
                command=[*self.network.of_mailbox(hospital), *join],
                log=hospital.logs / f"{hospital.carrier.split()[0]}.log",
                environment={**_PYTHON, "HOME": str(hospital.mailbox), **environment},
            ),
        )

    def start_coordinator(self, **environment: str) -> None:
        start = [sys.executable, "-m", "fedward", "server", "start", "--folder", str(self.places.coordinator), "--log-format", "json"]
        self.crew.start(
            "coordinator",
            Service(
                command=[*self.network.of_coordinator(), *start],
                log=self.places.logs / "coordinator.log",
                environment={**_PYTHON, "HOME": str(self.places.coordinator), **environment},
                final=_DONE,
            ),
        )

    # Hurting.

    def kill(self, party: str) -> int:
        """SIGKILL one party; returns its number."""
        if party not in _CHILDREN:
            return self.crew.kill(party)
        for pid in self._children():
            if _CHILDREN[party] in _command_of(pid):
                os.kill(pid, signal.SIGKILL)
                return pid
        raise EngineError(f"the coordinator has no '{party}' to kill.", fix="See its log.")

    def pause(self) -> None:
        """As `fedward server pause` does, without the seconds that a command takes: the round that is open is the last until `resume`."""
        file = self.places.run / PAUSE_FILE
        file.touch()
        if os.geteuid() == 0:
            os.chown(file, self.places.coordinator.stat().st_uid, -1)

    def resume(self) -> None:
        (self.places.run / PAUSE_FILE).unlink(missing_ok=True)

    def set_line(self, hospital: Hospital, line: Line) -> None:
        """Make a hospital's line good or bad from now on."""
        file = hospital.logs / "line.json"
        beside = file.with_suffix(".new")
        beside.write_text(json.dumps(asdict(line)))
        beside.replace(file)

    def partition(self, hospital: Hospital, *, cut: bool) -> None:
        """Cut a hospital off, or join it again."""
        self.set_line(hospital, replace(self.setting.line, partition=cut))

    def line_counts(self, hospital: Hospital) -> dict[str, int]:
        """What went over its line."""
        file = hospital.logs / "line-counts.json"
        return dict(json.loads(file.read_text())) if file.exists() else {}

    # Looking.

    @property
    def plan(self) -> Plan:
        return load(self.places.plan)

    def committed(self) -> list[CommittedRound]:
        """The rounds that are committed by now."""
        return evidence.committed(self.places.run, self.plan)

    def open_round(self) -> int:
        """The round that is under way, or the last one that was; 0 before the first."""
        return int(self._status().get("round") or 0)

    def is_open(self, number: int) -> bool:
        """Whether sites are being asked in this round, or were: one that is only waited for is not open yet."""
        return self.open_round() > number or (self.open_round() == number and bool(self.open_phase()))

    def open_phase(self) -> str:
        """The step that is under way; empty between steps."""
        return str(self._status().get("phase") or "")

    def _status(self) -> dict[str, Any]:
        with suppress(FileNotFoundError, ValueError):
            return dict(json.loads((self.places.run / STATUS_FILE).read_text()))
        return {}

    def wait_for(self, what: str, happened: Callable[[], bool], *, within_s: float, look_s: float = _LOOK_S) -> float:
        """Until it has happened; how long that took. Raises: EngineError, if it has not, or if the coordinator ended meanwhile."""
        started = time.monotonic()
        while not happened():
            if time.monotonic() - started > within_s:
                raise EngineError(f"{what}: not within {within_s:.0f} s.", fix=f"See the logs below '{self.places.folder}'.")
            code = self.crew.ended("coordinator") if "coordinator" in self.crew.names() else None
            if code not in (None, 0):
                raise EngineError(f"{what}: the coordinator ended with {code}.", fix=f"See '{self.places.logs / 'coordinator.log'}'.")
            time.sleep(look_s)
        return time.monotonic() - started

    def wait_for_round(self, number: int, *, within_s: float) -> float:
        """Until a round is committed."""
        return self.wait_for(f"round {number}", lambda: len(self.committed()) >= number, within_s=within_s)

    def wait_for_end(self, *, within_s: float) -> float:
        """Until the coordinator is done."""
        return self.wait_for("the end of the run", lambda: self.crew.ended("coordinator") == 0, within_s=within_s)

    def _children(self) -> Iterable[int]:
        with suppress(OSError, ValueError):
            for pid, _ in json.loads((self.places.coordinator / "superlink" / "children.json").read_text()):
                yield int(pid)


_PYTHON: Final = {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONDONTWRITEBYTECODE": "1", "FLWR_TELEMETRY_ENABLED": "0"}


def _leave(number: int, frame: object) -> NoReturn:
    """SIGTERM ends a rig as Ctrl-C does: by the way out."""
    del frame
    raise SystemExit(128 + number)


def _command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _spelt(place: tuple[str, int]) -> str:
    return f"{place[0]}:{place[1]}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _loopback() -> Loopback:
    return Loopback(front_port=_free_port(), first_line=_free_ports(2 * MOST_HOSPITALS))


def _free_ports(count: int) -> int:
    """Where `count` ports in a row are free now."""
    for first in range(20_000, 32_000, count):
        with ExitStack() as closing:
            try:
                for port in range(first, first + count):
                    closing.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise EngineError("no ports in a row are free on loopback.", fix="End some programs that listen.")


def names_of(hospitals: Sequence[Hospital]) -> list[str]:
    return [hospital.name for hospital in hospitals]
