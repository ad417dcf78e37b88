# SPDX-License-Identifier: Apache-2.0
"""The work that every contender of the engine's benchmark does: the same sites, images, network and number of steps.

A site has 64 made images, stored as a hospital stores its prepared data: uint16 pixels, memory-mapped, in a home folder. The plan is
`engine.toml`, with the number of rounds filled in.
"""

import secrets
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from client.home import PREPARED_FOLDER, SITE_FILE, AggregationName, SimulatedSite, SiteFile, SiteName
from client.imaging.dataset import Dataset, Images
from client.imaging.prepared import save_prepared
from common.plan import Plan, dump, load, to_toml
from simulations.consortium import enrol, found

IMAGES_PER_SITE = 64
PLAN_FILE = "plan.toml"
SITES = "sites"
COORDINATOR = "coordinator"
AGGREGATIONS: Final[tuple[AggregationName, ...]] = ("ideal", "fsa1")
"""Beside plain averaging, which the peers do too; their homes stand in folders of their own."""
_PLAN = Path(__file__).with_name("engine.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A folder with a plan and the homes of `num_sites` sites."""

    folder: Path
    num_sites: int

    @property
    def plan(self) -> Plan:
        return load(self.folder / PLAN_FILE)

    @property
    def homes(self) -> list[Path]:
        return sorted((self.folder / SITES).iterdir())[: self.num_sites]


def prepare(folder: Path, num_sites: int, rounds: int) -> Workload:
    """Write the plan and one home per site. Images are noise, brighter in one class: this measures time, not learning."""
    plan = load(_PLAN)
    names = [f"site_{number:04}" for number in range(num_sites)]
    plain = {name: folder / SITES / name for name in names}
    for number, home in enumerate(plain.values()):
        save_prepared(_images(plan, number), home / PREPARED_FOLDER)
        _write_site_file(home, "plain")
    members = found(names, entropy=secrets.token_bytes, now=int(time.time()))
    enrol(members, homes=plain, coordinator=folder / f"{COORDINATOR}-plain")
    for aggregation in AGGREGATIONS:
        homes = {name: folder / f"{SITES}-{aggregation}" / name for name in names}
        for name, home in homes.items():
            home.mkdir(parents=True)
            (home / PREPARED_FOLDER).symlink_to((folder / SITES / name / PREPARED_FOLDER).resolve())
            _write_site_file(home, aggregation)
        enrol(members, homes=homes, coordinator=folder / f"{COORDINATOR}-{aggregation}")
    (folder / PLAN_FILE).write_text(to_toml(replace(plan, training=replace(plan.training, rounds=rounds))))
    return Workload(folder=folder, num_sites=num_sites)


def _write_site_file(home: Path, aggregation: AggregationName) -> None:
    file = SiteFile(site=SiteName(name=home.name), simulation=SimulatedSite(aggregation=aggregation))
    (home / SITE_FILE).write_text(dump(file))


def _images(plan: Plan, number: int) -> Dataset:
    rng = np.random.default_rng(number)
    labels = rng.integers(0, 2, IMAGES_PER_SITE)
    noise = rng.integers(0, 2**15, (IMAGES_PER_SITE, plan.input.channels, plan.input.height, plan.input.width))
    pixels = (noise + labels[:, None, None, None] * 2**13).astype(np.uint16)
    rows = np.arange(IMAGES_PER_SITE)
    return Dataset(
        images=Images(pixels, rows),
        labels=labels.astype(np.int64),
        patients=rows.astype(np.int32),
        patient_keys=tuple(f"{number:08x}{row:08x}" for row in rows),
        splits=np.zeros(IMAGES_PER_SITE, dtype=np.int8),
        unit_source="patient_id",
    )
