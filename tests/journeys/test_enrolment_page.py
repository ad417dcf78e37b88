# SPDX-License-Identifier: Apache-2.0
"""docs/enrolment.md, typed as it stands by a custodian and a hospital; two more hospitals come in beside them."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.membership import approval, pause
from client.membership import rosters as membership
from client.membership.news import receive
from common import keyfile, news
from common.news import News
from common.plan import to_toml
from fedward import app
from tests.journeys.made import pictures
from tests.journeys.test_enrolment import PATIENTS, at, journey_plan

PAGE = (Path(__file__).parents[2] / "docs" / "enrolment.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"(?:^    \S.*\n)+", re.MULTILINE)


def blocks() -> list[list[str]]:
    """Every group of indented lines, in order."""
    return [[line.strip() for line in found.splitlines()] for found in BLOCK.findall(PAGE)]


class Typist:
    """One person in a folder of their own, who says yes to everything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment: dict[str, str] = {}
        folder.mkdir()

    def types(self, *lines: str) -> None:
        with at(self.folder):
            for line in lines:
                words = shlex.split(line, comments=True)
                if words[0] == "export":
                    name, _, value = words[1].partition("=")
                    self._environment[name] = value
                    continue
                assert words[0] == "fedward", line
                result = CliRunner().invoke(app, words[1:], input="y\n" * 4, env=self._environment)
                assert result.exit_code == 0, (line, result.output, result.exception)

    def gets(self, *files: Path) -> None:
        for file in files:
            shutil.copy(file, self.folder / file.name)


def test_the_page_is_typed_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEDWARD_SITE", raising=False)
    begin, keys, one_more, second, arrives, revoke, rotate, rotated, recover, go = blocks()
    custodian, north = Typist(tmp_path / "custodian"), Typist(tmp_path / "north")
    desk, home = custodian.folder, north.folder / "site"
    custodian.types(*begin)
    (desk / "ct.toml").write_text(to_toml(journey_plan()))
    for name in ("south", "west", "east"):
        other = Typist(tmp_path / name)
        other.types(*(line.replace("north", name) for line in keys))
        custodian.gets(other.folder / f"{name}.request")
        custodian.types(f"fedward roster add {name}.request")

    north.types(*keys)
    images = pictures(tmp_path / "images", patients=PATIENTS)
    site = home / "site.toml"
    site.write_text(site.read_text().replace('# root = "/data/images"', f'root = "{images}"'))
    custodian.gets(north.folder / "north.request")
    custodian.types(*one_more)
    north.gets(*(desk / "consortium" / name for name in ("roots", "roster")), *(desk / name for name in ("ct.toml", "ct.sig")))
    north.types(*second)
    assert approval.approved_plan(home) == journey_plan()
    assert (desk / "consortium" / "nodes" / "north.pub").exists()

    def brought() -> None:
        coordinator = keyfile.load(desk / "consortium" / "coordinator.key", "coordinator")
        receive(home, news.signed(News(roster=(desk / "consortium" / "roster").read_bytes()), coordinator))

    def trusted(name: str) -> bool:
        held = membership.in_force(home)
        member = held.find(name) if held else None
        return member is not None and not member.revoked

    joining = Typist(tmp_path / "later")
    joining.types(*(line.replace("north", "later") for line in keys))
    custodian.gets(joining.folder / "later.request")
    custodian.types("fedward roster add later.request", "fedward roster sign consortium/root.key")
    brought()
    assert not trusted("later")
    north.types(*arrives)
    assert trusted("later")

    custodian.types(*revoke)
    assert trusted("west")
    brought()
    assert not trusted("west")

    before = (home / "identity.key").read_bytes()
    north.types(*rotate)
    custodian.gets(north.folder / "north.request")
    custodian.types(*rotated)
    brought()
    assert (home / "identity.key").read_bytes() != before
    assert approval.approved_plan(home) == journey_plan()

    (home / "identity.key").unlink()
    north.types(*recover)
    custodian.gets(north.folder / "north.request")
    custodian.types(*rotated)
    north.gets(desk / "consortium" / "roster")
    north.types("fedward site approve --roster roster", second[-1])
    assert approval.approved_plan(home) == journey_plan()

    north.types(*go)
    assert pause.has_left(home)
    custodian.gets(north.folder / "north.leave")
    custodian.types("fedward roster revoke north.leave")


def test_every_block_of_the_page_is_typed() -> None:
    """The control: no command stands on the page that is in none of the blocks."""
    typed = [line for block in blocks() for line in block]
    assert len(blocks()) == 10
    assert len(typed) == len(re.findall(r"^    \S", PAGE, re.MULTILINE))
    assert all(line.startswith(("fedward ", "export ")) for line in typed)
