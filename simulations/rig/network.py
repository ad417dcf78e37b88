# SPDX-License-Identifier: Apache-2.0
"""Where the rig's processes live: in network namespaces of their own, or, where those are refused, side by side on loopback.

    h1 (outbound only) ---- veth ----+
    h2 (outbound only) ---- veth ----+-- bridge -- wan: a line (simulations.rig.proxy) a hospital -- veth -- coordinator: nginx, TLS
    h3 ...                           |
                                     hospital N's line: 10.88.0.254:9000+N  ->  the proxy at 10.88.0.1:4433

A hospital's namespace has nftables rules that let out TCP to its line's one address and port, and let in its answers; everything else is
dropped and counted. One with a stock SuperNode has a loopback too, since that talks to its own processes over TCP. Its site process is not
even there: it gets a namespace with nothing in it. The coordinator's SuperLink listens on the loopback of the coordinator's namespace,
where no hospital can reach it. Nothing touches the machine's own network, and whatever was made has the rig's tag in its name, so that
`down` can take it away by looking.

Each process runs as a user of its own, with no capability left and none to be had; a site process sees its images through a read-only
mount.
"""

import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from common.errors import EngineError
from simulations.rig.commands import Operators, tool
from simulations.rig.places import COORDINATOR_USER, FLEET_PORT, MOST_HOSPITALS, Hospital, Places

_WAN, _COORDINATOR = "10.88.0.254", "10.88.0.1"
_FIRST_LINE: Final = 9000
_RUNTIME_PORT: Final = 9094
_BRIDGE: Final = "br0"
_OUTBOUND_ONLY: Final = """
table inet rig {{
    counter let_out {{ }}
    counter refused_out {{ }}
    counter refused_in {{ }}
    chain out {{
        type filter hook output priority 0; policy drop;
        {to_itself}
        ip daddr {line} tcp dport {port} counter name let_out accept
        counter name refused_out
    }}
    chain in {{
        type filter hook input priority 0; policy drop;
        {from_itself}
        ip saddr {line} tcp sport {port} tcp flags != syn accept
        counter name refused_in
    }}
}}
"""
_ENTER: Final = """
set -e
{reveal}
{mounts}
exec "$@"
"""


