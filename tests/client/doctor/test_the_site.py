# SPDX-License-Identifier: Apache-2.0
"""Each thing that can be wrong in a site's home is made wrong, one at a time, and the doctor names it and says what to do."""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import metadata
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from client.audit import note
from client.doctor import machine, permissions
from client.doctor.findings import State
from client.membership import pause
from client.training.device import found
from common import keyfile, roster
from common.audit.entries import Paused
from fedward import app
from tests.client.doctor.ready import Ready, ground, of, ready
from tests.client.homes import PATIENTS, account, edit, release


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Ready:
    return ready(tmp_path_factory.mktemp("pristine"))


@pytest.fixture
def site(pristine: Ready, tmp_path: Path) -> Ready:
    """The same home again, to be broken. Its images and its sealed head are the test's own too."""
    shutil.copytree(pristine.home.parent, tmp_path, dirs_exist_ok=True)
    edit(tmp_path / "home" / "site.toml", str(pristine.home.parent), str(tmp_path))
    home = tmp_path / "home"
    (home / "site.toml").write_text((home / "site.toml").read_text().replace(str(pristine.home.parent), str(tmp_path)))
    return Ready(home=home, consortium=pristine.consortium)


def told(home: Path, *more: str) -> dict[str, list[dict[str, str]]]:
    """Every finding, by check."""
    result = CliRunner().invoke(app, ["site", "doctor", "--home", str(home), "--json", *more])
    found: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == (0 if found["ok"] else 1)
    assert found["ok"] is not any(each["state"] == "wrong" for each in found["findings"])
    by_check: dict[str, list[dict[str, str]]] = {}
    for each in found["findings"]:
        by_check.setdefault(each["check"], []).append(each)
    return by_check


def worst(home: Path, check: str) -> dict[str, str]:
    order = [state.value for state in State]
    return max(told(home)[check], key=lambda each: order.index(each["state"]))


def sign_anew(site: Ready, changed: roster.Roster) -> None:
    (site.home / "roster").write_bytes(roster.sign(roster.render(changed), root_seed=site.consortium.root.seed))


def test_a_home_that_is_ready_has_nothing_wrong_but_what_this_machine_is(site: Ready) -> None:
    found = told(site.home)
    for check in ("home", "identity", "roster", "policy", "plan", "snapshot", "disk", "gpu"):
        assert [each["state"] for each in found[check]] == ["ok"], found[check]


def test_an_audit_log_that_holds_is_good(site: Ready) -> None:
    note(site.home, Paused())
    (found,) = told(site.home)["audit"]
    assert (found["state"], found["found"]) == ("ok", "2 lines, every link and signature holds")


def test_looking_changes_nothing(site: Ready) -> None:
    def everything() -> dict[str, tuple[int, bytes]]:
        files = [path for path in site.home.parent.rglob("*") if path.is_file()]
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    before = everything()
    told(site.home)
    assert everything() == before


def lose_the_key(site: Ready) -> None:
    (site.home / "identity.key").unlink()


def another_key(site: Ready) -> None:
    for name in ("identity.key", "identity.pub"):
        (site.home / name).unlink()
    keyfile.create(site.home / "identity.key", "site")


def open_key(site: Ready) -> None:
    (site.home / "identity.key").chmod(0o644)


def revoked(site: Ready) -> None:
    sign_anew(site, roster.with_revoked(site.consortium.roster, "north"))


def not_enrolled(site: Ready) -> None:
    members = tuple(each for each in site.consortium.roster.members if each.site_id != "north")
    sign_anew(site, replace(site.consortium.roster, members=members))


def forged_roster(site: Ready) -> None:
    content = (site.home / "roster").read_bytes()
    (site.home / "roster").write_bytes(content.replace(b" active 1\n", b" active 2\n", 1))


def stale_roster(site: Ready) -> None:
    old = int(time.time()) - 40 * 86_400
    sign_anew(site, replace(site.consortium.roster, not_before=old, not_after=old + 30 * 86_400))


def early_roster(site: Ready) -> None:
    soon = int(time.time()) + 10 * 86_400
    sign_anew(site, replace(site.consortium.roster, not_before=soon, not_after=soon + 20 * 86_400))


def no_policy(site: Ready) -> None:
    (site.home / "policy.toml").unlink()


