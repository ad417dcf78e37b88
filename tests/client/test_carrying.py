# SPDX-License-Identifier: Apache-2.0
"""The ClientApp of a stock SuperNode that has a socket and nothing else."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from client.process import carrying
from common import wire
from common.records import FIELDS
from tests.client.mailbox.made import at_the_socket, step
from tests.client.processes import ROOT

PROBE = """
import json, sys
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 7, 0
from client.app import app
from common import wire
content = wire.encode_secure_request(wire.SecureRequest(round=1, control=b"abc"))
config = {"home": "/nowhere", "plan": "/nowhere", "epsilon": 1000}
context = Context(run_id=1, node_id=7, node_config=dict(config), state=RecordDict(), run_config=dict(config))
reply = app(Message(content, 7, wire.SECURE["MASK"]), context)
loaded = [name for name in ("torch", "client.site", "client.process.handler", "client.ledger") if name in sys.modules]
print(json.dumps({"site": reply.content["fedward"]["site"], "loaded": loaded}))
"""


def test_the_app_carries_to_the_socket_and_loads_nothing_of_the_site(tmp_path: Path) -> None:
    with at_the_socket(tmp_path / "site.sock") as site:
        environment = {**os.environ, "FEDWARD_SOCKET": str(tmp_path / "site.sock")}
        done = subprocess.run(
            [sys.executable, "-c", PROBE], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"site": "north", "loaded": []}
    assert [heard.head.fields["control"] for heard in site.heard] == [b"abc"]


def test_a_site_that_is_being_started_is_waited_for(tmp_path: Path) -> None:
    socket = tmp_path / "site.sock"
    ended = threading.Event()

    def later() -> None:
        time.sleep(0.5)
        with at_the_socket(socket):
            ended.wait(30)

    thread = threading.Thread(target=later)
    thread.start()
    try:
        assert carrying.answer(str(socket), wire.SECURE["MASK"], step(), away_s=20)[FIELDS]["site"] == "north"
    finally:
        ended.set()
        thread.join()


def test_a_site_that_stays_away_is_said_to_be_in_nobodys_name(tmp_path: Path) -> None:
    refused = carrying.answer(str(tmp_path / "site.sock"), wire.SECURE["MASK"], step(), away_s=0.5)[FIELDS]
    assert (refused["type"], refused["code"], refused["site"]) == ("refusal", "E_SITE_AWAY", "")
