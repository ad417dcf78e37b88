# SPDX-License-Identifier: Apache-2.0
"""The schema of an audit log is closed: nothing of it can hold words, and no other line parses."""

import dataclasses
import json
import typing

import pytest
from pydantic.fields import FieldInfo

from common.audit import entries
from common.audit.entries import SPELLING, Asked, Entry, Fact, Refused
from common.privacy.entries import SPELLING as LEDGER
from common.spelling import render
from tests.common.audit.logs import HASH, SIGNER, asked

KINDS = typing.get_args(Fact)


def texts(hint: object) -> list[object]:
    """Every type of text that a field can hold, as it is annotated."""
    if typing.get_origin(hint) is typing.Annotated:
        return [hint] if typing.get_args(hint)[0] is str else [t for inner in typing.get_args(hint)[:1] for t in texts(inner)]
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint, include_extras=True)
        return [text for field in dataclasses.fields(hint) for text in texts(hints[field.name])]
    if hint is str:
        return [str]
    return [text for inner in typing.get_args(hint) for text in texts(inner)]


@pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
def test_no_fact_has_room_for_words(kind: type) -> None:
    """Every text is a hash, a name of the roster, a code or a version: none has room for a space but the version's own two."""
    for text in texts(kind):
        assert text is not str, kind
        patterns = [
            m.pattern for info in typing.get_args(text)[1:] if isinstance(info, FieldInfo) for m in info.metadata if hasattr(m, "pattern")
        ]
        assert len(patterns) == 1
        assert patterns[0].startswith("^")
        assert patterns[0].endswith("$")
        assert " " not in patterns[0].replace("^fedward ", "").replace(" sources ", "")


def test_the_control_a_fact_with_a_reason_would_be_noticed() -> None:
    talkative = dataclasses.make_dataclass("Talkative", [("reason", str)], frozen=True)
    assert texts(talkative) == [str]


def test_every_kind_stands_in_the_drawing() -> None:
    assert entries.__doc__
    names = {typing.get_args(typing.get_type_hints(kind)["kind"])[0] for kind in KINDS}
    assert {word for word in entries.__doc__.split() if word.isupper() and len(word) > 2} >= names
    assert len(names) == len(KINDS)


@pytest.mark.parametrize(
    "change",
    [
        {"code": "a patient's name"},
        {"code": "E_OTHER", "reason": "Müller, Anna"},
        {"request": "not a hash"},
        {"request": HASH.upper()},
    ],
)
def test_a_line_with_words_in_it_does_not_parse(change: dict[str, str]) -> None:
    entry = Entry(seq=0, prev=HASH, t_utc="2026-03-01T09:30:00Z", fact=Refused(request=HASH, code="E_OTHER"))
    good = SPELLING.signed(entry, SIGNER.sign)
    assert SPELLING.parse(good).fact == entry.fact
    fact = {"kind": "REFUSE", "request": HASH, "code": "E_OTHER", **change}
    spelled = json.loads(good) | {"fact": fact}
    with pytest.raises(ValueError, match=r"entry|JSON|validation"):
        SPELLING.parse(json.dumps(spelled, sort_keys=True, separators=(",", ":")).encode())


def test_another_spelling_of_an_entry_is_no_entry() -> None:
    line = SPELLING.signed(Entry(seq=0, prev=HASH, t_utc="2026-03-01T09:30:00Z", fact=asked()), SIGNER.sign)
    for other in (line + b" ", line.replace(b'"seq":0', b'"seq": 0'), line.replace(b'"seq":0', b'"seq":0.0'), b" " + line):
        with pytest.raises(ValueError, match=r"entry|JSON|validation"):
            SPELLING.parse(other)


def test_a_signature_of_a_ledger_is_none_of_an_audit_log() -> None:
    assert LEDGER.title != SPELLING.title
    assert render(asked()).startswith(b'{"at":')
    assert isinstance(asked(), Asked)
