# SPDX-License-Identifier: Apache-2.0
"""`fedward roster`, typed as a custodian types it: real files, real keys, and every refusal by its name."""

import errno
import json
import os
import shlex
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from common import keyfile, roster
from common.errors import FedwardError, RosterFormat
from common.fingerprint import Fingerprint
from common.roster import Member, Roots, Roster
from common.secagg.keys import SigningKey
from fedward import app
from server.membership.roster_cli import SESSION
from server.membership.roster_folder import RosterFolder

DAY_S = 24 * 3600
FOLDER = Path("consortium")


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everybody types in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def typed(line: str, *, answer: str = "y\n") -> Result:
    return CliRunner().invoke(app, shlex.split(line), input=answer)


def done(line: str, *, answer: str = "y\n") -> str:
    result = typed(line, answer=answer)
    assert result.exit_code == 0, (line, result.output, result.exception)
    return result.output


def told(line: str) -> dict[str, Any]:
    """What a command says with --json."""
    return dict(json.loads(done(line + " --json")))


def refused(line: str) -> FedwardError:
    """The named refusal, which must say what to do."""
    result = typed(line)
    assert isinstance(result.exception, FedwardError), (line, result.output, result.exception)
    assert result.exception.message
    assert result.exception.fix
    return result.exception


def begun() -> None:
    done("roster init")
    for name in ("north", "south", "west"):
        done(f"roster keygen {name}.key")
        done(f"roster add {name} {name}.pub")


def signed() -> None:
    begun()
    done("roster sign consortium/root.key")


def verified() -> Roster:
    return roster.verify((FOLDER / "roster").read_bytes(), roots=roster.parse_roots((FOLDER / "roots").read_bytes()))


def publish(changed: Roster) -> None:
    """Put a roster there that the root signed, whatever the clock says."""
    seed = keyfile.load(FOLDER / "root.key", "root").seed
    (FOLDER / "roster").write_bytes(roster.sign(roster.render(changed), root_seed=seed))


# The whole session.


def test_the_session_that_the_help_teaches_works_as_it_stands() -> None:
    for line in SESSION.splitlines():
        command, _, rest = line.partition(" ")
        assert command == "fedward"
        done(rest)
    found = verified()
    assert {member.site_id: member.revoked for member in found.members} == {"north": False, "south": False, "west": True}


def test_the_help_shows_the_session() -> None:
    shown = done("roster --help")
    assert all(line in shown for line in SESSION.splitlines())


def test_a_site_is_in_once_enough_roots_signed() -> None:
    for name in "abc":
        done(f"roster keygen {name}.key --role root")
    done("roster init --root a.pub --root b.pub --root c.pub --needed 2")
    done("roster keygen north.key")
    done("roster add north north.pub")
    assert not (FOLDER / "root.key").exists()
    assert "1 of 2 signatures" in done("roster sign a.key")
    assert not (FOLDER / "roster").exists()
    assert "1 of 2 signatures" in done("roster sign a.key"), "one root counts once"
    assert refused("roster check").code == "E_ROSTER_SIGNATURE"
    assert told("roster sign c.key --yes")["complete"]
    assert not (FOLDER / "roster.draft").exists()
    assert [member.site_id for member in verified().members] == ["north"]
    assert "ok: signed and valid" in done("roster check")


def test_check_tells_a_script_who_is_in() -> None:
    signed()
    found = told("roster check")
    assert found["ok"]
    assert found["complete"]
    assert found["epoch"] == 4
    assert [site["site"] for site in found["sites"]] == ["north", "south", "west"]
    public = keyfile.public_key("north.pub", "site")
    assert found["sites"][0]["words"] == Fingerprint.of(public).words
    assert found["digest"] == verified().digest.hex()


def test_check_tells_people_who_is_in() -> None:
    signed()
    done("roster revoke south")
    done("roster sign consortium/root.key")
    shown = done("roster check")
    assert "roster epoch 5" in shown
    assert Fingerprint.of(keyfile.public_key("west.pub", "site")).words in shown
    assert "revoked" in next(line for line in shown.splitlines() if line.startswith("south"))
    assert "1, needed 1 of 1" in shown


