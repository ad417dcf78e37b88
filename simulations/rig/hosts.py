# SPDX-License-Identifier: Apache-2.0
"""What an auditor would look at on a hospital's hosts, over a whole run.

    listening     no process of the hospital listens at a TCP or UDP port, in its namespace or in its site process's; but a stock
                  SuperNode does, at one port of its loopback
    egress        of everything that the hospital's namespace sent or tried to send, by its own firewall's counters: all to one address and
                  port, and how much was refused
    site process  its network namespace holds no interface but a loopback that is down; it runs as nobody who can do more; capabilities none
    images        every file as it was before the run, by SHA-256, and the mount is read-only

Looked at again and again while the run goes on, since a port that is open for a moment is open. On loopback there are no namespaces: then
only listening (of the processes themselves) and images are looked at.
"""

import hashlib
import json
import socket
import struct
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from simulations.benchmarks.footprint import tree
from simulations.rig.commands import tool
from simulations.rig.network import Namespaces
from simulations.rig.places import Hospital

if TYPE_CHECKING:
    from simulations.rig.rig import Rig

_LOOK_S: Final = 2.0
_LISTENING, _UNCONNECTED = "0A", "07"


class Watch:
    """Looks from now until `findings`."""

    def __init__(self, rig: "Rig") -> None:
        self._rig = rig
        self._images = {hospital.name: digest_of(hospital.images) for hospital in rig.hospitals}
        self._complaints: dict[str, None] = {}
        self._looks = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def findings(self) -> tuple[list[dict[str, Any]], list[str]]:
        """Facts for each hospital, and complaints."""
        self._closing.set()
        self._thread.join()
        facts = [self._facts(hospital) for hospital in self._rig.hospitals]
        for hospital in self._rig.hospitals:
            before = self._images.get(hospital.name)
            if before is not None and digest_of(hospital.images) != before:
                self._complain(f"{hospital.name}: an image has changed")
        if not self._looks:
            self._complain("nobody looked at the hosts")
        return facts, list(self._complaints)

    def _complain(self, complaint: str) -> None:
        self._complaints[complaint] = None

    def _watch(self) -> None:
        while not self._closing.wait(_LOOK_S):
            for hospital in list(self._rig.hospitals):
                self._look(hospital)
            self._looks += 1

    def _look(self, hospital: Hospital) -> None:
        for name in (f"site {hospital.name}", hospital.carrier):
            first = self._rig.crew.pid(name) if name in self._rig.crew.names() else None
            if first is None:
                continue
            for pid in tree(first) if hospital.stock else [first]:
                with suppress(OSError):  # it died while it was looked at
                    for place in sorted(listening(pid) - self._may_listen(hospital, name)):
                        self._complain(f"{name} listens at {place}")
                    if isinstance(self._rig.network, Namespaces):
                        self._look_closer(name, pid)

    def _may_listen(self, hospital: Hospital, name: str) -> set[str]:
        return {f"127.0.0.1:{self._rig.network.runtime(hospital)}"} if hospital.stock and name == hospital.carrier else set()

    def _look_closer(self, name: str, pid: int) -> None:
        status = Path(f"/proc/{pid}/status").read_text()
        if "python" not in _program(pid):
            return  # it is still on its way into its namespaces
        facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        if facts["Uid"].split()[0] == "0":
            self._complain(f"{name} runs as root")
        if int(facts["CapEff"], 16) or int(facts["CapBnd"], 16):
            self._complain(f"{name} has capabilities {facts['CapEff']}, and may get {facts['CapBnd']}")
        if facts["NoNewPrivs"].strip() != "1":
            self._complain(f"{name} may gain privileges")
        if name.startswith("site"):
            for interface in _interfaces(pid):
                self._complain(f"{name} has a network interface {interface}")

    def _facts(self, hospital: Hospital) -> dict[str, Any]:
        facts: dict[str, Any] = {"hospital": hospital.name, "looks": self._looks}
        if isinstance(self._rig.network, Namespaces):
            host, port = self._rig.network.line(hospital)
            facts |= {"may_reach": f"{host}:{port}", **_counters(self._rig.network.namespace(hospital))}
            if facts["refused_out"] or not facts["let_out"]:
                self._complain(f"{hospital.name}: {facts['refused_out']} packets went elsewhere, {facts['let_out']} to the coordinator")
        return facts


def listening(pid: int) -> set[str]:
    """Where a process listens, ADDRESS:PORT: its own sockets, found by inode in its namespace's tables. Raises: OSError, if it is gone."""
    own = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            own.add(str(entry.readlink()))
    places = set()
    for table, state in (("tcp", _LISTENING), ("tcp6", _LISTENING), ("udp", _UNCONNECTED), ("udp6", _UNCONNECTED)):
        with suppress(FileNotFoundError):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == state and f"socket:[{words[9]}]" in own:
                    places.add(_spelt(words[1]))
    return places


def _spelt(local: str) -> str:
    """As in /proc/net/tcp: an address of 4 or 16 bytes in words of the machine's own order, and a port, both in hexadecimal."""
    raw, _, port = local.partition(":")
    words = struct.unpack(f">{len(raw) // 8}I", bytes.fromhex(raw))
    address = struct.pack(f"={len(words)}I", *words)
    return f"{socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, address)}:{int(port, 16)}"


def digest_of(folder: Path) -> str:
    """One digest of all files of a folder, names and contents."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
            found.update(path.read_bytes())
    return found.hexdigest()


def _interfaces(pid: int) -> list[str]:
    """Network interfaces of a process other than a loopback; and the loopback, if anything ever went over it."""
    found = []
    for line in Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]:
        name, _, counts = line.partition(":")
        if name.strip() != "lo" or any(int(count) for count in counts.split()):
            found.append(name.strip())
    return found


def _program(pid: int) -> str:
    return Path(f"/proc/{pid}/exe").readlink().name


def _counters(namespace: str) -> dict[str, int]:
    rules = json.loads(tool(["ip", "netns", "exec", namespace, "nft", "-j", "list", "counters"]))["nftables"]
    return {rule["counter"]["name"]: rule["counter"]["packets"] for rule in rules if "counter" in rule}
