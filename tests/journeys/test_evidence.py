# SPDX-License-Identifier: Apache-2.0
"""Runs that went wrong in every honest way, and their logs: all that happened is there, and nothing contradicts anything."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.audit import EVIDENCE_FOLDER, SiteAudit, note
from client.home import LEDGER_FILE, read_site_file
from client.site import Site
from common import roster
from common.audit.chain import Chain, lines_of
from common.audit.entries import SPELLING, Abandoned, Answered, Asked, Fact, Masked, Met, Paused, Refused, Rekeyed, Released, Reserved
from common.audit.log import LOG_FILE
from common.audit.verify import Report, verify
from common.credentials import ROSTER_FILE
from common.errors import FedwardError, SurvivorSet
from common.spelling import digest
from common.wire import SecureRequest
from fedward import app
from server.export import export
from server.recompute import arithmetic
from simulations.engine.nursery import Nursery
from simulations.paid import check_ledgers
from simulations.rig import kill_sweep
from simulations.rig.struck import APP, Order
from simulations.stage import Stage
from tests.attacks.forgers import exported
from tests.journeys.made import Quiet, made_federation, made_scenario, made_stage, pictures, train
from tests.journeys.test_rosters_in_rounds import GOING, Custodian
from tests.journeys.test_rosters_in_rounds import cut as cut_short
from tests.journeys.test_secure_rounds import cut

THREE = ("minimum_cohort = 2", "minimum_cohort = 3")
COUNTED = (
    "[aggregation]",
    "[evaluation]\nevery = 2\nepsilon = 1\nbins = 4\n[statistics]\nepsilon = 1\n[aggregation]",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Stage:
    """Four sites, three rounds, nothing went wrong; for reading."""
    stage = made_stage(tmp_path_factory.mktemp("finished") / "run", made_scenario(private=True, change=THREE).with_changes(rounds=3))
    weights, _ = train(stage, nursery)
    export(stage.folder, weights=weights, plan=stage.scenario.plan, facts={})
    return stage


@pytest.fixture
def copied(finished: Stage, tmp_path: Path) -> Stage:
    """The same, for changing."""
    shutil.copytree(finished.folder, tmp_path / "run")
    return replace(finished, folder=tmp_path / "run")


def facts(stage: Stage, site: str) -> list[Fact]:
    lines = lines_of((stage.home(site) / LOG_FILE).read_bytes())
    Chain(name=site).check_signatures(lines)
    return [SPELLING.parse(line).fact for line in lines]


def judged(stage: Stage, out: Path) -> Report:
    return verify(exported(stage, out, with_vectors=False).paths, arithmetic(), beside=check_ledgers)


def test_a_sites_log_tells_a_round_in_the_order_in_which_it_was_done(finished: Stage) -> None:
    for site in finished.sites:
        told = [fact for fact in facts(finished, site) if isinstance(fact, Asked | Reserved | Answered | Met | Masked | Released)]
        done = [getattr(fact, "step", fact.kind) for fact in told]
        assert done == ["ASK", "RESERVE", "KEYS", "MEET", "SHARE", "MASK", "CONFIRM", "RELEASE"] * 3
        assert [name for name, _ in next(fact for fact in told if isinstance(fact, Met)).heads] == [s for s in finished.sites if s != site]


def test_a_coordinator_that_dies_and_goes_on_leaves_one_story(tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a step is in the journal, and when it just is: the log has each line once, and everything agrees."""
    stage = made_stage(tmp_path / "run", made_scenario(private=True, change=THREE).with_changes(rounds=3))
    for number, step, when in ((1, "KEYS", "before"), (1, "SHARE", "after"), (2, "MASK", "before"), (2, "UNMASK", "after")):
        cut(monkeypatch, number, step, when)
        with pytest.raises(KeyboardInterrupt):
            train(stage, nursery)
        monkeypatch.undo()
    train(stage, nursery)
    report = judged(stage, tmp_path / "bundles")
    assert report.is_clean, report.findings
    assert [(each.at.round, each.at.attempt, len(each.survivors)) for each in report.rounds] == [(1, 0, 4), (2, 0, 4), (3, 0, 4)]


