# SPDX-License-Identifier: Apache-2.0
"""A stock SuperLink and its SuperExec, as this coordinator runs them: commands, environment, and Flower's state on disk.

    superlink/state.db        runs, messages, nodes. Lost or damaged, it is put aside, and a new run goes on where the journal stands
              secret          what the SuperExec proves itself with, new at every start
              flower/         Flower's home folder: where it unpacks the bundle, which holds no code
              superlink.log   their words

Process isolation with a SuperExec of our own is the only way in which a SuperLink that was killed can come back and find the ServerApp
still running. Nothing is installed at run time, nothing reported to anybody, no news asked for. SuperExec looks for work twice a second:
a restarted run waits for that, and an idle SuperLink works for each look; proxies of the environment are not for talking to oneself.
"""

import os
import secrets
import shutil
import sqlite3
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common.durable import OWNER_ONLY, write_atomically
from common.errors import TransportError
from server.home import CoordinatorHome

DATABASE_FILE: Final = "state.db"
_WAIT_FOR_A_WRITER_S: Final = 60
"""SQLite has one writer, and one that stores or deletes a model of 400 MB takes longer than the five seconds for which Flower waits; then
the SuperExec's question fails, and it ends with the ServerApp under it."""
_SECRET_FILE: Final = "secret"  # noqa: S105 - a file's name
_FLOWER_HOME: Final = "flower"
_LARGEST_CHECKED: Final = 256 * 2**20
_POLL_S: Final = "0.5"
_PIECE_BYTES: Final = str(2**20)
"""Of a model on its way to a site: small enough for a slow line to finish one between two drops."""


@dataclass(frozen=True, slots=True)
class SuperLinkFiles:
    """What of Flower lies in a coordinator's folder, and how its processes are started there."""

    home: CoordinatorHome

    @property
    def database(self) -> Path:
        return self.home.superlink / DATABASE_FILE

    @property
    def secret(self) -> Path:
        return self.home.superlink / _SECRET_FILE

    def log(self, name: str) -> Path:
        return self.home.superlink / f"{name}.log"

    def prepare(self) -> None:
        """Folders and a new secret. Raises: DiskFull."""
        self.home.superlink.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.home.superlink / _FLOWER_HOME).mkdir(mode=0o700, exist_ok=True)
        write_atomically(self.secret, secrets.token_bytes(32), fsync=False, mode=OWNER_ONLY)
        for name in ("superlink", "superexec"):
            if self.log(name).exists():
                self.log(name).replace(self.home.superlink / f"{name}.log.before")

    def superlink(self) -> list[str]:
        """The command line."""
        where = self.home.file.superlink
        secured = (
            ["--insecure"]
            if where.insecure
            else [
                *("--ssl-certfile", str(self.home.certificate)),
                *("--ssl-keyfile", str(self.home.certificate_key)),
                *("--ssl-ca-certfile", str(self.home.ca)),
                "--enable-supernode-auth",
            ]
        )
        return [
            _script("flower-superlink"),
            *("--host", where.host),
            *("--port", str(where.port)),
            *("--isolation", "process"),
            *("--database", f"sqlite:///{self.database}?timeout={_WAIT_FOR_A_WRITER_S}"),
            *("--superexec-auth-secret-file", str(self.secret)),
            "--disable-runtime-dependency-installation",
            *secured,
        ]

    def superexec(self) -> list[str]:
        """The command line."""
        secured = ["--insecure"] if self.home.file.superlink.insecure else ["--root-certificates", str(self.home.ca)]
        return [
            _script("flower-superexec"),
            *("--runtime-api-address", self.home.address),
            *("--superexec-auth-secret-file", str(self.secret)),
            *secured,
        ]

    def environment(self) -> dict[str, str]:
        """For both, and through the SuperExec for the ServerApp."""
        local = f"{self.home.file.superlink.host},localhost"
        return {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY", ""), local])),
            "no_proxy": ",".join(filter(None, [os.environ.get("no_proxy", ""), local])),
            "FLWR_HOME": str(self.home.superlink / _FLOWER_HOME),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": _POLL_S,
            "FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE": _PIECE_BYTES,
        }

    def database_identity(self) -> tuple[int, int] | None:
        """Which file it is (device, inode); None, without one.

        That there is one says little: a SuperLink that has lost its database opens an empty one in its place, and works on both.
        """
        try:
            found = self.database.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def is_whole(self) -> bool:
        """Whether Flower's database can be used. A very large one is opened and believed: whether it works shows soon enough."""
        if not self.database.exists():
            return True
        try:
            with closing(sqlite3.connect(f"file:{self.database}?mode=rw", uri=True, timeout=5.0)) as db:
                db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
                large = self.database.stat().st_size > _LARGEST_CHECKED
                return large or db.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
        except sqlite3.Error:
            return False

    def put_aside(self) -> None:
        """Let the SuperLink begin anew. The newest of what was put aside is kept, for whoever wants to know what happened to it."""
        aside = self.home.superlink / "damaged"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(mode=0o700)
        for path in self.home.superlink.glob(f"{DATABASE_FILE}*"):
            path.replace(aside / path.name)


def _script(name: str) -> str:
    """A command of this very installation. Raises: TransportError, if it lacks Flower."""
    path = Path(sys.executable).with_name(name)
    if not path.is_file():
        raise TransportError(f"'{name}' is not beside '{sys.executable}'.", fix="Install fedward again, with its dependencies.")
    return str(path)
