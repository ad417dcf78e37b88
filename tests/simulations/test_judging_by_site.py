# SPDX-License-Identifier: Apache-2.0
"""Held-out patients are judged site by site, each as if it were alone; of a site with few of them nothing is said."""

import numpy as np

from client.imaging.dataset import Dataset, whole
from common.models import initial_weights
from common.plan import parse
from simulations.judging import judge, judge_by_site
from tests.simulations.test_evaluation import PLAN

SIZES = {"east": 14, "north": 12, "rural": 4, "west": 11}


def held_out() -> Dataset:
    rng = np.random.default_rng(0)
    patients = sum(SIZES.values())
    return Dataset(
        images=whole(rng.integers(0, 2**16, (patients, 1, 8, 8), dtype=np.uint16)),
        labels=np.arange(patients) % 2,
        patients=np.arange(patients, dtype=np.int32),
        patient_keys=tuple(f"{number:032x}" for number in range(patients)),
        splits=np.full(patients, 2, dtype=np.int8),
        unit_source="patient_id",
        sites=tuple(SIZES),
        site_index=np.repeat(np.arange(len(SIZES), dtype=np.int32), list(SIZES.values())),
    )


def test_each_site_is_judged_on_its_own_patients_and_a_small_one_takes_the_next_with_it() -> None:
    plan, data = parse(PLAN), held_out()
    weights = initial_weights(plan)
    found = judge_by_site(weights, data, plan, resamples=20)
    assert found is not None
    assert [(one.name, one.patients) for one in found.shown] == [("east", 14), ("north", 12)]
    assert found.hidden == 2
    alone = data.subset(np.flatnonzero(data.site_index == 0))
    assert found.shown[0].scores.as_dict() == judge(weights, alone, plan, resamples=20).as_dict()


def test_where_sites_are_not_known_nothing_is_said() -> None:
    plan, data = parse(PLAN), held_out()
    nameless = Dataset(
        images=data.images,
        labels=data.labels,
        patients=data.patients,
        patient_keys=data.patient_keys,
        splits=data.splits,
        unit_source="patient_id",
    )
    assert judge_by_site(initial_weights(plan), nameless, plan, resamples=0) is None
