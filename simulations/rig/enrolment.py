# SPDX-License-Identifier: Apache-2.0
"""A consortium from nothing, by the commands that its people would type: custodian, coordinator, hospitals.

What is left out is what a machine cannot do for people: comparing words by telephone (`--yes` stands for it), and a courier.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from simulations.rig import toy
from simulations.rig.commands import Command, Operators, fedward, tool
from simulations.rig.places import Hospital, Places

_TLS: Final = Path(__file__).parents[2] / "deploy" / "pki" / "tls.sh"
_LOG: Final = "commands.log"
PATIENTS: Final = 40
_NO_IMAGES: Final = '# root = "/data/images"'


def begin(places: Places, plan: str, *, names: Sequence[str], port: int) -> None:
    """Plan, root and coordinator; and a certificate of the proxy for every name under which it is reached."""
    places.plan.write_text(plan)
    places.logs.mkdir(exist_ok=True)
    tool(["bash", _TLS, "authority", places.authority])
    tool(["bash", _TLS, "request", places.proxy, *names])
    tool(["bash", _TLS, "sign", places.authority, places.proxy / "next/server.csr"])
    tool(["bash", _TLS, "install", places.proxy, places.proxy / "next/server.crt", places.authority / "ca.crt", names[0]])
    fedward(
        ["server", "init", places.coordinator, "--plan", places.plan, "--port", port, "--live-port", 0],
        ["roster", "init", places.consortium, "--coordinator", places.coordinator / "identity.pub"],
        log=places.logs / _LOG,
    )


def prepare(places: Places, hospitals: Sequence[Hospital], addresses: Sequence[str]) -> None:
    """Hospitals make their folders and keys, and write their requests; their images are there before it."""
    commands: list[Command] = []
    for hospital, address in zip(hospitals, addresses, strict=True):
        hospital.folder.mkdir(mode=0o755)
        hospital.logs.mkdir()
        toy.write_pictures(hospital.images, patients=PATIENTS, seed=hospital.number)
        own: Command = ["--name", hospital.name, "--home", hospital.home, "--mailbox", hospital.mailbox]
        commands.append(["site", "init", *own, "--coordinator", address, "--socket", hospital.socket])
        commands.append(["site", "enrol", "--home", hospital.home, "--out", hospital.request])
    fedward(*commands, log=places.logs / _LOG)
    for hospital in hospitals:
        _edit(hospital)
        shutil.copy(places.authority / "ca.crt", hospital.mailbox / "ca.crt")


def _edit(hospital: Hospital) -> None:
    """What its operator does with an editor: say where the images are."""
    file = hospital.home / "site.toml"
    text = file.read_text()
    assert _NO_IMAGES in text
    file.write_text(text.replace(_NO_IMAGES, f'root = "{hospital.images}"'))


def admit(places: Places, hospitals: Sequence[Hospital]) -> None:
    """The custodian takes requests in, signs, and hands roster and transport keys to the coordinator."""
    fedward(
        *(_add(places, hospital) for hospital in hospitals),
        _sign(places),
        log=places.logs / _LOG,
    )
    hand_over(places)


def revoke(places: Places, hospital: Hospital) -> None:
    """The custodian takes trust from a hospital."""
    fedward(["roster", "revoke", hospital.name, "-C", places.consortium], _sign(places), log=places.logs / _LOG)
    hand_over(places)


def hand_over(places: Places) -> None:
    """What goes from the custodian to the coordinator; each file whole or not at all, since a coordinator may be running."""
    for source in (places.consortium / "roster", places.consortium / "roots", *sorted((places.consortium / "nodes").glob("*.pub"))):
        target = places.coordinator / ("nodes" if source.parent.name == "nodes" else "") / source.name
        beside = target.with_name(f".{target.name}.new")
        shutil.copyfile(source, beside)
        if os.geteuid() == 0:
            own = places.coordinator.stat()
            os.chown(beside, own.st_uid, own.st_gid)
        beside.replace(target)


def sign_plan(places: Places) -> None:
    """The custodian stands behind the plan."""
    fedward(
        ["plan", "sign", places.plan, "--key", places.root_key, "-C", places.consortium, "--yes"],
        log=places.logs / _LOG,
    )
    shutil.copy(places.plan.with_suffix(".sig"), places.coordinator / "plan.sig")


def approve(places: Places, hospitals: Sequence[Hospital]) -> None:
    """Hospitals pin the root, approve roster and data, open their ledgers, and approve the plan."""
    commands: list[Command] = []
    for hospital in hospitals:
        at = ("--home", hospital.home)
        commands += [
            ["site", "approve", "--roots", places.consortium / "roots", "--roster", places.consortium / "roster", *at, "--yes"],
            ["site", "ledger", "open", *at],
            ["site", "snapshot", "--plan", places.plan, *at],
            ["site", "approve", places.plan, *at, "--yes"],
        ]
    fedward(*commands, log=places.logs / _LOG)


def approve_roster(places: Places, hospitals: Sequence[Hospital], operators: Operators) -> None:
    """Operators approve whoever is new in the roster."""
    commands: list[Command] = [
        ["site", "approve", "--roster", places.consortium / "roster", "--home", hospital.home, "--yes"] for hospital in hospitals
    ]
    fedward(*commands, log=places.logs / _LOG, operators=operators)


def _add(places: Places, hospital: Hospital) -> Command:
    return ["roster", "add", hospital.request, "-C", places.consortium, "--yes"]


def _sign(places: Places) -> Command:
    return ["roster", "sign", places.root_key, "-C", places.consortium, "--yes"]
