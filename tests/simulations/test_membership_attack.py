# SPDX-License-Identifier: Apache-2.0
"""The membership attack finds what it should, calls nobody a member without reason, and is held against the right bound."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from client.imaging.dataset import Dataset, Images
from client.training import LocalWork, train_locally
from common.models import initial_weights
from common.plan import Plan
from common.privacy import Event
from common.tasks.bootstrap import sensitivity_by_weight
from common.update import Weights
from simulations import scenario
from simulations.audits import membership
from simulations.audits.membership import ALONE, CONTROL, GRID, MOST_PEOPLE, Accusations, judge
from simulations.audits.tradeoff import Promise, power, promises_of, rates

SITES = ("north", "south", "west")
MEMORISING = 300


def hospital(seed: int, *, patients: int = 24, site: str | None = None, sign: int = 0) -> Dataset:
    """Patients of two images each of noise: only memory tells their labels, unless the sick are darker or brighter here."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients, dtype=np.int32), 2)
    label = rng.integers(0, 2, patients)[patient]
    noise = rng.integers(20_000, 40_000, (len(patient), 1, 16, 16))
    pixels = (noise + sign * 10_000 * (2 * label - 1)[:, None, None, None]).astype(np.uint16)
    return Dataset(
        images=Images(pixels, np.arange(len(pixels))),
        labels=label,
        patients=patient,
        patient_keys=tuple(map(str, range(patients))),
        splits=np.zeros(len(patient), dtype=np.int8),
        unit_source="patient_id",
        sites=None if site is None else (site,),
        site_index=None if site is None else np.zeros(len(patient), dtype=np.int32),
    )


@pytest.fixture(scope="module")
def plan() -> Plan:
    text = (Path(scenario.PLANS) / "template.toml").read_text()
    found = scenario.parse(text).plan
    return replace(
        found,
        input=replace(found.input, height=16, width=16),
        model=replace(found.model, widths=(8,), hidden=32),
        privacy=replace(found.privacy, unit="none", epsilon=None, delta=None, clip_norm=None),
        training=replace(found.training, batch=8, optimiser="adam", learning_rate=0.003),
    )


def trained_on(data: Dataset, plan: Plan, *, steps: int) -> Weights:
    start = initial_weights(plan)
    delta = train_locally(start, data, plan, LocalWork(steps=steps, noise_multiplier=None, order_seed=b"order"))
    return Weights(layout=start.layout, values=start.values + delta.values)


@pytest.fixture(scope="module")
def attacked(plan: Plan) -> dict[str, membership.Attacked]:
    """Sites that trained until they knew their patients by heart; a "federated" model that never saw any of them."""
    people = {site: hospital(number) for number, site in enumerate(SITES)}
    models = {site: trained_on(data, plan, steps=MEMORISING) for site, data in people.items()}
    models["federated"] = trained_on(hospital(90), plan, steps=MEMORISING)
    return membership.attack(people, hospital(91, patients=72), models, plan, progress=lambda done, total: None)


def test_a_model_that_knows_its_patients_by_heart_gives_them_away(attacked: dict[str, membership.Attacked]) -> None:
    interval = attacked[ALONE].auc_interval
    assert interval is not None
    assert interval.low > 0.7
    assert attacked[CONTROL].auc_interval is not None
    assert attacked[CONTROL].auc_interval.low > 0.6
    assert attacked[ALONE].found[0].share is None  # some fifty strangers do not tell what one in a hundred is


def test_a_model_that_saw_none_of_them_accuses_nobody(attacked: dict[str, membership.Attacked]) -> None:
    interval = attacked["federated"].auc_interval
    assert interval is not None
    assert interval.low < 0.5 < interval.high


def test_a_scanner_that_a_model_knows_is_no_member(plan: Plan) -> None:
    """Trained on the north's scanner, a model is surer of the north's strangers too. Judged by these it is acquitted."""
    north, south = hospital(5, site="north", sign=1), hospital(6, site="south", sign=-1)
    models = {"north": trained_on(hospital(7, sign=1), plan, steps=30), "south": trained_on(hospital(8, sign=-1), plan, steps=30)}
    outside = _joined(hospital(9, patients=200, site="north", sign=1), hospital(10, patients=200, site="south", sign=-1))
    people = {"north": north, "south": south}
    fair = membership.attack(people, outside, models, plan, progress=lambda done, total: None)[ALONE].auc_interval
    assert fair is not None
    assert fair.low < 0.5 < fair.high
    by_lot = membership.attack(people, replace(outside, sites=None, site_index=None), models, plan, progress=lambda done, total: None)
    assert abs(by_lot[ALONE].auc - 0.5) > 0.1  # the control: judged by strangers of anywhere, the scanner would be taken for memory


def _joined(one: Dataset, other: Dataset) -> Dataset:
    assert one.site_index is not None
    assert other.site_index is not None
    pixels = np.concatenate([one.images[:], other.images[:]])
    return Dataset(
        images=Images(pixels, np.arange(len(pixels))),
        labels=np.concatenate([one.labels, other.labels]),
        patients=np.concatenate([one.patients, other.patients + len(one.patient_keys)]),
        patient_keys=(*one.patient_keys, *other.patient_keys),
        splits=np.zeros(len(pixels), dtype=np.int8),
        unit_source="patient_id",
        sites=("north", "south"),
        site_index=np.concatenate([one.site_index, other.site_index + 1]),
    )


