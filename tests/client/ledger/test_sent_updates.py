# SPDX-License-Identifier: Apache-2.0
"""A stage that is older than what has left is known for it, wherever it comes from; every honest one passes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from client.ledger.sent import SentUpdates
from common.errors import AlreadyMasked, CheckpointCorrupt
from common.secagg.coordinator import Inviting, abandon
from common.secagg.stages import GivenUp, Keyed, Listening, MaskedOut, Stage
from tests.common.secagg.federation import Federation, federation

SITE = "site-002"


def sent(folder: Path) -> SentUpdates:
    """As a process finds it that remembers nothing."""
    return SentUpdates(folder / "ledger.sent", power_cut_safe=False)


def lived(f: Federation, folder: Path) -> list[Stage]:
    """The stages of one attempt at one site, each found good where it stands; the update leaves on the way."""
    state: tuple[Any, ...] = ()
    found: list[Stage] = []
    for step in (f.to_keys, f.to_shares, f.to_masks, f.to_confirmations, f.to_sum):
        state = step(*state)  # type: ignore[operator,assignment] # the steps of a round, each fed by the one before
        stage = f.records[SITE].stage
        sent(folder).check(stage)
        if isinstance(stage, MaskedOut):
            sent(folder).note(stage)
        found.append(stage)
    return found


def test_every_stage_of_an_honest_attempt_passes_and_so_does_its_repeat(tmp_path: Path) -> None:
    keyed, shared, masked, confirmed, released = lived(federation(), tmp_path)
    for stage in (masked, confirmed):
        assert isinstance(stage, MaskedOut) or stage is confirmed
        sent(tmp_path).check(stage)
        sent(tmp_path).note(stage)  # type: ignore[arg-type] # Confirmed
    for stage in (released, Listening()):
        sent(tmp_path).check(stage)
    for stage in (keyed, shared):
        with pytest.raises(AlreadyMasked, match=r"UPDATE of round 1 left masked in attempt 0"):
            sent(tmp_path).check(stage)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_stage_of_the_same_attempt_under_other_masks_is_not_the_one_that_left(tmp_path: Path) -> None:
    masked = lived(federation(), tmp_path)[2]
    assert isinstance(masked, MaskedOut)
    for use in (sent(tmp_path).check, sent(tmp_path).note):
        with pytest.raises(AlreadyMasked):
            use(replace(masked, transcript=bytes(32)))


def test_an_attempt_that_was_given_up_passes_if_its_update_had_left(tmp_path: Path) -> None:
    f = federation()
    f.to_masks(*f.to_shares(*f.to_keys()))
    masked = f.records[SITE].stage
    assert isinstance(masked, MaskedOut)
    sent(tmp_path).note(masked)
    f.tell(SITE, abandon(f.chair, f.tag))
    given_up = f.records[SITE].stage
    assert isinstance(given_up, GivenUp)
    sent(tmp_path).check(given_up)
    with pytest.raises(AlreadyMasked):
        sent(tmp_path).check(replace(given_up, masked_with=()))


def test_a_later_attempt_passes_and_an_earlier_one_does_not(tmp_path: Path) -> None:
    f = federation()
    f.tell(SITE, Inviting(chair=f.chair, tag=f.tag).header)
    first = lived(f, tmp_path)[0]
    f.next_round()
    lived(f, tmp_path)
    assert isinstance(first, Keyed)
    with pytest.raises(AlreadyMasked, match="round 2"):
        sent(tmp_path).check(first)
    sent(tmp_path).check(replace(first, tag=replace(first.tag, round=2, attempt=1)))
    sent(tmp_path).check(replace(first, tag=replace(first.tag, session=bytes(16))))


def test_as_many_sessions_are_known_as_a_record_remembers(tmp_path: Path) -> None:
    masked = lived(federation(), tmp_path)[2]
    assert isinstance(masked, MaskedOut)
    stages = [replace(masked, tag=replace(masked.tag, session=number.to_bytes(16, "big"))) for number in range(70)]
    for stage in stages:
        sent(tmp_path).note(stage)
    other = bytes(32)
    sent(tmp_path).check(replace(stages[0], transcript=other))
    for stage in stages[-64:]:
        with pytest.raises(AlreadyMasked):
            sent(tmp_path).check(replace(stage, transcript=other))


def test_a_torn_note_and_a_mount_that_is_away_stop_the_site_by_name(tmp_path: Path) -> None:
    masked = lived(federation(), tmp_path)[2]
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointCorrupt, match="is torn"):
        sent(tmp_path).check(masked)
    with pytest.raises(CheckpointCorrupt, match="cannot be opened"):
        sent(tmp_path / "away").check(masked)
