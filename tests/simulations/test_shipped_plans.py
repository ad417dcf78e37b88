# SPDX-License-Identifier: Apache-2.0
"""Every plan that ships can be read: by who approves it at a hospital, and by who reads its report."""

import pytest

from client.membership import reading
from common.plan import Plan
from simulations import scenario
from simulations.report import setting
from simulations.scenario import PLANS

SHIPPED = sorted(path.stem for path in PLANS.glob("*.toml"))
READS = {
    "follow-up": ["any modality, 24 × 24 pixels, 1 channel, 4 of a case together"],
    "records": ["of the record age, sex, smoking, marker"],
    "notes": ["a text of up to 40 hashed words and pairs of words"],
    "pairs": ["a second image (any) where there is one", "of the record age, marker"],
}


def plan_of(name: str) -> Plan:
    return scenario.load(scenario.find(name)).plan


@pytest.mark.parametrize("name", SHIPPED)
def test_a_report_says_what_network_learnt_from_what(name: str) -> None:
    plan = plan_of(name)
    assert setting.model(plan)
    assert setting.images(plan)
    assert reading._FAMILIES[plan.model.family]


@pytest.mark.parametrize("name", READS)
def test_a_report_names_every_source(name: str) -> None:
    said = setting.images(plan_of(name))
    assert all(source in said for source in READS[name])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("default", "We train on CT images, reduced to 32 x 32 pixels"),
        ("follow-up", "We train on medical images, reduced to 24 x 24 pixels, 4 of a case together"),
        ("records", "We train on columns of the record (age, sex, smoking, marker)"),
        ("notes", "We train on the text in 'text', its first 40 words and pairs of words, hashed"),
        ("pairs", "a second image of the patient (medical) where there is one; columns of the record (age, marker)"),
    ],
)
def test_who_approves_a_plan_is_told_all_that_it_reads(name: str, says: str) -> None:
    assert says in reading._looked_at(plan_of(name).input)
