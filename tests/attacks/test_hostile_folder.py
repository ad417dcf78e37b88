# SPDX-License-Identifier: Apache-2.0
"""A command that is typed in a folder of somebody else's runs fedward's code, and not what lies there under the same names."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(sys.executable).with_name("fedward")
NAMES = ("client", "server", "common", "typer", "httpx", "fedward")

pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="needs the command: pip install fedward")


@pytest.mark.parametrize("words", [("site", "join", "--mailbox", "none"), ("server", "start", "--folder", "none")], ids=" ".join)
def test_nothing_is_imported_from_the_folder_in_which_a_command_is_typed(tmp_path: Path, words: tuple[str, ...]) -> None:
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(f"open('taken', 'w').write('{name}')\n")
    done = subprocess.run([SCRIPT, *words], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert not (tmp_path / "taken").exists(), (tmp_path / "taken").read_text()
    assert (done.returncode, "E_DATA_NOT_FOUND" in done.stderr) == (1, True), done.stderr
