# SPDX-License-Identifier: Apache-2.0
"""Flower's Fleet API as one node sees it: the only module of the mailbox that knows Flower's private names.

Flower has no public client for what a SuperNode does, so flwr is pinned, and a contract test (tests/client/test_flower_contract.py) looks
at each name that is imported here and says which one changed. Flower's own connection, `http_request_response`,
is not used as a whole: it ends the process when the first connection fails and interrupts it when a heartbeat is refused, and a hospital's
mailbox has to outlive both. What is used is its client, its signatures, and its way of taking messages apart.

What a failure means to the caller:

    LinkDown     nobody answered, or somebody between said so: try again
    NotKnown     the SuperLink does not know this node (any more), or does not believe its clock: connect again
    RunOver      the run that a message belonged to has ended: forget the message
    NotAccepted  anything else that it will not do

A node that was killed is still online to Flower for up to a minute, and `activate` is refused so long. But a heartbeat under its old number
is not, so the mailbox keeps that number, and comes back with a heartbeat: at once, and without anybody noticing.
"""

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import Message
from flwr.app.message.message import make_message, remove_content_from_message
from flwr.app.metadata import Metadata
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest, PullMessagesRequest, PullMessagesResponse, PushMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest, SendNodeHeartbeatResponse
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, iterate_object_tree, no_object_id_recompute
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.interceptors.http.utils import add_headers
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from client.mailbox.settings import Settings
from client.mailbox.tally import Tally
from common.errors import MessageFormat, NodeKey
from common.pieces import unfolded_size
from common.whole import content_in, is_inviting, is_small, plain, whole
from common.wire import Content

HEARTBEAT_S: Final = float(HEARTBEAT_DEFAULT_INTERVAL)
_PATIENCE: Final = httpx.Timeout(connect=30.0, read=300.0, write=300.0, pool=300.0)
"""Long, because a slow link is no dead one: whether anything moves is TCP's to know, below."""
_STUCK_S: Final = 40
_POOL: Final = httpx.Limits(max_connections=16, max_keepalive_connections=16, keepalive_expiry=120.0)
"""Connections are kept: a new one is three trips over a slow link, and a reply is made of several objects."""
_MOST_OBJECTS: Final = 1 << 16
_MOST_BYTES: Final = 1 << 30
_LONGEST_LABEL: Final = 10
_SAME_FLWR: Final = "Both ends need the same flwr."
_TRY_AGAIN: Final = frozenset((408, 425, 429, *range(500, 600)))
_UNAUTHORIZED, _FORBIDDEN = 401, 403


class LinkDown(Exception):
    """Try again."""


class NotKnown(Exception):
    """Connect again."""


class RunOver(Exception):
    """Forget the message."""


class NotAccepted(Exception):
    """The SuperLink answered, and will not."""


@dataclass(frozen=True)
class Taken:
    """A message as it was handed out: its envelope, and which objects its content is made of. `node` is whom it was for."""

    node: int
    raw: bytes
    since: float = field(default_factory=time.monotonic)

    @cached_property
    def _response(self) -> Any:
        return PullMessagesResponse.FromString(self.raw)

    @cached_property
    def message(self) -> Message:
        return message_from_proto(self._response.messages_list[0])

    @cached_property
    def tree(self) -> Any:
        return self._response.message_object_trees[0]

    @property
    def message_id(self) -> str:
        return str(self.message.metadata.message_id)

    @property
    def message_type(self) -> str:
        return str(self.message.metadata.message_type)

    @property
    def run_id(self) -> int:
        return int(self.message.metadata.run_id)

    @property
    def round(self) -> int | None:
        """The coordinator's label for people, if it is a number of a round's size."""
        label = plain(str(self.message.metadata.group_id))
        return int(label) if label.isdecimal() and len(label) < _LONGEST_LABEL else None

    @cached_property
    def came_with(self) -> Content | None:
        """The content that came with the message; None, if it is to be fetched in pieces. Raises: MessageFormat."""
        try:
            return content_in(self._response.messages_list[0])
        except Exception:  # Flower's parsers raise whatever a stranger's bytes make them raise
            raise MessageFormat("a message's content cannot be read.", fix=_SAME_FLWR) from None

    @property
    def content_id(self) -> str:
        """The same content, the same id, whole or in pieces: Flower names objects by their digests. Raises: MessageFormat."""
        if self.came_with is not None:
            return str(self.came_with.object_id)
        return str(self.tree.children[0].object_id) if len(self.tree.children) == 1 else ""

    @property
    def is_over(self) -> bool:
        """Nobody takes an answer any more. Counted from when it was taken, since the clocks of two machines may differ."""
        return time.monotonic() > self.since + float(self.message.metadata.ttl)

    def objects(self) -> list[str]:
        """What its content is made of: the message itself, which holds no more than its envelope, is not fetched. Raises: MessageFormat."""
        if len(self.tree.children) != 1:
            raise MessageFormat("a message has no content.", fix=_SAME_FLWR)
        ids = list(dict.fromkeys(each.object_id for each in iterate_object_tree(self.tree.children[0])))
        if len(ids) > _MOST_OBJECTS:
            raise MessageFormat(f"a message is made of {len(ids)} objects.", fix="Nothing of it was fetched.")
        return ids