def test_a_key_may_be_given_as_digits() -> None:
    done("roster init")
    public = SigningKey(b"\x05" * 32).public
    assert told(f"roster add north {public.hex().upper()}")["hex"] == Fingerprint.of(public).hex


def test_every_edit_is_a_new_epoch_and_a_fresh_month() -> None:
    signed()
    before = verified()
    publish(replace(before, not_before=before.not_before - 20 * DAY_S, not_after=before.not_after - 20 * DAY_S))
    assert told("roster revoke north")["epoch"] == before.epoch + 1
    done("roster sign consortium/root.key")
    assert verified().not_after >= time.time() + roster.LONGEST_VALIDITY_S - 60


def test_an_edit_of_a_draft_that_was_signed_in_part_drops_the_signature() -> None:
    for name in "ab":
        done(f"roster keygen {name}.key --role root")
    done("roster init --root a.pub --root b.pub --needed 2")
    done("roster sign a.key")
    done("roster keygen north.key")
    assert told("roster add north north.pub")["epoch"] == 2
    assert "1 of 2 signatures" in done("roster sign b.key")


def test_a_roster_is_renewed_without_an_edit() -> None:
    signed()
    before = verified()
    publish(replace(before, not_before=before.not_before - 40 * DAY_S, not_after=before.not_after - 40 * DAY_S))
    assert refused("roster check").code == "E_ROSTER_EXPIRED"
    done("roster sign consortium/root.key --renew")
    assert verified().epoch == before.epoch + 1
    assert verified().members == before.members
    done("roster check")


def test_a_renewal_signs_nothing_that_a_draft_slipped_in() -> None:
    """Whoever may write the folder needs no key to leave a draft there; the custodian who renews each month must not sign it unread."""
    signed()
    before = (FOLDER / "roster").read_bytes()
    done("roster keygen sybil.key")
    done("roster add sybil sybil.pub")
    draft = (FOLDER / "roster.draft").read_bytes()
    error = refused("roster sign consortium/root.key --renew --yes")
    assert (error.code, "roster.draft" in error.message, "without --renew" in error.fix) == ("E_ROSTER_TAKEN", True, True)
    assert ((FOLDER / "roster").read_bytes(), (FOLDER / "roster.draft").read_bytes()) == (before, draft)
    (FOLDER / "roster.draft").unlink()
    done("roster sign consortium/root.key --renew --yes")
    assert [member.site_id for member in verified().members] == ["north", "south", "west"]


def test_a_first_draft_is_signed_and_not_renewed() -> None:
    done("roster init")
    assert refused("roster sign consortium/root.key --renew --yes").code == "E_ROSTER_TAKEN"
    (FOLDER / "roster.draft").unlink()
    assert refused("roster sign consortium/root.key --renew --yes").code == "E_ROSTER_NOT_FOUND"
    assert not (FOLDER / "roster").exists()


def test_the_second_custodian_of_a_renewal_signs_what_the_first_signed() -> None:
    for name in "ab":
        done(f"roster keygen {name}.key --role root")
    done("roster init --root a.pub --root b.pub --needed 2")
    done("roster sign a.key")
    done("roster sign b.key")
    before = verified()
    done("roster sign a.key --renew")
    assert "without --renew" in refused("roster sign b.key --renew --yes").fix
    done("roster sign b.key")
    assert (verified().epoch, verified().members) == (before.epoch + 1, before.members)


def test_a_site_gets_a_new_key() -> None:
    signed()
    done("roster keygen north2.key")
    assert refused("roster add north north2.pub").code == "E_ROSTER_TAKEN"
    done("roster add north north2.pub --replace --weight 3 --days 30")
    done("roster sign consortium/root.key")
    member = verified().find("north")
    assert member is not None
    assert (member.public_key, member.weight) == (keyfile.public_key("north2.pub", "site"), 3)
    assert member.not_after - member.not_before == 30 * DAY_S


def test_what_is_signed_is_what_was_shown() -> None:
    begun()
    shown = done("roster sign consortium/root.key")
    for name in ("north", "south", "west"):
        assert f"added {name} {Fingerprint.of(keyfile.public_key(f'{name}.pub', 'site')).words}" in shown


