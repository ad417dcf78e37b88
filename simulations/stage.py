# SPDX-License-Identifier: Apache-2.0
"""Setting the stage: from a scenario and its data to a run folder with one home for each site.

Data come in through the client's own intake, exactly as a hospital's do. Then, and only here, the simulator does what nobody in a real
federation can: it looks at all patients at once, holds some out, and deals the rest to sites.

    run/scenario.toml             what is played; plan.toml is the agreed part of it
        sites/hospital_00/        a site's home: site.toml, data/ (its prepared patients), its key, the roster, and later its ledger
        coordinator/              the coordinator's key, and the roster
        holdout/                  the patients that no site has
        weights/                  what was trained elsewhere, if the plan's model starts from it
        stage.json                counts, for the report; written last, so a stage that has it is whole
"""

import json
import os
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from client.home import (
    PATIENT_KEY_FILE,
    PREPARED_FOLDER,
    SITE_FILE,
    AggregationName,
    DataSection,
    SimulatedSite,
    SiteFile,
    SiteName,
    TrainingSection,
    WeightsSection,
    read_site_file,
)
from client.imaging.dataset import Dataset, Images
from client.imaging.identity import load_or_create
from client.imaging.intake import DataSource, open_dataset
from client.imaging.prepared import load_prepared, save_prepared
from client.imaging.splits import Split
from client.training import choose, units_of
from common import canonical, keyfile
from common.credentials import KEY_FILE, ROOTS_FILE, ROSTER_FILE
from common.durable import write_atomically
from common.errors import DataNotFound, PrivacyError, RunFolderTaken, TooFewPatients
from common.models import WEIGHTS_FOLDER, look_in
from common.plan import ClassificationSpec, Plan, dump, to_toml
from common.privacy import round_charge
from server.export import bring_start
from simulations import consortium, made, phantoms
from simulations.made import MadeSpec, weights
from simulations.partition import Rows, kept_for_validation, spread
from simulations.phantoms import PhantomSpec
from simulations.scenario import Scenario, parse
from simulations.scenario import to_toml as scenario_toml

Progress = Callable[[str, int, int], None]  # what, done, in all

