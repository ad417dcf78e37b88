# SPDX-License-Identifier: Apache-2.0
"""Between a plan and a hospital's patients: policy, approved snapshot, ledger. Each can say no, and then nothing was opened or written."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client import exclusion, ledger, policy, snapshot
from client.account import Account
from client.home import DataSection, SimulatedSite, SiteFile, SiteName, read_site_file
from client.imaging import identity, manifest
from client.imaging.dataset import Dataset, Images
from client.imaging.prepared import load_prepared, save_prepared
from client.imaging.splits import Split
from client.ledger import explain
from client.ledger.summary import summary_of
from client.site import Site
from common import keyfile
from common.errors import BudgetExceeded, DataNotFound, LedgerTampered, NoPatientId, PolicyRefused, SnapshotMismatch, TooFewPatients
from common.models import initial_weights
from common.plan import Plan, digest_of
from common.privacy import Charge, Event, public_count, round_charge
from common.privacy.entries import Overridden, Spent
from common.wire import Step, TrainRequest
from simulations.stage import Stage
from tests.client.homes import account, edit, hospital, patient_plan, release
from tests.journeys.made import made_scenario, made_stage


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A hospital that is set up and has approved its data."""
    folder = hospital(tmp_path)
    opened = account(folder)
    opened.begin(policy.load(folder).budget)
    snapshot.take(folder, opened, read_site_file(folder).data, patient_plan())
    return folder


def spent(opened: Account) -> list[Spent]:
    return [entry.fact for entry in ledger.read(opened._place.file.read_bytes(), name="l")[1] if isinstance(entry.fact, Spent)]


def test_a_charge_counts_the_patients_of_the_manifest(home: Path) -> None:
    paid = account(home).pay(release(1))
    patients = paid.manifest.training_patients
    assert patients == np.unique(training(load_prepared(home / "data")).patients).size < 40
    assert paid.charge == round_charge(patient_plan(), patients)
    [fact] = spent(account(home))
    assert (fact.charge, fact.snapshot, fact.unit) == (paid.charge, paid.manifest.digest, "patient")


def training(data: Dataset) -> Dataset:
    return data.subset(data.splits == 0)


def test_a_record_is_another_unit_than_a_patient(home: Path) -> None:
    edit(home / "policy.toml", 'units = ["patient"]', 'units = ["patient", "record"]')
    records = made_scenario(private=True).plan
    paid = account(home).pay(release(1, records))
    assert paid.charge == round_charge(records, paid.manifest.training_records)
    account(home).pay(release(1))
    assert {fact.unit for fact in spent(account(home))} == {"record", "patient"}


def test_another_release_costs_what_it_says_within_the_same_caps(home: Path) -> None:
    """How evaluations and statistics are charged: the same gate, their own cost."""
    edit(home / "policy.toml", 'units = ["patient"]', 'units = ["patient"]\nreleases = ["training", "statistics"]')
    opened = account(home)
    table = Charge.local(Event(sampling_rate=1.0, noise_multiplier=4.0, steps=1))
    statistic = replace(release(1), use="STAT")
    assert opened.pay(statistic, lambda plan, units: table).charge == table
    assert [(fact.kind, fact.charge) for fact in spent(opened)] == [("STAT", table)]
    with pytest.raises(BudgetExceeded):
        opened.pay(replace(statistic, round=2), lambda plan, units: Charge.local(Event(sampling_rate=1.0, noise_multiplier=0.3, steps=1)))


def test_a_cap_that_is_lowered_while_a_round_is_being_paid_holds_for_it(home: Path) -> None:
    """`site ledger override`, typed between the site process's look at the ledger and its charge: the line that stands first counts."""

    def cost(plan: Plan, units: int) -> Charge:
        caps = replace(account(home).ledger().chain.caps, eps_total=0.001)
        account(home).ledger().note(lambda _: Overridden(caps=caps, reason="the ethics board said so"))
        return round_charge(plan, units)

    opened = account(home)
    with pytest.raises(PolicyRefused, match="eps_total"):
        opened.pay(release(1), cost)
    assert spent(opened) == []