def strict_policy(site: Ready) -> None:
    edit(site.home / "policy.toml", 'units = ["patient"]', 'units = ["patient"]\nminimum_cohort = 9')


def raised_caps(site: Ready) -> None:
    edit(site.home / "policy.toml", "eps_total = 12.0", "eps_total = 99.0")


def no_plan(site: Ready) -> None:
    shutil.rmtree(site.home / "approved")


def edited_plan(site: Ready) -> None:
    edit(site.home / "approved" / "plan.toml", "rounds = ", "rounds = 1")


def left(site: Ready) -> None:
    (site.home / pause.LEFT_FILE).write_bytes(b"goodbye\n")


def no_ledger(site: Ready) -> None:
    (site.home / "ledger.jsonl").unlink()


def tampered_ledger(site: Ready) -> None:
    content = bytearray((site.home / "ledger.jsonl").read_bytes())
    content[len(content) // 2] ^= 1
    (site.home / "ledger.jsonl").write_bytes(bytes(content))


def older_ledger(site: Ready) -> None:
    before = (site.home / "ledger.jsonl").read_bytes()
    account(site.home).pay(release(1))
    (site.home / "ledger.jsonl").write_bytes(before)


def lost_head(site: Ready) -> None:
    for path in (site.home.parent / "other-mount").iterdir():
        path.unlink()


def tampered_log(site: Ready) -> None:
    note(site.home, Paused())
    content = (site.home / "audit.jsonl").read_text()
    (site.home / "audit.jsonl").write_text(content.replace('"north"', '"south"', 1))


def other_namespace(site: Ready) -> None:
    edit(site.home / "site.toml", "north-thorax", "north-abdomen")


def other_data(site: Ready) -> None:
    (site.home / "data" / "manifest.json").unlink()


def no_images(site: Ready) -> None:
    shutil.rmtree(site.home.parent / "pictures")


def no_data_section(site: Ready) -> None:
    text = (site.home / "site.toml").read_text()
    start = text.index("[data]")
    (site.home / "site.toml").write_text(text[:start] + text[text.index("[", start + 1) :])


BROKEN: dict[str, tuple[Callable[[Ready], None], str, str]] = {
    "the key is lost": (lose_the_key, "identity", "cannot be opened"),
    "another key": (another_key, "identity", "another key"),
    "a key that others can read": (open_key, "identity", "0600 expected"),
    "revoked": (revoked, "identity", "revoked"),
    "not enrolled": (not_enrolled, "identity", "not in roster epoch"),
    "a forged roster": (forged_roster, "roster", "E_ROSTER_SIGNATURE"),
    "a stale roster": (stale_roster, "roster", "E_ROSTER_EXPIRED"),
    "a roster of the future": (early_roster, "roster", "after this clock"),
    "no policy": (no_policy, "policy", "E_DATA_NOT_FOUND"),
    "a policy against the plan": (strict_policy, "policy", "at least 9 sites"),
    "caps raised in the file alone": (raised_caps, "ledger", "E_POLICY"),
    "no plan": (no_plan, "plan", "E_PLAN_NOT_APPROVED"),
    "a plan edited after its approval": (edited_plan, "plan", "E_APPROVAL"),
    "the site has left": (left, "plan", "E_SITE_LEFT"),
    "no ledger": (no_ledger, "ledger", "is not there"),
    "a tampered ledger": (tampered_ledger, "ledger", "E_LEDGER"),
    "an older ledger": (older_ledger, "ledger", "E_LEDGER_ROLLBACK"),
    "the sealed head is lost": (lost_head, "ledger", "E_LEDGER_ROLLBACK"),
    "a tampered audit log": (tampered_log, "audit", "E_AUDIT"),
    "another namespace": (other_namespace, "ledger", "namespace"),
    "other data than approved": (other_data, "snapshot", "not what was approved"),
    "no folder of images": (no_images, "data", "is not there"),
    "no data section": (no_data_section, "data", "whose patients"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_broken_is_named_with_what_to_do(site: Ready, broken: str) -> None:
    breaking, check, words = BROKEN[broken]
    breaking(site)
    found = worst(site.home, check)
    assert found["state"] == "wrong"
    assert words in found["found"]
    assert found["fix"]


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "has no site.toml"), ("[site]\nname = 'UPPER'\n", "E_PLAN_VALUE"), ("[site\n", "E_PLAN_SYNTAX"), ("[colour]\n", "E_PLAN")],
)
def test_a_site_file_that_is_missing_or_wrong_is_said_first_and_alone(site: Ready, content: str | None, words: str) -> None:
    (site.home / "site.toml").unlink()
    if content is not None:
        (site.home / "site.toml").write_text(content)
    found = told(site.home)
    assert words in found["home"][0]["found"]
    assert set(found) == {"home", "permissions", "versions"}


