# SPDX-License-Identifier: Apache-2.0
"""The units: systemd takes them, finds little exposed, and what they forbid is not what a site needs, shown by running one under them."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.process.door import ask
from common import transport_key
from common.envelope import Envelope, Head
from fedward import app
from simulations.rig.supernode import started
from tests.client.hospitals import hospitals
from tests.deploy.authorities import tls
from tests.deploy.test_nginx import free_port
from tests.deploy.units import INSTALLED, UNITS, USER, calls, confinement, environment, service

SERVICES = sorted(path.name for path in UNITS.glob("*.service"))
ALL = sorted(path.name for path in [*UNITS.glob("*.service"), *UNITS.glob("*.timer")])
HIGHEST = {
    "fedward-site.service": 1.0,
    "fedward-mailbox.service": 2.0,
    "fedward-coordinator.service": 2.0,
    "fedward-certificate.service": 1.5,
    "fedward-doctor.service": 3.0,
    "fedward-import.service": 2.0,
    "fedward-supernode.service": 2.0,
}
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs the Debian package systemd")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process as another user, in a network of its own")


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units with this installation's paths, since systemd looks whether the programs are there."""
    for name in ALL:
        text = (UNITS / name).read_text()
        for path, here in INSTALLED.items():
            text = text.replace(path, str(here))
        (tmp_path / name).write_text(text)
    return tmp_path


@needs_systemd
def test_systemd_has_nothing_against_any_unit(installed: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(installed / name) for name in ALL)], capture_output=True, text=True, check=False
    )
    about_ours = [line for line in done.stderr.splitlines() if "fedward" in line]
    assert (done.returncode, about_ours) == (0, [])


@needs_systemd
def test_systemd_would_have_said_so(installed: Path) -> None:
    """The control."""
    unit = installed / "fedward-site.service"
    unit.write_text(unit.read_text().replace("PrivateNetwork=yes", "PrivateNetwrk=yes"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False)
    assert "PrivateNetwrk" in done.stderr


@needs_systemd
@pytest.mark.parametrize("name", SERVICES)
def test_little_is_exposed(installed: Path, name: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(installed / name)], capture_output=True, text=True, check=False
    )
    level = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert level, done.stdout + done.stderr
    assert float(level[1]) <= HIGHEST[name]


@pytest.mark.parametrize("carrier", ["fedward-mailbox.service", "fedward-supernode.service"])
def test_the_process_that_reads_images_has_no_network_and_the_one_on_the_network_has_no_images(carrier: str) -> None:
    site, mailbox = service("fedward-site.service"), service(carrier)
    assert site["PrivateNetwork"] == ["yes"]
    assert site["RestrictAddressFamilies"] == ["AF_UNIX"]
    assert site["ReadOnlyPaths"] == ["-/srv/fedward-images"]
    assert {"-/var/lib/fedward/site", "-/srv/fedward-images"} <= set(mailbox["InaccessiblePaths"][0].split())
    assert site["User"] != mailbox["User"]
    assert site["SupplementaryGroups"] == mailbox["SupplementaryGroups"] == ["fedward-door"]


@pytest.mark.parametrize(
    "name", ["fedward-site.service", "fedward-mailbox.service", "fedward-supernode.service", "fedward-coordinator.service"]
)
def test_every_service_is_an_ordinary_user_without_capabilities_or_core_files(name: str) -> None:
    unit = service(name)
    assert unit["User"][0].startswith("fedward-")
    assert unit["CapabilityBoundingSet"] == [""]
    assert (unit["NoNewPrivileges"], unit["LimitCORE"], unit["UMask"], unit["ProtectSystem"]) == (["yes"], ["0"], ["0077"], ["strict"])
    assert unit["MemorySwapMax"] == ["0"]
    assert "FLWR_TELEMETRY_ENABLED=0" in " ".join(unit["Environment"])
    assert unit["Restart"][0] in ("always", "on-failure")