def test_no_more_people_are_asked_about_than_said(plan: Plan) -> None:
    people = {site: hospital(number, patients=MOST_PEOPLE) for number, site in enumerate(SITES)}
    model = {"federated": initial_weights(plan)}
    found = membership.attack(people, hospital(4, patients=600), model, plan, progress=lambda done, total: None)["federated"]
    assert found.strangers == MOST_PEOPLE
    assert MOST_PEOPLE <= found.members < MOST_PEOPLE + len(SITES)


def test_a_hold_out_of_a_handful_leaves_out_what_cannot_be_said(plan: Plan) -> None:
    healthy = hospital(4, patients=1)
    people = {site: hospital(number, patients=8) for number, site in enumerate(SITES)}
    models = {name: initial_weights(plan) for name in ("federated", *SITES)}
    found = membership.attack(people, healthy, models, plan, progress=lambda done, total: None)
    assert found["federated"].strangers == 1
    assert found["federated"].members == 24
    assert ALONE not in found or found[ALONE].strangers == 1


def accusations(shift: float, *, members: int = 400, strangers: int = 400) -> Accusations:
    rng = np.random.default_rng(1)
    is_member = np.arange(members + strangers) < members
    return Accusations(scores=rng.normal(size=len(is_member)) + shift * is_member, is_member=is_member, person=np.arange(len(is_member)))


def test_the_interval_holds_what_a_gaussian_attack_truly_finds() -> None:
    truth = float(norm.cdf(norm.ppf(0.01) + 2))
    [found, rarer] = judge(accusations(2.0, members=2000, strangers=2000)).found
    assert found.interval is not None
    assert found.interval.low < truth < found.interval.high
    assert found.interval.high - found.interval.low < 0.25
    assert rarer.share is not None
    assert rarer.share <= found.share  # type: ignore[operator] # both are known


def test_a_rate_that_so_few_strangers_cannot_show_is_not_said() -> None:
    [one_percent, one_in_a_thousand] = judge(accusations(1.0, strangers=150)).found
    assert one_percent.share is not None
    assert one_in_a_thousand.share is None


def test_the_same_patient_in_ten_models_is_resampled_as_one() -> None:
    once = accusations(1.0, members=60, strangers=60)
    ten = Accusations.together([once] * 10)
    alone, repeated = judge(once).auc_interval, judge(ten).auc_interval
    assert alone is not None
    assert repeated is not None
    assert repeated.high - repeated.low == pytest.approx(alone.high - alone.low, rel=0.15)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 3)), min_size=1, max_size=25),
    st.sampled_from([0.0, 0.1, 0.34, 1.0]),
)
def test_the_share_found_is_the_best_threshold_tried_one_by_one(people: list[tuple[int, bool, int]], rate: float) -> None:
    scores, positive, weights = (
        np.array(column, dtype=kind) for column, kind in zip(zip(*people, strict=True), (float, bool, float), strict=True)
    )
    [share] = sensitivity_by_weight(scores, positive, weights[None], false_positive=rate)
    wrong_all, found_all = weights[~positive].sum(), weights[positive].sum()
    if not wrong_all or not found_all:
        assert np.isnan(share)
        return
    tried = [0.0]
    for threshold in set(scores.tolist()):
        called = scores >= threshold
        if weights[called & ~positive].sum() <= rate * wrong_all:
            tried.append(weights[called & positive].sum() / found_all)
    assert share == pytest.approx(max(tried))


# What the promise allows


@pytest.mark.parametrize("noise", [0.7, 1.0, 3.0])
def test_the_bound_is_that_of_the_best_test_against_gaussian_noise(noise: float) -> None:
    """Without sampling the best test is known (Dong, Roth and Su 2019): no bound may be below it, and ours is hardly above."""
    promises = promises_of([Event(sampling_rate=1.0, noise_multiplier=noise, steps=1)])
    grid = rates(1e-3)
    best = norm.cdf(norm.ppf(grid) + 1 / noise)
    bound = np.array(power(grid, promises))
    assert (bound >= best - 1e-9).all()
    assert (bound - best).max() < 0.02


def test_the_bound_of_randomised_response_is_met_by_telling_the_truth() -> None:
    epsilon = 1.5
    truth = 1 / (1 + math.exp(-epsilon))
    assert power([1 - truth], [Promise(epsilon=epsilon, delta=0.0)]) == [pytest.approx(truth)]


def test_without_a_promise_everything_is_allowed() -> None:
    assert power([0.001, 0.5], []) == [1.0, 1.0]


def test_more_steps_allow_more() -> None:
    few, many = (power(GRID, promises_of([Event(sampling_rate=0.1, noise_multiplier=1.0, steps=steps)])) for steps in (10, 200))
    assert all(a <= b for a, b in zip(few, many, strict=True))
    assert max(b - a for a, b in zip(few, many, strict=True)) > 0.2
