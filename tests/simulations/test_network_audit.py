# SPDX-License-Identifier: Apache-2.0
"""Canary patients in a whole federation: its coordinator proves no more than was promised, and sees it when training is broken.

`FEDWARD_AUDITS=20` audits sound training so often, and breaks it in every way; that takes minutes.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import binom, multivariate_normal

from client import ledger
from client.home import LEDGER_FILE, PREPARED_FOLDER
from client.imaging.prepared import load_prepared
from client.training import dpsgd, units_of
from client.training.bench import bench_for
from client.training.sampler import pick
from common.errors import PlanConflict
from common.models import initial_weights
from common.plan import RestorationSpec, SrcnnSpec
from common.privacy import lattice_of, public_count
from common.privacy.entries import Spent
from simulations import scenario
from simulations.apps import CLIENT_APP
from simulations.audits import network, planted, watched
from simulations.audits.findings import Audit, Report
from simulations.audits.known import People, gradients_of
from simulations.audits.network import Studio
from simulations.audits.one_run import lower_bound
from simulations.audits.planted import Cast
from simulations.audits.privacy import audit_network, can_be_watched
from simulations.engine.nursery import Nursery
from simulations.scenario import Scenario
from simulations.stage import Stage, Workshop, set_stage
from tests.journeys.made import pictures
from tests.simulations.test_privacy_audit import PLANS

AUDITS = int(os.environ.get("FEDWARD_AUDITS", "0"))
SITES = """
[simulation]
sites = 4
partition = "iid"
folds = 4
"""
PATIENTS = 128


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    folder = tmp_path_factory.mktemp("studio")
    data = pictures(folder / "pictures", patients=690, images_each=1)
    with Nursery(CLIENT_APP) as nursery:
        yield Studio(cache=folder / "cache", workers=2, nursery=nursery, data=data)


def asked(noise: str, *, rounds: int = 10) -> Scenario:
    text = PLANS[noise].replace("rounds = 30", f"rounds = {rounds}").replace("minimum_patients = 64", f"minimum_patients = {PATIENTS}")
    return scenario.parse(text + SITES)


def staged(folder: Path, played: Scenario, studio: Studio) -> Stage:
    way = "fsa1" if played.plan.shares_noise else "plain"
    return set_stage(played, studio.data, folder, Workshop(cache=studio.cache, workers=1, progress=silent, aggregation=way))


def silent(*_: Any) -> None:
    pass


def audited(noise: str, studio: Studio, *, seed: int, with_controls: bool, rounds: int) -> Report:
    how = Audit(canaries=1000, kind="network", patients=PATIENTS, seed=seed)
    return audit_network(asked(noise, rounds=rounds), how, studio, with_controls=with_controls, progress=silent)


# Whole federations


@pytest.mark.slow
@pytest.mark.parametrize("noise", PLANS)
def test_a_coordinator_of_sound_training_proves_no_more_than_was_promised(noise: str, studio: Studio, tmp_path: Path) -> None:
    played = asked(noise)
    stage = staged(tmp_path / "run", played, studio)
    coins, cast = planted.plant(stage, canaries=1000, slices=1, rng=np.random.default_rng(5))
    scores = watched.watch(stage, cast, slices=1, workers=2, nursery=studio.nursery, progress=silent)
    assert len(coins) == 4 * 31
    assert lower_bound(scores - scores.mean(), coins, delta=1e-6).epsilon <= 2.0
    for site in stage.sites:  # it was the real thing: every round was paid for
        _, entries = ledger.read((stage.home(site) / LEDGER_FILE).read_bytes(), name=site)
        assert [entry.fact.round for entry in entries if isinstance(entry.fact, Spent)] == list(range(1, 11))


@pytest.mark.slow
def test_a_coordinator_of_training_without_noise_sees_who_was_there(studio: Studio) -> None:
    """Behind masks and shared noise, of which hardly any is left. A hundred canaries cannot prove more than 2.6, and chance is in it."""
    controls = network.controls(asked("distributed"), claimed=2.0, patients=PATIENTS)
    [control] = [each for each in controls if each.name == "hardly any noise"]
    scores, coins = network.scores_of(control, studio, canaries=1000, seed=1, progress=silent)
    assert lower_bound(scores - scores.mean(), coins, delta=1e-6).epsilon > 1.0


@pytest.mark.skipif(not AUDITS, reason="minutes; set FEDWARD_AUDITS=20")
@pytest.mark.parametrize("noise", PLANS)
def test_no_audit_of_twenty_refutes_a_sound_federation(noise: str, studio: Studio) -> None:
    bounds = [audited(noise, studio, seed=seed, with_controls=False, rounds=10).plan.bound.epsilon for seed in range(AUDITS)]
    assert max(bounds) <= 2.0


@pytest.mark.skipif(not AUDITS, reason="minutes; set FEDWARD_AUDITS=20")
@pytest.mark.parametrize("noise", PLANS)
def test_every_way_of_breaking_a_federation_is_caught(noise: str, studio: Studio) -> None:
    report = audited(noise, studio, seed=0, with_controls=True, rounds=30)
    assert {trial.name: trial.is_refuted for trial in report.controls} == {
        "nothing is broken": False,
        "hardly any noise": True,
        "no clipping": True,
    }
    assert report.passes


# What the auditor works out


def test_a_score_is_how_much_likelier_the_sum_is_with_a_canary_than_without() -> None:
    """Against densities written out: a Gaussian sum over the others, and a canary's draws, binomial."""
    rng, rate, draws, noise, values = np.random.default_rng(0), 0.3, 2, 0.4, 5
    people = People(
        gradients=rng.normal(size=(4, values)),
        numbers=np.array([0, 1, -1, -1]),
        expected=rng.random(4),
        variance=rng.random(4),
        draws=draws,
        rate=rate,
    )
    seen, scores = rng.normal(size=values), np.zeros(2)
    people.score_into(scores, seen, noise=noise)
    for canary in range(2):
        rest = np.arange(4) != canary
        mean = people.expected[rest] @ people.gradients[rest]
        spread = noise * np.eye(values) + (people.gradients[rest].T * people.variance[rest]) @ people.gradients[rest]
        likely = [multivariate_normal(mean + k * people.gradients[canary], spread).logpdf(seen) for k in range(draws + 1)]
        wanted = logsumexp(likely, b=binom.pmf(np.arange(draws + 1), draws, rate)) - likely[0]
        assert scores[canary] == pytest.approx(wanted, rel=1e-9)