@needs_systemd
def test_users_groups_and_folders_are_made_as_written(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    for end in ("hospital", "coordinator"):
        subprocess.run(["systemd-sysusers", f"--root={tmp_path}", str(UNITS / "sysusers.d" / f"fedward-{end}.conf")], check=True)
    users = {line.split(":")[0]: line.split(":") for line in (tmp_path / "etc" / "passwd").read_text().splitlines()}
    groups = {line.split(":")[0]: line.split(":")[3] for line in (tmp_path / "etc" / "group").read_text().splitlines()}
    assert {"fedward-site", "fedward-mailbox", "fedward-coordinator"} <= set(users)
    assert all(each[6].endswith("nologin") for name, each in users.items() if name.startswith("fedward"))
    assert set(groups["fedward-door"].split(",")) == {"fedward-site", "fedward-mailbox"}
    if os.geteuid() == 0:
        for end in ("hospital", "coordinator"):
            subprocess.run(
                ["systemd-tmpfiles", "--create", f"--root={tmp_path}", str(UNITS / "tmpfiles.d" / f"fedward-{end}.conf")], check=True
            )
        door, home = (tmp_path / "run" / "fedward").stat(), (tmp_path / "var" / "lib" / "fedward" / "site").stat()
        assert (door.st_mode & 0o7777, home.st_mode & 0o7777) == (0o750, 0o700)
        assert door.st_uid == home.st_uid == int(users["fedward-site"][2])


@needs_systemd
def test_the_filters_forbid_something() -> None:
    site = calls(service("fedward-site.service")["SystemCallFilter"])
    assert {"mount", "ptrace", "bpf", "kexec_load", "init_module", "chroot", "process_vm_readv"}.isdisjoint(site)
    assert service("fedward-site.service")["RestrictNamespaces"] == ["yes"]  # setns and unshare are in the list, and held by this
    assert {"read", "mmap", "futex", "execve", "fchownat"} <= site


def given_to(home: Path, user: int) -> None:
    """Give a home to another user, and let that user through the folders above."""
    for path in (home, *home.rglob("*")):
        os.chown(path, user, user)
    for above in home.parents:
        if above.stat().st_uid == 0 and not above.stat().st_mode & 0o001:
            above.chmod(above.stat().st_mode | 0o011)


@needs_systemd
@needs_root
def test_a_site_trains_under_what_its_unit_forbids(tmp_path: Path) -> None:
    """As another user, with the unit's system calls, without a network: charge, train with noise, store."""
    home = hospitals(tmp_path).first
    with (home / "site.toml").open("a") as file:
        file.write('\n[simulation]\naggregation = "ideal"\n')
    given_to(home, USER)
    words = confinement("fedward-site.service", tmp_path / "confinement.json")
    script = Path(__file__).with_name("one_round.py")
    done = subprocess.run(
        [*words, sys.executable, str(script), str(home)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment("fedward-site.service"),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(rf"\d+ values, uid {USER}, sockets: E(PERM|AFNOSUPPORT), routes: 0\n", done.stdout), done.stdout


@needs_systemd
@needs_root
def test_the_site_process_serves_under_what_its_unit_forbids(tmp_path: Path) -> None:
    home = hospitals(tmp_path).first
    given_to(home, USER)
    door = tmp_path / "door"
    door.mkdir()
    os.chown(door, USER, USER)
    door.chmod(0o750)
    words = confinement("fedward-site.service", tmp_path / "confinement.json")
    start = service("fedward-site.service")["ExecStart"][0].split()
    command = [str(INSTALLED[start[0]]), *start[1:]]
    command[command.index("--home") + 1] = str(home)
    command += ["--socket", str(door / "site.sock")]
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen([*words, *command], stdout=said, stderr=said, env=environment("fedward-site.service"))
    try:
        until = time.monotonic() + 60
        while not (door / "site.sock").exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
        assert (door / "site.sock").exists(), (tmp_path / "said").read_text()
        answer = ask(door / "site.sock", Envelope(head=Head(message_type="query.nothing", fields={})), patience_s=20)
        assert "E_" in str(answer.head.fields)
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith(("CapEff:", "CapPrm:")):
                assert int(line.split()[1], 16) == 0
            if line.startswith("NoNewPrivs:"):
                assert line.split()[1] == "1"
    finally:
        process.terminate()
        assert process.wait(60) == 0, (tmp_path / "said").read_text()


@needs_systemd
@needs_root
def test_no_service_of_the_machine_answers_the_site_process(tmp_path: Path) -> None:
    """Sockets that are files are in no network of one's own, and who reaches systemd-resolved's has names looked up, which is sending."""
    folder = Path(tempfile.mkdtemp(dir="/run"))
    folder.chmod(0o755)
    tries = (
        "import os, socket, sys\n"
        "line = socket.socket(socket.AF_UNIX)\n"
        "try:\n    line.connect(sys.argv[1])\n    print('answered')\n"
        "except OSError as error:\n    print(type(error).__name__, os.listdir('/run'))\n"
    )
    told = {}
    try:
        with socket.socket(socket.AF_UNIX) as service_of_the_machine:
            service_of_the_machine.bind(str(folder / "service.sock"))
            (folder / "service.sock").chmod(0o666)
            service_of_the_machine.listen()
            for name in ("fedward-site.service", "fedward-mailbox.service"):
                words = [*confinement(name, tmp_path / "confinement.json"), sys.executable, "-c", tries, str(folder / "service.sock")]
                told[name] = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True, cwd="/").stdout.strip()
    finally:
        shutil.rmtree(folder)
    there = ["fedward"] if Path("/run/fedward").exists() else []
    assert told == {"fedward-site.service": f"FileNotFoundError {there}", "fedward-mailbox.service": "answered"}, (
        "the second is the control"
    )
    assert (service("fedward-site.service")["TemporaryFileSystem"], service("fedward-site.service")["BindPaths"]) == (
        ["/run:ro"],
        ["/run/fedward"],
    )


def settled(words: list[str], name: str, folder: Path, sign: str, more: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Start a command under its unit, wait until it says `sign`, and end it with SIGTERM. How it ended, and all that it said."""
    said = folder / "said.log"
    with said.open("wb") as file:
        process = subprocess.Popen(
            [*confinement(name, folder / "confinement.json", network=True), *words],
            stdout=file,
            stderr=file,
            env={**environment(name), **(more or {})},
        )
    try:
        until = time.monotonic() + 120
        while sign not in said.read_text() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.2)
        assert sign in said.read_text(), said.read_text()
    finally:
        process.terminate()
        code = process.wait(90)
    return code, said.read_text()


@needs_systemd
@needs_root
@pytest.mark.slow
def test_the_mailbox_runs_under_what_its_unit_forbids(tmp_path: Path) -> None:
    """No machine code at run time, no listener, nobody's rights; the coordinator is away, which it waits for."""
    folder = tmp_path / "mailbox"
    typed = CliRunner().invoke(
        app, ["site", "init", "--name", "north", "--mailbox", str(folder), "--coordinator", f"localhost:{free_port()}"]
    )
    assert typed.exit_code == 0, typed.output
    tls("authority", tmp_path / "authority")
    shutil.copy(tmp_path / "authority" / "ca.crt", folder)
    given_to(folder, USER)
    assert service("fedward-mailbox.service")["MemoryDenyWriteExecute"] == ["yes"]
    words = [str(INSTALLED["/opt/fedward/bin/fedward"]), "site", "join", "--mailbox", str(folder), "--log-format", "json"]
    code, said = settled(words, "fedward-mailbox.service", tmp_path, "E_TRANSPORT")
    assert code == 0, said
    assert "Traceback" not in said


@needs_systemd
@needs_root
@pytest.mark.slow
def test_a_stock_supernode_and_what_it_starts_run_under_what_its_unit_forbids(tmp_path: Path) -> None:
    """Its SuperExec among them, which finds it over loopback; the coordinator is away."""
    folder = tmp_path / "mailbox"
    folder.mkdir()
    transport_key.create(folder / transport_key.KEY_FILE, name="north")
    tls("authority", tmp_path / "authority")
    shutil.copy(tmp_path / "authority" / "ca.crt", folder)
    given_to(folder, USER)
    stock = started(folder, superlink=f"localhost:{free_port()}", socket=tmp_path / "site.sock", port=free_port())
    code, said = settled(stock.command, "fedward-supernode.service", tmp_path, "Starting Flower SuperExec", stock.environment)
    assert code == 0, said
    assert "Connection attempt failed" in said
    assert "Traceback" not in said


@needs_systemd
@needs_root
@pytest.mark.slow
def test_the_coordinator_and_its_superlink_run_under_what_their_unit_forbids(tmp_path: Path) -> None:
    made = hospitals(tmp_path / "made")
    folder, plan = tmp_path / "coordinator", made.coordinator / "plan.toml"
    where = ["--port", str(free_port()), "--live-port", "0", "--key", str(made.coordinator / "identity.key")]
    typed = CliRunner().invoke(app, ["server", "init", str(folder), "--plan", str(plan), *where])
    assert typed.exit_code == 0, typed.output
    for name in ("roster", "roots"):
        shutil.copy(made.coordinator / name, folder)
    given_to(folder, USER)
    words = [str(INSTALLED["/opt/fedward/bin/fedward"]), "server", "start", "--folder", str(folder), "--log-format", "json"]
    code, said = settled(words, "fedward-coordinator.service", tmp_path, "run_submitted")
    assert code == 3, said  # told to stop before the last round: the unit counts that as a success
    assert service("fedward-coordinator.service")["SuccessExitStatus"] == ["3"]


def test_every_path_of_a_unit_is_one_that_the_readme_makes() -> None:
    readme = (UNITS / "README.md").read_text(encoding="utf-8")
    for name in ALL:
        assert name in readme, name
    for name in SERVICES:
        for setting in ("ExecStart", "ReadOnlyPaths", "ReadWritePaths", "InaccessiblePaths", "BindPaths"):
            for value in service(name).get(setting, ()):
                for word in value.split():
                    if word.lstrip("-").startswith(("/srv", "/var/lib", "/run/f", "/opt", "/etc")):
                        assert word.lstrip("-") in readme, (name, word)
