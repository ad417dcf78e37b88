# SPDX-License-Identifier: Apache-2.0
"""A real Orthanc with its DICOMweb plug-in, on free ports of this machine, with its storage in a folder of the test's own."""

import json
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

PROGRAM = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
PLUGIN = next(
    (path for path in Path("/usr/lib/orthanc").glob("libOrthancDicomWeb.so*")), Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
)
needs_orthanc = pytest.mark.skipif(
    not Path(PROGRAM).exists() or not PLUGIN.exists(), reason="needs the Debian packages orthanc and orthanc-dicomweb"
)
TITLE, OURS = "ARCHIVE", "FEDWARD"
_STARTS_WITHIN_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Orthanc:
    """Where it listens. `move_to` is the one address at which it knows us."""

    http: int
    dicom: int
    move_to: int

    @property
    def web(self) -> str:
        return f"http://127.0.0.1:{self.http}/dicom-web"

    @property
    def classic(self) -> list[str]:
        return ["--dimse", f"127.0.0.1:{self.dicom}", "--called-aet", TITLE, "--aet", OURS]

    def store(self, *contents: bytes, user: tuple[str, str] | None = None) -> None:
        """Over its REST interface, as bytes."""
        with self._client(user) as client:
            for content in contents:
                client.post("/instances", content=content).raise_for_status()

    def forget(self, instance: str) -> None:
        """Delete one instance, by its UID."""
        with self._client() as client:
            found = client.post("/tools/lookup", content=instance).json()
            client.delete(found[0]["Path"]).raise_for_status()

    def _client(self, user: tuple[str, str] | None = None) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.http}", trust_env=False, timeout=30, auth=user)


def free_port() -> int:
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        return int(line.getsockname()[1])


@contextmanager
def running(folder: Path, *, moves_by_tls: bool = False, **settings: Any) -> Iterator[Orthanc]:
    """Up and answering; killed when done with."""
    archive = Orthanc(http=free_port(), dicom=free_port(), move_to=free_port())
    file = folder / "orthanc.json"
    file.write_text(json.dumps({**_settings(folder, archive, moves_by_tls=moves_by_tls), **settings}))
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([PROGRAM, str(file)], stdout=log, stderr=log, cwd=folder)
    try:
        _wait_for(archive, process, settings)
        yield archive
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _settings(folder: Path, archive: Orthanc, *, moves_by_tls: bool) -> Mapping[str, Any]:
    ours = {"AET": OURS, "Host": "127.0.0.1", "Port": archive.move_to, "AllowGet": True, "AllowMove": True, "UseDicomTls": moves_by_tls}
    return {
        "Name": TITLE,
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(PLUGIN)],
        "ConcurrentJobs": 1,
        "HttpPort": archive.http,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomServerEnabled": True,
        "DicomAet": TITLE,
        "DicomPort": archive.dicom,
        "DicomCheckCalledAet": True,
        "DicomAlwaysAllowEcho": False,
        "DicomAlwaysAllowStore": False,
        "DicomModalities": {"ours": ours},
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        "StableAge": 1,
    }


def _wait_for(archive: Orthanc, process: subprocess.Popen[bytes], settings: Mapping[str, Any]) -> None:
    end = time.monotonic() + _STARTS_WITHIN_S
    while time.monotonic() < end:
        assert process.poll() is None, "Orthanc ended"
        try:
            with (
                socket.create_connection(("127.0.0.1", archive.http), timeout=0.2),
                socket.create_connection(("127.0.0.1", archive.dicom), timeout=0.2),
            ):
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("Orthanc did not start")
