# SPDX-License-Identifier: Apache-2.0
"""`fedward server`, typed as an operator types it: what init makes, what the switches leave behind, and every refusal by its name."""

import json
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from common import keyfile
from common.errors import DataNotFound, FedwardError, PlanValue, RunFolderTaken, TransportError
from common.fingerprint import Fingerprint
from common.plan import digest_of, load, to_toml
from fedward import app
from server.home import CoordinatorFile, CoordinatorHome
from server.process import control
from server.process.start import check_ready
from tests.journeys.made import made_scenario
from tests.server.coordinators import a_consortium, free_port, made_coordinator


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everybody types in a folder of their own, with a plan in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.toml").write_text(to_toml(made_scenario(private=False).plan))
    return tmp_path


def typed(line: str) -> Result:
    return CliRunner().invoke(app, shlex.split(line))


def refused(line: str) -> FedwardError:
    error = typed(line).exception
    assert isinstance(error, FedwardError)
    return error


def test_init_makes_a_folder_that_wants_a_roster_and_nothing_else() -> None:
    told = json.loads(typed("server init c --plan plan.toml --name fed.example.org --json").stdout)
    home = CoordinatorHome.open(Path("c"))
    key = keyfile.load(Path("c/identity.key"), "coordinator")
    assert home.file == CoordinatorFile()
    assert told["plan"] == digest_of(load(home.plan_file)) == digest_of(load(Path("plan.toml")))
    assert told["words"] == Fingerprint.of(key.public).words
    assert stat.S_IMODE(Path("c").stat().st_mode) == 0o700
    assert {path.name for path in Path("c").iterdir()} == {"coordinator.toml", "identity.key", "identity.pub", "nodes", "plan.toml", "tls"}
    with pytest.raises(FedwardError, match="roster") as wanting:
        check_ready(home)
    assert wanting.value.code == "E_ROSTER_NOT_FOUND"


def test_init_overwrites_nothing_and_makes_nothing_of_a_plan_that_is_none() -> None:
    assert typed("server init c --plan plan.toml").exit_code == 0
    before = {path: path.read_bytes() for path in Path("c").rglob("*") if path.is_file()}
    assert isinstance(refused("server init c --plan plan.toml"), RunFolderTaken)
    assert {path: path.read_bytes() for path in Path("c").rglob("*") if path.is_file()} == before
    Path("bad.toml").write_text(Path("plan.toml").read_text().replace("rounds = 4", "rounds = 0"))
    assert isinstance(refused("server init d --plan bad.toml"), PlanValue)
    assert not Path("d").exists()


def test_the_key_of_roster_init_is_taken_as_it_is() -> None:
    assert typed("roster init consortium").exit_code == 0
    assert typed("server init c --plan plan.toml --key consortium/coordinator.key").exit_code == 0
    assert Path("c/identity.pub").read_bytes() == Path("consortium/coordinator.pub").read_bytes()


def test_a_folder_with_a_signed_roster_is_ready(desk: Path) -> None:
    check_ready(made_coordinator(desk / "c", desk / "plan.toml", a_consortium(("east", "north", "west"))))


def test_the_switches_are_files_that_outlive_whoever_reads_them() -> None:
    typed("server init c --plan plan.toml")
    assert json.loads(typed("server pause -C c --json").stdout) == {"paused": True}
    assert Path("c/run/pause").exists()
    assert json.loads(typed("server resume -C c --json").stdout) == {"paused": False, "was_paused": True}
    assert not Path("c/run/pause").exists()
    assert "not paused" in typed("server resume -C c").stdout
    assert typed("server stop -C c").exit_code == 0
    assert Path("c/run/stop").exists()


def test_there_is_no_model_to_export_before_the_last_round() -> None:
    typed("server init c --plan plan.toml")
    assert isinstance(refused("server export -C c --out model"), DataNotFound)
    assert not Path("model").exists()


def test_a_status_before_the_first_start_is_no_error() -> None:
    typed("server init c --plan plan.toml")
    assert json.loads(typed("server status -C c --json").stdout)["status"] is None
    assert typed("server status -C c").exit_code == 0


def test_start_refuses_before_anything_is_started_and_the_words_name_what_is_missing(desk: Path) -> None:
    typed("server init c --plan plan.toml")
    command = [sys.executable, "-m", "fedward", "server", "start", "--folder", str(desk / "c"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[2])
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "E_ROSTER_NOT_FOUND"
    assert not (desk / "c" / "superlink").exists()


def test_a_superlink_that_is_not_there_is_an_error_of_the_transport() -> None:
    nobody = control.Control(f"127.0.0.1:{free_port()}", None)
    for call in (nobody.nodes, nobody.start_run, lambda: nobody.is_running(1), lambda: nobody.stop_run(1), lambda: nobody.unregister(1)):
        with pytest.raises(TransportError, match="did not answer") as failed:
            call()
        assert (failed.value.code, failed.value.exit_code) == ("E_TRANSPORT", 4)
    nobody.close()
