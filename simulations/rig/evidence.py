# SPDX-License-Identifier: Apache-2.0
"""What a killed federation must still be able to show: every committed round, every file whole, every image paid for.

    committed     rounds that were committed before the kill are committed after it, with the same sites and the same checkpoint
    whole files   journal (SQLite's own check), checkpoints (SHA-256 in the journal), ledgers (every link and signature, and the sealed
                  head), each site's record (its own digest and the update that it commits to), and nothing half-written left about
    paid          every training that began stands on the site's ledger, and every update in a sum too; the ledger's epsilon is at least
                  what Opacus gets from the trainings themselves, counted by those who did them (simulations.rig.struck)

A complaint is a sentence. An empty list is the result.
"""

import json
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from opacus.accountants import RDPAccountant

from client import ledger
from client.account import Account
from client.attempts import AttemptStore
from client.home import ATTEMPTS_FOLDER, LEDGER_FILE, read_site_file
from common.errors import FedwardError
from common.plan import Plan, digest_of
from common.privacy.accountant import ORDERS
from common.privacy.entries import Spent
from common.privacy.tally import View
from server.checkpoint import CheckpointFolder
from server.journal import CommittedRound, Journal
from simulations.federation import CHECKPOINTS, JOURNAL
from simulations.rig.struck import TRAININGS_FILE
from simulations.stage import Stage

_ROUNDING = 1e-6


def committed(folder: Path, plan: Plan) -> list[CommittedRound]:
    """The rounds that a run has committed, from a copy of its journal: looking must not mend what a resume has to mend."""
    with _copied(folder, plan) as journal:
        return journal.committed() if journal else []


def session(folder: Path, plan: Plan) -> bytes:
    """The run's own name for itself."""
    with _copied(folder, plan) as journal:
        assert journal is not None
        return journal.session


@contextmanager
def _copied(folder: Path, plan: Plan) -> Iterator[Journal | None]:
    with tempfile.TemporaryDirectory() as beside:
        for path in folder.glob(f"{JOURNAL}*"):
            shutil.copy(path, beside)
        if not (Path(beside) / JOURNAL).exists():
            yield None
            return
        journal = Journal(Path(beside) / JOURNAL, plan=digest_of(plan), session=b"", power_cut_safe=False)
        try:
            yield journal
        finally:
            journal.close()


def complaints(stage: Stage, before: Sequence[CommittedRound]) -> list[str]:
    """Everything that is wrong with a run that was killed and went on; `before` is what it had committed when it died."""
    after = committed(stage.folder, stage.scenario.plan)
    return [
        *lost(before, after),
        *_torn(stage, after),
        *(complaint for site in stage.sites for complaint in _unpaid(stage, site, after)),
    ]


def lost(before: Sequence[CommittedRound], after: Sequence[CommittedRound]) -> Iterator[str]:
    """Rounds that were committed before and are not, or not as they were."""
    now = {done.round: done for done in after}
    for done in before:
        kept = now.get(done.round)
        if kept is None or (kept.sites, kept.sha256) != (done.sites, done.sha256):
            yield f"round {done.round} was committed and is not what it was"


def _torn(stage: Stage, after: Sequence[CommittedRound]) -> Iterator[str]:
    with closing(sqlite3.connect(stage.folder / JOURNAL)) as db:
        if (found := db.execute("PRAGMA integrity_check").fetchone()[0]) != "ok":
            yield f"the journal is torn: {found}"
    folder = CheckpointFolder(stage.folder / CHECKPOINTS, power_cut_safe=False)
    for done in after[-1:]:
        try:
            folder.load(done)
        except FedwardError as error:
            yield f"checkpoint of round {done.round}: {error.code}"
    for site in stage.sites:
        home = stage.home(site)
        try:
            Account(home, read_site_file(home)).chain()
            store = AttemptStore(home / ATTEMPTS_FOLDER, power_cut_safe=False)
            with store.locked():
                store.record()
        except FedwardError as error:
            yield f"{site}: {error.code}"
    yield from (f"left about: {path.relative_to(stage.folder)}" for path in sorted(stage.folder.rglob(".*.tmp")))


def _unpaid(stage: Stage, site: str, after: Sequence[CommittedRound]) -> Iterator[str]:
    plan = stage.scenario.plan
    begun = [line for line in trainings(stage.folder) if line["site"] == site]
    yield from unpaid_in(stage.home(site), site, plan, after)
    chain, paid = _ledger(stage.home(site), site)
    reserved, trained = Counter(fact.round for fact in paid), Counter(line["round"] for line in begun)
    for number, times in trained.items():
        if reserved[number] < times:
            yield f"{site} trained {times} times in round {number} and paid for {reserved[number]}"
    delta = plan.privacy.delta
    assert delta is not None
    charged = chain.tally.epsilon(View(unit=plan.privacy.unit, plan=digest_of(plan)), delta) if chain else 0.0
    if charged * (1 + _ROUNDING) < (found := recounted(begun, plan)):
        yield f"{site}: the ledger says epsilon {charged:.4f}, its trainings cost {found:.4f}"


def unpaid_in(home: Path, site: str, plan: Plan, after: Sequence[CommittedRound]) -> list[str]:
    """Rounds in whose sum a site is without having paid for it."""
    _, paid = _ledger(home, site)
    charged = {(fact.round, fact.attempt) for fact in paid if fact.plan == digest_of(plan)}
    return [
        f"{site} is in the sum of round {done.round}, attempt {done.attempt}, and never paid for it"
        for done in after
        if site in done.sites and not any(number == done.round and attempt <= done.attempt for number, attempt in charged)
    ]


def _ledger(home: Path, site: str) -> tuple[ledger.Chain | None, list[Spent]]:
    if not (home / LEDGER_FILE).exists():
        return None, []
    chain, entries = ledger.read((home / LEDGER_FILE).read_bytes(), name=site)
    return chain, [entry.fact for entry in entries if isinstance(entry.fact, Spent)]


def trainings(folder: Path) -> list[dict[str, Any]]:
    """Every training that began in a run, as those who did it counted."""
    file = folder / TRAININGS_FILE
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def recounted(begun: Sequence[dict[str, Any]], plan: Plan) -> float:
    """What such trainings cost one patient, by Opacus's accountant and the true number of patients."""
    delta = plan.privacy.delta
    assert delta is not None
    steps = Counter[tuple[float, float]]()
    for line in begun:
        steps[line["noise_multiplier"], plan.training.batch / line["units"]] += line["steps"]
    return _by_opacus(tuple((noise, rate, count) for (noise, rate), count in sorted(steps.items())), delta)


@cache
def _by_opacus(history: tuple[tuple[float, float, int], ...], delta: float) -> float:
    if not history:
        return 0.0
    accountant = RDPAccountant()
    accountant.history = list(history)
    return float(accountant.get_epsilon(delta, alphas=list(ORDERS)))
