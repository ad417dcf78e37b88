# SPDX-License-Identifier: Apache-2.0
"""A patient is on one side, the same one tomorrow."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.imaging.splits import Fractions, Split, check_disjoint, split_of
from common.errors import PatientStraddles

keys = st.binary(min_size=16, max_size=16).map(bytes.hex)


@given(keys, st.floats(0, 0.4), st.floats(0, 0.4), st.floats(0, 0.1))
def test_a_larger_test_share_takes_patients_and_returns_none(key: str, validation: float, test: float, more: float) -> None:
    if split_of(key, Fractions(validation=validation, test=test)) is Split.TEST:
        assert split_of(key, Fractions(validation=validation, test=test + more)) is Split.TEST


def test_shares_are_met_over_many_patients() -> None:
    rng = np.random.default_rng(0)
    splits = [split_of(rng.bytes(16).hex(), Fractions(validation=0.1, test=0.2)) for _ in range(5000)]
    shares = np.bincount(splits, minlength=3) / len(splits)
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.02)


@pytest.mark.parametrize(("validation", "test"), [(-0.1, 0.2), (0.5, 0.5), (0.2, 1.0), (float("nan"), 0.1)])
def test_impossible_shares_are_refused(validation: float, test: float) -> None:
    with pytest.raises(ValueError, match="below 1"):
        Fractions(validation=validation, test=test)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), min_size=1, max_size=30))
def test_a_straddling_patient_is_always_found(pairs: list[tuple[int, int]]) -> None:
    patients, splits = np.array(pairs).T
    sides = [len({side for patient, side in pairs if patient == wanted}) for wanted in set(patients.tolist())]
    if max(sides) == 1:
        check_disjoint(patients.astype(np.int32), splits.astype(np.int8))
    else:
        with pytest.raises(PatientStraddles, match="on more than one side"):
            check_disjoint(patients.astype(np.int32), splits.astype(np.int8))