@dataclass(frozen=True)
class Reply:
    """An answer: what Flower is told of it, and where it is too large to go with that, its objects by their digests."""

    push: PushMessagesRequest
    objects: dict[str, Any]


class _Client(FleetHttpClient):
    """Flower's, but for its heartbeat, which gives up after five seconds: on a line with as much delay each way it would never be heard."""

    def SendNodeHeartbeat(self, request: SendNodeHeartbeatRequest) -> SendNodeHeartbeatResponse:  # noqa: N802 - Flower's name
        return self._unary_unary(
            path="/v1/fleet/send-node-heartbeat",
            rpc_method="/flwr.proto.Fleet/SendNodeHeartbeat",
            request=request,
            response_type=SendNodeHeartbeatResponse,
            timeout=HEARTBEAT_S,
        )


class Link:
    """One node's connection. Safe to use from several threads; `again` marks what a thread sends for a second time."""

    def __init__(self, settings: Settings, tally: Tally) -> None:
        """Raises: NodeKey."""
        self._key = _load_key(settings)
        self._tally = tally
        self.node = 0
        scheme = "http" if settings.tls is None else "https"
        self._client = _Client(
            f"{scheme}://{settings.address}",
            interceptors=(_Versions(), NodeAuthHttpInterceptor(self._key, self._key.public_key()), _Counting(tally)),
            verify=settings.tls or False,
        )
        self._client._client.close()
        # Flower's own follows redirects, the environment's proxies, and gives up on a slow answer after half a minute.
        self._client._client = httpx.Client(transport=_transport(settings), timeout=_PATIENCE, follow_redirects=False)

    def activate(self) -> None:
        """Come online under the number that the SuperLink has for this key. Raises: LinkDown, NotKnown, NotAccepted."""
        public = public_key_to_bytes(self._key.public_key())
        request = ActivateNodeRequest(public_key=public, heartbeat_interval=HEARTBEAT_S)
        self.node = int(self._call(self._client.ActivateNode, request).node_id)

    def resume(self, node: int) -> bool:
        """Go on under a number from before. False, if the SuperLink does not know it. Raises: LinkDown, NotAccepted."""
        self.node = node
        try:
            return self.beat()
        except NotKnown:
            return False

    def beat(self) -> bool:
        """A heartbeat. Raises: LinkDown, NotKnown, NotAccepted."""
        request = SendNodeHeartbeatRequest(node=self._self, heartbeat_interval=HEARTBEAT_S)
        return bool(self._call(self._client.SendNodeHeartbeat, request).success)

    def deactivate(self) -> None:
        """Go offline, so that nobody waits for this node. Whatever goes wrong is of no use to anybody any more."""
        if self.node:
            with suppress(LinkDown, NotKnown, RunOver, NotAccepted):
                self._call(self._client.DeactivateNode, DeactivateNodeRequest(node_id=self.node))

    def close(self) -> None:
        self._client.close()

    def pull(self) -> Taken | None:
        """The next message for this node; it is handed out this once. Raises: LinkDown, NotKnown, NotAccepted."""
        response = self._call(self._client.PullMessages, PullMessagesRequest(node=self._self))
        if not response.messages_list or not response.message_object_trees:
            return None
        return Taken(node=self.node, raw=response.SerializeToString())

    def fetch(self, run_id: int, object_id: str) -> bytes:
        """One object. Raises: LinkDown, also where it is not there yet; NotKnown, RunOver; NotAccepted where it is gone."""
        response = self._call(self._client.PullObject, PullObjectRequest(node=self._self, run_id=run_id, object_id=object_id))
        if not response.object_found:
            raise NotAccepted
        content = bytes(response.object_content)
        if not response.object_available or hashlib.sha256(content).hexdigest() != object_id:
            raise LinkDown
        return content

    def confirm(self, taken: Taken) -> None:
        """The SuperLink may throw the message's objects away. Not hearing this costs it disk and nobody anything else."""
        request = ConfirmMessageReceivedRequest(node=self._self, run_id=taken.run_id, message_object_id=taken.message_id)
        with suppress(LinkDown, NotKnown, RunOver, NotAccepted):
            self._call(self._client.ConfirmMessageReceived, request)

    def announce(self, reply: Reply) -> tuple[set[str], str]:
        """Which objects of a reply are wanted, and in which session. Raises: LinkDown, NotKnown, RunOver, NotAccepted."""
        response = self._call(self._client.PushMessages, reply.push)
        return set(response.objects_to_push).intersection(reply.objects), str(response.session_id)

    def push(self, run_id: int, session: str, object_id: str, content: bytes) -> bool:
        """Hand one object over. False: the session is over, announce again. Raises: LinkDown, NotKnown, RunOver, NotAccepted."""
        request = PushObjectRequest(node=self._self, run_id=run_id, object_id=object_id, object_content=content, session_id=session)
        return bool(self._call(self._client.PushObject, request).stored)

    @contextmanager
    def again(self) -> Iterator[None]:
        """What this thread sends within this was sent before."""
        _this_thread.again = True
        try:
            yield
        finally:
            _this_thread.again = False

    @property
    def _self(self) -> Node:
        return Node(node_id=self.node)

    def _call(self, method: Callable[[Any], Any], request: Any) -> Any:
        try:
            return method(request)
        except httpx.HTTPStatusError as error:
            raise _meaning(error.response.status_code) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, RuntimeError):
            # ValueError: what came back is no answer of Flower's, such as a proxy's page. RuntimeError: the client is being closed.
            raise LinkDown from None


