# SPDX-License-Identifier: Apache-2.0
"""`fedward site`, typed as a hospital's IT types it, from the first day to an audit: real files, and every refusal by its name."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import Result
from typer.testing import CliRunner

from client.imaging import manifest
from client.imaging.prepared import load_prepared
from common import keyfile
from common.errors import FedwardError
from common.plan import dump
from fedward import app
from tests.client.homes import PATIENTS, account, edit, hospital, patient_plan, release


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hospital on its first day; commands are typed in its home."""
    folder = hospital(tmp_path)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def running(home: Path) -> Path:
    """The same, set up, and two rounds later."""
    done("site ledger open")
    done("site snapshot --plan plan.toml")
    for number in (1, 2):
        account(home).pay(release(number))
    return home


def typed(line: str, *, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, shlex.split(line), input=stdin)


def done(line: str, *, stdin: str | None = None) -> str:
    result = typed(line, stdin=stdin)
    assert result.exit_code == 0, (line, result.output, result.exception)
    return result.output


def told(line: str, *, stdin: str | None = None) -> dict[str, Any]:
    return dict(json.loads(done(line + " --json", stdin=stdin)))


def refused(line: str, code: str) -> FedwardError:
    result = typed(line)
    assert isinstance(result.exception, FedwardError), (line, result.output, result.exception)
    assert result.exception.code == code, result.exception
    assert result.exception.fix
    return result.exception


def test_a_first_session_from_nothing_to_a_round(home: Path) -> None:
    (home / "policy.toml").unlink()
    refused("site ledger open", "E_DATA_NOT_FOUND")
    done("site policy new")
    edit(home / "policy.toml", "delta = 1e-6", "delta = 1e-3")
    edit(home / "policy.toml", 'families = ["cnn", "resnet"]', 'families = ["cnn"]')
    assert "nothing that the plan says" in done("site policy check plan.toml")
    refused("site ledger show", "E_LEDGER_ROLLBACK")
    said = done("site ledger open")
    assert "other-mount" in said
    taken = told("site snapshot --plan plan.toml")
    assert (taken["patients"], taken["records"], taken["new"]) == (PATIENTS, 2 * PATIENTS, PATIENTS)
    account(home).pay(release(1))
    [plan] = told("site ledger show")["plans"]
    assert (plan["name"], plan["releases"], plan["unit"]) == ("journey", {"RESERVE": 1}, "patient")
    assert 0 < plan["outside"]["pld"] <= plan["outside"]["gate"] < 8


def test_a_ledger_is_opened_once(running: Path) -> None:
    refused("site ledger open", "E_LEDGER_ROLLBACK")
    refused("site policy new", "E_RUN_FOLDER")


def test_show_says_both_views_and_both_figures(running: Path) -> None:
    found = told("site ledger show")
    [total] = found["totals"]
    assert total["outside"] == total["own_share"], "with local noise colluders see nothing more"
    assert found["caps"]["eps_total"] == 12.0
    words = done("site ledger show")
    for word in ("journey", "2 RESERVE", "all, per patient", f"{total['outside']['gate']:.3f}", "withdrawn: 0"):
        assert word in words


def test_the_tighter_figure_is_a_bound_only_once_all_rounds_are_over(running: Path) -> None:
    """A plan that may end early ends when what it released says so: what was charged until then was not fixed beforehand."""
    said, page = "(PLD) is a bound once all rounds of a plan are over; not yet, or they ended early: journey", "which is a bound only once"
    assert said in done("site ledger show")
    done("site ledger explain --out early.html")
    assert page in Path("early.html").read_text(encoding="utf-8")
    for number in range(3, told("site ledger show")["plans"][0]["rounds"] + 1):
        account(running).pay(release(number))
    assert said not in done("site ledger show")
    done("site ledger explain --out whole.html")
    assert page not in Path("whole.html").read_text(encoding="utf-8")


def test_verify_names_what_is_wrong(running: Path) -> None:
    good = told("site ledger verify")
    assert good["ok"]
    assert good["lines"] == 5
    line = (running / "ledger.jsonl").read_bytes()
    (running / "ledger.jsonl").write_bytes(line.replace(b'"round":1', b'"round":9'))
    refused("site ledger verify", "E_LEDGER_TAMPERED")
    (running / "ledger.jsonl").write_bytes(b"".join(line.splitlines(keepends=True)[:-1]))
    refused("site ledger verify", "E_LEDGER_ROLLBACK")


