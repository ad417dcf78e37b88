# SPDX-License-Identifier: Apache-2.0
"""An audit log on disk: what is said is there, once, whole, and in the order in which it was said."""

import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from common.audit.chain import MOST_REFUSALS, Chain, lines_of
from common.audit.entries import Opened, PlanFollowed, Refused, Rekeyed, RosterAdopted, Started, Stopped
from common.errors import AuditTampered, DiskFull
from tests.common.audit.logs import HASH, OTHER, SIGNER, answered, asked, entries, facts, opened, resealed

VERSION = "fedward 0.1.0 sources 0123456789abcdef"


def test_a_log_begins_with_whose_it_is_and_is_its_owners_alone(tmp_path: Path) -> None:
    opened(tmp_path).say(asked())
    assert facts(tmp_path) == [Opened(role="site", name="north", key=SIGNER.public.hex()), asked()]
    assert stat.S_IMODE((tmp_path / "audit.jsonl").stat().st_mode) == 0o600


def test_a_fact_is_said_once_however_often_it_is_told(tmp_path: Path) -> None:
    """Who was killed between an act and its line says it again, and so does the process after it."""
    for _ in range(3):
        log = opened(tmp_path)
        log.say(asked(), answered())
        log.say(answered())
    assert facts(tmp_path)[1:] == [asked(), answered()]
    opened(tmp_path).say(answered(reply="0" * 64))
    assert len(facts(tmp_path)) == 4, "another reply is another fact"


def test_what_may_happen_again_is_said_again(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.say(Started(version=VERSION), Stopped(), Started(version=VERSION))
    assert len(facts(tmp_path)) == 4


def test_a_plan_and_a_roster_are_named_when_they_change(tmp_path: Path) -> None:
    log = opened(tmp_path)
    one, other = "1" * 64, "2" * 64
    for plan in (one, one, other, one):
        log.say(PlanFollowed(plan=plan), RosterAdopted(roster=plan, epoch=1))
    assert [fact.plan for fact in facts(tmp_path) if isinstance(fact, PlanFollowed)] == [one, other, one]
    assert [fact.roster for fact in facts(tmp_path) if isinstance(fact, RosterAdopted)] == [one, other, one]


def test_whoever_sends_nonsense_does_not_fill_the_disk(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for number in range(MOST_REFUSALS + 50):
        log.say(Refused(request=f"{number:064x}", code="E_MSG_FORMAT"))
    assert len(facts(tmp_path)) == 1 + MOST_REFUSALS
    log.say(answered())
    log.say(Refused(request=HASH, code="E_MSG_FORMAT"))
    assert len(facts(tmp_path)) == 3 + MOST_REFUSALS, "the count begins anew with something that was answered"


def test_a_torn_last_line_is_cut_off_and_the_log_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    opened(tmp_path).say(asked(1))
    whole = path.read_bytes()
    opened(tmp_path).say(asked(2))
    torn = path.read_bytes()[len(whole) :]
    for length in range(1, len(torn), 37):
        path.write_bytes(whole + torn[:length])
        opened(tmp_path).say(asked(3))
        assert facts(tmp_path)[1:] == [asked(1), asked(3)]


@pytest.mark.parametrize("how", ["byte", "deleted", "swapped", "resigned"])
def test_a_log_that_was_changed_is_refused_by_name_each_time(tmp_path: Path, how: str) -> None:
    path = tmp_path / "audit.jsonl"
    log = opened(tmp_path)
    log.say(asked(1))
    log.say(asked(2))
    lines = path.read_bytes().splitlines(keepends=True)
    match how:
        case "byte":
            lines[1] = lines[1].replace(b'"round":1', b'"round":9')
        case "deleted":
            del lines[1]
        case "swapped":
            lines[1:3] = lines[2:0:-1]
        case "resigned":
            lines[2] = resealed(entries(tmp_path)[2], fact=asked(9)).replace(b'"sig":"', b'"sig":"0', 1)[:-1] + b"\n"
    path.write_bytes(b"".join(lines))
    again = opened(tmp_path)
    for _ in range(2):
        with pytest.raises(AuditTampered, match=r"line [23]"):
            again.say(asked(3))


def test_a_last_line_that_another_key_signed_is_refused(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.say(asked(1))
    path = tmp_path / "audit.jsonl"
    whole = path.read_bytes()
    log.say(asked(2))
    last = path.read_bytes()[len(whole) : -1]
    sig = entries(tmp_path)[2].sig
    path.write_bytes(whole + last.replace(sig.encode(), OTHER.sign(b"anything").hex().encode()) + b"\n")
    again = opened(tmp_path)
    for _ in range(2):
        with pytest.raises(AuditTampered, match="is not signed by the key in force"):
            again.say(asked(3))


def test_a_log_that_becomes_shorter_while_it_is_in_use_is_noticed(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.say(asked(1))
    path = tmp_path / "audit.jsonl"
    short = path.read_bytes()
    log.say(asked(2))
    path.write_bytes(short)
    for _ in range(2):
        with pytest.raises(AuditTampered, match="shorter"):
            log.say(asked(3))


def test_a_link_in_place_of_the_log_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"")
    (tmp_path / "audit.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AuditTampered, match="cannot be opened"):
        opened(tmp_path).say(asked())
    assert not (tmp_path / "elsewhere").read_bytes()


def test_a_new_identity_key_goes_on_with_the_log_and_signs_that_it_does(tmp_path: Path) -> None:
    opened(tmp_path).say(asked(1))
    opened(tmp_path, OTHER).say(asked(2))
    assert facts(tmp_path)[2:] == [Rekeyed(key=OTHER.public.hex()), asked(2)]
    chain = Chain(name="log")
    chain.check_signatures(lines_of((tmp_path / "audit.jsonl").read_bytes()))
    assert chain.key == OTHER.public.hex()


def test_a_line_that_does_not_fit_on_the_disk_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = opened(tmp_path)
    log.say(asked(1))
    before = (tmp_path / "audit.jsonl").read_bytes()
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[: len(content) // 2]))
    with pytest.raises(DiskFull, match="audit log"):
        log.say(asked(2))
    monkeypatch.undo()
    assert (tmp_path / "audit.jsonl").read_bytes() == before
    log.say(asked(3))
    assert facts(tmp_path)[1:] == [asked(1), asked(3)]


def _write_many(folder: Path, which: int) -> None:
    log = opened(folder)
    for number in range(40):
        log.say(asked(1000 * which + number), answered(number))


def test_processes_that_write_at_once_make_one_chain(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write_many, args=(tmp_path, which)) for which in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    chain = Chain(name="log")
    chain.check_signatures(lines_of((tmp_path / "audit.jsonl").read_bytes()))
    assert len(chain) == 1 + 3 * 40 + 40, "each asked for itself, and what all of them answered is there once"
