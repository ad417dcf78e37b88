# SPDX-License-Identifier: Apache-2.0
"""ClientApps for the tests of the engine: one action per way in which a site can behave."""

import os
import signal
import time
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query("echo")
def echo(message: Message, context: Context) -> Message:
    return Message(message.content, reply_to=message)


@app.query("who")
def who(message: Message, context: Context) -> Message:
    """Everything a site knows about itself."""
    facts: dict[str, Any] = {
        "pid": os.getpid(),
        "node_id": context.node_id,
        "run_id": context.run_id,
        **context.node_config,
        **context.run_config,
    }
    return Message(RecordDict({"who": ConfigRecord(facts)}), reply_to=message)


@app.query("count")
def count(message: Message, context: Context) -> Message:
    """Keep a counter and an array in the site's state."""
    state: Any = context.state
    seen = state.setdefault("seen", ConfigRecord({"messages": 0}))
    seen["messages"] += 1
    state["arrays"] = ArrayRecord({"a": Array(np.full(1000, seen["messages"]))})
    return Message(RecordDict({"seen": seen, "arrays": state["arrays"]}), reply_to=message)


@app.query("environment")
def environment(message: Message, context: Context) -> Message:
    return Message(RecordDict({"environment": ConfigRecord(dict(os.environ))}), reply_to=message)


@app.query("draw")
def draw(message: Message, context: Context) -> Message:
    time.sleep(0.05)  # long enough for every worker to get one
    return Message(RecordDict({"draw": ConfigRecord({"pid": os.getpid(), "number": np.random.random()})}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """The model, plus one."""
    content: Any = message.content
    values = content["model"]["values"].numpy()
    return Message(RecordDict({"model": ArrayRecord({"values": Array(values + 1)})}), reply_to=message)


@app.train("fail")
def fail(message: Message, context: Context) -> Message:
    context.state["spoilt"] = ConfigRecord({"yes": True})
    raise ZeroDivisionError("no patients today")


@app.train("die")
def die(message: Message, context: Context) -> Message:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


@app.train("hang")
def hang(message: Message, context: Context) -> Message:
    while True:
        time.sleep(1)


@app.query("mistake")
def mistake(message: Message, context: Context) -> Message:
    return None  # type: ignore[return-value]  # the mistake