class Network(Protocol):
    """Where processes are started, and how a hospital reaches the coordinator."""

    def up(self, hospitals: Sequence[Hospital]) -> None: ...

    def add(self, hospital: Hospital) -> None: ...

    def down(self) -> None: ...

    def names(self) -> list[str]:
        """Host names of the proxy, for its certificate."""
        ...

    def front(self) -> tuple[str, int]:
        """Where nginx listens."""
        ...

    def line(self, hospital: Hospital) -> tuple[str, int]:
        """Where a hospital's line begins: the one address that it may reach."""
        ...

    def runtime(self, hospital: Hospital) -> int:
        """At which port of the hospital's own loopback a stock SuperNode there listens for the processes that it starts."""
        ...

    def of_coordinator(self) -> list[str]:
        """What a command of the coordinator's is begun with."""
        ...

    def of_wan(self) -> list[str]: ...

    def of_mailbox(self, hospital: Hospital) -> list[str]: ...

    def of_site(self, hospital: Hospital) -> list[str]: ...

    def operators(self, hospitals: Sequence[Hospital]) -> Operators:
        """Those who type commands at hospitals that run."""
        ...

    def own(self, places: Places, hospitals: Sequence[Hospital]) -> None:
        """Give folders to the users that will use them."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Loopback:
    """Side by side on 127.0.0.1, as whoever started the rig. Shows nothing about networks; everything else is the same."""

    front_port: int
    first_line: int

    def up(self, hospitals: Sequence[Hospital]) -> None: ...

    def add(self, hospital: Hospital) -> None: ...

    def down(self) -> None: ...

    def names(self) -> list[str]:
        return ["localhost", "127.0.0.1"]

    def front(self) -> tuple[str, int]:
        return "127.0.0.1", self.front_port

    def line(self, hospital: Hospital) -> tuple[str, int]:
        return "127.0.0.1", self.first_line + hospital.number

    def runtime(self, hospital: Hospital) -> int:
        return self.first_line + MOST_HOSPITALS + hospital.number

    def of_coordinator(self) -> list[str]:
        return []

    def of_wan(self) -> list[str]:
        return []

    def of_mailbox(self, hospital: Hospital) -> list[str]:
        return []

    def of_site(self, hospital: Hospital) -> list[str]:
        return []

    def operators(self, hospitals: Sequence[Hospital]) -> Operators:
        return Operators()

    def own(self, places: Places, hospitals: Sequence[Hospital]) -> None:
        for hospital in hospitals:
            hospital.door.mkdir(mode=0o750, exist_ok=True)


@dataclass(frozen=True, slots=True)
class Namespaces:
    """As drawn above. For root, on Linux."""

    tag: str

    def up(self, hospitals: Sequence[Hospital]) -> None:
        """Raises: EngineError, where something is not allowed here."""
        self.down()
        for name in (self._wan, self.coordinator):
            _make(name)
            tool(["ip", "-n", name, "link", "set", "lo", "up"])
        tool(["ip", "-n", self._wan, "link", "add", _BRIDGE, "type", "bridge"])
        tool(["ip", "-n", self._wan, "link", "set", _BRIDGE, "up"])
        tool(["ip", "-n", self._wan, "address", "add", f"{_WAN}/16", "dev", _BRIDGE])
        self._connect(self.coordinator, "c", _COORDINATOR)
        for hospital in hospitals:
            self.add(hospital)

    def add(self, hospital: Hospital) -> None:
        """A hospital's namespace, its wire and its rules."""
        name = self.namespace(hospital)
        _make(name)
        line, port = self.line(hospital)
        rules = hospital.folder / "nftables"
        itself = {"to_itself": "oif lo accept", "from_itself": "iif lo accept"} if hospital.stock else {"to_itself": "", "from_itself": ""}
        rules.write_text(_OUTBOUND_ONLY.format(line=line, port=port, **itself))
        if hospital.stock:
            tool(["ip", "-n", name, "link", "set", "lo", "up"])
        tool(["ip", "netns", "exec", name, "nft", "-f", rules])
        self._connect(name, str(hospital.number), self.address(hospital))

    def _connect(self, name: str, end: str, address: str) -> None:
        """A wire from the bridge to a namespace. It is made in the wan, so that no name of it is ever the machine's own."""
        tool(["ip", "-n", self._wan, "link", "add", f"to-{end}", "type", "veth", "peer", "name", "line0", "netns", name])
        tool(["ip", "-n", self._wan, "link", "set", f"to-{end}", "master", _BRIDGE, "up"])
        tool(["ip", "-n", name, "address", "add", f"{address}/16", "dev", "line0"])
        tool(["ip", "-n", name, "link", "set", "line0", "up"])

    def down(self) -> None:
        """Take away every namespace of this tag, and with it what is in it."""
        for name in re.findall(rf"^(fw{self.tag}-\S+)", tool(["ip", "netns", "list"]), re.MULTILINE):
            tool(["ip", "netns", "delete", name])

    def names(self) -> list[str]:
        return [_COORDINATOR, _WAN]

    def front(self) -> tuple[str, int]:
        return _COORDINATOR, FLEET_PORT

    def line(self, hospital: Hospital) -> tuple[str, int]:
        return _WAN, _FIRST_LINE + hospital.number

    def runtime(self, hospital: Hospital) -> int:
        del hospital
        return _RUNTIME_PORT

    def address(self, hospital: Hospital) -> str:
        return f"10.88.{1 + hospital.number // 250}.{1 + hospital.number % 250}"

    def namespace(self, hospital: Hospital) -> str:
        return f"fw{self.tag}-{hospital.name}"

    def of_coordinator(self) -> list[str]:
        return ["ip", "netns", "exec", self.coordinator, *_enter([]), *_as_user(COORDINATOR_USER)]

    def of_wan(self) -> list[str]:
        return ["ip", "netns", "exec", self._wan]

    def of_mailbox(self, hospital: Hospital) -> list[str]:
        user = _as_user(hospital.mailbox_user, groups=[hospital.door_group])
        return ["ip", "netns", "exec", self.namespace(hospital), *_enter([]), *user]

    def of_site(self, hospital: Hospital) -> list[str]:
        read_only = [f"mount --bind '{hospital.images}' '{hospital.images}'", f"mount -o remount,ro,bind '{hospital.images}'"]
        return [*_enter(read_only, network=False), *_as_user(hospital.site_user, groups=[hospital.door_group])]

    def operators(self, hospitals: Sequence[Hospital]) -> Operators:
        return Operators(users=[hospital.site_user for hospital in hospitals], begun_with=_enter([]))

    def own(self, places: Places, hospitals: Sequence[Hospital]) -> None:
        for folder in (places.coordinator, places.proxy, places.folder / "nginx"):
            if folder.exists() and folder.stat().st_uid != COORDINATOR_USER:
                _give(folder, COORDINATOR_USER, COORDINATOR_USER)
        places.logs.chmod(0o777)
        for hospital in hospitals:
            hospital.door.mkdir(exist_ok=True)
            os.chown(hospital.door, hospital.site_user, hospital.door_group)
            hospital.door.chmod(0o750)
            _give(hospital.home, hospital.site_user, hospital.site_user)
            _give(hospital.mailbox, hospital.mailbox_user, hospital.mailbox_user)

    @property
    def _wan(self) -> str:
        return f"fw{self.tag}-wan"

    @property
    def coordinator(self) -> str:
        """The coordinator's namespace."""
        return f"fw{self.tag}-coordinator"