def test_a_ledger_from_elsewhere_is_verified_against_a_key_that_is_given(running: Path) -> None:
    done("site ledger export --out audit")
    done("site ledger verify --file audit/ledger.jsonl --key audit/site.pub")
    keyfile.create(running / "other.key", "site")
    refused("site ledger verify --file audit/ledger.jsonl --key other.pub", "E_LEDGER_TAMPERED")
    refused("site ledger verify --file nowhere.jsonl --key other.pub", "E_DATA_NOT_FOUND")
    assert typed("site ledger verify --file audit/ledger.jsonl").exit_code == 2


def check_elsewhere(folder: Path, key: str) -> "subprocess.CompletedProcess[str]":
    """The exported checker, run as an auditor runs it: without fedward on the path."""
    command = [sys.executable, "-I", "check_ledger.py", "ledger.jsonl", key]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_an_auditor_checks_an_export_without_fedward(running: Path) -> None:
    done("site ledger export --out audit")
    refused("site ledger export --out audit", "E_RUN_FOLDER")
    folder = running / "audit"
    assert "fedward" not in re.findall(r"^(?:from|import) (\w+)", (folder / "check_ledger.py").read_text(), re.MULTILINE)
    key = (running / "identity.pub").read_text().split()[-1]
    result = check_elsewhere(folder, key)
    assert result.returncode == 0, result.stderr
    assert "5 lines: chain and signatures hold" in result.stdout
    assert result.stdout.count("epsilon") == 2
    assert key in (folder / "README.txt").read_text()
    assert check_elsewhere(folder, "00" * 32).returncode != 0
    data = (folder / "ledger.jsonl").read_bytes()
    for at in range(0, len(data), 97):
        (folder / "ledger.jsonl").write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert check_elsewhere(folder, key).returncode != 0, at
        if at > 900:
            break


def test_an_export_holds_nothing_of_a_patient(running: Path) -> None:
    done("site exclude 'made 3'")
    done("site ledger export --out audit")
    done("site ledger explain --out audit/page.html")
    keys = [row.key for row in manifest.read(running / "data").patients]
    assert len(keys) == PATIENTS
    for file in (running / "audit").iterdir():
        text = file.read_text()
        for word in (*keys, "made 3", f'"public_patients":{PATIENTS}1'):
            assert word not in text, file


class _Page(HTMLParser):
    text = ""

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_for_an_ethics_board_says_what_it_must_and_fetches_nothing(running: Path) -> None:
    done("site exclude 'made 3'")
    done("site ledger override --eps-total 14 --reason 'The board decided on <b>3 May</b>'")
    done("site ledger explain --out page.html")
    page = (running / "page.html").read_text()
    reader = _Page()
    reader.feed(page)
    [total] = told("site ledger show")["totals"]
    for words in (
        f"ε = {total['outside']['gate']:.2f} of 14.00",
        "a short federation for the tests",
        "What does ε mean for a patient?",
        "a patient withdrew",
        "The board decided on <b>3 May</b>",
    ):
        assert words in reader.text
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|<script|<img|<link", page)
    [drawing] = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(ElementTree.fromstring(drawing).findall("path")) >= 10


def test_a_cap_is_raised_by_an_edit_and_a_signature_never_by_one_of_them(running: Path) -> None:
    edit(running / "policy.toml", "eps_total = 12.0", "eps_total = 20.0")
    with pytest.raises(FedwardError, match=r"policy.toml raises eps_total = 20 \(signed for: 12\)") as refusal:
        account(running).pay(release(3))
    assert refusal.value.code == "E_POLICY"
    done("site ledger override --eps-total 20 --reason 'ethics board, 3 May'")
    account(running).pay(release(3))
    edit(running / "policy.toml", "eps_total = 20.0", "eps_total = 2.0")
    with pytest.raises(FedwardError, match="this site's policy allows 2,") as refusal:
        account(running).pay(release(4))
    assert refusal.value.code == "E_PRIVACY_BUDGET"


