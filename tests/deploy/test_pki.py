# SPDX-License-Identifier: Apache-2.0
"""deploy/pki as its README writes it: the root's ceremony, the proxy's certificate, renewal while clients keep coming."""

import re
import shlex
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedward import app
from tests.deploy.authorities import ROOT, certified, listening, renew, tls

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the Debian package openssl")
README = (ROOT / "deploy" / "pki" / "README.md").read_text(encoding="utf-8")
HOST = "coordinator.example.org"


def handshake(port: int, ca: Path, host: str) -> str:
    """The serial number that a client that pins `ca` is shown at the name `host`."""
    import socket

    context = ssl.create_default_context(cafile=str(ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with socket.create_connection(("127.0.0.1", port), timeout=5) as raw, context.wrap_socket(raw, server_hostname=host) as secure:
        certificate = secure.getpeercert()
        assert certificate
        return str(certificate["serialNumber"])


def test_the_root_ceremony_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ceremony = README.partition("## The root ceremony")[2].partition("\n## ")[0]
    lines = [line.strip().partition("  #")[0] for line in ceremony.splitlines() if line.startswith("    fedward ")]
    assert len(lines) == 10
    monkeypatch.chdir(tmp_path)
    for line in lines:
        result = CliRunner().invoke(app, shlex.split(line)[1:])
        assert result.exit_code == 0, (line, result.output, result.exception)
    assert "1 site" in result.output or "north" in result.output


def test_the_certificate_is_made_as_written(tmp_path: Path) -> None:
    written = README.partition("## The proxy's certificate")[2]
    lines = re.findall(r"^    deploy/pki/tls\.sh (.+?)(?:  +#.*)?$", written, re.MULTILINE)
    assert [line.split()[0] for line in lines] == ["authority", "request", "sign", "install", "check"]
    said = ""
    for line in lines:
        places = line.replace("AUTHORITY", str(tmp_path / "authority")).replace("TLS", str(tmp_path / "tls"))
        said = tls(*shlex.split(places))
    assert said.startswith(HOST)


def test_a_client_that_pins_the_authority_gets_through_and_a_wrong_name_is_refused(tmp_path: Path) -> None:
    live = certified(tmp_path, HOST, "localhost", "127.0.0.1")
    with listening(live) as port:
        for host in (HOST, "localhost", "127.0.0.1"):
            assert handshake(port, live / "ca.crt", host)
        with pytest.raises(ssl.SSLCertVerificationError, match=r"[Hh]ostname"):
            handshake(port, live / "ca.crt", "elsewhere.example.org")


def test_another_authority_is_refused(tmp_path: Path) -> None:
    live = certified(tmp_path, HOST)
    tls("authority", tmp_path / "other")
    with listening(live) as port, pytest.raises(ssl.SSLCertVerificationError):
        handshake(port, tmp_path / "other" / "ca.crt", HOST)


def test_the_certificate_can_only_serve(tmp_path: Path) -> None:
    live = certified(tmp_path, HOST)
    text = subprocess.run(["openssl", "x509", "-in", live / "server.crt", "-noout", "-text"], capture_output=True, text=True, check=True)
    assert "CA:FALSE" in text.stdout
    assert "TLS Web Server Authentication\n" in text.stdout
    assert "Client Authentication" not in text.stdout


def test_renewal_makes_a_new_key_and_keeps_the_old_pair_valid(tmp_path: Path) -> None:
    live = certified(tmp_path, HOST)
    before = live.resolve()
    with listening(before) as old:
        renew(tmp_path, HOST)
        after = live.resolve()
        assert after != before
        assert (after / "server.key").read_bytes() != (before / "server.key").read_bytes()
        with listening(after) as new:
            ca = tmp_path / "auth" / "ca.crt"
            assert handshake(old, ca, HOST) != handshake(new, ca, HOST)


def test_a_pair_that_does_not_belong_together_is_never_installed(tmp_path: Path) -> None:
    live = certified(tmp_path, HOST)
    before = live.resolve()
    tls("request", tmp_path / "tls", HOST)
    assert "do not belong together" in tls("install", tmp_path / "tls", before / "server.crt", live / "ca.crt", HOST, fails=1)
    tls("sign", tmp_path / "auth", tmp_path / "tls" / "next" / "server.csr")
    signed = tmp_path / "tls" / "next" / "server.crt"
    assert "is not valid for" in tls("install", tmp_path / "tls", signed, live / "ca.crt", "elsewhere.example.org", fails=1)
    assert live.resolve() == before


def test_the_check_asks_for_renewal_thirty_days_ahead(tmp_path: Path) -> None:
    live = certified(tmp_path, HOST)
    tls("check", tmp_path / "tls", HOST)
    request = tmp_path / "short.csr"
    run = lambda *words: subprocess.run(["openssl", *map(str, words)], capture_output=True, check=True)  # noqa: E731 - one line beats four
    run("req", "-new", "-key", live / "server.key", "-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}", "-out", request)
    signing = ("-CA", tmp_path / "auth" / "ca.crt", "-CAkey", tmp_path / "auth" / "ca.key", "-CAcreateserial", "-copy_extensions", "copy")
    run("x509", "-req", "-in", request, *signing, "-days", 20, "-out", live / "server.crt")
    assert "renew now" in tls("check", tmp_path / "tls", HOST, fails=3)
    (live / "server.key").chmod(0o644)
    assert "not for its owner alone" in tls("check", tmp_path / "tls", HOST, fails=1)


def test_an_authority_is_never_overwritten_and_its_key_is_its_owners(tmp_path: Path) -> None:
    tls("authority", tmp_path / "auth")
    key = (tmp_path / "auth" / "ca.key").read_bytes()
    assert "never overwritten" in tls("authority", tmp_path / "auth", fails=1)
    assert (tmp_path / "auth" / "ca.key").read_bytes() == key
    assert (tmp_path / "auth" / "ca.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("words", [(), ("request", "place"), ("sign", "place"), ("nonsense",)])
def test_wrong_usage_shows_the_usage(words: tuple[str, ...]) -> None:
    assert "tls.sh authority AUTHORITY" in tls(*words, fails=2)


def test_a_host_that_is_no_name_is_refused(tmp_path: Path) -> None:
    assert "no host's name" in tls("request", tmp_path, "host;rm", fails=1)