def test_a_pause_and_news_are_pointed_at(site: Ready) -> None:
    pause.pause(site.home)
    (site.home / "incoming").mkdir()
    (site.home / "incoming" / "plan.toml").write_text("")
    found = told(site.home)
    assert [each["state"] for each in found["plan"]] == ["ok", "look"]
    assert "fedward site resume" in found["plan"][1]["fix"]
    assert found["news"][0]["state"] == "look"


def test_a_roster_and_an_entry_that_end_soon_are_pointed_at(site: Ready) -> None:
    soon = int(time.time()) + 3 * 86_400
    members = tuple(replace(each, not_after=soon) for each in site.consortium.roster.members)
    sign_anew(site, replace(site.consortium.roster, not_after=soon, members=members))
    assert worst(site.home, "roster")["state"] == worst(site.home, "identity")["state"] == "look"


def test_too_small_a_disk_is_named_before_training_meets_it(site: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 10**8, 10**8))
    found = of(machine.disk(ground(site.home)), "disk")
    assert found.state is State.WRONG
    assert "E_DISK_FULL" in found.found


@pytest.fixture
def nothing_found_yet() -> Iterator[None]:
    found.cache_clear()
    yield
    found.cache_clear()


@pytest.mark.usefixtures("nothing_found_yet")
def test_a_gpu_is_told_whether_it_is_seen_or_not(site: Ready, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What PyTorch and the kernel would say is put in their mouths; tests/client/training/test_gpu.py asks a real one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine, "DEVICES", tmp_path)
    assert "none" in of(machine.processor(ground(site.home)), "gpu").found
    (tmp_path / "nvidia0").touch()
    unseen = of(machine.processor(ground(site.home)), "gpu")
    assert (unseen.state, "does not see" in unseen.found, "nvidia-smi" in unseen.fix) == (State.LOOK, True, True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (60 * 2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "A made GPU")
    found.cache_clear()
    seen = of(machine.processor(ground(site.home)), "gpu")
    assert (seen.state, seen.found) == (State.OK, "training uses A made GPU, 60.0 GiB of 80.0 GiB free")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (6 * 2**30, 80 * 2**30))
    crowded = of(machine.processor(ground(site.home)), "gpu")
    assert (crowded.state, "another program" in crowded.found) == (State.LOOK, True)
    file = site.home / "site.toml"
    file.write_text(file.read_text().replace('device = "auto"', 'device = "cuda:1"'))
    missing = of(machine.processor(ground(site.home)), "gpu")
    assert (missing.state, missing.found.startswith("E_GPU_MISSING: [training] device = 'cuda:1'")) == (State.WRONG, True)
    file.write_text(file.read_text().replace("cuda:1", "cpu"))
    assert of(machine.processor(ground(site.home)), "gpu").found.startswith("not asked for")


def test_versions_are_held_to_the_locked_list_and_to_what_fedward_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told_of(*lines: str) -> dict[State, str]:
        (tmp_path / "locked.txt").write_text("# a list\n" + "\n".join(lines) + "\n")
        return {each.state: each.found for each in machine.versions(tmp_path / "locked.txt") if "Ray" not in each.found}

    torch_version, flwr_version = version("torch"), version("flwr")
    same = (
        f"torch=={torch_version} \\",
        "    --hash=sha256:00",
        f"flwr=={flwr_version} --hash=sha256:00",
        'nothing==1 ; sys_platform == "win32" \\',
    )
    assert "all as locked" in told_of(*same)[State.OK]
    assert f"flwr {flwr_version} (locked: 1.0.0)" in told_of(same[0], "flwr==1.0.0 \\")[State.WRONG]
    assert "absent missing (locked: 2.0)" in told_of("absent==2.0 \\")[State.WRONG]
    assert {each.state for each in machine.versions(tmp_path / "no-list")} >= {State.LOOK}
    monkeypatch.setattr(metadata, "requires", lambda _: ["torch<1", "absent>=2 ; extra == 'ray'"])
    assert f"torch {torch_version} (<1)" in told_of(*same)[State.WRONG]


