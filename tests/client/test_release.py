# SPDX-License-Identifier: Apache-2.0
"""What goes through the only door is finite and short enough; and there is only one door."""

import ast
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from client.release import release
from common.errors import UpdateNonFinite
from common.update import RawDelta

ROOT = Path(__file__).parents[2]
VALUES = arrays(np.float32, st.integers(1, 200), elements=st.floats(-1e4, 1e4, width=32))


@given(VALUES, st.floats(1e-3, 1e3))
def test_what_leaves_is_never_longer_than_the_bound(values: np.ndarray, bound: float) -> None:
    released = release(RawDelta(values=values), max_norm=bound).values.astype(np.float64)
    assert np.linalg.norm(released) <= bound * (1 + 1e-5)


@given(VALUES)
def test_a_short_delta_leaves_as_it_is(values: np.ndarray) -> None:
    released = release(RawDelta(values=values), max_norm=float(np.linalg.norm(values)) + 1).values
    np.testing.assert_array_equal(released, values)


@given(VALUES, st.floats(1e-2, 10))
def test_the_direction_is_kept(values: np.ndarray, bound: float) -> None:
    released = release(RawDelta(values=values), max_norm=bound).values.astype(np.float64)
    lengths = np.linalg.norm(released) * np.linalg.norm(values.astype(np.float64))
    assert np.dot(released, values) >= lengths * (1 - 1e-5)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_diverged_site_sends_nothing(poison: float) -> None:
    values = np.zeros(9, np.float32)
    values[4] = poison
    with pytest.raises(UpdateNonFinite):
        release(RawDelta(values=values), max_norm=1.0)


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        # The door itself, and those that give back what went through it: from the wire, from the store.
        ("ReleasedDelta", {"client/release.py", "client/steps.py", "common/wire.py"}),
        ("QuantisedDelta", {"client/release.py", "client/steps.py", "common/wire.py"}),
        ("MaskedUpdate", {"client/release.py", "common/wire.py"}),
    ],
)
def test_nobody_else_makes_what_may_leave(stage: str, expected: set[str]) -> None:
    makers = set()
    for room in ("client", "common", "server", "simulations"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == stage:
                    makers.add(path.relative_to(ROOT).as_posix())
    assert makers == expected