def test_saying_no_signs_nothing() -> None:
    begun()
    before = (FOLDER / "roster.draft").read_bytes()
    assert typed("roster sign consortium/root.key", answer="n\n").exit_code == 1
    assert typed("roster sign consortium/root.key --renew", answer="n\n").exit_code == 1
    assert (FOLDER / "roster.draft").read_bytes() == before
    assert not (FOLDER / "roster").exists()


def test_json_does_not_sign_unasked() -> None:
    begun()
    assert typed("roster sign consortium/root.key --json").exit_code == 2
    assert not (FOLDER / "roster").exists()


def test_a_custodian_killed_before_clearing_the_draft_goes_on() -> None:
    signed()
    found = verified()
    (FOLDER / "roster.draft").write_bytes(roster.render(found))
    assert refused("roster sign consortium/root.key").code == "E_ROSTER_NOT_FOUND"
    assert told("roster revoke west")["epoch"] == found.epoch + 1


def test_a_site_sees_what_changed_since_the_roster_that_it_holds() -> None:
    signed()
    Path("held").write_bytes((FOLDER / "roster").read_bytes())
    done("roster revoke west")
    done("roster sign consortium/root.key")
    shown = done("roster check consortium/roster --roots consortium/roots --since held")
    assert "epoch 4 -> 5" in shown
    assert "revoked west" in shown
    Path("new").write_bytes((FOLDER / "roster").read_bytes())
    assert refused("roster check held --since new").code == "E_ROSTER_CHANGED"


# Keys on disk.


