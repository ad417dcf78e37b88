# SPDX-License-Identifier: Apache-2.0
"""coordinator.toml: read strictly, refused with line and fix, and never with a port that others than this machine reach."""

from pathlib import Path

import pytest

from common.errors import DataNotFound, Exposed, PlanUnknownKey, PlanValue
from server.home import TEMPLATE, CoordinatorFile, CoordinatorHome, parse


def test_the_file_that_init_writes_says_the_defaults() -> None:
    assert parse(TEMPLATE.format(port=8000, live_port=8800)) == CoordinatorFile()


@pytest.mark.parametrize("host", ["0.0.0.0", "10.1.2.3", "::", "coordinator.example.org", ""])
def test_whoever_would_open_the_control_port_to_others_is_refused_with_the_line(host: str) -> None:
    with pytest.raises(Exposed, match=r"coordinator\.toml, line 3: .*127\.0\.0\.1") as refused:
        parse(f'[run]\n[superlink]\nhost = "{host}"\n')
    assert (refused.value.code, refused.value.exit_code) == ("E_EXPOSED", 4)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1"])
def test_loopback_is_loopback(host: str) -> None:
    assert parse(f'[superlink]\nhost = "{host}"\n').superlink.host == host


def test_an_address_of_version_six_is_written_in_brackets() -> None:
    home = CoordinatorHome(Path("c"), parse('[superlink]\nhost = "::1"\nport = 9000\n'))
    assert home.address == "[::1]:9000"


def test_a_misspelt_key_is_refused_with_line_and_what_was_meant() -> None:
    with pytest.raises(PlanUnknownKey, match=r"line 2: \[superlink\] prot") as refused:
        parse("[superlink]\nprot = 8000\n")
    assert "'port'" in refused.value.fix


@pytest.mark.parametrize("port", ["0", "65536", '"8000"', "true"])
def test_a_port_that_is_none_is_refused_with_its_line(port: str) -> None:
    with pytest.raises(PlanValue, match="line 2"):
        parse(f"[superlink]\nport = {port}\n")


def test_a_folder_that_is_no_coordinators_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound) as refused:
        CoordinatorHome.open(tmp_path)
    assert "fedward server init" in refused.value.fix
