# SPDX-License-Identifier: Apache-2.0
"""The import as its systemd unit lets it run: another user, no listener's rights, no machine code made at run time; from a real Orthanc."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.client.pacs.importing import made
from tests.client.pacs.orthanc import needs_orthanc, running
from tests.deploy.test_systemd import given_to
from tests.deploy.units import INSTALLED, USER, confinement, environment, service

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs the Debian package systemd")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process as another user")


def test_the_import_sees_neither_the_site_nor_the_mailbox_and_the_site_cannot_change_what_comes() -> None:
    unit, site = service("fedward-import.service"), service("fedward-site.service")
    assert {"-/var/lib/fedward/site", "-/var/lib/fedward/mailbox"} == set(unit["InaccessiblePaths"][0].split())
    assert unit["ReadWritePaths"] == ["/srv/fedward-images"]
    assert site["ReadOnlyPaths"] == ["-/srv/fedward-images"]
    assert len({unit["User"][0], site["User"][0], service("fedward-mailbox.service")["User"][0]}) == 3
    assert (unit["SocketBindDeny"], unit["CapabilityBoundingSet"], unit["LimitCORE"]) == (["any"], [""], ["0"])


@needs_orthanc
@needs_systemd
@needs_root
@pytest.mark.debian
def test_an_import_runs_under_what_its_unit_forbids(tmp_path: Path) -> None:
    stored, into = made(studies=1), tmp_path / "images"
    into.mkdir()
    (tmp_path / "orthanc").mkdir()
    given_to(into, USER)
    confined = confinement("fedward-import.service", tmp_path / "confinement.json", network=True)
    with running(tmp_path / "orthanc") as archive:
        archive.store(*(each.content for each in stored))
        words = [*archive.classic, "--move-to", f"127.0.0.1:{archive.move_to}"]  # which needs most
        done = subprocess.run(
            [
                *confined,
                str(INSTALLED["/opt/fedward/bin/fedward"]),
                "site",
                "import",
                "--into",
                str(into),
                *words,
                "--everything",
                "--json",
            ],
            capture_output=True,
            text=True,
            timeout=120,
            env=environment("fedward-import.service"),
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["received"] == len(stored)
    modes = {path.stat().st_mode & 0o777 for path in (into / "images").rglob("*.dcm")}
    assert modes == {0o640}
    assert {(into / name).stat().st_mode & 0o777 for name in ("images", "import")} == {0o750, 0o700}
