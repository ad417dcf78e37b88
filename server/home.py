# SPDX-License-Identifier: Apache-2.0
"""The coordinator's folder: the names of what lies in it, and coordinator.toml, in which its operator says where things are.

    coordinator.toml   addresses and places; read when `fedward server start` begins
    identity.key       the coordinator's own key, with roster and roots: who it is, and who takes part
    plan.toml          what is trained
    nodes/             north.pub, the transport key of site north's mailbox; who has none here cannot connect
    tls/               certificate and key of the fleet's address, and the authority that mailboxes trust
    superlink/         Flower's own state. Disposable: what is lost there costs a reconnection
    run/               journal, checkpoints, log, status, model. Not disposable

Whoever reaches the SuperLink's one port can also submit code to it, so it listens on a loopback address and on no other; what sites reach
is a reverse proxy beside it that passes on /v1/fleet/ alone (deploy/).
"""

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, TypeAdapter

from common.audit.evidence import Keep
from common.errors import DataNotFound, Exposed
from common.plan.parse import Sections, line_of, read_table, text_of, validate
from common.plan.values import STRICT

COORDINATOR_FILE: Final = "coordinator.toml"
NODES_FOLDER: Final = "nodes"
SUPERLINK_FOLDER: Final = "superlink"
JOURNAL_FILE: Final = "journal.sqlite"
CHECKPOINTS_FOLDER: Final = "checkpoints"
VECTORS_FOLDER: Final = "vectors"
LOG_FILE: Final = "log.jsonl"
LOCK_FILE: Final = "supervisor.lock"
APP_LOCK_FILE: Final = "coordinator.lock"
OUTCOME_FILE: Final = "outcome.json"
MODEL_FILE: Final = "model.safetensors"
CARD_FILE: Final = "model.json"
PAUSE_FILE: Final = "pause"
STOP_FILE: Final = "stop"

PLAN_VARIABLE: Final = "FEDWARD_PLAN"
RUN_VARIABLE: Final = "FEDWARD_RUN"
COORDINATOR_VARIABLE: Final = "FEDWARD_COORDINATOR"
ROSTER_VARIABLE: Final = "FEDWARD_ROSTER"
EVIDENCE_VARIABLE: Final = "FEDWARD_EVIDENCE"
MAILBOXES_VARIABLE: Final = "FEDWARD_MAILBOXES"
"""What the ServerApp's process is told by its environment (`server.app`)."""

Port = Annotated[int, Field(ge=1, le=65_535)]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSection:
    """[plan]"""

    __pydantic_config__ = STRICT
    file: str = "plan.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class RosterSection:
    """[roster] folder: where roster and roots lie; the folder that `fedward roster init` made may be named here."""

    __pydantic_config__ = STRICT
    folder: str = "."


@dataclass(frozen=True, slots=True, kw_only=True)
class SuperLinkSection:
    """[superlink] Flower's own server. `insecure`, without TLS and without node keys: for trials on one machine."""

    __pydantic_config__ = STRICT
    host: str = "127.0.0.1"
    port: Port = 8000
    insecure: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSection:
    """[tls]: the certificate that the SuperLink shows, its key, and the authority behind it."""

    __pydantic_config__ = STRICT
    certificate: str = "tls/server.crt"
    key: str = "tls/server.key"
    ca: str = "tls/ca.crt"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSection:
    """[live]: where the page and the metrics are served, and by which other names they may be asked for; port 0 serves neither."""

    __pydantic_config__ = STRICT
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8800
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSection:
    """[run] evidence: what auditors get of a round, "hashes" of masked updates or the masked updates too ("vectors"; docs/evidence.md)."""

    __pydantic_config__ = STRICT
    folder: str = "run"
    evidence: Keep = "hashes"


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorFile:
    """coordinator.toml"""

    __pydantic_config__ = STRICT
    plan: PlanSection = field(default_factory=PlanSection)
    roster: RosterSection = field(default_factory=RosterSection)
    superlink: SuperLinkSection = field(default_factory=SuperLinkSection)
    tls: TlsSection = field(default_factory=TlsSection)
    live: LiveSection = field(default_factory=LiveSection)
    run: RunSection = field(default_factory=RunSection)


