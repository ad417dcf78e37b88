# SPDX-License-Identifier: Apache-2.0
"""Several hospitals as one process of their own: each with a real mailbox, which connects to a SuperLink, and a site behind a real socket.

    python -m simulations.hospitals FOLDER      FOLDER/NAME/home, FOLDER/NAME/mailbox

What a hospital keeps apart by processes and users is here one program, so that whoever plays many pays once for loading what trains; and
its sites may be simulated ones, which `fedward site serve` refuses, so that noise is seeded and a run can be compared bit by bit. That the
processes of one hospital are apart is shown by simulations/rig.
"""

import os
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1")

from client.home import read_site_file
from client.mailbox import life
from client.process import place
from client.process.events import Log
from client.process.handler import Desk
from client.process.serve import Service, listen
from client.process.standing import standing
from client.process.status import Board
from client.site import Site
from common import transport_key
from common.plan import load

PLAN_FILE = "plan.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Coordinates:
    """What a mailbox is told of its coordinator."""

    address: str
    ca: Path
    nodes: Path


def furnish(folder: Path, homes: Mapping[str, Path], plan: Path, coordinator: Coordinates) -> None:
    """Give each hospital a mailbox, and the coordinator its key."""
    for name, home in homes.items():
        hospital = folder / name
        (hospital / "mailbox").mkdir(mode=0o700, parents=True)
        (hospital / "home").symlink_to(home.resolve())
        shutil.copy(coordinator.ca, hospital / "mailbox" / "ca.crt")
        transport_key.create(hospital / "mailbox" / "node.key", name=name)
        shutil.copy(hospital / "mailbox" / "node.pub", coordinator.nodes / f"{name}.pub")
        settings = f'[superlink]\naddress = "{coordinator.address}"\nroot_certificates = "ca.crt"\n[site]\nsocket = "../door/site.sock"\n'
        (hospital / "mailbox" / "mailbox.toml").write_text(settings)
    shutil.copy(plan, folder / PLAN_FILE)


def open_for_service(hospital: Path, plan: Path) -> object:
    """A site behind its socket, and the mailbox before it, in threads of this process; the server lives as long as it is held."""
    home, log = (hospital / "home").resolve(), Log(who="site", form="json")
    file, approved = read_site_file(home), load(plan)
    board = Board(home, standing(home, file, approved, version="test"), clock=lambda: int(time.time()))
    service = Service(home, file, board, log)
    service._desk = Desk(home, lambda: site)
    site = Site.open(home, approved)
    door = hospital / "door" / "site.sock"
    place.prepare_socket(door, group=None)
    server: object = listen(service.converse, door)
    threading.Thread(target=life.join, args=(hospital / "mailbox", Log(who="mailbox", form="json")), daemon=True).start()
    return server


def main(folder: Path) -> None:
    servers = [open_for_service(hospital, folder / PLAN_FILE) for hospital in sorted(folder.iterdir()) if hospital.is_dir()]
    while servers:
        time.sleep(60)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
