# SPDX-License-Identifier: Apache-2.0
"""`fedward roster add REQUEST` and `fedward plan sign`, typed as a custodian types them; and what somebody else would like them to sign."""

import json
import shlex
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from common import endorsement, enrolment, keyfile, roster, transport_key
from common.enrolment import Leave, Request
from common.errors import FedwardError
from common.fingerprint import Fingerprint
from common.plan import to_toml
from common.roster import Roster
from common.secagg.keys import SigningKey
from fedward import app
from tests.client.members import a_plan

KEYS = {name: SigningKey(bytes([number]) * 32) for number, name in enumerate(("north", "south", "new", "thief"), start=1)}
NOW = int(time.time())


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def consortium(desk: Path) -> Path:
    """A consortium with north in it, signed."""
    done("roster init")
    requested("north", "join", "north", mailbox=mailbox("north"))
    done("roster add north.request")
    done("roster sign consortium/root.key -y")
    return desk / "consortium"


def typed(line: str, *, answer: str = "y\n") -> Result:
    return CliRunner().invoke(app, shlex.split(line), input=answer)


def done(line: str, *, answer: str = "y\n") -> str:
    result = typed(line, answer=answer)
    assert result.exit_code == 0, (line, result.output, result.exception)
    return result.output


def told(line: str) -> dict[str, Any]:
    return dict(json.loads(done(line + " --json")))


def refused(line: str, code: str) -> str:
    result = typed(line)
    assert isinstance(result.exception, FedwardError), (line, result.output, result.exception)
    assert result.exception.code == code
    assert result.exception.fix
    return str(result.exception)


def mailbox(name: str) -> str:
    return transport_key.create(Path(f"{name}-node.key"), name=name)


def requested(site: str, kind: str, key: str, **changes: Any) -> Path:
    """A request's file, signed by a key of ours."""
    previous = changes.pop("previous", None)
    asked = Request(kind=kind, site=site, key=KEYS[key].public, made=NOW, **changes)  # type: ignore[arg-type]
    file = Path(f"{site}.request")
    file.write_bytes(enrolment.sign(asked, KEYS[key], previous=KEYS[previous] if previous else None))
    return file


def drafted(folder: Path) -> Roster:
    return roster.parse((folder / "roster.draft").read_bytes())[0]


def key_of(found: Roster, name: str) -> bytes:
    member = found.find(name)
    assert member is not None
    return member.public_key


def test_a_request_becomes_a_draft_after_the_words_were_compared(desk: Path) -> None:
    done("roster init")
    line = mailbox("north")
    requested("north", "join", "north", mailbox=line, weight=3, days=100)
    shown = done("roster add north.request")
    words = Fingerprint.of(KEYS["north"].public)
    assert words.words in shown
    assert words.hex in shown
    assert shown.index(words.words) < shown.index("Did it read these words?")
    member = drafted(Path("consortium")).find("north")
    assert member is not None
    assert (member.public_key, member.weight) == (KEYS["north"].public, 3)
    assert 99 <= (member.not_after - NOW) / 86_400 <= 101
    assert Path("consortium/nodes/north.pub").read_text() == f"{line} north\n"


def test_without_a_yes_nothing_is_drafted(desk: Path) -> None:
    done("roster init")
    was = Path("consortium/roster.draft").read_bytes()
    requested("north", "join", "north", mailbox=mailbox("north"))
    assert typed("roster add north.request", answer="n\n").exit_code == 1
    assert typed("roster add north.request --json").exit_code == 2, "a script says so explicitly"
    assert Path("consortium/roster.draft").read_bytes() == was
    assert not Path("consortium/nodes").exists()
    assert told("roster add north.request -y")["words"] == Fingerprint.of(KEYS["north"].public).words


def test_a_name_that_is_taken_is_refused(consortium: Path) -> None:
    requested("north", "join", "thief")
    assert "another key" in refused("roster add north.request", "E_ROSTER_TAKEN")
    done("roster revoke north")
    assert "revoked" in refused("roster add north.request", "E_ROSTER_TAKEN")


