# SPDX-License-Identifier: Apache-2.0
"""A consortium of real hospitals' homes, as after the first hour of each: enrolled, data approved, ledger open, the plan signed for."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from client import policy, snapshot
from client.account import Account
from client.home import DataSection, SiteFile, SiteName, read_site_file
from client.membership import approval
from client.membership.approval import SignedPlan
from common import endorsement
from common.plan import Plan, dump, to_toml
from simulations import consortium
from simulations.consortium import Consortium
from tests.client.homes import POLICY, patient_plan
from tests.journeys.made import pictures

PATIENTS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Hospitals:
    """Everybody's keys and folders."""

    members: Consortium
    plan: Plan
    homes: Mapping[str, Path]
    coordinator: Path
    signed: SignedPlan

    @property
    def first(self) -> Path:
        return next(iter(self.homes.values()))


def hospitals(folder: Path, names: tuple[str, ...] = ("east", "north", "south"), *, plan: Plan | None = None) -> Hospitals:
    """Homes of mode 0700 whose plan asks for as many sites as there are."""
    asked = plan or patient_plan()
    asked = replace(asked, aggregation=replace(asked.aggregation, minimum_cohort=min(len(names), 3)))
    members = consortium.found(names, entropy=os.urandom, now=int(time.time()) - 60)
    homes = {name: folder / name for name in names}
    coordinator = folder / "coordinator"
    consortium.enrol(members, homes=homes, coordinator=coordinator)
    said = endorsement.unsigned(asked, roots=members.roots, minimum_epoch=1)
    said = endorsement.sign(said, members.root, roots=members.roots)
    signed = SignedPlan(text=to_toml(asked).encode(), endorsement=endorsement.render(said))
    (coordinator / "plan.toml").write_bytes(signed.text)
    for number, (name, home) in enumerate(homes.items()):
        _furnish(home, name, asked, seed=number)
        approval.approve(home, signed, now=int(time.time()))
    return Hospitals(members=members, plan=asked, homes=homes, coordinator=coordinator, signed=signed)


def _furnish(home: Path, name: str, plan: Plan, *, seed: int) -> None:
    images = pictures(home.parent / f"pictures of {name}", patients=PATIENTS, seed=seed)
    file = SiteFile(site=SiteName(name=name), data=DataSection(namespace=f"{name}-thorax", root=str(images)))
    (home / "site.toml").write_text(dump(file))
    (home / "policy.toml").write_text(POLICY)
    home.chmod(0o700)
    account = Account(home, read_site_file(home))
    account.begin(policy.load(home).budget)
    snapshot.take(home, account, file.data, plan)
