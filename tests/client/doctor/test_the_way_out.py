# SPDX-License-Identifier: Apache-2.0
"""The mailbox's side: name, TCP, TLS, certificate and clock, each broken in turn against real listeners on loopback."""

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.doctor import link, permissions
from client.doctor.findings import Finding, State
from client.doctor.link import Link
from client.doctor.standing import owner_of
from fedward import app
from tests.deploy.authorities import certified, listening, tls

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the Debian package openssl")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    certified(folder, "localhost")
    tls("authority", folder / "other")
    return folder


def looked(made: Path, port: int, *, host: str = "localhost", authority: str = "auth") -> dict[str, Finding]:
    return {each.check: each for each in link.way(Link(host=host, port=port, tls=pinning(made / authority / "ca.crt")))}


def pinning(authority: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cafile=authority)
    return context


def test_a_good_link_is_good_all_the_way(made: Path) -> None:
    with listening(made / "tls" / "live") as port:
        found = looked(made, port)
    assert {check: each.state for check, each in found.items()} == dict.fromkeys(("reach", "certificate", "clock"), State.OK)
    assert "TLSv1.3" in found["certificate"].found


def test_another_authority_is_named_and_nothing_was_sent(made: Path) -> None:
    with listening(made / "tls" / "live") as port:
        found = looked(made, port, authority="other")
    assert found["certificate"].state is State.WRONG
    assert "not signed by the authority" in found["certificate"].found
    assert "clock" not in found


def test_a_certificate_for_another_name_is_named(made: Path) -> None:
    with listening(made / "tls" / "live") as port:
        found = looked(made, port, host="127.0.0.1")
    assert "not for '127.0.0.1'" in found["certificate"].found


