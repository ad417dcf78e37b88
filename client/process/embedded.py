# SPDX-License-Identifier: Apache-2.0
"""A site that lives in the process that its messages come to: simulations, Flower's Ray runtime, a SuperNode that is trusted with data.

Which site this is, and which plan it approved, is said by the machine it runs on, never by the coordinator. The node's own config
(`home`, `plan`) wins over the environment:

    FEDWARD_PLAN    the plan file
    FEDWARD_SITE    the site's home folder                           (one hospital on this machine), or
    FEDWARD_SITES   a folder of home folders in the order of names   (simulations; Flower's partition-id picks one)

A hospital that wants its keys and pixels out of reach of code that a coordinator chose does not run this, but the site process
(`client.process.serve`) behind a mailbox.
"""

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from client.process import handler
from client.process.handler import SIMULATED, Desk
from client.site import Site
from common.errors import DataNotFound
from common.plan import load
from common.wire import Content

PLAN_VARIABLE: Final = "FEDWARD_PLAN"
SITE_VARIABLE: Final = "FEDWARD_SITE"
SITES_VARIABLE: Final = "FEDWARD_SITES"

NodeConfig = Mapping[str, bool | int | float | str]


def answer(node: NodeConfig, message_type: str, content: Content) -> Content:
    """The site's answer, or its refusal. Raises nothing."""
    home: Path | None = None

    def reply() -> Content:
        nonlocal home
        home = home_of(node)
        plan = _plan_file(node)
        return handler.answered(Desk(home, lambda: site_at(home, plan)), message_type, content, answers=SIMULATED)

    return handler.guarded(reply, lambda: home)


def home_of(node: NodeConfig) -> Path:
    """The home folder of the site that this node is. Raises: DataNotFound, if nothing on this machine says."""
    if home := node.get("home") or os.environ.get(SITE_VARIABLE):
        return Path(str(home))
    return _homes(Path(_required(SITES_VARIABLE)))[int(node["partition-id"])]


@cache
def site_at(home: Path, plan: Path) -> Site:
    return Site.open(home, load(plan))


def _plan_file(node: NodeConfig) -> Path:
    return Path(str(node.get("plan") or _required(PLAN_VARIABLE)))


def _required(variable: str) -> str:
    if value := os.environ.get(variable):
        return value
    raise DataNotFound(f"the environment variable {variable} is not set.", fix="Set it to a path on this machine before the node starts.")


@cache
def _homes(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for path in folder.iterdir() if path.is_dir()))