def content_of(taken: Taken, objects: dict[str, bytes]) -> Content:
    """What came with a message, or put together from its objects, which go out of the dictionary. Raises: MessageFormat."""
    if taken.came_with is not None:
        return taken.came_with
    try:
        if unfolded_size(objects) > _MOST_BYTES:
            raise MessageFormat("a message is larger than any is when it is put together.", fix="Nothing of it was kept.")
        content = inflate_object_from_contents(taken.content_id, objects)
    except MessageFormat:
        raise
    except Exception:  # Flower's parsers raise whatever a stranger's bytes make them raise
        raise MessageFormat("a message cannot be put together from its objects.", fix=_SAME_FLWR) from None
    if not isinstance(content, Content):
        raise MessageFormat(f"a message's content is a {type(content).__name__}.", fix=_SAME_FLWR)
    return content


def reply_to(taken: Taken, content: Content) -> Reply:
    """The answer as Flower wants it. The same content gives the same bytes, so that pushing it twice is pushing it once.

    It is dated like its question: this machine's clock has no say in how long it lives.
    """
    asked = taken.message.metadata
    metadata = Metadata(
        run_id=asked.run_id,
        message_id="",
        src_node_id=asked.dst_node_id,
        dst_node_id=asked.src_node_id,
        reply_to_message_id=asked.message_id,
        group_id=asked.group_id,
        created_at=asked.created_at,
        ttl=asked.ttl,
        message_type=asked.message_type,
        src_task_id=asked.dst_task_id,
        dst_task_id=asked.src_task_id,
    )
    if is_inviting(asked.group_id) and is_small(content):
        small = whole(metadata, content)
        return Reply(push=_announcement(taken, small.proto, small.tree), objects={})
    message = make_message(metadata=metadata, content=content)
    with no_object_id_recompute():
        message.metadata.__dict__["_message_id"] = message.object_id
        tree, objects = get_object_tree(message), get_all_nested_objects(message)
    bare = message_to_proto(remove_content_from_message(message))
    return Reply(push=_announcement(taken, bare, tree), objects=dict(objects))


def _announcement(taken: Taken, message: Any, tree: Any) -> PushMessagesRequest:
    node = Node(node_id=taken.node)
    return PushMessagesRequest(node=node, messages_list=[message], message_object_trees=[tree], clientapp_runtime_list=[0.0])


def _meaning(status: int) -> Exception:
    if status == _UNAUTHORIZED:
        return NotKnown()
    if status == _FORBIDDEN:
        return RunOver()
    return LinkDown() if status in _TRY_AGAIN else NotAccepted()


def _load_key(settings: Settings) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_ssh_private_key(settings.key.read_bytes(), password=None)
    except (OSError, ValueError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise NodeKey(f"'{settings.key}' is no key that Flower could read.", fix="Make one: fedward site init --mailbox DIR.")
    return key


def _transport(settings: Settings) -> httpx.HTTPTransport:
    """A link that moves is left alone for as long as it takes; one on which nothing is acknowledged is given up after `_STUCK_S`."""
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", _STUCK_S * 1000)):
        if (option := getattr(socket, name, None)) is not None:
            options.append((socket.IPPROTO_TCP, option, value))
    return httpx.HTTPTransport(verify=settings.tls or False, proxy=settings.proxy, socket_options=options, limits=_POOL, trust_env=False)


class _Versions:
    """Says which flwr this is, as a SuperNode would; unlike Flower's own interceptor it never ends the process."""

    def __init__(self) -> None:
        self._headers = dict(RuntimeVersionMetadata.from_local_component("SuperNode").as_metadata())

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        add_headers(context.request, self._headers)
        return call_next(context)


class _ThisThread(threading.local):
    """Whether what this thread sends was sent before."""

    again: bool = False


_this_thread: Final = _ThisThread()


class _Counting:
    """Adds up the bodies of requests and replies."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        size = len(context.request.content)
        self._tally.add(sent=size, again=size if _this_thread.again else 0)
        response = call_next(context)
        self._tally.add(received=len(response.content))
        return response