def test_a_certificate_that_ended_is_named_and_one_that_ends_soon_is_pointed_at(made: Path, tmp_path: Path) -> None:
    live, auth = made / "tls" / "live", made / "auth"
    signing = [
        "-CA",
        auth / "ca.crt",
        "-CAkey",
        auth / "ca.key",
        "-CAcreateserial",
        "-CAserial",
        tmp_path / "serial",
        "-copy_extensions",
        "copy",
    ]
    asked = ["-key", live / "server.key", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-out", tmp_path / "csr"]
    subprocess.run(["openssl", "req", "-new", *asked], check=True, capture_output=True)
    shutil.copy(live / "server.key", tmp_path)
    for days, state, words in ((-1, State.WRONG, "has expired"), (5, State.LOOK, "TLSv1.3")):
        more = ["-days", str(days), "-out", tmp_path / "server.crt"]
        subprocess.run(["openssl", "x509", "-req", "-in", tmp_path / "csr", *signing, *more], check=True, capture_output=True)
        with listening(tmp_path) as port:
            found = looked(made, port)["certificate"]
        assert (found.state, words in found.found) == (state, True), found


def test_old_tls_is_refused(made: Path) -> None:
    with listening(made / "tls" / "live", highest=ssl.TLSVersion.TLSv1_2) as port:
        assert looked(made, port)["certificate"].state is State.WRONG


@pytest.mark.parametrize(
    ("ahead_s", "state"), [(0, State.OK), (120, State.LOOK), (-120, State.LOOK), (600, State.WRONG), (-86_400, State.WRONG)]
)
def test_the_clock_is_held_to_the_coordinators(made: Path, ahead_s: float, state: State) -> None:
    with listening(made / "tls" / "live", ahead_s=ahead_s) as port:
        found = looked(made, port)["clock"]
    assert found.state is state
    if state is not State.OK:
        assert ("behind" if ahead_s > 0 else "ahead of") in found.found


def test_an_answer_without_a_time_is_pointed_at(made: Path) -> None:
    with listening(made / "tls" / "live", date=False) as port:
        assert looked(made, port)["clock"].state is State.LOOK


def test_a_port_that_refuses_and_a_name_that_is_unknown_are_told_apart(made: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "refuses" in looked(made, port)["reach"].found
    assert "has no address" in looked(made, port, host="no-such-host.invalid")["reach"].found


def test_something_that_speaks_no_tls_is_named(made: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"220 mail.example.org ESMTP\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        found = looked(made, server.getsockname()[1])["certificate"]
        thread.join()
    assert "no TLS 1.3 at" in found.found


def test_the_pinned_authority_is_read(made: Path, tmp_path: Path) -> None:
    def of(content: str) -> Finding:
        (tmp_path / "ca.crt").write_text(content)
        (found,) = link.authority(Link(host="localhost", port=1, tls=pinning(tmp_path / "ca.crt")))
        return found

    mine, other = ((made / name / "ca.crt").read_text() for name in ("auth", "other"))
    assert of(mine).state is of(mine + other).state is State.OK
    for number in (1, 2):
        tls("authority", tmp_path / f"more-{number}")
    bundle = mine + other + "".join((tmp_path / f"more-{number}" / "ca.crt").read_text() for number in (1, 2))
    assert "4 authorities" in of(bundle).found


def mailbox(folder: Path, made: Path, port: int) -> Path:
    folder.mkdir(mode=0o700)
    shutil.copy(made / "auth" / "ca.crt", folder)
    (folder / "mailbox.toml").write_text(
        f'[superlink]\naddress = "localhost:{port}"\nroot_certificates = "ca.crt"\n[site]\nsocket = "{folder.parent}/run/site.sock"\n'
    )
    (folder / "node.key").touch(mode=0o600)
    (folder.parent / "run").mkdir(mode=0o750)
    return folder


def told(*words: str) -> dict[str, dict[str, str]]:
    result = CliRunner().invoke(app, ["site", "doctor", "--json", *words])
    return {each["check"]: each for each in json.loads(result.stdout)["findings"]}


def test_the_mailboxes_folder_its_key_and_the_socket_are_looked_at(made: Path, tmp_path: Path) -> None:
    with listening(made / "tls" / "live") as port, socket.socket(socket.AF_UNIX) as door:
        folder = mailbox(tmp_path / "mailbox", made, port)
        path = tmp_path / "run" / "site.sock"
        door.bind(str(path))
        path.chmod(0o660)
        door.listen()
        found = told("--mailbox", str(folder))
        assert {
            check: found[check]["state"] for check in ("mailbox", "permissions", "socket", "authority", "reach", "clock")
        } == dict.fromkeys(("mailbox", "permissions", "socket", "authority", "reach", "clock"), "ok")
        (folder / "node.key").chmod(0o644)
        assert "0600" in told("--mailbox", str(folder))["permissions"]["found"]
        path.chmod(0o666)
        assert "0660 expected" in told("--mailbox", str(folder))["socket"]["found"]
        path.parent.chmod(0o755)
        assert "0750 expected" in told("--mailbox", str(folder))["socket"]["found"]
        path.parent.chmod(0o750)
        path.chmod(0o660)
    assert "nobody answers" in told("--mailbox", str(folder))["socket"]["found"]
    path.unlink()
    assert "not running" in told("--mailbox", str(folder))["socket"]["found"]
    path.touch()
    assert "no socket" in told("--mailbox", str(folder))["socket"]["found"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look in somebody else's shoes")
def test_a_user_who_may_not_enter_the_sockets_folder_is_told_the_group(tmp_path: Path) -> None:
    for above in tmp_path.parents:
        if above.stat().st_uid == 0 and not above.stat().st_mode & 0o001:
            above.chmod(above.stat().st_mode | 0o011)
    folder, door = tmp_path / "mailbox", tmp_path / "door"
    tmp_path.chmod(0o755)
    for each, user in ((folder, 64002), (door, 64001)):
        each.mkdir()
        os.chown(each, user, user)
        each.chmod(0o750)
    with owner_of(folder):
        (found,) = permissions.door(door / "site.sock")
    assert found.state is State.WRONG
    assert "may not enter" in found.found
    assert "usermod -aG fedward-door" in found.fix


LINK = 'root_certificates = "ca.crt"\n[site]\nsocket = "s"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "E_DATA_NOT_FOUND"),
        ("[superlink\n", "E_PLAN_SYNTAX"),
        (f'[superlink]\naddress = "localhost"\n{LINK}', "NAME:PORT"),
        ('[superlink]\naddress = "localhost:1"\n[site]\nsocket = "s"\n', "E_CERTIFICATE"),
        (f'[superlink]\naddress = "localhost:1"\n{LINK}', "E_CERTIFICATE"),
        ('[superlink]\naddress = "far.example.org:1"\ninsecure = true\n[site]\nsocket = "s"\n', "E_INSECURE"),
    ],
)
def test_a_mailbox_file_that_is_missing_or_wrong_is_said(tmp_path: Path, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / "mailbox.toml").write_text(text)
    found = told("--mailbox", str(tmp_path))["mailbox"]
    assert found["state"] == "wrong"
    assert words in found["found"]


def test_a_trial_without_tls_is_pointed_at(tmp_path: Path) -> None:
    (tmp_path / "mailbox.toml").write_text('[superlink]\naddress = "localhost:1"\ninsecure = true\n[site]\nsocket = "s"\n')
    assert told("--mailbox", str(tmp_path))["reach"]["state"] == "look"


@pytest.mark.parametrize(
    ("answer", "state"), [(b"HTTP/1.1 200 OK", State.OK), (b"HTTP/1.1 403 Forbidden", State.WRONG), (b"", State.WRONG)]
)
def test_a_hospitals_own_proxy_is_gone_through(made: Path, answer: bytes, state: State) -> None:
    """It hears CONNECT and nothing else in the clear."""
    heard = []
    with listening(made / "tls" / "live") as port, socket.create_server(("127.0.0.1", 0)) as proxy:

        def pass_on() -> None:
            near, _ = proxy.accept()
            with near, socket.create_connection(("127.0.0.1", port)) as far:
                heard.append(near.recv(4096))
                near.sendall(answer + b"\r\n\r\n" if answer else b"")
                if state is not State.OK:
                    return
                back = threading.Thread(target=relay, args=(far, near))
                back.start()
                relay(near, far)
                back.join()

        thread = threading.Thread(target=pass_on)
        thread.start()
        context = pinning(made / "auth" / "ca.crt")
        asked = Link(host="localhost", port=port, tls=context, proxy=("127.0.0.1", proxy.getsockname()[1]))
        found = {each.check: each for each in link.way(asked)}
        thread.join()
    assert heard[0].startswith(f"CONNECT localhost:{port} HTTP/1.1\r\n".encode())
    assert found["reach"].state is state
    assert ("clock" in found) is (state is State.OK)


def relay(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while part := source.recv(65_536):
            sink.sendall(part)
        sink.shutdown(socket.SHUT_WR)


def test_a_home_and_a_mailbox_of_one_user_or_inside_each_other_are_not_apart(tmp_path: Path) -> None:
    home, inside = tmp_path / "home", tmp_path / "home" / "mailbox"
    inside.mkdir(parents=True, mode=0o700)
    found = [each.found for each in permissions.separation(home, inside)]
    assert any("both belong to" in each for each in found)
    assert any("within each other" in each for each in found)
