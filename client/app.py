# SPDX-License-Identifier: Apache-2.0
"""A site as a Flower ClientApp: in the simulation engine, on Flower's Ray runtime, and under a stock SuperNode.

The app hands a message's content on and returns what comes back, which is an answer or a refusal with a code (`client.process.handler`): an
exception that got out of here would be sent to the coordinator by Flower, text and all.

Whose answer it is, this machine says, never the coordinator:

    FEDWARD_SOCKET    the socket of a site process on this machine: the message is carried there and nothing of the site is here, which is
                      what makes a stock SuperNode bearable, since what it runs is the bundle that a coordinator shipped
    otherwise         the site lives in this process (`client.process.embedded`)

`client.mailbox` carries the same messages to the same socket without running anybody's bundle; hospitals run that.
"""

import os
from collections.abc import Callable
from typing import Final

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from common import wire

PLAN_VARIABLE: Final = "FEDWARD_PLAN"
SITES_VARIABLE: Final = "FEDWARD_SITES"
SOCKET_VARIABLE: Final = "FEDWARD_SOCKET"

app = ClientApp()


def _answerer() -> Callable[[Message, Context], RecordDict]:
    """Only what is used is imported: behind a socket there is no site here, and no torch."""
    if socket := os.environ.get(SOCKET_VARIABLE):
        from client.process import carrying

        return lambda message, _: carrying.answer(socket, message.metadata.message_type, message.content)
    from client.process import embedded

    return lambda message, context: embedded.answer(context.node_config, message.metadata.message_type, message.content)


_answer = _answerer()


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """Answer with the site's name, or refuse the plan."""
    return Message(_answer(message, context), reply_to=message)


@app.query("news")
def news(message: Message, context: Context) -> Message:
    """Take in a newer roster or a plan to read, and say where the site stands."""
    return Message(_answer(message, context), reply_to=message)


def secure(message: Message, context: Context) -> Message:
    """Answer one step of secure aggregation, or refuse."""
    return Message(_answer(message, context), reply_to=message)


for message_type in wire.SECURE.values():
    category, _, action = message_type.partition(".")
    (app.train if category == "train" else app.query)(action)(secure)


@app.train("ideal")
def train_ideal(message: Message, context: Context) -> Message:
    """In simulations: answer with a quantised delta, or refuse."""
    return Message(_answer(message, context), reply_to=message)


@app.train("delta")
def train(message: Message, context: Context) -> Message:
    """In simulations: answer with a released delta, or refuse."""
    return Message(_answer(message, context), reply_to=message)
