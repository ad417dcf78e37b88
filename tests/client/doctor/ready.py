# SPDX-License-Identifier: Apache-2.0
"""A hospital on a good day: enrolled, a plan approved, its ledger open, its data approved; and what the doctor says of it."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from client import snapshot
from client.doctor import agreed
from client.doctor.findings import Finding, State
from client.home import read_site_file
from client.membership import approval
from client.membership.approval import SignedPlan
from client.policy import load
from common import endorsement, keyfile
from common.durable import write_atomically
from common.plan import dump
from common.roster import render_roots
from simulations import consortium
from tests.client.homes import account, hospital, patient_plan

NAMES = ("east", "north", "south", "west")


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A home, and the consortium behind its roster."""

    home: Path
    consortium: consortium.Consortium


def ready(folder: Path) -> Ready:
    """A home in which every look is content, but for what the test's disk cannot give."""
    home = hospital(folder)
    home.chmod(0o700)
    found = consortium.found(NAMES, entropy=os.urandom, now=int(time.time()))
    for name in ("identity.key", "identity.pub"):
        (home / name).unlink()
    keyfile.create(home / "identity.key", "site", entropy=lambda _: found.sites["north"].seed)
    write_atomically(home / "roster", found.signed_roster, fsync=False)
    write_atomically(home / "roots", render_roots(found.roots), fsync=False)
    plan = patient_plan()
    signed = endorsement.sign(endorsement.unsigned(plan, roots=found.roots, minimum_epoch=1), found.root, roots=found.roots)
    approval.approve(home, SignedPlan(text=dump(plan).encode(), endorsement=endorsement.render(signed)), now=int(time.time()))
    account(home).begin(load(home).budget)
    snapshot.take(home, account(home), read_site_file(home).data, plan)
    return Ready(home=home, consortium=found)


def of(findings: Iterator[Finding], check: str) -> Finding:
    """The worst finding of one check, which there must be."""
    order = list(State)
    return max((each for each in findings if each.check == check), key=lambda each: order.index(each.state))


def ground(home: Path) -> agreed.Ground:
    return agreed.ground_of(home)
