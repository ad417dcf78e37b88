# SPDX-License-Identifier: Apache-2.0
"""A run's bundles, and people who change them afterwards: strangers with an editor, and insiders with an identity key.

A stranger changes bytes. An insider writes a whole new history: changes what was said, links every later line to it, signs each of them and
the bundle. What an insider cannot change is what others signed, and what they wrote down.
"""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from client import bundle as client_bundle
from common import keyfile, spelling
from common.audit import bundle, evidence
from common.audit.bundle import Party
from common.audit.entries import SPELLING, Entry, Fact, Role
from common.audit.evidence import Replies, Reply
from common.audit.log import LOG_FILE
from common.audit.verify import Arithmetic, Report, verify
from common.credentials import KEY_FILE
from common.secagg.keys import SigningKey
from server import bundle as server_bundle
from server.recompute import arithmetic
from simulations.apps import FAULTY_APP
from simulations.engine.nursery import Nursery
from simulations.stage import Stage
from tests.journeys.made import Quiet, made_federation, made_scenario, made_stage

FELL = "site_02"
"""Fails in round 2, after it dealt its secrets and before its masked update left."""
ROUNDS = 3
COORDINATOR = "coordinator"
Edit = Callable[[list[Fact]], Iterable[Fact]]
_ARITHMETIC: list[Arithmetic] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundles:
    """One folder a party, and everybody's keys: what never lies in one place."""

    folder: Path
    signers: dict[str, SigningKey]

    @property
    def paths(self) -> list[Path]:
        return sorted(self.folder.iterdir())

    def copied(self, folder: Path) -> "Bundles":
        shutil.copytree(self.folder, folder)
        return replace(self, folder=folder, signers=dict(self.signers))

    def without(self, *names: str) -> list[Path]:
        return [path for path in self.paths if path.name not in names]

    def facts(self, name: str) -> list[Fact]:
        return [SPELLING.parse(line).fact for line in (self.folder / name / LOG_FILE).read_bytes().splitlines()]

    def rewrite(self, name: str, edit: Edit) -> None:
        """An insider: other facts from somewhere on, under the same key."""
        path = self.folder / name
        old = [SPELLING.parse(line) for line in (path / LOG_FILE).read_bytes().splitlines()]
        lines: list[bytes] = []
        for number, fact in enumerate(edit([entry.fact for entry in old])):
            prev = spelling.digest(lines[-1]).hex() if lines else spelling.FIRST
            stamp = old[min(number, len(old) - 1)].t_utc
            lines.append(SPELLING.signed(Entry(seq=number, prev=prev, t_utc=stamp, fact=fact), self.signers[name].sign))
        (path / LOG_FILE).write_bytes(b"".join(line + b"\n" for line in lines))
        self.resign(name)

    def resign(self, name: str) -> None:
        """An insider makes the bundle anew, of what lies in it now."""
        path, before = self.folder / name, self.folder.parent / f"{self.folder.name} {name}"
        manifest = bundle.MANIFEST
        role: Role = "coordinator" if name == COORDINATOR else "site"
        path.rename(before)
        contents = {each.relative_to(before).as_posix(): each for each in before.rglob("*") if each.is_file() and each.name != manifest}
        bundle.write(path, Party(role=role, name=name, signer=self.signers[name], now=0), contents)
        shutil.rmtree(before)

    def replies(self, name: str) -> Replies:
        return evidence.read_replies((self.folder / COORDINATOR / evidence.FOLDER / name).read_bytes())

    def keep_replies(self, name: str, replies: Replies) -> None:
        (self.folder / COORDINATOR / evidence.FOLDER / name).write_bytes(evidence.write_replies(replies))


def judged(paths: list[Path], published: str | None = None) -> Report:
    if not _ARITHMETIC:
        _ARITHMETIC.append(arithmetic())
    return verify(paths, _ARITHMETIC[0], published=published)


def codes(paths: list[Path], published: str | None = None) -> set[str]:
    return {each.code for each in judged(paths, published).findings}


def run_and_export(folder: Path) -> Bundles:
    """Five sites, three rounds, one of which loses a site; every bundle, with the masked updates."""
    played = made_scenario(private=True, change=("minimum_cohort = 2", "minimum_cohort = 3")).with_changes(sites=5, rounds=ROUNDS)
    stage = made_stage(folder / "run", played)
    federation = replace(made_federation(stage, faults=(f"{FELL}:raise:2:mask",)), evidence="vectors")
    with Nursery(FAULTY_APP) as nursery:
        federation.train(Quiet(), engine="local", workers=2, nursery=nursery)
    return exported(stage, folder / "bundles")


def exported(stage: Stage, out: Path, *, with_vectors: bool = True) -> Bundles:
    out.mkdir()
    signers = {}
    for site in stage.sites:
        client_bundle.export(stage.home(site), out / site, with_ledger=True)
        signers[site] = keyfile.load(stage.home(site) / KEY_FILE, "site")
    folders = server_bundle.Folders(run=stage.folder, key=stage.coordinator, roster=stage.coordinator)
    server_bundle.export(folders, out / COORDINATOR, with_vectors=with_vectors)
    signers[COORDINATOR] = keyfile.load(stage.coordinator / KEY_FILE, "coordinator")
    return Bundles(folder=out, signers=signers)


def with_reply(replies: Replies, site: str, control: bytes) -> Replies:
    items = tuple(Reply(site_id=site, control=control) if item.site_id == site else item for item in replies.items)
    return replace(replies, items=items)