def test_ray_at_a_site_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Made:
        name, version = "Ray", "2.0"

    monkeypatch.setattr(metadata, "distributions", lambda: [Made()])
    assert any("unpickles" in each.found for each in machine.versions(tmp_path / "no-list"))


def test_a_home_that_others_can_look_into_is_named(site: Ready) -> None:
    site.home.chmod(0o755)
    assert any("0700 expected" in each["found"] for each in told(site.home)["permissions"])


def test_a_link_and_a_loose_key_in_a_home_are_named(site: Ready) -> None:
    (site.home / "elsewhere").symlink_to("/")
    (site.home / "patient.key").chmod(0o640)
    found = of(permissions.home(site.home), "permissions")
    named = " ".join(each.found for each in permissions.home(site.home))
    assert found.state is State.WRONG
    assert "'elsewhere'" in named
    assert "'patient.key'" in named


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look in somebody else's shoes")
def test_a_python_that_the_sites_user_cannot_read_is_named_and_nothing_else_is_looked_at(
    site: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = site.home.parent / "closed"
    closed.mkdir(mode=0o700)
    (closed / "python").touch(mode=0o700)
    monkeypatch.setattr(sys, "executable", str(closed / "python"))
    for path in (site.home, *site.home.rglob("*")):
        os.chown(path, 64001, 64001)
    found = told(site.home)
    assert "its service could not start" in found["installation"][0]["found"]
    assert set(found) == {"permissions", "installation", "versions"}
    assert os.geteuid() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look in somebody else's shoes")
def test_as_root_it_looks_as_the_user_who_owns_the_home(site: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root could read a mode of 0; the site's user cannot, and that is what counts."""
    monkeypatch.setattr(permissions, "installation", lambda: iter(()))  # the Python of a developer may be for nobody else
    os.chown(site.home.parent, 64001, 64001)
    for path in site.home.rglob("*"):
        os.chown(path, 64001, 64001)
    os.chown(site.home, 64001, 64001)
    for above in site.home.parents:
        if above.stat().st_uid == 0 and above.name and not above.stat().st_mode & 0o001:
            above.chmod(0o711)
    pictures = site.home.parent / "pictures"
    pictures.chmod(0o700)
    found = told(site.home)
    assert [each["state"] for each in found["permissions"]] == ["ok"]
    assert found["identity"][0]["state"] == "ok"
    assert "cannot be read by the site's user" in found["data"][0]["found"]
    assert os.geteuid() == 0
    pictures.chmod(0o755)
    assert told(site.home)["data"][0]["state"] == "ok"


def test_nothing_that_is_printed_names_a_patient(site: Ready) -> None:
    """Picture folders name their patients by folder and by index.csv; no word of either is said, also not where they are damaged."""
    rows = (site.home.parent / "pictures" / "index.csv").read_text().splitlines()[1:]
    words = {word for row in rows for word in row.split(",") if len(word) > 3}
    assert len(words) == PATIENTS
    for breaking in (lambda: None, lambda: other_data(site), lambda: tampered_ledger(site), lambda: no_images(site)):
        breaking()
        result = CliRunner().invoke(app, ["site", "doctor", "--home", str(site.home)])
        assert not [word for word in words if word in result.output]


def test_people_get_lines_that_say_what_to_do(site: Ready) -> None:
    no_plan(site)
    result = CliRunner().invoke(app, ["site", "doctor", "--home", str(site.home)])
    assert result.exit_code == 1
    at = result.output.index("WRONG plan")
    assert "-> Read one and approve it: fedward site approve PLAN." in result.output[at : at + 200]
    assert " wrong, " in result.output.splitlines()[-1]


def test_without_a_folder_it_says_what_it_needs() -> None:
    assert CliRunner().invoke(app, ["site", "doctor"]).exit_code == 2