def _make(name: str) -> None:
    """A namespace without IPv6, which would look for routers by itself: what is heard in it is what somebody said."""
    tool(["ip", "netns", "add", name])
    for which in ("all", "default"):
        tool(["ip", "netns", "exec", name, "sh", "-c", f"echo 1 > /proc/sys/net/ipv6/conf/{which}/disable_ipv6"])


def missing() -> str:
    """Why there can be no namespaces here; empty, if there can."""
    if os.geteuid() != 0:
        return "namespaces are root's"
    for program in ("ip", "nft", "unshare", "setpriv"):
        if shutil.which(program) is None:
            return f"'{program}' is not installed"
    try:
        tool(["unshare", "--net", "--mount", "nft", "add", "table", "inet", "try"])
    except EngineError as error:
        return error.message
    return ""


def _enter(mounts: Sequence[str], *, network: bool = True) -> list[str]:
    """Into a view of the file system of its own; without `network`, also of the network, where there is then nothing at all."""
    script = _ENTER.format(reveal=_reveal(), mounts="\n".join(mounts))
    return ["unshare", "--mount", "--propagation", "private", *([] if network else ["--net"]), "sh", "-c", script, "sh"]


def _reveal() -> str:
    """An interpreter below somebody's private folder cannot be run by others: then they see it in an otherwise empty folder."""
    base = Path(sys.base_prefix)
    closed = next((path for path in [*base.parents][::-1] if not path.stat().st_mode & 0o001), None)
    if closed is None:
        return ""
    return (
        f"kept=$(mktemp -d); mount --bind '{base}' $kept; mount -t tmpfs -o mode=0755 rig '{closed}'; mkdir -p '{base}'; "
        f"mount --bind $kept '{base}'; umount $kept; rmdir $kept"
    )


def _as_user(user: int, *, groups: Sequence[int] = ()) -> list[str]:
    drop = ["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
    keep = ["--groups", ",".join(map(str, groups))] if groups else ["--clear-groups"]
    return ["setpriv", "--reuid", str(user), "--regid", str(user), *keep, *drop, "--"]


def _give(folder: Path, user: int, group: int) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user, group, follow_symlinks=False)