def test_a_plan_that_is_refused_at_once_was_never_followed(home: Path) -> None:
    opened = account(home)
    with pytest.raises(BudgetExceeded):
        opened.pay(release(1), lambda plan, units: Charge.local(Event(sampling_rate=1.0, noise_multiplier=0.2, steps=1)))
    chain = opened.chain()
    assert chain is not None
    assert (len(chain), chain.plans) == (2, {})


def test_a_plan_without_privacy_is_written_down_where_it_is_allowed(home: Path) -> None:
    plan = made_scenario(private=False).plan
    with pytest.raises(PolicyRefused, match='unit = "none"'):
        account(home).admit(plan)
    edit(home / "policy.toml", 'units = ["patient"]', 'units = ["patient", "none"]')
    opened = account(home)
    for _ in range(2):
        opened.admit(plan)
    chain, entries = ledger.read(opened._place.file.read_bytes(), name="l")
    found = summary_of(chain, entries)
    assert (len(chain), found.unprotected, found.plans) == (3, ("journey",), ())
    assert "Plans without privacy were followed here: journey." in explain.render(found, head="00")


def test_a_plan_is_named_in_the_ledger_once(home: Path) -> None:
    opened = account(home)
    for number in (1, 2):
        opened.pay(release(number))
    chain = opened.chain()
    assert chain is not None
    assert [seen.name for seen in chain.plans.values()] == ["journey"]
    assert len(chain) == 5  # OPEN, SNAPSHOT, PLAN, two rounds


def test_patients_who_are_not_told_apart_cannot_be_promised_anything(home: Path) -> None:
    data = load_prepared(home / "data")
    shutil.rmtree(home / "data")
    save_prepared(replace(data, unit_source="image_id"), home / "data")
    opened = account(home)
    opened.ledger().note(lambda chain: opened.snapshot_fact(chain, manifest.read(home / "data")))
    with pytest.raises(NoPatientId):
        opened.pay(release(1))
    assert spent(opened) == []


@pytest.mark.parametrize("missing", ["manifest.json", "all"])
def test_without_a_manifest_nothing_is_counted(home: Path, missing: str) -> None:
    if missing == "all":
        shutil.rmtree(home / "data")
    else:
        (home / "data" / missing).unlink()
    with pytest.raises(SnapshotMismatch):
        account(home).pay(release(1))


def test_a_manifest_that_was_edited_is_not_the_approved_one(home: Path) -> None:
    """Fewer patients would cost less noise; more, less privacy."""
    file = home / "data" / "manifest.json"
    found = manifest.read(home / "data")
    manifest.write(replace(found, patients=found.patients[1:]), home / "data", fsync=False)
    with pytest.raises(SnapshotMismatch, match="not a snapshot that was approved"):
        account(home).pay(release(1))
    assert file.exists()


def test_a_site_that_does_not_say_whose_patients_it_has_trains_nothing(home: Path) -> None:
    edit(home / "site.toml", 'namespace = "north-thorax"', 'namespace = "other-patients"')
    with pytest.raises(LedgerTampered, match="namespace 'north-thorax'"):
        account(home).pay(release(1))
    file = replace(read_site_file(home), data=None)
    with pytest.raises(DataNotFound, match="whose patients"):
        Account(home, file).pay(release(1))