def test_attempts_that_failed_are_in_the_logs_and_agree(tmp_path: Path, nursery: Nursery) -> None:
    """Two of four fall before masking, twice: all give up, and the same updates are masked again without being paid for again."""
    stage = made_stage(tmp_path / "run", made_scenario(private=True, change=THREE).with_changes(rounds=2))
    with pytest.raises(SurvivorSet):
        train(stage, nursery, *(f"{site}:raise:1:mask" for site in stage.sites[:2]))
    train(stage, nursery)
    report = judged(stage, tmp_path / "bundles")
    assert report.is_clean, report.findings
    assert [(each.at.round, each.at.attempt, len(each.survivors)) for each in report.rounds] == [(1, 0, 0), (1, 1, 0), (1, 2, 4), (2, 0, 4)]
    told = facts(stage, stage.sites[3])
    assert sum(isinstance(fact, Abandoned) for fact in told) == 2
    assert [fact.at.round for fact in told if isinstance(fact, Reserved)] == [1, 2]
    assert [fact.at.attempt for fact in told if isinstance(fact, Asked)] == [0, 0]


def test_a_consortium_that_changes_while_a_round_is_half_done_leaves_one_story(tmp_path: Path, nursery: Nursery) -> None:
    """A site is revoked when round 2 is half done, and before anything of round 3 was heard; a site is new in round 4."""
    stage = made_stage(tmp_path / "run", made_scenario(private=True).with_changes(sites=5))
    custodian = Custodian(stage)
    revoked = roster.with_revoked(custodian.first, stage.sites[GOING])
    with cut_short(2, "MASK", "before"):
        train(stage, nursery)
    custodian.issue(revoked)
    with cut_short(3, "KEYS", "before"):
        train(stage, nursery)
    custodian.issue(custodian.with_newcomer(revoked))
    train(stage, nursery)
    report = judged(stage, tmp_path / "bundles")
    assert report.is_clean, report.findings
    assert [(each.at.round, each.at.attempt, len(each.survivors)) for each in report.rounds] == [
        (1, 0, 4),
        (2, 0, 4),
        (3, 0, 0),
        (3, 1, 4),
        (4, 0, 4),
    ]


def test_a_site_that_is_killed_before_a_line_says_it_when_it_goes_on(tmp_path: Path) -> None:
    """Its confirmation is stored and not yet in its log; the others were enough, and the shares are asked of it next."""
    stage = kill_sweep.made(tmp_path / "run")
    Order(site=stage.sites[0], round=2, step="CONFIRM", failpoint="after_confirm_stored").give(stage.folder)
    with Nursery(APP) as struck:
        kill_sweep.federation(stage, faults=()).train(Quiet(), engine="local", workers=2, nursery=struck)
    said = [fact for fact in facts(stage, stage.sites[0]) if isinstance(fact, Answered | Released) and fact.exchange.at.round == 2]
    assert [fact.step if isinstance(fact, Answered) else "RELEASE" for fact in said] == ["KEYS", "SHARE", "CONFIRM", "RELEASE"]
    report = judged(stage, tmp_path / "bundles")
    assert report.is_clean, report.findings


def test_what_a_site_that_was_killed_left_half_written_beside_its_evidence_is_gone_when_it_goes_on(copied: Stage) -> None:
    home = copied.home(copied.sites[0])
    kept = sorted(path.name for path in (home / EVIDENCE_FOLDER).iterdir())
    (home / EVIDENCE_FOLDER / kept[0]).rename(home / EVIDENCE_FOLDER / f".{kept[0]}.1-1.tmp")
    SiteAudit(home, read_site_file(home)).enter(copied.scenario.plan, roster.parse((home / ROSTER_FILE).read_bytes())[0])
    assert sorted(path.name for path in (home / EVIDENCE_FOLDER).iterdir()) == kept


def test_sites_that_fail_at_each_step_are_told_of_as_they_were(tmp_path: Path, nursery: Nursery) -> None:
    steps = ("keys", "share", "mask", "confirm", "unmask")
    stage = made_stage(tmp_path / "run", made_scenario(private=True, change=THREE).with_changes(sites=5, rounds=len(steps)))
    faults = (f"{stage.sites[2]}:raise:{number}:{step}" for number, step in enumerate(steps, start=1))
    train(stage, nursery, *faults)
    report = judged(stage, tmp_path / "bundles")
    assert report.is_clean, report.findings
    assert [len(each.survivors) for each in report.rounds] == [4, 4, 4, 5, 5]


