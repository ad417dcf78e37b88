# SPDX-License-Identifier: Apache-2.0
"""A worker: one process, one thread, one message at a time, for as many sites as come along.

It does for a message what a SuperNode does: builds the site's `Context`, calls the `ClientApp`, and answers with the reply, or with
Flower's error if the app could not be loaded or raised. What belongs to a site (its configuration and its state) arrives with each
message and leaves with the reply, so any worker can be any site, and a worker that dies takes no site's state with it. What belongs to
the process (a model built, a cache opened) stays, which is what makes the next site cheap.

It never outlives its parents: a closed pipe ends it, and on Linux the nursery's death kills it at once, busy or not.
"""

import gc
import os
import random
import socket
import sys
import traceback
from logging import ERROR

import numpy as np
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.supercore import log
from flwr.supercore.task_identity import TaskIdentity

from simulations.engine.frames import READY, RECORD, Reader, Reply, Request, post_reply
from simulations.engine.memory import SharedFile
from simulations.engine.parcel import Parcel, pack_message, pack_records, unpack_message, unpack_records

LoadedApp = ClientApp | Error
"""A `ClientApp`, or why there is none: then every message is answered with that."""


def serve(pipe: socket.socket, board: SharedFile, outbox: SharedFile, app: LoadedApp) -> None:
    """Answer requests until the pipe closes."""
    _be_nobodys_twin()
    reader = Reader(board)
    pipe.sendall(RECORD.pack(READY, os.getpid()))
    while record := pipe.recv(RECORD.size, socket.MSG_WAITALL):
        request = reader.read(record)
        pipe.sendall(_post(outbox, request, _answer(request, app)))


def _be_nobodys_twin() -> None:
    """Workers are forks of one process: without this they would all draw the same random numbers."""
    random.seed()
    np.random.seed()
    if torch := sys.modules.get("torch"):
        torch.seed()
    gc.freeze()


def _answer(request: Request, app: LoadedApp) -> Reply:
    message = unpack_message(request.message)
    if isinstance(app, Error):
        return Reply(pack_message(Message(app, reply_to=message)), None)
    state = RecordDict() if request.state is None else unpack_records(request.state)
    try:
        reply = _call(app, message, request, state)
        return Reply(pack_message(reply), _changed(request.state, pack_records(state)))
    except Exception as error:
        log(ERROR, "the ClientApp raised an exception at partition %s", request.site.node_config.get("partition-id"), exc_info=error)
        return _error_reply(request, ErrorCode.CLIENT_APP_RAISED_EXCEPTION, f"{type(error)}:<'{error}'>")


def _call(app: ClientApp, message: Message, request: Request, state: RecordDict) -> Message:
    site, run_id = request.site, message.metadata.run_id
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, site.node_id, 0
    context = Context(
        run_id=run_id, node_id=site.node_id, node_config=dict(site.node_config), state=state, run_config=dict(site.run_config)
    )
    reply = app(message, context)
    if not isinstance(reply, Message):
        raise TypeError(f"the ClientApp returned {type(reply).__name__}, expected a Message.")
    return reply


def _changed(before: Parcel | None, after: Parcel) -> Parcel | None:
    return None if after == (before or _NO_STATE) else after


def _error_reply(request: Request, code: int, reason: str) -> Reply:
    return Reply(pack_message(Message(Error(code=code, reason=reason), reply_to=unpack_message(request.message))), None)


def _post(outbox: SharedFile, request: Request, reply: Reply) -> bytes:
    try:
        return post_reply(outbox, reply)
    except OSError as error:
        reason = f"a reply of {sum(map(len, reply.message.blobs))} bytes does not fit into memory: {error}"
        return post_reply(outbox, _error_reply(request, ErrorCode.UNKNOWN, reason))


def run_and_exit(pipe: socket.socket, board: SharedFile, outbox: SharedFile, app: LoadedApp) -> None:
    """The body of a forked worker. Does not return: nothing of the parent's stack may run twice."""
    status = 1
    try:
        serve(pipe, board, outbox, app)
        status = 0
    except (BrokenPipeError, ConnectionResetError):
        status = 0  # the coordinator is gone
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


_NO_STATE = pack_records(RecordDict())