def test_a_key_that_is_taken_is_refused(consortium: Path) -> None:
    requested("south", "join", "north")
    refused("roster add south.request", "E_ROSTER_KEY")
    assert not (consortium / "nodes" / "south.pub").exists()


def test_two_mailboxes_do_not_share_a_key(consortium: Path) -> None:
    requested("south", "join", "south", mailbox=transport_key.read_public(Path("north-node.pub")))
    refused("roster add south.request", "E_NODE_KEY")


def test_an_altered_request_is_refused(consortium: Path) -> None:
    file = requested("south", "join", "south")
    file.write_bytes(file.read_bytes().replace(KEYS["south"].public.hex().encode(), KEYS["thief"].public.hex().encode()))
    refused("roster add south.request", "E_ENROLMENT")
    refused("roster add nothing.request", "E_ROSTER_NOT_FOUND")


def test_a_renewal_keeps_the_key_and_takes_the_mailboxs_new_one(consortium: Path) -> None:
    line = mailbox("again")
    requested("north", "renew", "north", days=700, mailbox=line)
    done("roster add north.request")
    found = drafted(consortium)
    assert key_of(found, "north") == KEYS["north"].public
    assert (consortium / "nodes" / "north.pub").read_text() == f"{line} north\n"
    requested("north", "renew", "thief")
    refused("roster add north.request", "E_ENROLMENT")


def test_a_renewal_without_a_mailbox_leaves_its_key(consortium: Path) -> None:
    was = (consortium / "nodes" / "north.pub").read_bytes()
    requested("north", "renew", "north")
    done("roster add north.request")
    assert (consortium / "nodes" / "north.pub").read_bytes() == was


def test_a_rotation_takes_the_consent_of_the_rosters_key(consortium: Path) -> None:
    requested("north", "rotate", "new", previous="thief")
    refused("roster add north.request", "E_ENROLMENT")
    requested("north", "rotate", "new", previous="north")
    done("roster add north.request")
    assert key_of(drafted(consortium), "north") == KEYS["new"].public


def test_a_revoked_key_can_neither_renew_nor_consent(consortium: Path) -> None:
    """Who stole the key cannot bring it, or a key of their own, back by the file alone: only the telephone can."""
    done("roster revoke north")
    for kind, key, previous in (("renew", "north", None), ("rotate", "thief", "north")):
        requested("north", kind, key, previous=previous)
        refused("roster add north.request", "E_ENROLMENT")
    requested("north", "recover", "new")
    assert "WITHOUT the old one's consent" in done("roster add north.request")
    found = drafted(consortium).find("north")
    assert found is not None
    assert (found.public_key, found.revoked) == (KEYS["new"].public, False)


def test_a_recovery_names_another_key_of_a_known_site(consortium: Path) -> None:
    requested("north", "recover", "north")
    refused("roster add north.request", "E_ENROLMENT")
    requested("south", "recover", "south")
    refused("roster add south.request", "E_UNKNOWN_PEER")


def test_a_statement_of_leaving_revokes_and_only_the_sites_own(consortium: Path) -> None:
    for key in ("thief", "north"):
        leave = Leave(site="north", key=KEYS[key].public, made=NOW)
        Path("north.leave").write_bytes(enrolment.sign_leave(leave, KEYS[key]))
        if key == "thief":
            refused("roster revoke north.leave", "E_ENROLMENT")
    assert told("roster revoke north.leave")["revoked"] == "north"
    found = drafted(consortium).find("north")
    assert found is not None
    assert found.revoked


def test_the_custodian_renews_an_entry(consortium: Path) -> None:
    before = roster.parse((consortium / "roster").read_bytes())[0].find("north")
    assert told("roster renew north --days 900")["epoch"] == 3
    after = drafted(consortium).find("north")
    assert before is not None
    assert after is not None
    assert after.public_key == before.public_key
    assert after.not_after > before.not_after
    done("roster revoke north")
    refused("roster renew north", "E_UNKNOWN_PEER")


