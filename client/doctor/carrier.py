# SPDX-License-Identifier: Apache-2.0
"""What the mailbox's folder says, as far as the doctor needs it: where to connect, whom to believe, where the site's socket is."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from client.doctor.link import Link
from common.errors import DataNotFound, PlanSyntax, PlanValue

FILE: Final = "mailbox.toml"
KEY: Final = "node.key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Carrier:
    """The mailbox as its folder describes it."""

    link: Link
    socket: Path
    key: Path


def read(folder: Path) -> Carrier:
    """Raises: DataNotFound, PlanSyntax, PlanValue."""
    path = folder / FILE
    if not path.is_file():
        raise DataNotFound(f"mailbox folder '{folder}' has no {FILE}.", fix="fedward site init writes one; or name another folder.")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PlanSyntax(f"'{path}' is not TOML: {error}.", fix="Mend that line.") from None
    address, certificates, door = (
        _text(table, path, *at) for at in (("superlink", "address"), ("superlink", "root_certificates"), ("site", "socket"))
    )
    host, _, port = address.removeprefix("https://").rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise PlanValue(f"'{path}' has address = \"{address}\"; NAME:PORT expected.", fix="Write it as the coordinator gave it.")
    return Carrier(
        link=Link(host=host.strip("[]"), port=int(port), authority=folder / certificates), socket=folder / door, key=folder / KEY
    )


def _text(table: dict[str, Any], path: Path, section: str, key: str) -> str:
    part = table.get(section)
    value = part.get(key) if isinstance(part, dict) else None
    if not isinstance(value, str) or not value:
        raise PlanValue(f"'{path}' has no {key} in [{section}].", fix=f"Add it: [{section}] {key} = ...")
    return value
