# SPDX-License-Identifier: Apache-2.0
"""Code that a coordinator ships, run at a hospital by a stock SuperNode of another user than the site's: it gets nothing.

The hospital is real (`fedward site serve` on a home of its own), the code knows every path, and each thing that it tries fails by name.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from client.home import LEDGER_FILE
from simulations.benchmarks import transport
from tests.attacks.hostile.attempts import ATTEMPTS
from tests.client.hospitals import hospitals
from tests.client.processes import site_process

STRANGER = 64002
SHARED = 64003
ROOT = Path(__file__).resolve().parents[2]
HOSTILE = Path(__file__).with_name("hostile")

DENIED = "refused PermissionError"
EXPECTED: Mapping[str, str] = {
    "images": DENIED,
    "prepared_images": DENIED,
    "identity_key": DENIED,
    "patient_key": DENIED,
    "ledger": DENIED,
    "state_of_secure_aggregation": DENIED,
    "another_ledger": DENIED,
    "a_looser_policy": DENIED,
    "a_simulated_site": DENIED,
    "memory_of_the_site": DENIED,
    "environment_of_the_site": DENIED,
    "end_of_the_site": DENIED,
    "a_socket_of_its_own": DENIED,
    "a_raw_delta": "refused E_MSG_FORMAT",
    "an_unmasked_update": "refused E_MSG_FORMAT",
    "a_raw_delta_dressed_as_a_step": "refused E_MSG_FORMAT",
    "a_step_that_no_coordinator_signed": "refused E_MSG_FORMAT",
    "a_plan_with_a_larger_epsilon": "refused E_PLAN_MISMATCH",
    "a_plan_that_nobody_signed": "refused E_COORDINATOR_SIGNATURE",
    "a_pickle": "refused E_MSG_FORMAT",
}
_RUN = """
import json, sys
from pathlib import Path
from tests.attacks.hostile.attempts import Target, run_all
home, socket, process = sys.argv[1:]
print(json.dumps(run_all(Target(home=Path(home), socket=Path(socket), process=int(process)), only=ONLY)))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hospital:
    home: Path
    socket: Path
    process: int


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that other users may pass through, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="fedward-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def hospital(open_folder: Path) -> Iterator[Hospital]:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be two users")
    home = hospitals(open_folder, ("north",)).first
    door = open_folder / "door"
    door.mkdir(mode=0o750)
    os.chown(door, -1, SHARED)
    door.chmod(0o750)
    with site_process(home, socket=door / "site.sock") as process:
        yield Hospital(home=home, socket=door / "site.sock", process=process.pid)
        assert process.poll() is None, "the site process is gone"


def interpreter_for_strangers() -> tuple[str, dict[str, str]]:
    """A Python of this version that another user may run, and where it finds what is installed here."""
    packages = os.pathsep.join([str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))])
    for candidate in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        tried = (
            subprocess.run([candidate, "-c", ""], user=STRANGER, group=STRANGER, extra_groups=[], capture_output=True, check=False)
            if _reachable(candidate)
            else None
        )
        if tried is not None and tried.returncode == 0:
            return candidate, {"PYTHONPATH": packages, "PATH": os.defpath, "HOME": tempfile.gettempdir(), "PYTHONDONTWRITEBYTECODE": "1"}
    pytest.skip("no Python here can be run by another user")


def _reachable(program: str) -> bool:
    path = Path(program).resolve()
    return (
        path.exists()
        and all(each.stat().st_mode & 0o001 for each in (path, *path.parents))
        and all(each.stat().st_mode & 0o001 for each in Path(program).absolute().parents)
    )


def attempted(
    hospital: Hospital, program: list[str], environment: dict[str, str], *, only: tuple[str, ...] = (), **user: Any
) -> dict[str, str]:
    code = _RUN.replace("ONLY", repr(only))
    where = [str(hospital.home), str(hospital.socket), str(hospital.process)]
    environment = {**environment, "PYTHONPATH": environment.get("PYTHONPATH", str(ROOT))}
    done = subprocess.run(
        [*program, "-c", code, *where], env=environment, cwd="/", capture_output=True, text=True, check=False, timeout=120, **user
    )
    assert done.returncode == 0, done.stderr
    got: dict[str, str] = json.loads(done.stdout)
    return got