SCENARIO_FILE = "scenario.toml"
PLAN_FILE = "plan.toml"
STAGE_FILE = "stage.json"
LABELS_FILE = "labels.csv"
SITES = "sites"
HOLDOUT = "holdout"
COORDINATOR = "coordinator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A run folder, ready to train: which sites there are and what each of them holds (counts)."""

    folder: Path
    scenario: Scenario
    sites: tuple[str, ...]
    unit_source: str
    counts: Mapping[str, Any]

    @property
    def plan_file(self) -> Path:
        return self.folder / PLAN_FILE

    def home(self, site: str) -> Path:
        return self.folder / SITES / site

    @property
    def coordinator(self) -> Path:
        return self.folder / COORDINATOR

    def holdout(self) -> Dataset:
        """The patients that no site has, memory-mapped."""
        return load_prepared(self.folder / HOLDOUT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """What setting a stage needs beside the scenario: where caches are kept, how many processes, whom to tell."""

    cache: Path
    workers: int
    progress: Progress
    unsafe_noise_seed: int | None = None
    aggregation: AggregationName = "fsa1"
    device: str = "cpu"

    @property
    def site_kind(self) -> SimulatedSite:
        return SimulatedSite(unsafe_noise_seed=self.unsafe_noise_seed, aggregation=self.aggregation)

    @property
    def training(self) -> TrainingSection:
        return TrainingSection(device=self.device)


def set_stage(scenario: Scenario, data: Path | None, folder: Path, shop: Workshop) -> Stage:
    """Make a run folder. Raises: RunFolderTaken, if it holds another run; DataError, if the data do not fit the plan."""
    if (folder / STAGE_FILE).exists():
        raise RunFolderTaken(f"run folder '{folder}' holds a run already.", fix="Continue it with --resume, or choose another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    _bring_weights(scenario.plan, folder, shop)
    everyone, intake = _open_all(scenario, data or _make_data(scenario, shop), shop)
    dealt = spread(everyone, scenario.simulation, np.random.default_rng([scenario.plan.training.seed, scenario.simulation.sites]))
    given = {
        site: _for_training(_unnamed(everyone.subset(rows)), scenario, number) for number, (site, rows) in enumerate(dealt.sites.items())
    }
    _check_budgets(scenario.plan, given)
    for site, data_given in given.items():
        _make_home(folder / SITES / site, site, data_given, shop.site_kind, shop.training, run=folder)
        shutil.copy(shop.cache / PATIENT_KEY_FILE, folder / SITES / site / PATIENT_KEY_FILE)
    members = consortium.found(tuple(dealt.sites), entropy=secrets.token_bytes, now=int(time.time()), valid_s=consortium.CENTURY_S)
    consortium.enrol(members, homes={site: folder / SITES / site for site in dealt.sites}, coordinator=folder / COORDINATOR)
    held_out = everyone.subset(dealt.holdout)
    save_prepared(held_out if scenario.simulation.partition == "by-site" else _unnamed(held_out), folder / HOLDOUT)
    counts = {
        "sites": [{"site": site, **_count(everyone, rows, scenario), **_kept(given[site])} for site, rows in dealt.sites.items()],
        "holdout": _count(everyone, dealt.holdout, scenario),
        "intake": intake,
        "unit_source": everyone.unit_source,
        "data": "made" if data is None else "given",
    }
    write_atomically(folder / SCENARIO_FILE, scenario_toml(scenario).encode(), fsync=False)
    write_atomically(folder / PLAN_FILE, to_toml(scenario.plan).encode(), fsync=False)
    write_atomically(folder / STAGE_FILE, json.dumps(counts, indent=1).encode(), fsync=False)
    return find_stage(folder)


def find_stage(folder: Path) -> Stage:
    """The stage that an earlier call made here; from now on, this process predicts on what its sites train on.

    Raises: DataNotFound, GpuMissing.
    """
    if not (folder / STAGE_FILE).is_file():
        raise DataNotFound(f"'{folder}' holds no run to resume.", fix="Give the --out folder of an earlier run, or leave --resume away.")
    counts = json.loads((folder / STAGE_FILE).read_text())
    look_in(folder / WEIGHTS_FOLDER)
    stage = Stage(
        folder=folder,
        scenario=parse((folder / SCENARIO_FILE).read_text(), name=str(folder / SCENARIO_FILE)),
        sites=tuple(site["site"] for site in counts["sites"]),
        unit_source=counts["unit_source"],
        counts=counts,
    )
    choose(_first_site(stage).training.device)
    return stage


def unsafe_seed(stage: Stage) -> int | None:
    """The seed that this run's noise is drawn from; None in every run that means its promise."""
    return _site_kind(stage).unsafe_noise_seed


def aggregation_of(stage: Stage) -> AggregationName:
    """How updates are summed in this run, as its sites' own files say."""
    return _site_kind(stage).aggregation


def device_of(stage: Stage) -> str:
    """What this run trains on, as its sites' own files say."""
    return _first_site(stage).training.device


def _site_kind(stage: Stage) -> SimulatedSite:
    return _first_site(stage).simulation or SimulatedSite()


def _first_site(stage: Stage) -> SiteFile:
    return read_site_file(stage.home(stage.sites[0]))


def clone_home(stage: Stage, site: str, home: Path, *, aggregation: AggregationName) -> None:
    """A second home with the same patients and an empty ledger: for training that is compared with the federation, not part of it."""
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    _write_site_file(home, site, replace(_site_kind(stage), aggregation=aggregation), _first_site(stage).training, run=stage.folder)
    for name in (KEY_FILE, ROSTER_FILE, ROOTS_FILE):
        shutil.copy(stage.home(site) / name, home / name)
    (home / PREPARED_FOLDER).symlink_to((stage.home(site) / PREPARED_FOLDER).resolve())


def pool_homes(stage: Stage, home: Path) -> None:
    """One home with the patients of all sites: what training in one place would have."""
    shutil.rmtree(home, ignore_errors=True)
    everyone = merge({site: load_prepared(stage.home(site) / PREPARED_FOLDER) for site in stage.sites})
    kind = replace(_site_kind(stage), aggregation="plain")
    _make_home(home, home.name, everyone, kind, _first_site(stage).training, run=stage.folder)
    keyfile.create(home / KEY_FILE, "site")


def merge(parts: Mapping[str, Dataset]) -> Dataset:
    """Several sites' data as one; a patient key that occurs at two sites stays two patients, as it would in a federation.

    Keys are told apart by number: a name is a folder's, and who knows what people call their folders.
    """
    whole = list(parts.values())
    pixels = np.concatenate([part.images[:] for part in whole])
    beside = {name: np.concatenate([part.parts[name][:] for part in whole]) for name in whole[0].parts}
    offsets = np.cumsum([0, *(len(part.patient_keys) for part in whole)])[:-1]
    return Dataset(
        images=Images(pixels, np.arange(len(pixels))),
        labels=np.concatenate([part.labels for part in whole]),
        patients=np.concatenate([part.patients + int(offset) for part, offset in zip(whole, offsets, strict=True)]).astype(np.int32),
        patient_keys=tuple(f"{number}/{key}" for number, part in enumerate(whole) for key in part.patient_keys),
        splits=np.concatenate([part.splits for part in whole]),
        unit_source=whole[0].unit_source,
        sites=tuple(parts),
        site_index=np.repeat(np.arange(len(whole), dtype=np.int32), [len(part) for part in whole]),
        parts={name: Images(array, np.arange(len(array))) for name, array in beside.items()},
    )


def _make_data(scenario: Scenario, shop: Workshop) -> Path:
    """The made data that the scenario names, from the cache if an earlier run made the same."""
    spec = scenario.simulation.phantoms or scenario.simulation.made
    if spec is None:
        raise DataNotFound(
            f"plan '{scenario.plan.name}' brings no data of its own.",
            fix="Say where they are: --data DIR (the README beside the plan tells which).",
        )
    name = "phantoms" if isinstance(spec, PhantomSpec) else spec.kind
    folder = shop.cache / f"{name}-{canonical.digest(canonical.encode(spec)).hex()[:16]}"
    if folder.exists():
        return folder
    match spec:
        case PhantomSpec():
            phantoms.write(spec, folder, workers=shop.workers, progress=lambda done, total: shop.progress("making CT slices", done, total))
        case MadeSpec():
            shop.progress("making data", 0, 1)
            made.write(spec, folder)
    return folder


def _bring_weights(plan: Plan, folder: Path, shop: Workshop) -> None:
    """A copy of what the model starts from, made on the spot if it is ours to make. Raises: DataNotFound, ModelHash."""
    weights.offer(plan.model, shop.cache / WEIGHTS_FOLDER)
    bring_start(plan, folder)


def _open_all(scenario: Scenario, root: Path, shop: Workshop) -> tuple[Dataset, dict[str, Any]]:
    """The whole data set, and what became of every file. A folder of hospitals' folders is opened hospital by hospital."""
    if not root.is_dir():
        raise DataNotFound(f"data folder '{root}' does not exist.", fix="Give an existing folder with --data.")
    shop.cache.mkdir(parents=True, exist_ok=True)
    secret = load_or_create(shop.cache / PATIENT_KEY_FILE)
    hospitals = sorted(path.parent for path in root.glob(f"*/{LABELS_FILE}"))
    parts, reports = {}, []
    for number, source in enumerate(hospitals or [root]):
        shop.progress("reading images", number, len(hospitals) or 1)
        parts[source.name], report = open_dataset(
            DataSource(root=source, called=_called(number, len(hospitals), root)),
            scenario.plan,
            cache=shop.cache / "images",
            key=secret,
            workers=shop.workers,
        )
        reports.append(report.as_dict())
    shop.progress("reading images", 1, 1)
    whole = merge(parts) if hospitals else next(iter(parts.values()))
    return whole, _add_up(reports)


def _called(number: int, hospitals: int, root: Path) -> str | None:
    """What messages call a hospital's folder: its place in the order of names."""
    return f"hospital folder {number + 1} of {hospitals} in '{root}' (in the order of their names)" if hospitals else None


def _unnamed(data: Dataset) -> Dataset:
    """Without the names under which the data came: they were checked only if they became the sites' names."""
    return replace(data, sites=None, site_index=None)


def _for_training(data: Dataset, scenario: Scenario, number: int) -> Dataset:
    """All that a site is given is for training, but for whom its plan has judged; the simulator holds out its own, for everyone."""
    if scenario.plan.evaluation is None:
        return replace(data, splits=np.full(len(data), Split.TRAIN, dtype=np.int8))
    rng = np.random.default_rng([scenario.plan.training.seed, number])
    return replace(data, splits=kept_for_validation(data, scenario.simulation.validation, rng))


def _kept(data: Dataset) -> dict[str, Any]:
    rows = data.rows_of(Split.VALIDATION)
    return {"validation": {"images": int(rows.size), "patients": int(np.unique(data.patients[rows]).size)}} if rows.size else {}


def _check_budgets(plan: Plan, given: Mapping[str, Dataset]) -> None:
    """Find out now, not in round one, whether every site can train the plan.

    Raises: NoPatientId; TooFewPatients, EpsilonImpossible, naming the site.
    """
    if not plan.is_private:
        return
    for site, data in given.items():
        try:
            round_charge(plan, len(units_of(data.subset(data.rows_of(Split.TRAIN)), plan)))
        except PrivacyError as error:
            raise type(error)(f"site '{site}': {error.message}", fix=error.fix) from error
        except TooFewPatients as error:
            raise TooFewPatients(
                f"site '{site}': {error.message}", fix=f"{error.fix} In a simulation: fewer --sites, or more data."
            ) from error


def _make_home(home: Path, name: str, data: Dataset, kind: SimulatedSite, training: TrainingSection, *, run: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    save_prepared(data, home / PREPARED_FOLDER)
    _write_site_file(home, name, kind, training, run=run)


def _write_site_file(home: Path, name: str, kind: SimulatedSite, training: TrainingSection, *, run: Path) -> None:
    """A namespace of its own for every home: what one run spent says nothing about another. Pre-trained weights are the run's, for all."""
    file = SiteFile(
        site=SiteName(name=name),
        data=DataSection(namespace=f"run-{secrets.token_hex(8)}"),
        training=training,
        weights=WeightsSection(folder=os.path.relpath(run / WEIGHTS_FOLDER, home)),
        simulation=kind,
    )
    write_atomically(home / SITE_FILE, dump(file).encode(), fsync=False)


def _count(data: Dataset, rows: Rows, scenario: Scenario) -> dict[str, Any]:
    task = scenario.plan.task
    per_class = np.bincount(data.labels[rows], minlength=len(task.classes))
    return {
        "images": int(rows.size),
        "patients": int(np.unique(data.patients[rows]).size),
        "classes": dict(zip(task.classes, map(int, per_class), strict=True)) if isinstance(task, ClassificationSpec) else {},
    }


def _add_up(reports: list[dict[str, Any]]) -> dict[str, Any]:
    rejected: Counter[str] = Counter()
    for report in reports:
        rejected.update(report["rejected"])
    return {"seen": sum(r["seen"] for r in reports), "used": sum(r["used"] for r in reports), "rejected": dict(rejected)}
