# SPDX-License-Identifier: Apache-2.0
"""The ledger in whole rounds: its token travels with the keys, comes back from the peers, and stops a site whose disk was rolled back."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from client import ledger
from client.account import Account, Release
from client.home import LEDGER_FILE, read_site_file
from client.ledger import echo
from common.privacy.entries import Spent
from common.update import Weights
from server.journal import CommittedRound
from simulations.engine.nursery import Nursery
from simulations.stage import Stage
from tests.journeys.made import Quiet, made_federation, made_scenario, made_stage, reserved_rounds, train

SPARE = ("[aggregation]", "spare_rounds = 3\n[aggregation]")
"""So that it is not the budget which stops a site."""


class PowerCut(Quiet):
    """Copies one site's ledger, sealed head and all, after round 1; pulls the plug after round 2."""

    def __init__(self, stage: Stage, site: str) -> None:
        self._home, self._copy = stage.home(site), stage.folder / "copy"

    def round_committed(self, done: CommittedRound, weights: Weights) -> None:
        if done.round == 2:
            raise KeyboardInterrupt
        self._copy.mkdir()
        for path in self._home.glob("ledger.*"):
            shutil.copy(path, self._copy)

    def restore(self) -> None:
        """As a virtual machine is restored: nothing on it remembers."""
        for path in self._home.glob("ledger.*"):
            path.unlink()
        for path in self._copy.iterdir():
            shutil.copy(path, self._home)


def test_a_site_whose_machine_was_rolled_back_deals_nothing_and_says_why(tmp_path: Path, nursery: Nursery) -> None:
    stage = made_stage(tmp_path / "run", made_scenario(private=True, change=SPARE))
    site = stage.sites[1]
    cut = PowerCut(stage, site)
    with pytest.raises(KeyboardInterrupt):
        made_federation(stage).train(cut, engine="local", workers=2, nursery=nursery)
    cut.restore()
    _, rounds = train(stage, nursery)
    assert [bool(done.missing) for done in rounds] == [False, False, True, True]
    assert {(absent.site, absent.why) for done in rounds for absent in done.missing} == {(site, "E_LEDGER_ROLLBACK")}
    assert "remembers line" in (stage.home(site) / "error.log").read_text()
    # Round 3 was charged before the peers' keys came; round 4 is refused before anything is charged.
    assert reserved_rounds(stage, site) == [1, 3]
    assert (stage.home(site) / "ledger.witness").exists()
    assert all(reserved_rounds(stage, other) == [1, 2, 3, 4] for other in stage.sites if other != site)


def test_sites_remember_each_others_newest_tokens(tmp_path: Path, nursery: Nursery) -> None:
    stage = made_stage(tmp_path / "run", made_scenario(private=True))
    train(stage, nursery)
    for site in stage.sites:
        [kept] = (stage.home(site) / "fsa1").glob("peers-*")
        assert kept.stat().st_mode & 0o777 == 0o600
        assert set(echo.load(kept.read_bytes())) == set(stage.sites) - {site}


def test_every_simulation_has_patients_of_its_own(tmp_path: Path, nursery: Nursery) -> None:
    namespaces = set()
    for name in ("one", "two"):
        stage = made_stage(tmp_path / name, made_scenario(private=True).with_changes(rounds=1))
        train(stage, nursery)
        chains = [ledger.read((stage.home(site) / LEDGER_FILE).read_bytes(), name=site)[0] for site in stage.sites]
        namespaces |= {chain.namespace for chain in chains}
        assert all(len(chain.snapshots) == 1 for chain in chains)
        assert {seen.name for chain in chains for seen in chain.plans.values()} == {"journey"}
    assert len(namespaces) == 8


OPENS = """
import json, sys
from pathlib import Path
from client.app import PLAN_VARIABLE
from client.site import Site
from common.models import initial_weights
from common.plan import digest_of, load
from common.errors import FedwardError
from common.wire import Step, TrainRequest

home, plan = Path(sys.argv[1]), load(Path(sys.argv[2]))
request = TrainRequest(step=Step(session=bytes(16), round=1, attempt=0, plan=digest_of(plan)), weights=initial_weights(plan))
site, seen = Site.open(home, plan), []

def look(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)) and str(home.parent.parent) in str(arguments[0]):
        wrote = bool(arguments[2] & 3)
        seen.append([Path(arguments[0]).name, wrote])

sys.addaudithook(look)
try:
    site.train(request)
    code = ""
except FedwardError as error:
    code = error.code
print(json.dumps([code, seen]))
"""


