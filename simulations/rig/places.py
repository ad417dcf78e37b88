# SPDX-License-Identifier: Apache-2.0
"""Where everything of a rig lies, and which user owns it.

rig/plan.toml  plan.sig     what is trained, signed by the root
    consortium/             the custodian's folder: root key, roster
    authority/  proxy/      the transport authority, and the certificate of the proxy
    coordinator/            as `fedward server init` makes it
    h1/images/              a hospital: its images, as its archive would export them,
       site/                the site process's home,
       mailbox/             the mailbox's folder,
       door/                the socket's folder, of the group that the two share,
       logs/                what its two processes said
    rig.json                what runs, so that `fedward rig down` finds it
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FIRST_ID: Final = 61_000
"""Users and groups of the rig are numbers that no account has; a hospital gets ten of them."""
COORDINATOR_USER: Final = _FIRST_ID
FLEET_PORT: Final = 4433
MOST_HOSPITALS: Final = 40
STATE_FILE: Final = "rig.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hospital:
    """One hospital's folders and users. `number` counts from 1. `stock`: a stock SuperNode has the mailbox's place and its folder."""

    number: int
    folder: Path
    stock: bool = False

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def carrier(self) -> str:
        """The name of the process that is on the network."""
        return f"{'supernode' if self.stock else 'mailbox'} {self.name}"

    @property
    def home(self) -> Path:
        return self.folder / "site"

    @property
    def mailbox(self) -> Path:
        return self.folder / "mailbox"

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def door(self) -> Path:
        return self.folder / "door"

    @property
    def socket(self) -> Path:
        return self.door / "site.sock"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def request(self) -> Path:
        return self.folder / f"{self.name}.request"

    @property
    def site_user(self) -> int:
        return _FIRST_ID + 10 * self.number

    @property
    def mailbox_user(self) -> int:
        return _FIRST_ID + 10 * self.number + 1

    @property
    def door_group(self) -> int:
        return _FIRST_ID + 10 * self.number + 2


@dataclass(frozen=True, slots=True)
class Places:
    """A rig's folder."""

    folder: Path

    def hospital(self, number: int, *, stock: bool = False) -> Hospital:
        return Hospital(number=number, folder=self.folder / f"h{number}", stock=stock)

    @property
    def plan(self) -> Path:
        return self.folder / "plan.toml"

    @property
    def consortium(self) -> Path:
        return self.folder / "consortium"

    @property
    def root_key(self) -> Path:
        return self.consortium / "root.key"

    @property
    def authority(self) -> Path:
        return self.folder / "authority"

    @property
    def proxy(self) -> Path:
        return self.folder / "proxy"

    @property
    def coordinator(self) -> Path:
        return self.folder / "coordinator"

    @property
    def run(self) -> Path:
        return self.coordinator / "run"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def state(self) -> Path:
        return self.folder / STATE_FILE

    @property
    def tag(self) -> str:
        """Four letters that tell this rig's namespaces from another's."""
        return hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:4]