def test_secret_halves_are_private_and_public_halves_hold_no_secret() -> None:
    begun()
    for path in (FOLDER / "root.key", FOLDER / "coordinator.key", Path("north.key")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    role: keyfile.Role = "site"
    seed = keyfile.load(Path("north.key"), role).seed.hex()
    everything = [path for path in Path().rglob("*") if path.is_file() and path.suffix != ".key"]
    assert len(everything) >= 6
    assert not any(seed in path.read_text() for path in everything)


def test_no_command_prints_a_secret() -> None:
    printed = [done(line.partition(" ")[2]) for line in SESSION.splitlines()]
    seeds = [path.read_text().rpartition("seed ")[2].strip() for path in Path().rglob("*.key")]
    assert len(seeds) == 5
    assert not any(seed in page for seed in seeds for page in printed)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_root_key_that_others_can_read_signs_nothing(mode: int) -> None:
    begun()
    (FOLDER / "root.key").chmod(mode)
    error = refused("roster sign consortium/root.key")
    assert error.code == "E_SECRET_FILE"
    assert "chmod 600" in error.fix
    assert not (FOLDER / "roster").exists()


def test_a_link_to_a_key_is_not_followed() -> None:
    begun()
    Path("link.key").symlink_to(FOLDER / "root.key")
    assert refused("roster sign link.key").code == "E_SECRET_FILE"


def test_a_missing_key_and_a_folder_for_a_key_are_refused() -> None:
    begun()
    assert refused("roster sign nowhere.key").code == "E_SECRET_FILE"
    assert refused("roster sign consortium").code == "E_SECRET_FILE"


def test_every_flipped_byte_of_a_key_is_noticed() -> None:
    done("roster keygen north.key")
    path = Path("north.key")
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(FedwardError) as refusal:
            keyfile.load(path, "site")
        assert refusal.value.code == "E_SECRET_FILE"
        assert whole.rpartition(b"seed ")[2].strip().decode() not in str(refusal.value)


def test_a_key_is_never_overwritten() -> None:
    done("roster keygen north.key")
    before = Path("north.key").read_bytes()
    assert refused("roster keygen north.key").code == "E_SECRET_FILE"
    Path("north.key").rename("kept.key")
    assert refused("roster keygen north.key").code == "E_SECRET_FILE", "its public half is still there"
    assert not Path("north.key").exists()
    assert Path("kept.key").read_bytes() == before
    assert refused("roster keygen nowhere/north.key").code == "E_SECRET_FILE"


@pytest.mark.parametrize("writes", [0, 1])
def test_a_full_disk_leaves_no_half_a_key(writes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, left = os.fsync, [writes]

    def full(descriptor: int) -> None:
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= 1
        honest(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    assert refused("roster keygen north.key").code == "E_DISK_FULL"
    assert not list(Path().iterdir())


def test_a_key_has_one_role() -> None:
    begun()
    assert refused("roster sign consortium/coordinator.key").code == "E_SECRET_FILE"
    assert refused("roster sign north.key").code == "E_SECRET_FILE"
    assert refused("roster add east consortium/coordinator.pub").code == "E_ROSTER_KEY"
    assert refused("roster init other --root north.pub").code == "E_ROSTER_KEY"
    assert refused("roster init other --coordinator north.pub").code == "E_ROSTER_KEY"
    assert not Path("other").exists()


# Refusals.


def test_init_overwrites_nothing() -> None:
    begun()
    before = {path: path.read_bytes() for path in FOLDER.iterdir()}
    assert refused("roster init").code == "E_ROSTER_TAKEN"
    assert {path: path.read_bytes() for path in FOLDER.iterdir()} == before


@pytest.mark.parametrize("needed", [0, 2, -1])
def test_a_number_of_signatures_that_cannot_be_is_refused_before_a_key_is_made(needed: int) -> None:
    assert refused(f"roster init --needed={needed}").code == "E_ROSTER_FORMAT"
    assert not FOLDER.exists()


def test_a_folder_that_cannot_be_made_is_refused() -> None:
    Path("taken").write_text("a file")
    for folder in ("taken", "taken/consortium"):
        assert refused(f"roster init {folder}").code == "E_ROSTER_TAKEN"


def test_the_coordinators_key_cannot_be_a_root() -> None:
    public = SigningKey(b"\x07" * 32).public.hex()
    assert refused(f"roster init --root {public} --coordinator {public}").code == "E_ROSTER_KEY"


@pytest.mark.parametrize("given", ["", "12ab", "zz" * 32, "nowhere.pub", "consortium", "12" * 33])
def test_what_is_no_public_key_is_refused(given: str) -> None:
    begun()
    assert refused(f"roster add east '{given}'").code in {"E_ROSTER_NOT_FOUND", "E_ROSTER_KEY"}


def test_a_secret_key_is_not_taken_for_a_public_one() -> None:
    begun()
    done("roster keygen east.key")
    error = refused("roster add east east.key")
    assert error.code == "E_ROSTER_KEY"
    assert "east.pub" in error.fix


def test_a_file_of_something_else_is_not_taken_for_a_key() -> None:
    begun()
    Path("notes.pub").write_bytes(b"\xff\x00 dear custodian")
    assert refused("roster add east notes.pub").code == "E_ROSTER_KEY"


@pytest.mark.parametrize("name", ["North", "no rth", "-north", "../north", "nörd", "n" * 65])
def test_a_name_that_no_roster_can_hold_is_refused(name: str) -> None:
    begun()
    done("roster keygen east.key")
    error = refused(f"roster add --days 3 -- '{name}' east.pub")
    assert error.code == "E_ROSTER_FORMAT"
    assert "lower-case" in error.fix, "it says how to name a site, not how to mend a file"


def test_two_parties_cannot_share_a_key() -> None:
    begun()
    coordinator = keyfile.public_key("consortium/coordinator.pub", "coordinator").hex()
    root = keyfile.public_key("consortium/root.pub", "root").hex()
    for given, owner in (("north.pub", "site 'north'"), (coordinator, "the coordinator"), (root, "a root")):
        error = refused(f"roster add east {given}")
        assert error.code == "E_ROSTER_KEY"
        assert owner in error.message


def test_an_unknown_site_cannot_be_revoked() -> None:
    begun()
    assert refused("roster revoke elsewhere").code == "E_UNKNOWN_PEER"


@pytest.mark.parametrize("line", ["roster add north {key}", "roster revoke north", "roster check", "roster sign root.key --renew"])
def test_a_folder_without_a_consortium_is_named(line: str) -> None:
    done("roster keygen root.key --role root")
    assert refused(line.format(key="12" * 32)).code == "E_ROSTER_NOT_FOUND"


def test_without_a_draft_there_is_nothing_to_sign() -> None:
    signed()
    assert refused("roster sign consortium/root.key").code == "E_ROSTER_NOT_FOUND"


def test_a_foreign_root_signs_nothing() -> None:
    begun()
    done("roster keygen foreign.key --role root")
    assert refused("roster sign foreign.key").code == "E_ROSTER_SIGNATURE"
    assert not (FOLDER / "roster").exists()


def test_an_altered_roster_is_refused_by_every_command_that_reads_it() -> None:
    signed()
    file = FOLDER / "roster"
    file.write_bytes(file.read_bytes().replace(b" active 1\n", b" active 9\n", 1))
    for line in ("roster check", "roster revoke west", "roster sign consortium/root.key --renew"):
        assert refused(line).code == "E_ROSTER_SIGNATURE"


def test_a_roster_under_other_roots_is_refused() -> None:
    signed()
    done("roster init elsewhere")
    assert refused("roster check --roots elsewhere/roots").code == "E_ROSTER_SIGNATURE"


def test_a_torn_roster_and_torn_roots_are_refused() -> None:
    signed()
    whole = (FOLDER / "roster").read_bytes()
    (FOLDER / "roster").write_bytes(whole[:-5])
    assert refused("roster check").code == "E_ROSTER_FORMAT"
    (FOLDER / "roster").write_bytes(whole)
    for torn in (b"", b"fedward-roots 1\n", (FOLDER / "roots").read_bytes()[:-1], (FOLDER / "roots").read_bytes() * 2, b"\xff"):
        (FOLDER / "roots").write_bytes(torn)
        assert refused("roster check").code == "E_ROSTER_FORMAT"


def test_an_oversized_roster_is_refused() -> None:
    signed()
    with (FOLDER / "roster").open("ab") as file:
        file.write(b"#" * 5 * 2**20)
    assert refused("roster check").code == "E_MSG_TOO_LARGE"


def test_an_old_draft_is_not_signed_over_a_newer_roster() -> None:
    begun()
    old = (FOLDER / "roster.draft").read_bytes()
    done("roster revoke west")
    done("roster sign consortium/root.key")
    (FOLDER / "roster.draft").write_bytes(old)
    assert refused("roster sign consortium/root.key").code == "E_ROSTER_CHANGED"


def test_an_expired_draft_is_not_signed() -> None:
    begun()
    place = RosterFolder(FOLDER)
    drafted = place.newest()
    place.draft_file.write_bytes(roster.render(replace(drafted, not_before=0, not_after=DAY_S)))
    assert refused("roster sign consortium/root.key").code == "E_ROSTER_EXPIRED"


def test_a_refusal_in_json_is_one_object_with_a_code() -> None:
    begun()
    result = typed("roster check --json")
    assert result.exit_code == 1
    found = json.loads(result.output)
    assert not found["ok"]
    assert found["error"]["code"] == "E_ROSTER_SIGNATURE"
    assert found["error"]["fix"]


def test_roots_read_back_and_have_one_spelling() -> None:
    keys = frozenset(SigningKey(bytes([i]) * 32).public for i in range(1, 4))
    roots = Roots(keys=keys, needed=2)
    data = roster.render_roots(roots)
    assert roster.parse_roots(data) == roots
    lines = data.splitlines(keepends=True)
    for respelt in (
        data.replace(b"needed 2", b"needed 02"),
        data.upper(),
        data.replace(b"\n", b"\r\n"),
        b"".join([*lines[:2], *lines[:1:-1]]),
    ):
        assert respelt != data
        with pytest.raises(RosterFormat):
            roster.parse_roots(respelt)


def test_a_member_of_a_folder_is_a_member_for_the_protocol() -> None:
    """What the custodian typed is what a round checks a signature against."""
    signed()
    member = roster.active_member(verified(), "north", now=int(time.time()))
    assert isinstance(member, Member)
    assert keyfile.load(Path("north.key"), "site").public == member.public_key
