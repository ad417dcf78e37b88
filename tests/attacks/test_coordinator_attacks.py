# SPDX-License-Identifier: Apache-2.0
"""Every registered lie is refused by its name; nothing is answered, nothing changes, and no share leaves."""

import numpy as np
import pytest

from common.errors import FedwardError, ModelHash
from common.secagg import checks
from common.secagg.messages import Step
from common.secagg.site import handle, join
from tests.attacks import lies_about_kinds, lies_about_survivors, lies_about_the_cohort, lies_in_headers
from tests.attacks.lies import ATTACKS, VICTIM, Lie, invite, make
from tests.common.secagg.federation import NOW, Federation

LIES = (lies_in_headers, lies_about_kinds, lies_about_the_cohort, lies_about_survivors)  # importing them registered their attacks


def tell(f: Federation, lie: Lie) -> None:
    """The lie, told to its victim; returns only if the victim falls for it."""
    seat, record = f.seats[lie.victim], f.records[lie.victim]
    if lie.update is not None:
        join(seat, record, lie.update)
    else:
        handle(seat, record, lie.control, now=lie.now, offer=lie.offer or f.offer())


def shares_released(f: Federation) -> set[str]:
    return {site_id for site_id, record in f.records.items() if record.answer(Step.UNMASK)}


def outcome_of(name: str) -> str:
    """The code with which the attack is refused, or 'succeeded'."""
    f = make(name)
    lie = ATTACKS[name].prepare(f)
    try:
        tell(f, lie)
    except FedwardError as refusal:
        return refusal.code
    except Exception as error:
        return type(error).__name__
    return "succeeded"


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_refused(name: str) -> None:
    f = make(name)
    lie = ATTACKS[name].prepare(f)
    record, released = f.records[lie.victim], shares_released(f)
    with pytest.raises(FedwardError) as refusal:
        tell(f, lie)
    assert refusal.value.code == ATTACKS[name].code
    assert refusal.value.fix
    assert f.records[lie.victim] == record
    assert shares_released(f) == released


def test_a_header_without_its_model_is_refused() -> None:
    f = make("model_with_nan")
    with pytest.raises(ModelHash, match="came without its model"):
        handle(f.seats[VICTIM], f.records[VICTIM], invite(f), now=NOW, offer=None)


def test_there_are_at_least_thirty_attacks() -> None:
    assert len(ATTACKS) >= 30


CHECKS = [(case, check) for case, table in checks.TABLE.items() for check in table]


@pytest.mark.parametrize(("case", "check"), CHECKS, ids=[check.__name__ for _, check in CHECKS])
def test_removing_this_check_lets_an_attack_through(case: type, check: checks.Check, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutation run: without this one check, at least one attack above is no longer refused by its name."""
    assert "succeeded" not in {ATTACKS[name].code for name in ATTACKS}
    monkeypatch.setitem(checks.TABLE, case, tuple(each for each in checks.TABLE[case] if each is not check))
    assert any(outcome_of(name) != ATTACKS[name].code for name in ATTACKS), f"no attack notices that {check.__name__} is gone"


def test_the_honest_federation_gets_its_sum() -> None:
    """The control: what refuses every lie still answers the truth."""
    f = make("cohort_of_two")
    result = f.run()
    assert np.array_equal(result.body.view(np.int32), f.plain_sum(f.site_ids))