def test_an_override_may_lift_the_own_share_in_so_many_words(running: Path) -> None:
    assert told("site ledger override --own-share-plan inf --reason 'four partners under one contract'")["caps"]["own_share_plan"] == "inf"
    assert told("site ledger show")["caps"]["own_share_plan"] == "inf"
    wrong = (
        "--eps-total nan",
        "--eps-total inf",
        "--eps-plan 0",
        "--own-share-plan nan",
        "--own-share-total=-1",
        "--delta 0.5",
        "--delta nan",
    )
    for line in (
        "override --reason why",
        "override --own-share-plan many --reason why",
        "override --eps-total 9 --reason ' '",
        "override --eps-total 9 --reason 'so\x1b[8m'",
        *(f"override {words} --reason why" for words in wrong),
    ):
        assert typed(f"site ledger {line}").exit_code == 2


def test_a_remark_stays_a_remark(running: Path) -> None:
    before = told("site ledger show")["totals"]
    assert told("site ledger void 4 --reason 'the round was given up'")["line"] == 6
    assert told("site ledger show")["totals"] == before
    assert typed("site ledger void 99 --reason 'no such line'").exit_code == 2
    done("site ledger verify")


def test_a_new_identity_key_takes_the_ledger_over(running: Path) -> None:
    done("roster keygen new.key")
    done("site ledger rekey new.key")
    refused("site ledger show", "E_LEDGER_TAMPERED")
    shutil.copy(running / "new.key", running / "identity.key")
    done("site ledger verify")
    account(running).pay(release(3))


def test_an_older_copy_is_made_good(running: Path) -> None:
    older = (running / "ledger.jsonl").read_bytes()
    account(running).pay(release(3))
    spent = told("site ledger show")["totals"]
    (running / "ledger.jsonl").write_bytes(older)
    refused("site ledger show", "E_LEDGER_ROLLBACK")
    with pytest.raises(FedwardError, match="sealed head has seen line 6"):
        account(running).pay(release(4))
    told("site ledger restore --reason 'disk replaced, copy of Monday'")
    assert told("site ledger show")["totals"] == spent
    refused("site ledger restore --reason 'again'", "E_LEDGER_ROLLBACK")
    done("site ledger restore --plan plan.toml --rounds 2 --reason 'two rounds that nobody saw'")
    assert told("site ledger show")["totals"][0]["outside"]["gate"] > spent[0]["outside"]["gate"]


def test_a_ledger_that_is_gone_is_begun_anew_beside_its_head(running: Path) -> None:
    spent = told("site ledger show")["totals"]
    (running / "ledger.jsonl").unlink()
    refused("site ledger open", "E_LEDGER_ROLLBACK")
    done("site ledger restore --anew --reason 'no backup was made'")
    assert told("site ledger show")["totals"] == spent
    refused("site ledger restore --anew --reason 'again'", "E_LEDGER_ROLLBACK")


def test_who_withdraws_is_out_of_the_next_snapshot_and_of_the_disk(running: Path) -> None:
    before = account(running).admit(patient_plan())
    assert told("site exclude 'made 3' 'made 5'") == {"new": 2, "before": 0, "still_in_snapshot": 2}
    assert account(running).admit(patient_plan()).digest == before.digest, "until the next snapshot"
    taken = told("site snapshot --plan plan.toml")
    assert (taken["patients"], taken["gone"], taken["excluded"]) == (PATIENTS - 2, 2, 2)
    paid = account(running).pay(release(3))
    data = account(running).open_snapshot(paid.manifest)
    assert data.num_patients == PATIENTS - 2
    assert len(load_prepared(running / "data")) == 2 * (PATIENTS - 2)
    gone = {row.key for row in before.patients} - {row.key for row in paid.manifest.patients}
    assert len(gone) == 2
    assert not gone & {data.patient_keys[index] for index in data.patients}
    assert told("site exclude 'made 3'") == {"new": 0, "before": 1, "still_in_snapshot": 0}
    assert told("site ledger show")["excluded"] == 2
    again = told("site snapshot --plan plan.toml")
    assert (again["is_news"], again["new"], again["gone"], again["changed"]) == (False, 0, 0, 0)


