# SPDX-License-Identifier: Apache-2.0
"""The page about what leaves the building is held to the code: no field, no code, no message that is not on it."""

import ast
import dataclasses
import inspect
import re
import typing
from pathlib import Path
from typing import Any

from flwr.app import Metadata

from common import errors, wire
from common.secagg import messages
from common.secagg.complaints import Accused, Complaint
from common.secagg.messages import Confirmation, Keys, Masked, Nothing, Opened, Shares, Step, Up

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "what-leaves.md").read_text(encoding="utf-8")

SENT_BY_A_SITE = (wire.HelloReply, wire.NewsReply, wire.SecureReply, wire.Refusal, wire.TrainReply, wire.IdealReply)
BODIES = {
    Step.KEYS: Keys,
    Step.SHARE: Shares,
    Step.MASK: Masked,
    Step.CONFIRM: Confirmation,
    Step.UNMASK: Opened,
    Step.ABANDON: Nothing,
}


def fields_of(*kinds: type) -> set[str]:
    """Class.field of dataclasses, and of those inside them."""
    found: set[str] = set()
    for kind in kinds:
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            found.add(f"{kind.__name__}.{field.name}")
            found |= fields_of(*_dataclasses_in(hints[field.name]))
    return found


def _dataclasses_in(hint: Any) -> list[type]:
    if dataclasses.is_dataclass(hint):
        return [typing.cast(type, hint)]
    return [kind for inner in typing.get_args(hint) for kind in _dataclasses_in(inner)]


def listed(section: str) -> set[str]:
    """Every Class.field in the first cells of the tables."""
    cells = re.findall(r"^\| ((?:`[A-Z]\w+\.\w+`(?:, )?)+) \|", section, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+\.\w+)`", cell)}


def test_every_field_that_a_site_can_send_is_on_the_page() -> None:
    assert listed(PAGE) == fields_of(*SENT_BY_A_SITE, Up, *BODIES.values(), Complaint)


def test_a_field_more_would_be_noticed() -> None:
    """The control: a message with a loss beside it has a field that the page lacks."""
    talkative = dataclasses.make_dataclass(
        "SecureReply", [("loss", float), ("patients", wire.Step)], bases=(wire.SecureReply,), frozen=True, kw_only=True
    )
    assert fields_of(talkative) - listed(PAGE) == {"SecureReply.loss", "SecureReply.patients"}


def test_a_site_has_no_other_message() -> None:
    """What client/process/handler.py can encode is what is listed here, in the words of the encoders' own signatures."""
    tree = ast.parse((ROOT / "client" / "process" / "handler.py").read_text(encoding="utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr.startswith("encode_")}
    takes = {typing.get_type_hints(getattr(wire, name))["message"] for name in used}
    assert takes == set(SENT_BY_A_SITE)
    for path in set((ROOT / "client").rglob("*.py")) - {ROOT / "client" / "process" / "handler.py"}:
        # What carries messages for a site says no more of its own than that it will not carry one.
        assert set(re.findall(r"\bencode_\w+", path.read_text(encoding="utf-8"))) <= {"encode_refusal"}, path


def test_every_step_has_one_body_and_no_site_signs_another() -> None:
    assert set(BODIES) == set(Step)
    signed = set()
    for path in (ROOT / "common" / "secagg").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "messages.up":
                step = node.args[2]
                assert isinstance(step, ast.Attribute), path
                signed.add(step.attr)
    assert signed == {step.name for step in Step}


def test_the_records_of_a_message_are_those_of_the_page() -> None:
    kinds = dict(re.findall(r"^\| `([\w.]+)` \| (`.+?) \|", PAGE.partition("| type | fields |")[2].partition("\n\n")[0], re.MULTILINE))
    source = inspect.getsource(wire)
    replies = set(re.findall(r'"type": "([\w.]+)"', source)) - {"hello", "news", "train", "secure"}
    assert set(kinds) == replies


def test_flowers_own_fields_are_on_the_page() -> None:
    properties = {name for name, value in vars(Metadata).items() if isinstance(value, property)}
    assert set(re.findall(r"`Metadata\.(\w+)`", PAGE)) == properties


def test_every_code_is_on_the_page() -> None:
    table = PAGE.partition("| codes | what the coordinator learns |")[2].partition("\n\n")[0]
    on_page = re.findall(r"`(E_\w+)`", table)
    known = {kind.code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.FedwardError)}
    assert set(on_page) == known - {errors.FedwardError.code}  # the root is raised by nobody
    assert len(on_page) == len(set(on_page)), "a code is on the page twice"


def test_bodies_hold_no_free_text() -> None:
    """Strings and open-ended bytes are where a field could come to hold what nobody foresaw; each is known by name."""
    wide = set()
    for kind in (Up, *BODIES.values(), messages.Heads, messages.PeerHead, Complaint, Accused):
        for name, hint in typing.get_type_hints(kind, include_extras=True).items():
            if hint in (str, bytes) or (bytes in typing.get_args(hint) and typing.get_origin(hint) is tuple):
                wide.add(f"{kind.__name__}.{name}")
    assert wide == {"Up.site_id", "Up.body", "Shares.sealed", "Opened.shares", "PeerHead.site_id", "Complaint.site_id", "Accused.site_id"}