def opened_files(home: Path, plan: Path) -> tuple[str, list[tuple[str, bool]]]:
    """The refusal's code, and every file below the run's folder in the order in which it was opened: name, and whether for writing."""
    command = [sys.executable, "-c", OPENS, str(home), str(plan)]
    code, seen = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return code, [(name, wrote) for name, wrote in seen]


def test_a_refusal_comes_before_any_data_file_is_opened_and_a_charge_does_too(tmp_path: Path) -> None:
    """By the interpreter's own audit hook, which sees every file that is opened."""
    stage = made_stage(tmp_path / "run", made_scenario(private=True).with_changes(rounds=1), aggregation="plain")
    home = stage.home(stage.sites[0])
    data = {"images.npy", "columns.json"}
    code, seen = opened_files(home, stage.plan_file)
    assert code == ""
    names = [name for name, _ in seen]
    assert data <= set(names), "the control: training opens them, and the hook sees it"
    first_data = min(names.index(name) for name in data)
    charged = max(at for at, (name, wrote) in enumerate(seen) if name == LEDGER_FILE and wrote)
    assert charged < first_data
    spent = len([entry for entry in read_entries(home) if isinstance(entry.fact, Spent)])
    assert spent == 1
    shutil.rmtree(home / "answers")
    assert opened_files(home, stage.plan_file)[0] == ""  # the spare round
    shutil.rmtree(home / "answers")
    code, seen = opened_files(home, stage.plan_file)
    assert code == "E_PRIVACY_BUDGET"
    assert not data & {name for name, _ in seen}
    assert (LEDGER_FILE, True) in seen


@pytest.mark.debian
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs the Debian package strace")
def test_the_kernel_saw_no_data_file_opened_before_the_charge_was_on_the_disk(tmp_path: Path) -> None:
    """The same for a deployed site, by system calls, of every thread and of every library: write, fsync, and only then the images."""
    stage = made_stage(tmp_path / "run", made_scenario(private=True).with_changes(rounds=1), aggregation="plain")
    home, plan = stage.home(stage.sites[0]), stage.scenario.plan
    Account(home, read_site_file(home)).pay(Release(plan=plan, session="", round=0, attempt=0))
    calls = traced(tmp_path, home, stage.plan_file)
    charged = max(at for at, call in enumerate(calls) if call.startswith("write(") and LEDGER_FILE in call)
    synced = min(at for at, call in enumerate(calls) if at > charged and call.startswith("fsync(") and LEDGER_FILE in call)
    data = [at for at, call in enumerate(calls) if "/data/images.npy" in call or "/data/columns.json" in call]
    assert len(data) >= 2, "the control: training opens them, and the trace sees it"
    assert synced < min(data)
    refused = traced(tmp_path, home, stage.plan_file)
    assert any("E_PRIVACY_BUDGET" in call for call in refused)
    assert not any("/data/images.npy" in call or "/data/columns.json" in call for call in refused)


PAYS = """
import sys
from dataclasses import replace
from pathlib import Path
from client.account import Account, Release
from client.home import read_site_file
from common.errors import FedwardError
from common.plan import load

home, plan = Path(sys.argv[1]), load(Path(sys.argv[2]))
limits = 'eps_plan = 8.0\\neps_total = 8.0\\nown_share_plan = 8.0\\nown_share_total = 8.0\\ndelta = 1e-4'
(home / "policy.toml").write_text(f'[budget]\\n{limits}\\n[plans]\\nunits = ["record"]\\n')
account = Account(home, replace(read_site_file(home), simulation=None))
try:
    account.open_snapshot(account.pay(Release(plan=plan, session="00", round=1, attempt=0)).manifest)
except FedwardError as error:
    print(error.code)
"""


def traced(folder: Path, home: Path, plan: Path) -> list[str]:
    """What a deployed site's charge opened, wrote and flushed, in order, as system calls; descriptors are shown with their paths."""
    log = folder / "strace"
    command = ["strace", "-f", "-y", "-s", "32", "-o", str(log), "-e", "trace=openat,open,openat2,write,fsync"]
    subprocess.run([*command, sys.executable, "-c", PAYS, str(home), str(plan)], check=True, capture_output=True)
    return [line.partition(" ")[2].lstrip() for line in log.read_text(errors="replace").splitlines()]


def read_entries(home: Path) -> list[ledger.Entry]:
    return ledger.read((home / LEDGER_FILE).read_bytes(), name=home.name)[1]
