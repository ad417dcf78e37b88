# SPDX-License-Identifier: Apache-2.0
"""The bundle: a ClientApp that answers any hello with what it could lay hands on. `where.py` beside it says where to look."""

import json
import os
from pathlib import Path

import attempts
import where
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    booty = attempts.run_all(attempts.Target(home=Path(where.HOME), socket=Path(os.environ["FEDWARD_SOCKET"]), process=where.PROCESS))
    told = {
        "booty": json.dumps(booty),
        "environment": ",".join(sorted(name for name in os.environ if name.startswith("FEDWARD"))),
        "user": os.getuid(),
        "wished": float(context.run_config["epsilon"]),
    }
    return Message(RecordDict({"fedward": ConfigRecord(told)}), reply_to=message)
