# SPDX-License-Identifier: Apache-2.0
"""The statistic says what the training data are like, within its noise, and nothing where the noise is all there is."""

import numpy as np
import pytest

from common.counting import Counted, form_of, statistics
from common.plan import Plan
from common.secagg.terms import Kind
from tests.common.counting.plans import counting_plan

WAYS = {
    "both": (),
    "intensity alone": (("epsilon = 0.5", "epsilon = 0.5\nclasses = false"),),
    "classes alone": (("epsilon = 0.5", "epsilon = 0.5\nintensity = false"),),
}


def data(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(count)
    means = rng.beta(2, 5, count)
    return (rng.random(count) < 0.3).astype(np.int64), means, means**2 + rng.uniform(0, 0.05, count)


def counted(plan: Plan, count: int, *, noise_sd: float, seed: int = 0) -> Counted:
    exact = statistics.count(plan, *data(count)) / form_of(plan, Kind.STAT).steps
    return Counted(values=exact + np.random.default_rng(seed).normal(0, noise_sd, exact.size), num_sites=4, noise_sd=noise_sd)


@pytest.mark.parametrize("way", WAYS)
def test_without_noise_it_is_the_truth(way: str) -> None:
    plan = counting_plan(*WAYS[way])
    labels, means, squares = data(3000)
    found = statistics.figures(plan, counted(plan, 3000, noise_sd=0.0))
    assert found.units.value == 3000
    if way != "intensity alone":
        assert [each.value for each in found.classes] == np.bincount(labels).tolist()
    else:
        assert found.classes == ()
    if way == "classes alone":
        assert found.mean is found.std is None
        return
    assert found.mean is not None
    assert found.std is not None
    assert found.mean.value == pytest.approx(means.mean(), abs=1e-3)
    assert found.std.value == pytest.approx(np.sqrt(squares.mean() - means.mean() ** 2), abs=1e-3)


def test_intervals_of_the_noise_hold_what_they_promise() -> None:
    plan, trials = counting_plan(), 200
    labels, means, squares = data(2000)
    truth = {"mean": means.mean(), "std": np.sqrt(squares.mean() - means.mean() ** 2)}
    inside = dict.fromkeys((*truth, "units", "classes"), 0)
    for seed in range(trials):
        found = statistics.figures(plan, counted(plan, 2000, noise_sd=30.0, seed=seed))
        for name, true in truth.items():
            estimate = getattr(found, name)
            inside[name] += estimate.low <= true <= estimate.high
        inside["units"] += found.units.low <= 2000 <= found.units.high
        inside["classes"] += found.classes[1].low <= labels.sum() <= found.classes[1].high
    assert min(inside.values()) >= 0.9 * trials, inside


def test_of_nobody_beside_the_noise_no_intensity_is_said() -> None:
    plan = counting_plan()
    found = statistics.figures(plan, counted(plan, 40, noise_sd=50.0))
    assert found.mean is found.std is None
    assert found.units.low == 0