_FILE: Final[TypeAdapter[CoordinatorFile]] = TypeAdapter(CoordinatorFile)
_SECTIONS: Final[Sections] = {
    "plan": (PlanSection,),
    "roster": (RosterSection,),
    "superlink": (SuperLinkSection,),
    "tls": (TlsSection,),
    "live": (LiveSection,),
    "run": (RunSection,),
}

TEMPLATE: Final = """\
# The coordinator's own settings. Paths are relative to this folder. Nothing here is agreed with anybody: that is the plan and the roster.

[plan]
file = "plan.toml"

[roster]
folder = "."              # where roster and roots lie

[superlink]
host = "127.0.0.1"        # a loopback address, always: whoever reaches this port can submit code. Sites reach a reverse proxy (deploy/)
port = {port}
insecure = false          # true: no TLS and no node keys, for trials on this machine alone

[tls]                     # what the SuperLink shows on that port
certificate = "tls/server.crt"
key = "tls/server.key"
ca = "tls/ca.crt"         # mailboxes that connect without a proxy trust this

[live]
host = "127.0.0.1"        # the live page and /metrics, for people and machines that may see the run
port = {live_port}              # 0: none
names = []                # host names under which a proxy in front may ask for it

[run]
folder = "run"            # journal, checkpoints, log, model
evidence = "hashes"       # "vectors": also keep every masked update, so that the model can be computed anew (docs/evidence.md: cost, risk)
"""


@dataclass(frozen=True, slots=True)
class CoordinatorHome:
    """A coordinator's folder, opened: every path that its file names."""

    folder: Path
    file: CoordinatorFile

    @classmethod
    def open(cls, folder: Path) -> "CoordinatorHome":
        """Raises: DataNotFound, PlanSyntax, PlanUnknownKey, PlanValue with the line; Exposed."""
        path = folder / COORDINATOR_FILE
        if not path.is_file():
            raise DataNotFound(f"'{folder}' has no {COORDINATOR_FILE}.", fix=f"Make one: fedward server init '{folder}' --plan PLAN.")
        return cls(folder.resolve(), parse(text_of(path), name=str(path)))

    @property
    def plan_file(self) -> Path:
        return self.folder / self.file.plan.file

    @property
    def roster_folder(self) -> Path:
        return self.folder / self.file.roster.folder

    @property
    def run(self) -> Path:
        return self.folder / self.file.run.folder

    @property
    def superlink(self) -> Path:
        return self.folder / SUPERLINK_FOLDER

    @property
    def nodes(self) -> Path:
        return self.folder / NODES_FOLDER

    @property
    def certificate(self) -> Path:
        return self.folder / self.file.tls.certificate

    @property
    def certificate_key(self) -> Path:
        return self.folder / self.file.tls.key

    @property
    def ca(self) -> Path:
        return self.folder / self.file.tls.ca

    @property
    def address(self) -> str:
        """Where the SuperLink listens, for those on this machine."""
        host = self.file.superlink.host
        return f"{f'[{host}]' if ':' in host else host}:{self.file.superlink.port}"


def parse(text: str, *, name: str = COORDINATOR_FILE) -> CoordinatorFile:
    """Raises: PlanSyntax, PlanUnknownKey, PlanValue with the line; Exposed."""
    found = validate(_FILE, read_table(text, name=name), text=text, name=name, sections=_SECTIONS)
    if not _is_loopback(found.superlink.host):
        line = line_of(text, ("superlink", "host"))
        raise Exposed(
            f"{name}, line {line}: [superlink] host is {found.superlink.host!r}, a loopback address such as '127.0.0.1' is expected: "
            "whoever reaches this port can submit code to the coordinator.",
            fix="Leave it on 127.0.0.1 and let a reverse proxy on this machine pass on /v1/fleet/ alone; deploy/ has one.",
        )
    return found


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
