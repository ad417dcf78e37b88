# SPDX-License-Identifier: Apache-2.0
"""The mutation run: no refusal of either role can be taken out of the protocol's code without a test of an attack that notices.

`test_coordinator_attacks` takes out the site's named checks one by one. Here every refusal is found in the source (`mutations`), down to
the halves of a condition. What nobody can notice is listed with its reason, and the list is held to be true as well.
"""

from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any, Final

import pytest

from common import errors
from common.secagg import checks, coordinator, header_checks, messages, model, site, stages, unmask
from tests.attacks import test_coordinator_attacks, test_coordinator_refusals, test_site_attacks
from tests.attacks.lies import ATTACKS
from tests.attacks.mutations import Mutant, mutants

SPARE: Final = {
    "unmask._secrets: if x not in liars": "a holder found out once is found out again; leaving it out saves the search",
    "stages._agreed: if secret is None": "keys of small order are refused before (checks.keys_have_large_order)",
    "checks.keys_have_large_order: or has_small_order(said.share_key)": "the agreement refuses it next (stages._agreed), by the same code",
    "checks.peers_signed: or enrolled is None": "a site that is not enrolled is refused before (checks.cohort_is_enrolled)",
}
"""Refusals that stand behind or before another one, and why."""


def of(*modules: ModuleType) -> list[Any]:
    return [pytest.param(mutant, id=mutant.name) for module in modules for mutant in mutants(module)]


def probes(*modules: ModuleType) -> Iterator[Callable[[], None]]:
    """The tests of some modules, a call for each of their parameters."""
    for module in modules:
        for name, test in vars(module).items():
            if not name.startswith("test_") or name in ("test_attack_is_refused", "test_removing_this_check_lets_an_attack_through"):
                continue
            cases = [mark.args[1] for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
            yield from (partial(test, case) for case in cases[0]) if cases else [test]


def notices(probe: Callable[[], None]) -> bool:
    try:
        probe()
    except (Exception, pytest.fail.Exception):
        return True
    return False


def attacked(first: str) -> Iterator[bool]:
    """Whether an attack is refused otherwise than by its name; those that the taken-out refusal would have named come first."""
    for name in sorted(ATTACKS, key=lambda name: ATTACKS[name].code != first):
        try:
            yield test_coordinator_attacks.outcome_of(name) != ATTACKS[name].code
        except Exception:
            yield True  # not even the honest part before the lie went well


def code_of(mutant: Mutant) -> str:
    return getattr(errors, mutant.error, errors.FedwardError).code


def judge(mutant: Mutant, noticed: bool) -> None:
    if mutant.name in SPARE:
        assert not noticed, f"{mutant.name} is noticed after all: take it off the list"
    else:
        assert noticed, f"nothing notices that {mutant.name} is gone"


@pytest.mark.parametrize("mutant", of(coordinator, unmask, messages))
def test_the_coordinator_misses_this_refusal(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutant.function, "__code__", mutant.code)
    judge(mutant, any(map(notices, probes(test_site_attacks, test_coordinator_refusals))) or any(attacked(code_of(mutant))))


@pytest.mark.parametrize("mutant", of(site, stages, model, header_checks, checks))
def test_a_site_misses_this_refusal(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutant.function, "__code__", mutant.code)
    judge(mutant, any(attacked(code_of(mutant))) or any(map(notices, probes(test_coordinator_attacks, test_site_attacks))))


def test_the_whole_code_is_noticed_by_nothing() -> None:
    """The control: what the mutants fail, the code as it stands passes."""
    assert not any(map(notices, probes(test_site_attacks, test_coordinator_refusals, test_coordinator_attacks)))
    assert not any(attacked(""))


def test_every_kind_of_refusal_is_found() -> None:
    names = {param.id for param in of(coordinator, unmask, messages, site, checks)}
    assert {
        "coordinator._open: or up.rt != tag.rt",
        "coordinator.Unmasking.shares: if s in self.confirming.masked",
        "unmask.open_sum: check_norm(body, masking.chair.terms, num_sites=len(survivors))",
        "checks.i_survive: if case.seat.site_id not in case.survivors.site_ids",
    } <= names
    assert set(SPARE) <= names | {param.id for param in of(stages)}