def fingerprint(home: Path) -> dict[str, bytes]:
    """What must not change: everything but the site's own words about refusals."""
    ours = {"error.log", "status.json", "serve.lock", "audit.jsonl", "audit.lock"}
    return {str(path.relative_to(home)): path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file() and path.name not in ours}


def test_the_list_of_attempts_is_whole() -> None:
    assert set(EXPECTED) == {attempt.__name__ for attempt in ATTEMPTS}


def test_a_stranger_in_the_sockets_group_gets_nothing(hospital: Hospital) -> None:
    program, environment = interpreter_for_strangers()
    before = fingerprint(hospital.home)
    got = attempted(hospital, [program], environment, user=STRANGER, group=STRANGER, extra_groups=[SHARED])
    assert got == EXPECTED
    after = fingerprint(hospital.home)
    assert {name: after[name] for name in before} == before
    added = set(after) - set(before)
    assert all(name.startswith(("audit", "evidence/", "fsa1/")) for name in added), added  # the site's own notes of what it was asked
    assert (hospital.home / LEDGER_FILE).read_bytes() == before[LEDGER_FILE]


def test_who_is_not_in_the_group_does_not_even_reach_the_socket(hospital: Hospital) -> None:
    program, environment = interpreter_for_strangers()
    code = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    done = subprocess.run(
        [program, "-c", code, str(hospital.socket)],
        user=STRANGER,
        group=STRANGER,
        extra_groups=[],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "PermissionError" in done.stderr


def test_the_attempts_do_succeed_where_nobody_is_kept_apart(hospital: Hospital) -> None:
    """The control: run by the site's own user they get what they came for, so that a refusal above means something."""
    readers = ("images", "identity_key", "patient_key", "ledger", "environment_of_the_site")
    booty = attempted(hospital, [sys.executable], dict(os.environ), only=readers)
    assert all(got.startswith("GOT ") for got in booty.values()), booty


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")  # flwr's way of choosing a bundle's files
def test_a_bundle_that_a_stock_supernode_runs_gets_nothing(hospital: Hospital, open_folder: Path) -> None:
    """The whole way: the run brings the code along, the SuperNode fetches it and starts it, with the site's socket at hand."""
    program, environment = interpreter_for_strangers()
    tools = tools_for(program, open_folder / "tools")
    before = fingerprint(hospital.home)
    with transport.superlink(open_folder / "superlink") as link:
        folder = transport.new_mailbox(open_folder / "node", link, socket=hospital.socket)
        for path in (folder, *folder.iterdir()):
            os.chown(path, STRANGER, STRANGER)
        environment = {**environment, "PATH": os.pathsep.join([str(tools), os.defpath])}
        node = transport.supernode(
            folder,
            link,
            socket=hospital.socket,
            program=[str(tools / "flower-supernode")],
            environment=environment,
            user=STRANGER,
            group=STRANGER,
            extra_groups=[SHARED],
            cwd="/",
        )
        with node:
            told = transport.ask(link, nodes=1, trips=[HELLO], client=bundle_for(hospital), timeout_s=150)
        log = (folder / "supernode.log").read_text()
    fields = told[0]["replies"][0].get("fields")
    assert fields, (told, log[-3000:])
    assert json.loads(fields["booty"]) == EXPECTED
    assert fields["environment"] == "FEDWARD_SOCKET"
    assert fields["user"] == STRANGER
    assert {name: fingerprint(hospital.home)[name] for name in before} == before


HELLO = {"name": "hello", "type": "query.hello", "control": 32, "values": 0, "times": 1}


def bundle_for(hospital: Hospital) -> transport.Bundle:
    """The code, a run config that wishes for more, and where everything lies."""
    where = f"HOME = {str(hospital.home)!r}\nPROCESS = {hospital.process}\n"
    files = {name: (HOSTILE / name).read_bytes() for name in ("evil.py", "attempts.py")}
    return transport.Bundle(app="evil:app", files={**files, "where.py": where.encode()}, config={"epsilon": 1000.0})


def tools_for(program: str, folder: Path) -> Path:
    """Flower's own commands, for an interpreter that another user may run."""
    folder.mkdir(mode=0o755)
    for entry in entry_points(group="console_scripts"):
        if entry.dist is not None and entry.dist.name == "flwr":
            script = folder / entry.name
            script.write_text(f"#!{program}\nimport sys\nfrom {entry.module} import {entry.attr}\nsys.exit({entry.attr}())\n")
            script.chmod(0o755)
    return folder
