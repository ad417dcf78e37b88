# SPDX-License-Identifier: Apache-2.0
"""The ServerApp of the transport benchmark: messages to every node, timed from push to the last reply, as the coordinator would see them.

FEDWARD_TRIPS    a folder: `ask.json` says what to send, `told.json` is what came of it
"""

import json
import os
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
from flwr.app import Context, RecordDict
from flwr.serverapp import Grid, ServerApp

from common import wire
from common.records import FIELDS
from server.transport.exchange import Answer, Line

FOLDER_VARIABLE: Final = "FEDWARD_TRIPS"
ASK_FILE: Final = "ask.json"
TOLD_FILE: Final = "told.json"
_FOUND_S: Final = 120.0

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    del context
    folder = Path(os.environ[FOLDER_VARIABLE])
    ask = json.loads((folder / ASK_FILE).read_text())
    nodes = _awaited(grid, ask["nodes"])
    told = [_trip(grid, nodes, trip, timeout_s=ask["timeout_s"]) for trip in ask["trips"] for _ in range(trip["times"])]
    partial = folder / f"{TOLD_FILE}.part"
    partial.write_text(json.dumps(told))
    partial.rename(folder / TOLD_FILE)


def _awaited(grid: Grid, number: int) -> list[int]:
    until = time.monotonic() + _FOUND_S
    while len(found := sorted(grid.get_node_ids())) < number and time.monotonic() < until:
        time.sleep(0.2)
    return found[:number]


def _trip(grid: Grid, nodes: list[int], trip: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
    """As the coordinator asks (server.transport.exchange), to the last answer."""
    content = _content(trip)
    started = time.monotonic()
    answers = [
        {"s": time.monotonic() - started, **_told(answer)}
        for answer in Line(grid).ask(trip["type"], dict.fromkeys(nodes, content), group="1", deadline_s=timeout_s)
    ]
    return {"name": trip["name"], "seconds": time.monotonic() - started, "silent": len(nodes) - len(answers), "replies": answers}


def _told(answer: Answer) -> dict[str, Any]:
    if answer.content is None:
        return {"error": answer.failure}
    fields = {key: value for key, value in answer.content.config_records[FIELDS].items() if isinstance(value, str | int)}
    arrays = [array for record in answer.content.array_records.values() for array in record.values()]
    return {"fields": fields, "bytes": sum(len(array.data) for array in arrays)}


def _content(trip: dict[str, Any]) -> RecordDict:
    control = os.urandom(trip["control"])
    model = np.random.default_rng().random(trip["values"], dtype=np.float32) if trip["values"] else None
    if trip["type"] == wire.HELLO:
        return wire.encode_hello(wire.Hello(plan=trip.get("plan") or control.hex()))
    return wire.encode_secure_request(wire.SecureRequest(round=1, control=control, model=model))
