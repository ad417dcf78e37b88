# SPDX-License-Identifier: Apache-2.0
"""A site as a Flower ClientApp: in the simulation engine, on Flower's Ray runtime, and under a stock SuperNode.

The app decodes a message, hands it to the `Site`, encodes what comes back. Whatever goes wrong becomes a refusal with a code and nothing
else: no text, no traceback, no path leaves. The words go to `error.log` in the site's own folder, or to nobody if that cannot be written:
an exception that got out of here would be sent to the coordinator by Flower, text and all. An exception that is not ours is written down
without its text (`common.backtrace`).

Which site this is, and which plan it approved, is said by the machine it runs on, never by the coordinator. The node's own config
(`home`, `plan`) wins over the environment:

    FEDWARD_PLAN    the plan file
    FEDWARD_SITE    the site's home folder                           (one hospital on this machine), or
    FEDWARD_SITES   a folder of home folders in the order of names   (simulations; Flower's partition-id picks one)
"""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client.home import read_site_file
from client.site import Site
from common import wire
from common.backtrace import keep_whole, outline
from common.durable import OWNER_ONLY
from common.errors import DataNotFound, FedwardError, TrainFailed
from common.plan import load

PLAN_VARIABLE = "FEDWARD_PLAN"
SITE_VARIABLE = "FEDWARD_SITE"
SITES_VARIABLE = "FEDWARD_SITES"
ERROR_FILE = "error.log"
NOBODY = ""

log = logging.getLogger("fedward.site")

app = ClientApp()


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """Answer with the site's name, or refuse the plan."""
    return _answer(message, context, lambda site: wire.encode_hello_reply(site.hello(wire.decode_hello(message.content))))


def secure(message: Message, context: Context) -> Message:
    """Answer one step of secure aggregation, or refuse."""

    def reply(site: Site) -> RecordDict:
        request = wire.decode_secure_request(message.content, site.layout.size)
        return wire.encode_secure_reply(site.secure(request))

    return _answer(message, context, reply)


for message_type in wire.SECURE.values():
    category, _, action = message_type.partition(".")
    (app.train if category == "train" else app.query)(action)(secure)


@app.train("ideal")
def train_ideal(message: Message, context: Context) -> Message:
    """In simulations: answer with a quantised delta, or refuse."""

    def reply(site: Site) -> RecordDict:
        return wire.encode_ideal_reply(site.train_ideal(wire.decode_train_request(message.content, site.layout)))

    return _answer(message, context, reply)


@app.train("delta")
def train(message: Message, context: Context) -> Message:
    """In simulations: answer with a released delta, or refuse."""

    def reply(site: Site) -> RecordDict:
        return wire.encode_train_reply(site.train(wire.decode_train_request(message.content, site.layout)))

    return _answer(message, context, reply)


def _answer(message: Message, context: Context, reply: Callable[[Site], RecordDict]) -> Message:
    home: Path | None = None
    try:
        home = home_of(context)
        content = reply(_site(home, _plan_file(context)))
    except FedwardError as error:
        content = _refuse(home, error.code, str(error))
    except Exception as error:  # whatever broke, nothing of it may travel
        keep_whole(error)
        content = _refuse(home, TrainFailed.code, outline(error))
    return Message(content, reply_to=message)


@cache
def _site(home: Path, plan: Path) -> Site:
    return Site.open(home, load(plan))


def _plan_file(context: Context) -> Path:
    return Path(str(context.node_config.get("plan") or _required(PLAN_VARIABLE)))


def home_of(context: Context) -> Path:
    """The home folder of the site that this node is. Raises: DataNotFound, if nothing on this machine says."""
    if home := context.node_config.get("home") or os.environ.get(SITE_VARIABLE):
        return Path(str(home))
    return _homes(Path(_required(SITES_VARIABLE)))[int(context.node_config["partition-id"])]


def _required(variable: str) -> str:
    if value := os.environ.get(variable):
        return value
    raise DataNotFound(f"the environment variable {variable} is not set.", fix="Set it to a path on this machine before the node starts.")


@cache
def _homes(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for path in folder.iterdir() if path.is_dir()))


def _refuse(home: Path | None, code: str, words: str) -> RecordDict:
    if home is None:
        log.error("%s: this node does not know which site it is", code)
    else:
        _write_down(home, f"{code} {words}")
    return wire.encode_refusal(wire.Refusal(site=_name_at(home), code=code))


def _write_down(home: Path, line: str) -> None:
    with suppress(OSError), os.fdopen(os.open(home / ERROR_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, OWNER_ONLY), "a") as file:
        file.write(f"{line}\n")


def _name_at(home: Path | None) -> str:
    """As site.toml says it. A folder's name is this machine's business, so a site that cannot read the file is nobody."""
    try:
        return read_site_file(home).site.name if home else NOBODY
    except (FedwardError, OSError, ValueError):
        return NOBODY
