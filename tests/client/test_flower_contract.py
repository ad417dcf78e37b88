# SPDX-License-Identifier: Apache-2.0
"""Flower's private names that the mailbox stands on, one by one: a new flwr that changed one fails here, with the name and what changed."""

import ast
import hashlib
import importlib
import inspect
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet

from client.mailbox import flower
from common import whole

ROOT = Path(__file__).resolve().parents[2]
RANGE = SpecifierSet(">=1.41,<1.42")

SIGNATURES = {
    "flwr.supernode.fleet_http_client:FleetHttpClient.__init__": "base_url interceptors verify timeout retry_invoker",
    "flwr.supernode.fleet_http_client:FleetHttpClient.close": "",
    "flwr.supernode.fleet_http_client:FleetHttpClient._unary_unary": "path rpc_method request response_type timeout",
    "flwr.supernode.fleet_http_client:FleetHttpClient.ActivateNode": "request",
    "flwr.supernode.fleet_http_client:FleetHttpClient.DeactivateNode": "request",
    "flwr.supernode.fleet_http_client:FleetHttpClient.SendNodeHeartbeat": "request",
    "flwr.supernode.fleet_http_client:FleetHttpClient.PullMessages": "request",
    "flwr.supernode.fleet_http_client:FleetHttpClient.PushMessages": "request",
    "flwr.supernode.fleet_http_client:FleetHttpClient.PullObject": "request",
    "flwr.supernode.fleet_http_client:FleetHttpClient.PushObject": "request",
    "flwr.supernode.fleet_http_client:FleetHttpClient.ConfirmMessageReceived": "request",
    "flwr.supernode.node_auth_http_interceptor:NodeAuthHttpInterceptor.__init__": "private_key public_key",
    "flwr.supercore.interceptors.http.utils:add_headers": "request headers",
    "flwr.supercore.primitives.asymmetric:public_key_to_bytes": "public_key",
    "flwr.supercore.runtime_version_compatibility:RuntimeVersionMetadata.from_local_component": (
        "component_name package_name_value package_version_value"
    ),
    "flwr.supercore.runtime_version_compatibility:RuntimeVersionMetadata.as_metadata": "",
    "flwr.supercore.inflatable.inflatable_object:get_all_nested_objects": "obj",
    "flwr.supercore.inflatable.inflatable_object:get_object_tree": "obj",
    "flwr.supercore.inflatable.inflatable_object:iterate_object_tree": "tree",
    "flwr.supercore.inflatable.inflatable_object:no_object_id_recompute": "",
    "flwr.supercore.inflatable.inflatable_object:get_object_id": "object_content",
    "flwr.supercore.inflatable.inflatable_utils:inflate_object_from_contents": "object_id object_contents keep_object_contents objects",
    "flwr.app.message.message:make_message": "metadata content error",
    "flwr.app.message.message:remove_content_from_message": "message",
    "flwr.app.metadata:Metadata.__init__": (
        "run_id message_id src_node_id dst_node_id reply_to_message_id group_id created_at ttl message_type src_task_id dst_task_id"
    ),
    "flwr.common.serde:message_from_proto": "message_proto",
    "flwr.common.serde:message_to_proto": "message",
    "flwr.common.serde:recorddict_from_proto": "recorddict_proto",
}
FIELDS = {
    "flwr.proto.fleet_pb2:ActivateNodeRequest": "public_key heartbeat_interval",
    "flwr.proto.fleet_pb2:ActivateNodeResponse": "node_id",
    "flwr.proto.fleet_pb2:DeactivateNodeRequest": "node_id",
    "flwr.proto.fleet_pb2:PullMessagesRequest": "node message_ids",
    "flwr.proto.fleet_pb2:PullMessagesResponse": "reconnect messages_list message_object_trees",
    "flwr.proto.fleet_pb2:PushMessagesRequest": "node messages_list message_object_trees clientapp_runtime_list",
    "flwr.proto.fleet_pb2:PushMessagesResponse": "reconnect results objects_to_push session_id",
    "flwr.proto.heartbeat_pb2:SendNodeHeartbeatRequest": "node heartbeat_interval",
    "flwr.proto.heartbeat_pb2:SendNodeHeartbeatResponse": "success",
    "flwr.proto.message_pb2:PullObjectRequest": "node run_id object_id",
    "flwr.proto.message_pb2:PullObjectResponse": "object_found object_available object_content",
    "flwr.proto.message_pb2:PushObjectRequest": "node run_id object_id object_content session_id",
    "flwr.proto.message_pb2:PushObjectResponse": "stored",
    "flwr.proto.message_pb2:ConfirmMessageReceivedRequest": "node run_id message_object_id",
    "flwr.proto.message_pb2:ObjectTree": "object_id children",
    "flwr.proto.message_pb2:Message": "metadata content error",
    "flwr.proto.recorddict_pb2:RecordDict": "items",
    "flwr.proto.node_pb2:Node": "node_id",
}
CONSTANTS = {
    "flwr.common.constant:HEARTBEAT_DEFAULT_INTERVAL": 30,
    "flwr.common.constant:HEARTBEAT_PATIENCE": 2,
    "flwr.common.constant:ErrorCode.UNKNOWN": 0,
}