def test_two_homes_over_the_same_patients_share_one_ledger(home: Path, tmp_path: Path) -> None:
    """Two preparations of the same images, for two plans: the second begins where the first has come to."""
    second = tmp_path / "second"
    shutil.copytree(home, second, ignore=shutil.ignore_patterns("ledger.*"))
    (second / "site.toml").write_text((home / "site.toml").read_text().replace("[ledger]\n", f'[ledger]\nfolder = "{home}"\n'))
    edit(second / "site.toml", 'dataset = "main"', 'dataset = "small"')
    other = replace(patient_plan(), training=replace(patient_plan().training, rounds=3))
    opened = account(second)
    with pytest.raises(SnapshotMismatch):
        opened.pay(release(1, other))
    snapshot.take(second, opened, None, None)
    first = account(home).pay(release(1))
    opened.pay(release(1, other))
    facts = spent(account(home))
    assert [fact.plan for fact in facts] == [digest_of(patient_plan()), digest_of(other)]
    assert facts[1].after.outside_total > facts[0].after.outside_total
    assert first.manifest.digest == facts[0].snapshot == facts[1].snapshot


def test_an_exclusion_holds_for_every_home_that_shares_the_ledger(home: Path) -> None:
    opened = account(home)
    secret = identity.load_or_create(home / "patient.key")
    keys = [exclusion.key_of(secret, "patient_id", "", name) for name in ("made 1", "made 2")]
    assert exclusion.exclude(opened.ledger(), keys, manifest.read(home / "data"), not_yet_here=False).new == 2
    before = manifest.read(home / "data")
    assert exclusion.pending(before, opened.ledger().chain.excluded) == 2
    assert set(keys) < {row.key for row in before.patients}
    assert not {exclusion.mark_of(key) for key in keys} & set(keys)