def test_the_coordinator_gets_another_key_and_nobody_elses(consortium: Path) -> None:
    before = roster.parse((consortium / "roster").read_bytes())[0]
    done("roster keygen again.key --role coordinator")
    found = told("roster coordinator again.pub")
    assert drafted(consortium).coordinator.hex() == found["coordinator"]["key"]
    assert drafted(consortium).members == before.members
    for taken in (KEYS["north"].public, found["coordinator"]["key"], keyfile.load(consortium / "root.key", "root").public):
        refused(f"roster coordinator {taken if isinstance(taken, str) else taken.hex()}", "E_ROSTER_KEY")
    refused("roster coordinator north.key", "E_ROSTER_NOT_FOUND")


# Plans.


@pytest.fixture
def plan(consortium: Path) -> Path:
    Path("ct.toml").write_text(to_toml(a_plan()))
    return Path("ct.toml")


def test_a_plan_is_signed_beside_itself_and_verified(consortium: Path, plan: Path) -> None:
    was = plan.read_bytes()
    assert "1 of 1 signatures" in done("plan sign ct.toml --key consortium/root.key")
    assert plan.read_bytes() == was
    found = told("plan verify ct.toml")
    assert (found["complete"], found["epoch"]) == (True, 2)
    assert told("plan verify ct.toml --roots consortium/roots") == found


def test_a_plan_that_was_edited_after_signing_is_refused(consortium: Path, plan: Path) -> None:
    done("plan sign ct.toml --key consortium/root.key")
    plan.write_text(plan.read_text() + "\n# a comment is no value\n")
    done("plan verify ct.toml")
    plan.write_text(plan.read_text().replace("epsilon = 8", "epsilon = 9"))
    refused("plan verify ct.toml", "E_PLAN_SIGNATURE")
    done("plan sign ct.toml --key consortium/root.key -y")
    done("plan verify ct.toml")


def test_two_of_three_custodians_sign_one_after_the_other(desk: Path, plan: Path) -> None:
    shutil.rmtree("consortium")
    for name in "abc":
        done(f"roster keygen {name}.key --role root")
    done("roster init --root a.pub --root b.pub --root c.pub --needed 2")
    requested("north", "join", "north")
    done("roster add north.request")
    refused("plan sign ct.toml --key a.key -y", "E_ROSTER_NOT_FOUND")
    for name in "ab":
        done(f"roster sign {name}.key -y")
    assert "Hand both files to the next custodian" in done("plan sign ct.toml --key a.key")
    refused("plan verify ct.toml", "E_PLAN_SIGNATURE")
    assert told("plan sign ct.toml --key c.key -y")["complete"]
    done("plan verify ct.toml")


def test_only_a_root_signs_plans(consortium: Path, plan: Path) -> None:
    done("roster keygen stranger.key --role root")
    refused("plan sign ct.toml --key stranger.key -y", "E_PLAN_SIGNATURE")
    refused("plan sign ct.toml --key consortium/coordinator.key -y", "E_SECRET_FILE")
    assert typed("plan sign ct.toml --key consortium/root.key", answer="n\n").exit_code == 1
    assert typed("plan sign ct.toml --key consortium/root.key --json").exit_code == 2
    assert not Path("ct.sig").exists()


def test_the_oldest_roster_may_be_chosen(consortium: Path, plan: Path) -> None:
    assert told("plan sign ct.toml --key consortium/root.key --epoch 1 -y")["epoch"] == 1
    said = endorsement.parse(Path("ct.sig").read_bytes())
    root = keyfile.load(consortium / "root.key", "root").public
    assert (said.minimum_epoch, [each.root for each in said.signatures]) == (1, [root])


def test_a_simulations_plan_is_not_signed_as_it_is(consortium: Path) -> None:
    """A plan that ships with fedward has a table for simulations, which no hospital reads."""
    done("plan new ct.toml --from ct-lung")
    assert "remove it" in refused("plan sign ct.toml --key consortium/root.key -y", "E_PLAN_UNKNOWN_KEY")
    Path("ct.toml").write_text(Path("ct.toml").read_text().partition("[simulation]")[0])
    done("plan sign ct.toml --key consortium/root.key -y")