def named(name: str) -> Any:
    """The thing, or a sentence that says that it is gone."""
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        pytest.fail(f"flwr {version('flwr')} has no {name} any more: client/mailbox/flower.py needs another way.")
    return found


def test_flwr_is_one_that_was_read() -> None:
    assert version("flwr") in RANGE, f"flwr {version('flwr')} is installed; client/mailbox/flower.py was written for {RANGE}."
    text = (ROOT / "pyproject.toml").read_text()
    assert re.search(r'"flwr>=1\.41,<1\.42"', text), f"pyproject.toml pins another flwr than {RANGE}."


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_function_takes_what_it_took(name: str) -> None:
    found = " ".join(each for each in inspect.signature(named(name)).parameters if each not in ("self", "cls"))
    assert found == SIGNATURES[name], f"{name} of flwr {version('flwr')} takes '{found}'; the mailbox gives it '{SIGNATURES[name]}'."


@pytest.mark.parametrize("name", FIELDS)
def test_a_message_has_the_fields_it_had(name: str) -> None:
    found = {field.name for field in named(name).DESCRIPTOR.fields}
    wanted = set(FIELDS[name].split())
    assert wanted <= found, f"{name} of flwr {version('flwr')} has lost {sorted(wanted - found)}."


@pytest.mark.parametrize("name", CONSTANTS)
def test_a_constant_is_what_it_was(name: str) -> None:
    assert named(name) == CONSTANTS[name], f"{name} is {named(name)} in flwr {version('flwr')}; the mailbox reckons with {CONSTANTS[name]}."


def test_the_client_still_keeps_its_connection_where_ours_is_put() -> None:
    client = named("flwr.supernode.fleet_http_client:FleetHttpClient")("http://127.0.0.1:9")
    try:
        assert type(client._client).__name__ == "Client", "FleetHttpClient has no httpx client at _client any more."
    finally:
        client.close()


def test_a_heartbeat_still_goes_where_ours_goes() -> None:
    theirs = inspect.getsource(named("flwr.supernode.fleet_http_client:FleetHttpClient.SendNodeHeartbeat"))
    ours = inspect.getsource(flower._Client)
    for word in re.findall(r'"(/[\w./-]+)"', theirs):
        assert word in ours, f"flwr {version('flwr')} sends its heartbeat to {word}; client/mailbox/flower.py does not."


def test_an_object_is_still_named_by_its_digest() -> None:
    """Joining two copies of one message rests on it."""
    assert named("flwr.supercore.inflatable.inflatable_object:get_object_id")(b"content") == hashlib.sha256(b"content").hexdigest()


def test_every_private_name_that_the_mailbox_imports_is_looked_at_here() -> None:
    imported = {
        f"{node.module}:{alias.name}"
        for module in (flower, whole)
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("flwr.") and node.module != "flwr.app"
        for alias in node.names
    }
    known = {*SIGNATURES, *FIELDS, *CONSTANTS}
    types_alone = {"flwr.supercore.protobuf.client:ProtobufCall", "flwr.supercore.protobuf.client:ProtobufRequestContext"}
    unseen = {name for name in imported if not any(each == name or each.startswith(f"{name}.") for each in known)} - types_alone
    assert not unseen, f"client/mailbox/flower.py imports {sorted(unseen)}, which this test does not look at."


def test_no_other_module_of_the_mailbox_knows_flower() -> None:
    others = [path for path in (ROOT / "client" / "mailbox").glob("*.py") if path.name != "flower.py"]
    knowing = [path.name for path in others if re.search(r"^(from|import) flwr", path.read_text(), re.MULTILINE)]
    assert not knowing, f"{knowing} import flwr; only flower.py may."
