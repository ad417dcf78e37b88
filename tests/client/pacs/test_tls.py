# SPDX-License-Identifier: Apache-2.0
"""TLS to a real Orthanc, both languages, a certificate of our own included; and what is refused."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.pacs.link import Trust, authorization, check_plain, is_here
from common.errors import CertificateMissing, FedwardError, InsecureLink, SecretFile
from tests.client.pacs.certificates import Authority, Signed
from tests.client.pacs.importing import Instance, made, typed
from tests.client.pacs.orthanc import TITLE, Orthanc, free_port, needs_orthanc, running
from tests.client.processes import ending, wait_for

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki") / "hospital")


@pytest.fixture(scope="module")
def ours(hospital: Authority) -> Signed:
    return hospital.signed("ours")


@pytest.fixture(scope="module")
def stored() -> list[Instance]:
    return made(studies=1, series=1)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, hospital: Authority, stored: list[Instance]) -> Iterator[Orthanc]:
    """It shows a certificate at its DICOM port, and asks for one."""
    theirs = hospital.signed("theirs")
    settings = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(theirs.certificate),
        "DicomTlsPrivateKey": str(theirs.key),
        "DicomTlsTrustedCertificates": str(hospital.ca),
    }
    with running(tmp_path_factory.mktemp("archive"), moves_by_tls=True, **settings) as orthanc:
        orthanc.store(*(each.content for each in stored))
        yield orthanc


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, hospital: Authority, archive: Orthanc) -> Iterator[int]:
    """And at its web port nginx does, as in most hospitals; Debian's Orthanc 1.10 dies of its first HTTPS request."""
    if NGINX is None:
        pytest.skip("needs the Debian package nginx-light")
    folder, port, theirs = tmp_path_factory.mktemp("nginx"), free_port(), hospital.signed("proxy")
    (folder / "nginx.conf").write_text(
        f"""daemon off; master_process off; pid {folder}/pid; error_log {folder}/log; events {{}}
        http {{
            access_log off; client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
            uwsgi_temp_path {folder}; scgi_temp_path {folder};
            server {{
                listen 127.0.0.1:{port} ssl;
                ssl_certificate {theirs.certificate}; ssl_certificate_key {theirs.key};
                ssl_client_certificate {hospital.ca}; ssl_verify_client on;
                location / {{ proxy_pass http://127.0.0.1:{archive.http}; }}
            }}
        }}"""
    )
    process = subprocess.Popen([NGINX, "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", str(folder / "log")])
    with ending(process):
        wait_for(lambda: answers(port), within_s=20)
        yield port


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def words(way: str, archive: Orthanc, proxy: int) -> list[str]:
    if way == "dicomweb":
        return ["--dicomweb", f"https://localhost:{proxy}/dicom-web"]
    classic = ["--dimse", f"localhost:{archive.dicom}", "--called-aet", TITLE]
    return [*classic, "--move-to", f"127.0.0.1:{archive.move_to}"] if way == "c-move" else classic


@needs_orthanc
@pytest.mark.debian
@pytest.mark.parametrize("way", ["dicomweb", "c-get", "c-move"])
def test_images_come_over_tls_with_certificates_on_both_sides(
    way: str, archive: Orthanc, proxy: int, hospital: Authority, ours: Signed, stored: list[Instance], tmp_path: Path
) -> None:
    trust = ["--ca", str(hospital.ca), "--certificate", str(ours.certificate), "--key", str(ours.key)]
    assert typed(tmp_path, *words(way, archive, proxy), *trust, "--everything")["received"] == len(stored)


@needs_orthanc
@pytest.mark.debian
@pytest.mark.parametrize("way", ["dicomweb", "c-get"])
def test_an_archive_of_another_authority_is_not_believed(way: str, archive: Orthanc, proxy: int, ours: Signed, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "stranger")
    trust = ["--ca", str(stranger.ca), "--certificate", str(ours.certificate), "--key", str(ours.key)]
    with pytest.raises(FedwardError) as refusal:
        typed(tmp_path, *words(way, archive, proxy), *trust, "--everything", "--tries", "1")
    assert refusal.value.code == "E_PACS_AWAY"


@needs_orthanc
@pytest.mark.debian
@pytest.mark.parametrize("way", ["dicomweb", "c-get"])
def test_an_archive_that_asks_for_a_certificate_lets_nobody_in_without(
    way: str, archive: Orthanc, proxy: int, hospital: Authority, tmp_path: Path
) -> None:
    """nginx says so in words of its own, Orthanc by hanging up."""
    with pytest.raises(FedwardError) as refusal:
        typed(tmp_path, *words(way, archive, proxy), "--ca", str(hospital.ca), "--everything", "--tries", "1")
    assert refusal.value.code == ("E_PACS_ANSWER" if way == "dicomweb" else "E_PACS_AWAY")


def test_a_receiver_without_a_certificate_of_its_own_is_refused(hospital: Authority) -> None:
    with pytest.raises(CertificateMissing, match="a certificate of our own"):
        Trust(ca=hospital.ca).as_server()


def test_files_that_hold_no_certificate_are_named(hospital: Authority, ours: Signed, tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    with pytest.raises(CertificateMissing, match=r"empty\.pem' holds no certificate"):
        Trust(ca=empty).as_client()
    with pytest.raises(CertificateMissing, match="do not belong together"):
        Trust(ca=hospital.ca, certificate=ours.certificate, key=hospital.signed("another").key).as_client()


def test_a_password_goes_over_no_plain_line_to_another_computer() -> None:
    check_plain("127.0.0.1", allowed=False, carries_secret=True)
    check_plain("pacs.example", allowed=True, carries_secret=False)
    with pytest.raises(InsecureLink, match="password"):
        check_plain("pacs.example", allowed=True, carries_secret=True)
    assert [is_here(host) for host in ("localhost", "::1", "127.9.9.9", "localhost.example", "10.0.0.1")] == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_a_file_with_a_password_is_for_its_owner_alone(tmp_path: Path) -> None:
    secret = tmp_path / "auth"
    secret.write_text("alice:pa:ss\n")
    secret.chmod(0o640)
    with pytest.raises(SecretFile, match="read by others"):
        authorization(secret)
    secret.chmod(0o600)
    assert authorization(secret) == "Basic YWxpY2U6cGE6c3M="
    secret.write_text("Bearer eyJ0\n")
    assert authorization(secret) == "Bearer eyJ0"
    for wrong in ("", "alice", "a:b\nc:d"):
        secret.write_text(wrong)
        with pytest.raises(SecretFile, match="neither"):
            authorization(secret)
    (tmp_path / "link").symlink_to(secret)
    with pytest.raises(SecretFile, match="not a link"):
        authorization(tmp_path / "link")
