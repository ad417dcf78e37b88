# SPDX-License-Identifier: Apache-2.0
"""A hospital's home as IT sets it up: no simulation, a folder of pictures, a key, and nothing approved yet."""

import tomllib
from dataclasses import replace
from pathlib import Path

from client.account import Account, Release
from client.home import DataSection, LedgerSection, SiteFile, SiteName, read_site_file
from common import keyfile
from common.plan import Plan, dump
from tests.journeys.made import made_scenario, pictures

PATIENTS = 40
POLICY = """\
[budget]
eps_plan = 8.0
eps_total = 12.0
own_share_plan = 8.0
own_share_total = 12.0
delta = 1e-3
[plans]
units = ["patient"]
"""


def patient_plan(**changes: object) -> Plan:
    """The journey's plan, promising to patients."""
    plan = made_scenario(private=True).plan
    return replace(plan, privacy=replace(plan.privacy, unit="patient", delta=1e-4, **changes))  # type: ignore[arg-type]


def hospital(folder: Path, *, patients: int = PATIENTS, policy: str = POLICY) -> Path:
    """A home with a policy; neither ledger nor snapshot."""
    home = folder / "home"
    home.mkdir(parents=True)
    pictures(folder / "pictures", patients=patients)
    file = SiteFile(
        site=SiteName(name="north"),
        data=DataSection(namespace="north-thorax", root=str(folder / "pictures")),
        ledger=LedgerSection(head=str(folder / "other-mount" / "north.head")),
    )
    (folder / "other-mount").mkdir()
    (home / "site.toml").write_text(dump(file))
    (home / "policy.toml").write_text(policy)
    keyfile.create(home / "identity.key", "site")
    (home / "plan.toml").write_text(dump(patient_plan()))
    return home


def edit(file: Path, old: str, new: str) -> None:
    """Change one piece of a file, which must be there and leave it TOML."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    tomllib.loads(file.read_text())


def account(home: Path) -> Account:
    return Account(home, read_site_file(home))


def release(number: int, plan: Plan | None = None) -> Release:
    return Release(plan=plan or patient_plan(), session="00" * 16, round=number, attempt=0)
