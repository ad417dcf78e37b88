# SPDX-License-Identifier: Apache-2.0
"""Flower's `Grid`, over the worker processes of one machine.

To a coordinator this is a federation: node ids, messages pushed and pulled, replies that come when they come, sites that fail. Behind it
is no SuperLink, no database and no socket, but a pool of processes that run the real `ClientApp` on real messages, with arrays in shared
memory. `send_and_receive`, time to live and error replies mean what they mean in Flower.

Beyond Flower's interface there are two things that a simulation wants: `wait`, which sleeps until a reply is there instead of polling,
and `cancel`, which gives up on a message and gets its worker back.

It simulates, and keeps nobody apart: sites share processes, and nothing here protects one from another or from the coordinator.
"""

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Self
from uuid import uuid4

from flwr.app import DEFAULT_TTL, Message, RecordDict, UserConfig
from flwr.common.constant import NUM_PARTITIONS_KEY, PARTITION_ID_KEY, SUPERLINK_NODE_ID
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from common.errors import EngineError
from simulations.engine.frames import Site
from simulations.engine.nursery import Nursery
from simulations.engine.parcel import copy_metadata, pack_message, unpack_message
from simulations.engine.pool import Pool, Task

_FIRST_NODE_ID = 1000
"""Site i is node 1000 + i: small, readable, and none of Flower's own (the SuperLink is node 1)."""


class LocalEngine(Grid):
    """A federation of `num_sites` simulated sites. A context manager: leaving it ends every process.

    client_app   "module:attribute" of a `ClientApp`; the module is imported in the worker processes, not here.
    workers      processes; as many as this process may use cores, unless told otherwise.
    node_configs one per site, what its SuperNode would be started with; partition-id and num-partitions are added.
    env          further environment variables of the workers.
    nursery      where its workers come from, if it is to be shared or was started early; else the engine has its own.

    Construction returns while the workers are still importing; messages wait for them.
    """

    def __init__(
        self,
        client_app: str,
        num_sites: int,
        *,
        workers: int | None = None,
        node_configs: Sequence[Mapping[str, str | int | float | bool]] | None = None,
        env: Mapping[str, str] | None = None,
        nursery: Nursery | None = None,
    ) -> None:
        _check(client_app, num_sites, workers, node_configs, nursery)
        configs = node_configs or [{}] * num_sites
        self._configs: dict[int, UserConfig] = {
            _FIRST_NODE_ID + i: {PARTITION_ID_KEY: i, NUM_PARTITIONS_KEY: num_sites, **config} for i, config in enumerate(configs)
        }
        self.workers = min(workers or _cores(), num_sites)
        self._run = Run.create_empty(run_id=1)
        self.set_run(self._run)
        self._closing = ExitStack()
        self._pool = Pool(nursery or self._closing.enter_context(Nursery(client_app)), self.workers, env or {})
        self._closing.callback(self._pool.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End every worker at once. Messages without a reply stay without one."""
        self._closing.close()

    # Flower's interface.

    def set_run(self, run: Run) -> None:
        """Set the run; `run.override_config` is what the sites see as `context.run_config`."""
        self._run = run
        # Message() reads who sends it from here, in this process as in a ServerApp's.
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run.run_id, SUPERLINK_NODE_ID, run.primary_task_id or 0

    @property
    def run(self) -> Run:
        """A copy of the run."""
        return replace(self._run)

    def create_message(self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None) -> Message:
        """Deprecated in Flower in favour of `Message(...)`, which this is."""
        return Message(content, dst_node_id, message_type, ttl=ttl or DEFAULT_TTL, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """The sites' node ids, in the order of their partitions."""
        return list(self._configs)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send messages; returns their new ids, in order. Raises: EngineError, if one is not to a site of this engine."""
        tasks = [self._task(message) for message in messages]
        self._pool.submit(tasks)
        return [task.message_id for task in tasks]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that have arrived, each exactly once. Unlike Flower's, unknown and finished ids are passed over in silence."""
        return [unpack_message(parcel) for parcel in self._pool.take(list(message_ids))]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Push, and collect replies until all are there or `timeout` seconds have passed. Late replies can still be pulled."""
        deadline = None if timeout is None else time.monotonic() + timeout
        missing = dict.fromkeys(self.push_messages(messages))
        replies: list[Message] = []
        while missing:
            arrived = self.pull_messages(missing)
            for reply in arrived:
                del missing[reply.metadata.reply_to_message_id]
            replies += arrived
            left_s = None if deadline is None else deadline - time.monotonic()
            if not missing or (left_s is not None and left_s <= 0):
                break
            self.wait(left_s)
        return replies

    # Beyond Flower's interface.

    def wait(self, timeout_s: float | None = None) -> bool:
        """Sleep until a reply has arrived since the last call, at most `timeout_s`. False: none has.

        Pull after each call: a reply that came and was not pulled does not end the next wait.
        """
        return self._pool.wait(timeout_s)

    def cancel(self, message_ids: Iterable[str]) -> None:
        """Give up on messages: they are never answered, and a worker busy with one is killed and replaced."""
        self._pool.cancel(list(message_ids))

    def pids(self) -> list[int]:
        """The engine's processes beside this one, for those who measure or kill them."""
        return self._pool.pids()

    def _task(self, message: Message) -> Task:
        node_id = message.metadata.dst_node_id
        if node_id not in self._configs:
            raise EngineError(
                f"a message is addressed to node {node_id}, which is none of the {len(self._configs)} sites of this engine.",
                fix="Take node ids from get_node_ids().",
            )
        message.metadata.__dict__["_message_id"] = str(uuid4())  # as Flower's own grids do: the sender sees the id on its message
        metadata = copy_metadata(message.metadata)
        return Task(
            metadata=metadata,
            site=Site(node_id, self._configs[node_id], self._run.override_config),
            parcel=pack_message(message),
            expires=time.monotonic() + metadata.created_at + metadata.ttl - time.time(),
        )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check(client_app: str, num_sites: int, workers: int | None, node_configs: Sequence[object] | None, nursery: Nursery | None) -> None:
    module, _, attribute = client_app.partition(":")
    if not module or not attribute:
        raise EngineError(f"the ClientApp is given as '{client_app}', expected 'module:attribute'.", fix="For example 'client.app:app'.")
    if num_sites < 1 or (workers is not None and workers < 1):
        raise EngineError(f"{num_sites} sites on {workers} workers: at least one of each is needed.", fix="Ask for one or more.")
    if node_configs is not None and len(node_configs) != num_sites:
        raise EngineError(f"{len(node_configs)} node configurations for {num_sites} sites.", fix="Give one per site, or none.")
    if nursery is not None and nursery.client_app != client_app:
        raise EngineError(f"the nursery has imported '{nursery.client_app}', expected '{client_app}'.", fix="Start one for this ClientApp.")
