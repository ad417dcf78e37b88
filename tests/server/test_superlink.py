# SPDX-License-Identifier: Apache-2.0
"""How Flower's own processes are started: what the command lines and the environment promise, and what becomes of a damaged database."""

import importlib
import io
import os
import sqlite3
import stat
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
from flwr.cli.config_utils import get_fab_metadata
from sqlalchemy import make_url

from server.home import CoordinatorHome, parse
from server.process import control
from server.process.superlink import SuperLinkFiles


def files(folder: Path, text: str = "") -> SuperLinkFiles:
    return SuperLinkFiles(CoordinatorHome(folder, parse(text)))


def test_the_superlink_is_isolated_secured_and_installs_nothing(tmp_path: Path) -> None:
    command = files(tmp_path).superlink()
    options = dict(zip(command[1::1], [*command[2:], ""], strict=True))
    assert options["--isolation"] == "process"
    assert options["--host"] == "127.0.0.1"
    url = make_url(options["--database"])
    assert (url.get_backend_name(), url.database, url.query["timeout"]) == ("sqlite", str(tmp_path / "superlink" / "state.db"), "60")
    assert {"--enable-supernode-auth", "--disable-runtime-dependency-installation"} <= set(command)
    assert "--insecure" not in command
    assert "--root-certificates" in files(tmp_path).superexec()


def test_without_tls_there_are_no_node_keys_because_flower_has_none_then(tmp_path: Path) -> None:
    insecure = files(tmp_path, "[superlink]\ninsecure = true\n")
    assert "--insecure" in insecure.superlink()
    assert "--insecure" in insecure.superexec()
    assert "--enable-supernode-auth" not in insecure.superlink()


@pytest.mark.parametrize("text", ["", "[superlink]\ninsecure = true\n"])
def test_flowers_own_parsers_take_every_option(tmp_path: Path, text: str) -> None:
    """The contract with the pinned version: an option that is renamed would stop a coordinator at its next upgrade."""
    made = files(tmp_path, text)
    asked = importlib.import_module("flwr.superlink.cli.flower_superlink")._parse_args_run_superlink().parse_args(made.superlink()[1:])
    assert (asked.isolation, asked.host, asked.port, asked.runtime_dependency_install) == ("process", "127.0.0.1", 8000, False)
    working = importlib.import_module("flwr.supercore.cli.flower_superexec")._parse_args().parse_args(made.superexec()[1:])
    assert (working.runtime_api_address, working.insecure) == ("127.0.0.1:8000", bool(text))
    assert working.superexec_auth_secret_file == asked.superexec_auth_secret_file == str(made.secret)


def test_nothing_is_reported_nothing_asked_and_no_proxy_stands_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "intranet")
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "1")
    environment = files(tmp_path).environment()
    assert environment["NO_PROXY"] == "intranet,127.0.0.1,localhost"
    assert (environment["FLWR_TELEMETRY_ENABLED"], environment["FLWR_DISABLE_UPDATE_CHECK"]) == ("0", "1")
    assert environment["FLWR_HOME"].startswith(str(tmp_path))


def test_the_secret_is_new_at_every_start_and_the_owners_alone(tmp_path: Path) -> None:
    made = files(tmp_path)
    made.prepare()
    first = made.secret.read_bytes()
    made.prepare()
    assert len(first) == 32
    assert made.secret.read_bytes() != first
    assert stat.S_IMODE(made.secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(made.home.superlink.stat().st_mode) == 0o700


def test_a_database_is_whole_until_a_page_of_it_is_not(tmp_path: Path) -> None:
    made = files(tmp_path)
    made.prepare()
    assert made.is_whole(), "none is as good as a new one"
    with closing(sqlite3.connect(made.database)) as db, db:
        db.execute("CREATE TABLE message (body BLOB)")
        db.executemany("INSERT INTO message VALUES (?)", [(os.urandom(3000),) for _ in range(50)])
    assert made.is_whole()
    whole = made.database.read_bytes()
    for damage in (b"", b"not a database" * 100, whole[:4096] + bytes(8192) + whole[12288:], whole[:5000]):
        made.database.write_bytes(damage)
        assert made.is_whole() == (damage == b"")


def test_what_is_put_aside_is_kept_once(tmp_path: Path) -> None:
    made = files(tmp_path)
    made.prepare()
    for content in (b"first", b"second"):
        made.database.write_bytes(content)
        made.database.with_name("state.db-wal").write_bytes(content)
        made.put_aside()
    assert not made.database.exists()
    assert (made.home.superlink / "damaged" / "state.db").read_bytes() == b"second"


def test_the_bundle_brings_names_and_not_a_line_of_code() -> None:
    """What a stock SuperNode fetches: it runs what the hospital has installed, or nothing."""
    with zipfile.ZipFile(io.BytesIO(control.bundle())) as bundle:
        assert sorted(bundle.namelist()) == [".info/CONTENT", "pyproject.toml"]
        assert "server.app:app" in bundle.read("pyproject.toml").decode()
    assert get_fab_metadata(control.bundle()) == ("fedward/fedward", "1.0.0"), "Flower's own reader takes it"
    assert control.bundle() == control.bundle()
