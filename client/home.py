# SPDX-License-Identifier: Apache-2.0
"""A site's home folder: the names of what lies in it, and site.toml, in which the site says what it is.

[site]        name
[data]        namespace: whose patients these are, the same for every export of them; dataset: the name of this preparation;
              root, labels: the folder of images to prepare from
[ledger]      folder: where the ledger lies, if not here (several homes over the same patients share one); head: where its sealed head
              is written, best on another mount
[serve]       socket: where the site process answers its mailbox; group: of the two users that share it
[training]    device: auto, cpu, cuda or cuda:1 (client/training/device.py)
[weights]     folder: where files of pre-trained weights lie that a plan may start from (common/models/pretrained.py)
[simulation]  only a simulated site has it
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, TypeAdapter

from client.ledger.store import Place
from common.errors import DataNotFound
from common.plan.parse import Sections, read_table, text_of, validate
from common.plan.values import STRICT, Name
from common.roster import NAME_PATTERN

SITE_FILE: Final = "site.toml"
ANSWERS_FOLDER: Final = "answers"
ATTEMPTS_FOLDER: Final = "fsa1"
LEDGER_FILE: Final = "ledger.jsonl"
HEAD_FILE: Final = "ledger.head"
PREPARED_FOLDER: Final = "data"
CACHE_FOLDER: Final = "cache"
PATIENT_KEY_FILE: Final = "patient.key"
DEVICE_PATTERN: Final = r"^(auto|cpu|cuda(:[0-9]{1,2})?)$"
"""What may be asked for to train on."""

AggregationName = Literal["fsa1", "ideal", "plain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteName:
    """[site]: the name that the roster has for it."""

    __pydantic_config__ = STRICT
    name: Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSection:
    """[data]. A new namespace is a new ledger: it is for other patients, never for another export of the same ones."""

    __pydantic_config__ = STRICT
    namespace: Name
    dataset: Name = "main"
    root: str | None = None
    labels: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSection:
    """[ledger]"""

    __pydantic_config__ = STRICT
    folder: str | None = None
    head: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSection:
    """[serve]. What is not absolute is below the home."""

    __pydantic_config__ = STRICT
    socket: str = "door/site.sock"
    group: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSection:
    """[training]: what this machine trains on, which no plan has a say in; "auto" is a GPU where there is one."""

    __pydantic_config__ = STRICT
    device: Annotated[str, Field(pattern=DEVICE_PATTERN)] = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsSection:
    """[weights]. What is not absolute is below the home."""

    __pydantic_config__ = STRICT
    folder: str = "weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedSite:
    """Only a simulated site has this: it skips fsync, and may draw its noise from a seed so that two runs can be compared bit by bit.

    aggregation: "fsa1" as deployed; "ideal" sends the same integers without masks, for large sweeps; "plain" floats, for comparison.
    """

    __pydantic_config__ = STRICT
    unsafe_noise_seed: int | None = None
    aggregation: AggregationName = "fsa1"


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteFile:
    """site.toml: what a site knows about itself. `simulation` is refused by `fedward site serve`."""

    __pydantic_config__ = STRICT
    site: SiteName
    data: DataSection | None = None
    ledger: LedgerSection = field(default_factory=LedgerSection)
    serve: ServeSection = field(default_factory=ServeSection)
    training: TrainingSection = field(default_factory=TrainingSection)
    weights: WeightsSection = field(default_factory=WeightsSection)
    simulation: SimulatedSite | None = None

    @property
    def power_cut_safe(self) -> bool:
        return self.simulation is None


_SITE_FILE: TypeAdapter[SiteFile] = TypeAdapter(SiteFile)
_SECTIONS: Sections = {
    "site": (SiteName,),
    "data": (DataSection,),
    "ledger": (LedgerSection,),
    "serve": (ServeSection,),
    "training": (TrainingSection,),
    "weights": (WeightsSection,),
    "simulation": (SimulatedSite,),
}


def read_site_file(home: Path) -> SiteFile:
    """Raises: DataNotFound, PlanSyntax, PlanUnknownKey, PlanValue."""
    path = home / SITE_FILE
    if not path.is_file():
        raise DataNotFound(f"site folder '{home}' has no {SITE_FILE}.", fix="Point FEDWARD_SITE at a site's home folder.")
    text = text_of(path)
    return validate(_SITE_FILE, read_table(text, name=str(path)), text=text, name=str(path), sections=_SECTIONS, quoted=False)


def ledger_place(home: Path, file: SiteFile) -> Place:
    """Where a home's ledger and its sealed head lie; what is not absolute is below the home."""
    folder = home / (file.ledger.folder or "")
    return Place(file=folder / LEDGER_FILE, head=home / file.ledger.head if file.ledger.head else folder / HEAD_FILE)
