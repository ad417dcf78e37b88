# SPDX-License-Identifier: Apache-2.0
"""`fedward site metrics`: what a hospital's own Prometheus is told, and that it is no more than that."""

import json
import os
import re
import shlex
import stat
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from client.membership import pause
from client.process import place, status
from client.process.serve import LOCK_FILE
from client.process.status import Board, Refused, Spent, Status
from client.process.textfile import exposition, write
from common import durable
from common.errors import DataNotFound
from fedward import app
from tests.client.homes import PATIENTS, hospital

MANUAL = Path(__file__).parents[2] / "docs" / "monitoring.md"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
STATUS = Status(
    site="north",
    state="training",
    process=77,
    version="0.1.0",
    plan="ab" * 32,
    plan_name="lung",
    round=7,
    heard=1_700_000_500,
    answered=33,
    refused=(
        Refused(at=1_700_000_100, code="E_POLICY", type="train.fsa1", round=3),
        Refused(at=1_700_000_200, code="E_POLICY", type="train.fsa1", round=4),
    ),
    spent=(Spent(unit="patient", epsilon=3.25, cap=12.0, delta=1e-3),),
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return hospital(tmp_path)


def samples(home: Path) -> Samples:
    families = text_string_to_metric_families(exposition(home).decode())
    return {(each.name, tuple(sorted(each.labels.items()))): each.value for family in families for each in family.samples}


def value(found: Samples, name: str, **labels: str) -> float:
    return found[(name, tuple(sorted({"site": "north", **labels}.items())))]


def lines_but_the_disks(content: bytes) -> list[str]:
    """Free space changes under a test's feet."""
    return [line for line in content.decode().splitlines() if not line.startswith("fedward_home_disk_free_bytes{")]


def serving(home: Path) -> None:
    Board(home, STATUS, clock=lambda: 1_700_000_500)


def test_a_site_says_what_was_spent_and_what_is_allowed(home: Path) -> None:
    serving(home)
    found = samples(home)
    assert value(found, "fedward_home_epsilon_spent", unit="patient") == 3.25
    assert value(found, "fedward_home_epsilon_cap", unit="patient") == 12.0
    assert value(found, "fedward_home_answered_total") == 33
    assert value(found, "fedward_home_round") == 7
    assert value(found, "fedward_home_last_heard_timestamp_seconds") == 1_700_000_500
    assert value(found, "fedward_home_last_refusal_timestamp_seconds", code="E_POLICY") == 1_700_000_200
    assert value(found, "fedward_home_state", state="training") == 1
    assert value(found, "fedward_home_disk_free_bytes", holds="home") > 0


def test_whether_the_process_lives_is_looked_at_and_not_believed(home: Path) -> None:
    serving(home)
    assert value(samples(home), "fedward_home_up") == 0, "the file of a killed process says that it trains"
    with place.alone(home, LOCK_FILE, what="site process"):
        assert value(samples(home), "fedward_home_up") == 1


def test_a_pause_shows(home: Path) -> None:
    assert value(samples(home), "fedward_home_paused") == 0
    pause.pause(home)
    assert value(samples(home), "fedward_home_paused") == 1


def test_before_the_first_start_only_what_is_known_is_said(home: Path) -> None:
    names = {name for name, _ in samples(home)}
    assert names == {"fedward_home_up", "fedward_home_paused", "fedward_home_left", "fedward_home_disk_free_bytes"}


def test_no_patient_no_count_of_them_and_no_path_is_in_it(home: Path) -> None:
    serving(home)
    text = exposition(home).decode()
    assert str(home) not in text
    assert "made" not in text
    assert not {value for value in samples(home).values() if value == PATIENTS}
    allowed = {"site", "unit", "state", "code", "holds", "plan", "digest", "version"}
    assert {name for _, labels in samples(home) for name, _ in labels} == allowed


def test_the_file_is_whole_and_another_user_can_read_it(home: Path, tmp_path: Path) -> None:
    target = tmp_path / "collector" / "fedward.prom"
    target.parent.mkdir()
    serving(home)
    old = os.umask(0o077)
    try:
        result = CliRunner().invoke(app, shlex.split(f"site metrics --home {home} --textfile {target} --json"))
    finally:
        os.umask(old)
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["spent"][0]["epsilon"] == 3.25
    assert lines_but_the_disks(target.read_bytes()) == lines_but_the_disks(exposition(home))
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert [path.name for path in target.parent.iterdir()] == ["fedward.prom"]


def test_a_link_in_the_files_place_opens_nothing_to_others(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever else may write to the collector's folder puts one there as soon as the file is in its place."""
    key, path = home / "identity.key", tmp_path / "fedward.prom"
    put = durable.put_in_place

    def raced(beside: Path, place: Path, *, fsync: bool) -> None:
        put(beside, place, fsync=fsync)
        seen.append(place.stat().st_mode & 0o777)
        place.unlink()
        place.symlink_to(key)

    seen: list[int] = []
    monkeypatch.setattr(durable, "put_in_place", raced)
    before = os.umask(0o077)
    try:
        write(path, exposition(home))
    finally:
        os.umask(before)
    assert path.is_symlink()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert seen == [0o644], "whatever the process's umask"


def test_without_a_file_it_is_printed(home: Path) -> None:
    printed = CliRunner().invoke(app, ["site", "metrics", "--home", str(home)]).output
    assert printed.startswith("# HELP fedward_home_up ")


def test_a_folder_that_is_no_home_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound):
        exposition(tmp_path)


def test_the_manual_names_the_same_families(home: Path) -> None:
    serving(home)
    families = {family.name for family in text_string_to_metric_families(exposition(home).decode())}
    section = MANUAL.read_text(encoding="utf-8").partition("## Metrics of a site")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(fedward_home\w*)", section))
    assert {family for family in families if not any(name.startswith(family) for name in named)} == set()
    assert named <= {name for name, _ in samples(home)}


def test_the_status_is_the_site_processs_own(home: Path) -> None:
    serving(home)
    assert status.read(home) == STATUS
