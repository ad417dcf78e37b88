# SPDX-License-Identifier: Apache-2.0
"""A site whose operator paused it, or left, answers nothing; a pause can be taken back, leaving cannot."""

from pathlib import Path

import pytest

from client.membership import pause
from common.errors import SiteLeft, SitePaused


def test_a_pause_holds_until_it_is_taken_back(tmp_path: Path) -> None:
    pause.check_not_paused(tmp_path)
    assert pause.pause(tmp_path)
    assert not pause.pause(tmp_path), "it was paused already"
    with pytest.raises(SitePaused):
        pause.check_not_paused(tmp_path)
    assert pause.resume(tmp_path)
    assert not pause.resume(tmp_path)
    pause.check_not_paused(tmp_path)


def test_leaving_outweighs_everything(tmp_path: Path) -> None:
    pause.pause(tmp_path)
    (tmp_path / pause.LEFT_FILE).write_text("a statement")
    for attempt in (pause.check_not_paused, pause.resume, pause.pause):
        if attempt is pause.pause:
            (tmp_path / pause.PAUSED_FILE).unlink(missing_ok=True)
        with pytest.raises(SiteLeft):
            attempt(tmp_path)
    pause.come_back(tmp_path)
    pause.check_not_paused(tmp_path)


def test_only_the_sites_user_can_read_or_set_the_switch(tmp_path: Path) -> None:
    pause.pause(tmp_path)
    assert (tmp_path / pause.PAUSED_FILE).stat().st_mode & 0o777 == 0o600
