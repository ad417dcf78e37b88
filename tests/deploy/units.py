# SPDX-License-Identifier: Apache-2.0
"""Units of deploy/systemd, read as systemd reads them, and what they come to for a process."""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "deploy" / "systemd"
INSTALLED = {
    "/opt/fedward/bin/fedward": Path(sys.executable).with_name("fedward"),
    "/opt/fedward/bin/flower-supernode": Path(sys.executable).with_name("flower-supernode"),
    "/opt/fedward/libexec/tls.sh": ROOT / "deploy/pki/tls.sh",
}
USER = 64_001 if all(each.stat().st_mode & 0o001 for each in Path(sys.executable).resolve().parents) else 0
"""Another user, where others may run this Python at all; else root, who has no capability either."""


def service(name: str) -> dict[str, list[str]]:
    """[Service] of a unit: each setting with its values, in their order."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in (UNITS / name).read_text().splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@functools.cache
def call_sets() -> Mapping[str, tuple[str, ...]]:
    """systemd's own groups of system calls."""
    listed = subprocess.run(["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True).stdout
    found: dict[str, list[str]] = {}
    for line in listed.splitlines():
        if line.startswith("@"):
            found[line.strip()] = members = []
        elif line.startswith("    ") and not line.strip().startswith("#"):
            members.append(line.strip())
    return {name: tuple(members) for name, members in found.items()}


def calls(filters: list[str]) -> set[str]:
    """What an allow list lets through: each line adds, with ~ takes away; @default is always in."""
    assert not filters[0].startswith("~")
    allowed = _calls("@default")
    for line in filters:
        named = set().union(*(_calls(word) for word in line.removeprefix("~").split()))
        allowed = allowed - named if line.startswith("~") else allowed | named
    return allowed | _calls("@default")


def _calls(word: str) -> set[str]:
    return set().union(*(_calls(each) for each in call_sets()[word])) if word.startswith("@") else {word}


def confinement(name: str, file: Path, *, network: bool = False) -> list[str]:
    """The words to put before a command so that it runs as the unit would run it. `network`: leave it loopback, to be talked to."""
    unit = service(name)
    file.write_text(
        json.dumps(
            {
                "calls": sorted(calls(unit["SystemCallFilter"])),
                "families": unit["RestrictAddressFamilies"][-1].split(),
                "private_network": unit.get("PrivateNetwork") == ["yes"] and not network,
                "deny_write_execute": unit.get("MemoryDenyWriteExecute") == ["yes"],
                "hidden": [each.partition(":")[0] for each in unit.get("TemporaryFileSystem", ())],
                "bound": unit.get("BindPaths", []),
                "umask": int(unit["UMask"][-1], 8),
                "user": USER,
            }
        )
    )
    return [sys.executable, str(Path(__file__).with_name("confined.py")), str(file)]


def environment(name: str) -> dict[str, str]:
    """What a unit's process finds in its environment."""
    pairs = (pair.partition("=") for line in service(name).get("Environment", ()) for pair in line.split())
    return {"PATH": os.defpath, "LANG": "C.UTF-8", **{key: value for key, _, value in pairs}}
