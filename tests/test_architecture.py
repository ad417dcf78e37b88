# SPDX-License-Identifier: Apache-2.0
"""The house as drawn: imports flow one way, libraries stay in their rooms, and the checker sees it when they do not."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("common", "client", "server", "simulations")

BREACHES = {
    "the server reads a hospital's folder": ("server/rounds.py", "import client.imaging.dataset"),
    "a hospital looks into the coordinator": ("client/site.py", "import server.journal"),
    "common knows a hospital": ("common/update.py", "import client.release"),
    "the plan knows the wire": ("common/plan/spec.py", "import common.wire"),
    "the server opens DICOM": ("server/export.py", "import pydicom"),
    "the wire opens DICOM": ("common/wire.py", "import pydicom"),
    "a second engine of privacy": ("simulations/observer.py", "import opacus"),
    "keys are made elsewhere": ("client/app.py", "import cryptography"),
    "torch among the masks": ("common/secagg/masks.py", "import torch"),
    "torch in the accountant": ("common/privacy/accountant.py", "import torch"),
}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("house")
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".importlinter", folder)
    return folder


def test_the_house_keeps_its_rules(copy: Path) -> None:
    result = lint(copy)
    assert result.returncode == 0, result.stdout
    assert "0 broken" in result.stdout


@pytest.mark.parametrize(("file", "breach"), BREACHES.values(), ids=BREACHES)
def test_a_planted_breach_is_found(copy: Path, file: str, breach: str) -> None:
    path = copy / file
    before = path.read_text(encoding="utf-8")
    path.write_text(before + f"\n{breach}\n", encoding="utf-8")
    try:
        result = lint(copy)
    finally:
        path.write_text(before, encoding="utf-8")
    assert result.returncode != 0
    assert "BROKEN" in result.stdout


def test_the_front_door_does_nothing_but_mount_commands() -> None:
    assert len((ROOT / "fedward.py").read_text(encoding="utf-8").splitlines()) < 100


def test_all_rooms_come_from_one_parent() -> None:
    script = (
        "import client, common, fedward, server, simulations; from pathlib import Path\n"
        "rooms = [Path(room.__file__).parent for room in (client, common, server, simulations)]\n"
        "print(*{str(room.parent) for room in rooms} | {str(Path(fedward.__file__).parent)})"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == str(ROOT)


def test_the_packages_are_named_one_by_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"] == [
        "fedward.py",
        "server",
        "client",
        "common",
        "simulations",
    ]


def test_flower_finds_both_apps() -> None:
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp

    components = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["flwr"]["app"]["components"]
    assert components == {"serverapp": "server.app:app", "clientapp": "client.app:app"}
    import client.app
    import server.app

    assert isinstance(client.app.app, ClientApp)
    assert isinstance(server.app.app, ServerApp)


BANNED = ("import pickle", "cloudpickle", "import dill", "import joblib", "torch.load(", "yaml.load(", "allow_pickle=True", "verify=False")


# Headers between the processes of one engine, on this machine, over pipes that they inherit: nothing from outside gets there.
OWN_PIPES = ("simulations/engine/parcel.py", "simulations/engine/frames.py")


@pytest.mark.parametrize("room", ROOMS)
def test_nothing_that_runs_what_it_reads(room: str) -> None:
    for path in (ROOT / room).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        found = [word for word in BANNED if word in text and path.relative_to(ROOT).as_posix() not in OWN_PIPES]
        assert not found, f"{path.relative_to(ROOT)}: {found}"


def test_every_file_names_its_licence() -> None:
    for room in (*ROOMS, "tests"):
        for path in (ROOT / room).rglob("*.py"):
            assert path.read_text(encoding="utf-8").startswith("# SPDX-License-Identifier: Apache-2.0\n"), path
