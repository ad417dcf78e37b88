# SPDX-License-Identifier: Apache-2.0
"""The rig's stock SuperNode is the unit's, with the rig's places in it. The whole way: test_journey.py, whose third hospital has it."""

from pathlib import Path

import pytest

from common.errors import EngineError
from simulations.rig import supernode


def test_it_is_flowers_own_program_with_the_mailboxs_key_and_nothing_of_the_site_but_its_socket() -> None:
    stock = supernode.started(Path("/rig/mailbox"), superlink="10.0.0.1:4433", socket=Path("/rig/door/site.sock"), port=4321)
    program, *words = stock.command
    assert Path(program).name == "flower-supernode"
    assert words == [
        *("--superlink", "10.0.0.1:4433", "--root-certificates", "/rig/mailbox/ca.crt"),
        *("--auth-supernode-private-key", "/rig/mailbox/node.key", "--port", "4321"),
    ]
    assert stock.environment["FEDWARD_SOCKET"] == "/rig/door/site.sock"
    assert {name for name in stock.environment if name.startswith("FEDWARD_")} == {"FEDWARD_SOCKET"}
    assert (stock.environment["FLWR_TELEMETRY_ENABLED"], stock.environment["FLWR_DISABLE_UPDATE_CHECK"]) == ("0", "1")
    assert not any("fedward/" in word for word in (*words, *stock.environment.values()) if word.startswith("/"))


def test_a_unit_that_has_changed_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.service"
    other.write_text(supernode._DEPLOYED.read_text().replace("--port 9094", "--port 9095"))
    monkeypatch.setattr(supernode, "_DEPLOYED", other)
    with pytest.raises(EngineError, match="--port 9094"):
        supernode.started(tmp_path, superlink="10.0.0.1:4433", socket=tmp_path / "site.sock", port=1)
