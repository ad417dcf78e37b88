# SPDX-License-Identifier: Apache-2.0
"""The SuperLink's Control API, as far as the coordinator needs it: runs and nodes.

`flwr run` and `flwr supernode` speak the same calls; here they are made without a terminal. The client and its messages are flwr's own and
private, so flwr is pinned and `tests/server/test_control.py` holds the names to it.

The bundle that starts a run holds no code at all: a pyproject.toml that names `server.app:app`, which the ServerApp's process then finds in
its own installation. What a stock SuperNode fetches is therefore the same two names, and it runs what the hospital has installed.
"""

import hashlib
import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import httpx
import tomli_w
from flwr.common.serde import fab_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.constant import NodeStatus
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

from common.errors import TransportError

SERVER_APP: Final = "server.app:app"
CLIENT_APP: Final = "client.app:app"
_PROJECT_FILE: Final = "pyproject.toml"
_LIST_FILE: Final = ".info/CONTENT"
_TIMEOUT_S: Final = 10.0
_RUNNING: Final = ("pending", "starting", "running")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A mailbox as the SuperLink knows it: by its key, and under the name that it was registered with."""

    node: int
    name: str
    key: bytes
    online: bool
    gone: bool


@dataclass(frozen=True)
class Control:
    """A connection to one SuperLink. Every call raises TransportError where the SuperLink does not answer, or refuses."""

    address: str
    certificates: bytes | None = field(repr=False)

    @cached_property
    def _client(self) -> ControlHttpClient:
        client = ControlHttpClient.from_server_address(
            server_address=self.address,
            insecure=self.certificates is None,
            root_certificates=self.certificates,
            interceptors=[RuntimeVersionHttpInterceptor(component_name="fedward")],
        )
        client._client.timeout = httpx.Timeout(_TIMEOUT_S)
        return client

    def close(self) -> None:
        self._client.close()

    def start_run(self) -> int:
        """Submit the coordinator's run; returns Flower's number for it, which is good for nothing but talking to this SuperLink."""
        content = bundle()
        with _named("start-run"):
            reply = self._client.StartRun(StartRunRequest(fab=fab_to_proto(Fab("", content, {}))))
        if not reply.HasField("run_id"):
            raise TransportError("the SuperLink accepted no run.", fix="Read superlink/superlink.log in the coordinator's folder.")
        return int(reply.run_id)

    def stop_run(self, run: int) -> None:
        """So that no mailbox is given a message of it any more."""
        with _named("stop-run"):
            self._client.StopRun(StopRunRequest(run_id=run))

    def is_running(self, run: int) -> bool:
        with _named("list-runs"):
            reply = self._client.ListRuns(ListRunsRequest(run_id=run))
        return run in reply.run_dict and reply.run_dict[run].status.status in _RUNNING

    def nodes(self) -> list[Node]:
        with _named("list-nodes"):
            reply = self._client.ListNodes(ListNodesRequest())
        return [
            Node(
                node=int(found.node_id),
                name=found.name,
                key=found.public_key,
                online=found.status == NodeStatus.ONLINE,
                gone=found.status == NodeStatus.UNREGISTERED,
            )
            for found in reply.nodes_info
        ]

    def register(self, name: str, key: bytes) -> None:
        """Let the mailbox with this key connect."""
        with _named("register-node"):
            self._client.RegisterNode(RegisterNodeRequest(public_key=key, name=name))

    def unregister(self, node: int) -> None:
        """Let it connect no more."""
        with _named("unregister-node"):
            self._client.UnregisterNode(UnregisterNodeRequest(node_id=node))


def bundle() -> bytes:
    """The smallest bundle that Flower takes: names, and no code. As `flwr build` makes it: each file, and a list of them with digests."""
    project = {
        "project": {"name": "fedward", "version": "1.0.0"},
        "tool": {"flwr": {"app": {"publisher": "fedward", "components": {"serverapp": SERVER_APP, "clientapp": CLIENT_APP}}}},
    }
    content = tomli_w.dumps(project).encode()
    listed = f"{_PROJECT_FILE},{hashlib.sha256(content).hexdigest()},{8 * len(content)}"
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as packed:
        for name, data in ((_PROJECT_FILE, content), (_LIST_FILE, listed.encode())):
            packed.writestr(zipfile.ZipInfo(name), data)  # dated 1980: the same names make the same bundle
    return whole.getvalue()


@contextmanager
def _named(call: str) -> Iterator[None]:
    try:
        yield
    except httpx.HTTPStatusError as error:
        raise TransportError(
            f"the SuperLink refused '{call}' (HTTP {error.response.status_code}).",
            fix="Read superlink/superlink.log in the coordinator's folder.",
        ) from error
    except (httpx.HTTPError, ValueError) as error:
        raise TransportError(f"the SuperLink did not answer '{call}' ({type(error).__name__}).", fix="It is started again.") from error