def test_the_gradients_that_an_auditor_knows_are_those_that_the_trainer_sums(studio: Studio, tmp_path: Path) -> None:
    """And canaries are in a site's folder if their coin says so, at a public count that no coin changes."""
    played = asked("local")
    stage = staged(tmp_path / "run", played, studio)
    coins, cast = planted.plant(stage, canaries=50, slices=3, rng=np.random.default_rng(0))
    assert sorted(np.concatenate([each.numbers for each in cast.values()])) == list(range(50))
    for site, who in cast.items():
        data = load_prepared(stage.home(site) / PREPARED_FOLDER)
        assert data.num_patients == PATIENTS + coins[who.numbers].sum()
        assert public_count(PATIENTS) == public_count(data.num_patients) == public_count(PATIENTS + len(who.numbers))
        assert len(data) == PATIENTS + 3 * coins[who.numbers].sum()
    who, weights, lattice = cast[stage.sites[0]], initial_weights(played.plan), lattice_of(played.plan)
    known = gradients_of(who.canaries, played.plan, weights, np.arange(len(who.numbers)))
    everybody = pick(units_of(who.canaries, played.plan), np.arange(len(known)), 2, bytes)
    with bench_for(played.plan, weights) as bench:
        summed = dpsgd.sum_of_clipped(bench, who.canaries, played.plan, everybody).numpy()
    assert np.abs(known.sum(axis=0) - summed / lattice.clip_steps).max() <= 2 * len(known) / lattice.clip_steps
    assert np.linalg.norm(known, axis=1).max() == pytest.approx(0.999, abs=1e-3)


def test_an_auditor_who_knows_some_of_the_others_takes_them_for_all(studio: Studio, tmp_path: Path) -> None:
    played = asked("local")
    stage = staged(tmp_path / "run", played, studio)
    _, cast = planted.plant(stage, canaries=8, slices=1, rng=np.random.default_rng(0))
    who: Cast = cast[stage.sites[0]]
    weights, rate = initial_weights(played.plan), 16 / PATIENTS
    people = People.at(who, played.plan, weights, others=32, records=1)
    assert (len(people.gradients), people.draws, people.rate) == (2 + 32, 1, rate)
    assert people.expected[:2].tolist() == [rate / 2] * 2
    assert people.variance[:2] == pytest.approx([rate / 2 * (1 - rate / 2)] * 2)
    assert people.expected[2:].sum() == pytest.approx(16)


def test_what_cannot_be_watched_is_said() -> None:
    played = scenario.load(scenario.find("default"))
    assert can_be_watched(played)
    assert not can_be_watched(scenario.load(scenario.find("low-dose")))
    assert not can_be_watched(asked("local")), "it brings no data"
    mending = replace(
        played.plan,
        task=RestorationSpec(kind="restoration", degradation="noise", strength=0.1),
        model=SrcnnSpec(family="srcnn", widths=(2,), kernels=(3, 3)),
    )
    with pytest.raises(PlanConflict, match="pictures with a class"):
        network.own(replace(played, plan=mending), name="x")
    stepping = replace(played.plan, training=replace(played.plan.training, strategy="fedavg", optimiser="adam"))
    with pytest.raises(PlanConflict, match="step by Adam"):
        network.own(replace(played, plan=stepping), name="x")
