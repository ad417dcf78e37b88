# SPDX-License-Identifier: Apache-2.0
"""What the report says of attacks follows from their figures, and a picture on the page is the picture in the folder."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.tasks.bootstrap import Interval
from simulations.audits.membership import Attacked, Found
from simulations.report import attacks, pictures, svg
from simulations.report.folder import Membership, Picture


def attacked(auc: float, low: float, high: float, *, found: float = 0.02, at_least: float = 0.01) -> Attacked:
    share = Found(rate=0.01, share=found, interval=Interval(low=at_least, high=1.0))
    return Attacked(members=9, strangers=9, auc=auc, auc_interval=Interval(low=low, high=high), found=(share,), curve=(0.0, 1.0))


def membership(*, allowed: tuple[float, ...] | None = None, **models: Attacked) -> Membership:
    return Membership(rates=(0.01, 1.0), models=models, allowed=allowed)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (attacked(0.53, 0.49, 0.57), "does no better than guessing"),
        (attacked(0.60, 0.55, 0.65), "tells members from strangers"),
        (attacked(0.40, 0.35, 0.45), "is misled"),
    ],
)
def test_success_is_said_only_where_the_interval_is_clear_of_guessing(found: Attacked, said: str) -> None:
    [sentence] = attacks.words(membership(federated=found))
    assert said in sentence


def test_noise_gets_no_credit_where_the_attack_fails_without_it() -> None:
    guessing = attacked(0.5, 0.4, 0.6)
    assert "do not show what the noise is for" in attacks.words(membership(federated=guessing, not_private=guessing))[1]
    assert "which is what the noise is for" in attacks.words(membership(federated=guessing, not_private=attacked(0.8, 0.7, 0.9)))[1]


def test_an_attack_that_fails_on_its_control_is_called_blind() -> None:
    guessing, seeing = attacked(0.5, 0.4, 0.6), attacked(0.9, 0.8, 1.0)
    assert "so it can see" in attacks.words(membership(federated=guessing, control=seeing))[1]
    assert "it is blind here" in attacks.words(membership(federated=guessing, control=guessing))[1]


def test_a_promise_is_broken_only_beyond_chance() -> None:
    assert not attacks.broken(membership(federated=attacked(0.6, 0.5, 0.7, found=0.3, at_least=0.1), allowed=(0.2, 1.0)))
    assert attacks.broken(membership(federated=attacked(0.6, 0.5, 0.7, found=0.3, at_least=0.25), allowed=(0.2, 1.0)))
    assert not attacks.broken(membership(federated=attacked(0.6, 0.5, 0.7, found=0.3, at_least=0.25)))


def test_only_the_models_that_the_report_knows_are_listed_its_own_first() -> None:
    one = attacked(0.5, 0.4, 0.6)
    assert [row.name for row in attacks.rows(membership(alone=one, other=one, federated=one))] == ["federated", "alone"]


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 255), min_size=3, max_size=3), min_size=1, max_size=5))
def test_a_drawn_picture_is_the_picture(pixels: list[list[int]]) -> None:
    """Painted back from the paths, every pixel has its own grey, to the coarseness of the levels, and none is painted twice."""
    drawing = pictures.row([Picture(name="image", pixels=tuple(map(tuple, pixels)))], [("a <b>", "c")])
    root = ElementTree.fromstring(svg.inline(drawing, name="x", title="", description=""))
    painted: dict[tuple[int, int], int] = {}
    for path in root.iter("path"):
        grey = int(path.get("fill", "")[1:3], 16)
        for x, y, width in re.findall(r"M(\d+) (\d+)h(\d+)v1h-\3z", path.get("d", "")):
            for place in range(int(x), int(x) + int(width)):
                assert (place, int(y)) not in painted
                painted[place, int(y)] = grey
    assert painted.keys() == {(x, y) for y, line in enumerate(pixels) for x, _ in enumerate(line)}
    assert all(abs(grey - pixels[y][x]) <= 256 / pictures.LEVELS for (x, y), grey in painted.items())
    assert [text.text for text in root.iter("text")] == ["a <b>", "c"]