def test_an_id_is_stored_nowhere_in_clear_or_keyed(running: Path) -> None:
    before = account(running).admit(patient_plan())
    told("site exclude --from-file -", stdin="made 3\n\n")
    told("site snapshot --plan plan.toml")
    after = manifest.read(running / "data")
    [gone] = {row.key for row in before.patients} - {row.key for row in after.patients}
    for path in running.rglob("*"):
        if path.is_file() and "cache" not in path.parts:
            content = path.read_bytes()
            assert b"made 3" not in content, path
            assert gone.encode() not in content or path.name == "columns.json", path


def test_a_mistyped_id_is_not_a_withdrawal(running: Path) -> None:
    before = (running / "ledger.jsonl").read_bytes()
    error = refused("site exclude 'made 3' 'maed 5'", "E_DATA_NOT_FOUND")
    assert "number 2 is not in the approved snapshot" in error.message
    assert "maed" not in str(error)
    assert (running / "ledger.jsonl").read_bytes() == before
    assert told("site exclude 'maed 5' --not-yet-here")["new"] == 1
    (running / "patient.key").unlink()
    refused("site exclude 'made 3'", "E_DATA_NOT_FOUND")
    assert not (running / "patient.key").exists()
    assert typed("site exclude").exit_code == 2


def test_a_withdrawal_under_an_issuer_says_who_stays_under_none(running: Path) -> None:
    """One export had the issuer, another had not: to the intake they are two people, to whoever withdrew one."""
    words = "site exclude 'made 3' 'made 99' --issuer NORTH --not-yet-here"
    assert "1 of these ids stand in images without an issuer too" in done(words)
    assert told(words) == {"new": 0, "before": 2, "still_in_snapshot": 0, "stay_without_issuer": 1}
    done("site exclude 'made 3'")
    assert told(words)["stay_without_issuer"] == 0


def test_new_images_wait_for_a_snapshot_that_approves_them(running: Path) -> None:
    """Somebody prepares other data, or another plan's, in place of the approved ones."""
    other = hospital(running.parent / "other", patients=20)
    shutil.rmtree(running / "data")
    shutil.copytree(_prepared(other), running / "data")
    with pytest.raises(FedwardError, match="not a snapshot that was approved") as refusal:
        account(running).pay(release(3))
    assert refusal.value.code == "E_SNAPSHOT"


def _prepared(home: Path) -> Path:
    done(f"site ledger open --home {home}")
    done(f"site snapshot --plan {home}/plan.toml --home {home}")
    return home / "data"


def test_pixels_that_changed_under_an_approved_manifest_are_refused_by_a_deployed_site(running: Path) -> None:
    paid = account(running).pay(release(3))
    images = running / "data" / "images.npy"
    data = bytearray(images.read_bytes())
    data[-7] ^= 1
    images.write_bytes(bytes(data))
    with pytest.raises(FedwardError, match="not those of the snapshot"):
        account(running).open_snapshot(paid.manifest)


def test_help_teaches(home: Path) -> None:
    for line in ("site --help", "site ledger --help", "site exclude --help", "site snapshot --help", "site ledger restore --help"):
        assert len(done(line)) > 400
    assert typed("site snapshot").exit_code == 2, "a folder of images needs a plan that says how to prepare them"


def test_a_refusal_in_json_is_one_object(running: Path) -> None:
    (running / "ledger.jsonl").unlink()
    command = [sys.executable, "-m", "fedward", "site", "ledger", "show", "--json", "--home", str(running)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert json.loads(result.stdout)["error"]["code"] == "E_LEDGER_ROLLBACK"


def test_a_plan_that_the_policy_forbids_is_told_beforehand(home: Path) -> None:
    edit(home / "policy.toml", 'units = ["patient"]', 'units = ["none"]\nminimum_cohort = 5')
    (home / "shared.toml").write_text(dump(patient_plan()))
    result = typed("site policy check shared.toml --json")
    assert result.exit_code == 1
    assert json.loads(result.output)["objections"] == [
        'unit = "patient", allowed are "none"',
        "cohorts of 3, at least 5 sites are asked for",
    ]