def test_counts_and_groups_are_told_of_too_and_their_models_computed_again(tmp_path: Path, nursery: Nursery) -> None:
    """Nine sites in three groups, a median over them, statistics and evaluations beside the training."""
    pictures(tmp_path / "pictures", patients=120)
    text = made_scenario(private=True, change=(COUNTED[0], COUNTED[1] + '\nmax_group = 3\ncombine = "median"'))
    stage = made_stage(tmp_path / "run", text.with_changes(sites=9, rounds=2))
    federation = replace(made_federation(stage), evidence="vectors")
    federation.train(Quiet(), engine="local", workers=2, nursery=nursery)
    report = verify(exported(stage, tmp_path / "bundles").paths, arithmetic(), beside=check_ledgers)
    assert report.is_clean, report.findings
    assert {(each.at.kind, each.at.round, each.group) for each in report.rounds} >= {
        *(("UPDATE", number, group) for number in (1, 2) for group in range(3)),
        *(("STAT", 1, group) for group in range(3)),
        *(("EVAL", 3, group) for group in range(3)),
    }
    for each in report.rounds:
        assert each.shown == (("logs", "replies", "sum", "model") if each.at.kind == "UPDATE" else ("logs", "replies", "sum"))


def test_a_refusal_is_in_the_log_by_its_code_alone(copied: Stage) -> None:
    stage = copied
    assert not [fact for fact in facts(stage, stage.sites[0]) if isinstance(fact, Refused)]
    site = Site.open(stage.home(stage.sites[0]), stage.scenario.plan)
    with pytest.raises(FedwardError) as caught:
        site.secure(SecureRequest(round=3, control=b"FSA1 and nonsense", model=None))
    refused = [fact for fact in facts(stage, stage.sites[0]) if isinstance(fact, Refused)]
    assert refused == [Refused(request=digest(b"FSA1 and nonsense").hex(), code=caught.value.code)]


def test_without_the_coordinators_bundle_the_sites_vouch_for_each_other(finished: Stage, tmp_path: Path) -> None:
    bundles = exported(finished, tmp_path / "bundles", with_vectors=False)
    report = verify(bundles.without("coordinator"), arithmetic())
    assert report.is_clean, report.findings
    assert any("coordinator" in each for each in report.unchecked)
    alone = verify([bundles.folder / "coordinator"], arithmetic())
    assert alone.is_clean, alone.findings
    assert all(each.shown == ("logs", "replies") for each in alone.rounds)
    assert sum("its bundle was not given" in each for each in alone.unchecked) == 4


def test_the_commands_say_on_one_page_what_holds_and_end_with_one_where_it_does_not(copied: Stage, tmp_path: Path) -> None:
    stage, run = copied, CliRunner()
    made = run.invoke(app, ["audit", "export", str(stage.folder), "--out", str(tmp_path / "given"), "--with-ledger", "--json"])
    assert made.exit_code == 0, made.output
    paths = [each["path"] for each in json.loads(made.stdout)["bundles"]]
    roots = str(stage.coordinator / "roots")
    said = run.invoke(app, ["audit", "verify", *paths, "--model", str(stage.folder), "--roots", roots], env={"COLUMNS": "80"})
    assert said.exit_code == 0, said.output
    assert "Nothing contradicts anything else." in said.stdout
    assert "1 to 3" in said.stdout
    assert len(said.stdout.splitlines()) < 60
    ledger = stage.home(stage.sites[0]) / LEDGER_FILE
    ledger.write_bytes(b"".join(ledger.read_bytes().splitlines(keepends=True)[:-1]))
    run.invoke(app, ["audit", "export", str(stage.home(stage.sites[0])), "--out", str(tmp_path / "worse.zip"), "--with-ledger"])
    worse = run.invoke(app, ["audit", "verify", str(tmp_path / "worse.zip"), *paths[1:], "--json"])
    assert worse.exit_code == 1
    assert {each["code"] for each in json.loads(worse.stdout)["findings"]} == {"F_LEDGER"}


def test_an_identity_key_that_was_exchanged_signs_on_in_the_same_log(copied: Stage, tmp_path: Path) -> None:
    """The key comes into force by a line that it signs; that it is this site's is said by the roster alone."""
    stage = copied
    home, other = stage.home(stage.sites[0]), stage.home(stage.sites[1])
    (home / "identity.key").write_bytes((other / "identity.key").read_bytes())
    note(home, Paused())
    assert isinstance(facts(stage, stage.sites[0])[-2], Rekeyed)
    report = judged(stage, tmp_path / "bundles")
    assert {each.code for each in report.findings} == {"F_KEY"}