def test_who_withdraws_while_a_snapshot_is_taken_is_in_none_that_is_approved(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taking one reads every pixel, which takes minutes, and `site exclude` does not wait for it."""
    key = exclusion.key_of(identity.load_or_create(home / "patient.key"), "patient_id", "", "made 1")
    counted, source, approved = manifest.manifest_of, read_site_file(home).data, manifest.read(home / "data")

    def withdrawn_meanwhile(data: Dataset) -> manifest.Manifest:
        exclusion.exclude(account(home).ledger(), [key], approved, not_yet_here=False)
        return counted(data)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(manifest, "manifest_of", withdrawn_meanwhile)
        with pytest.raises(SnapshotMismatch, match="withdrew while"):
            snapshot.take(home, account(home), source, patient_plan())
    assert snapshot.take(home, account(home), source, patient_plan()).excluded == 1
    assert key not in {row.key for row in manifest.read(home / "data").patients}


def first_round(plan: Plan, number: int = 1) -> TrainRequest:
    return TrainRequest(step=Step(session=bytes(16), round=number, attempt=0, plan=digest_of(plan)), weights=initial_weights(plan))


def test_training_skips_the_rows_of_who_withdrew(tmp_path: Path) -> None:
    """In a simulation as at a hospital: other weights come out, at the cost of fewer patients, from data that no longer hold them."""
    played = made_scenario(private=True, change=('unit = "record"', 'unit = "patient"'))
    played = replace(played, plan=replace(played.plan, training=replace(played.plan.training, batch=4)))
    stage: Stage = made_stage(tmp_path / "run", played, aggregation="plain")
    home, plan = stage.home(stage.sites[0]), stage.scenario.plan
    first = Site.open(home, plan).train(first_round(plan))
    before = manifest.read(home / "data")
    gone = [row.key for row in before.patients][:2]
    opened = account(home)
    for key in gone:
        assert exclusion.exclude(opened.ledger(), [key.rpartition("/")[2]], before, not_yet_here=False).new == 1
    taken = snapshot.take(home, opened, read_site_file(home).data, None)
    assert (taken.gone, taken.training_patients) == (2, before.training_patients - 2)
    site = Site.open(home, plan)
    again = site.train(first_round(plan, 2))
    rows = site._rows_of(Split.TRAIN, site._account.admit(plan))
    assert not set(gone) & {rows.patient_keys[index] for index in rows.patients}
    assert len(rows) == before.training_records - sum(row.images for row in before.patients[:2])
    assert not np.array_equal(first.update.values, again.update.values)
    counts = [fact.charge.outside.sampling_rate for fact in spent(opened)]
    assert counts == [plan.training.batch / public_count(before.training_patients - less) for less in (0, 2)]


def test_a_running_site_goes_over_to_a_new_snapshot_at_its_next_round(tmp_path: Path) -> None:
    stage = made_stage(tmp_path / "run", made_scenario(private=True), aggregation="plain")
    home, plan = stage.home(stage.sites[0]), stage.scenario.plan
    site = Site.open(home, plan)
    site.train(first_round(plan))
    before = manifest.read(home / "data")
    opened = account(home)
    exclusion.exclude(opened.ledger(), [before.patients[0].key.rpartition("/")[2]], before, not_yet_here=False)
    snapshot.take(home, opened, read_site_file(home).data, None)
    site.train(first_round(plan, 2))
    assert len(site._rows_of(Split.TRAIN, site._account.admit(plan))) == before.training_records - before.patients[0].images


def test_a_snapshot_of_nobody_is_refused(home: Path) -> None:
    opened = account(home)
    keys = [row.key for row in manifest.read(home / "data").patients]
    exclusion.exclude(opened.ledger(), keys, manifest.read(home / "data"), not_yet_here=False)
    with pytest.raises(TooFewPatients):
        snapshot.take(home, opened, read_site_file(home).data, patient_plan())
    assert len(load_prepared(home / "data")) == 80


def made_data(patients: list[int], pixels: np.ndarray) -> Dataset:
    return Dataset(
        images=Images(pixels, np.arange(len(patients))),
        labels=np.zeros(len(patients), dtype=np.int64),
        patients=np.array(patients, dtype=np.int32),
        patient_keys=tuple(f"{number:032x}" for number in range(9)),
        splits=np.zeros(len(patients), dtype=np.int8),
        unit_source="patient_id",
    )


def test_a_manifest_sees_every_pixel_label_and_patient(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 2**16, (6, 1, 8, 8)).astype(np.uint16)
    data = made_data([0, 0, 2, 2, 2, 5], pixels)
    found = manifest.manifest_of(data)
    assert [(row.key, row.images) for row in found.patients] == [(f"{number:032x}", count) for number, count in ((0, 2), (2, 3), (5, 1))]
    other = pixels.copy()
    other[3, 0, 4, 4] ^= 1
    labels = data.labels.copy()
    labels[5] = 1
    for changed in (made_data([0, 0, 2, 2, 2, 5], other), replace(data, labels=labels), made_data([0, 0, 2, 2, 5, 5], pixels)):
        assert manifest.manifest_of(changed).digest != found.digest
        with pytest.raises(SnapshotMismatch):
            manifest.check(changed, found, pixels=True)
    with pytest.raises(SnapshotMismatch):
        manifest.check(made_data([0, 0, 2, 2, 5, 5], pixels), found, pixels=False)
    save_prepared(data, tmp_path)
    assert manifest.read(tmp_path) == found
    assert (tmp_path / "manifest.json").stat().st_mode & 0o777 == 0o600


def test_a_simulated_site_opens_and_approves_by_itself_and_a_deployed_one_does_not(tmp_path: Path) -> None:
    stage = made_stage(tmp_path / "run", made_scenario(private=True), aggregation="plain")
    home, plan = stage.home(stage.sites[0]), stage.scenario.plan
    assert account(home).chain() is None
    account(home).pay(release(1, plan))
    simulated = SiteFile(site=SiteName(name="x"), simulation=SimulatedSite())
    deployed = SiteFile(site=SiteName(name="x"), data=DataSection(namespace="x"))
    for name, file, opens in (("a", simulated, True), ("b", deployed, False)):
        other = tmp_path / name
        other.mkdir()
        shutil.copytree(home / "data", other / "data")
        keyfile.create(other / "identity.key", "site")
        if opens:
            Account(other, file).pay(release(1, plan))
        else:
            with pytest.raises(Exception, match=r"policy|cannot be opened"):
                Account(other, file).pay(release(1, plan))
            assert not list(other.glob("ledger*"))
