# SPDX-License-Identifier: Apache-2.0
"""Drawings: the same numbers give the same bytes, nothing in one can touch another, and nobody else draws."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import pytest

import simulations.report
from simulations.report import figures, svg
from simulations.report.curves import Bin, RocCurve
from simulations.report.folder import Absence, Round
from simulations.report.rounds import Participation
from simulations.report.scores import Compared
from simulations.report.tabled import Estimate

ROOM = Path(simulations.report.__file__).parent


def drawings() -> dict[str, str]:
    some = Estimate(value=0.8, low=0.7, high=0.9)
    rounds = [Round(number=1, sites=("a", "b"), auc=0.7, balanced_accuracy=0.6, epsilon=1.0),
              Round(number=2, sites=("a",), missing=(Absence(site="b", why="E_SILENT"),), auc=None)]  # fmt: skip
    return {
        "convergence": figures.convergence(rounds, planned=4, budget=3.0),
        "comparison": figures.comparison([Compared(label="Federated", kind="federated", headline=some, balanced_accuracy=some)]),
        "roc": figures.roc([RocCurve(label="x", false_positive=(0, 0, 1), true_positive=(0, 1, 1), operating_point=(0.2, 0.9))]),
        "calibration": figures.calibration(
            [Bin(left=0.4, right=0.5, foretold=0.45, found=0.5, low=0.3, high=0.7, count=9)], label="p", counted="patients"
        ),
        "membership": figures.membership([0.001, 0.01, 1], {"this run": [0, 0.1, 1], "sites alone": [0, 0.2, 1]}, [0.01, 0.5, 1]),
        "participation": figures.participation(
            Participation(sites=("a", "b"), rounds=2, answered=((0, 1), (0, 2), (1, 1)), absent=((1, 2),))
        ),
    }


@pytest.fixture(scope="module")
def drawn() -> dict[str, str]:
    return drawings()


def test_equal_numbers_give_equal_bytes_in_another_process(drawn: dict[str, str]) -> None:
    program = (
        "import runpy, hashlib, sys; d = runpy.run_path(sys.argv[1])['drawings'](); print(hashlib.sha256(repr(d).encode()).hexdigest())"
    )
    import hashlib

    found = subprocess.run([sys.executable, "-c", program, __file__], capture_output=True, text=True, check=True, cwd=ROOM.parent.parent)
    assert found.stdout.strip() == hashlib.sha256(repr(drawn).encode()).hexdigest()


@pytest.mark.parametrize("name", ["convergence", "comparison", "roc", "calibration", "membership", "participation"])
def test_an_inlined_drawing_brings_no_address_date_or_style_sheet(drawn: dict[str, str], name: str) -> None:
    element = svg.inline(drawn[name], name=name, title="T", description="D")
    assert not re.search(r"http|<\?xml|DOCTYPE|metadata|<style|font-family|Matplotlib|\b20\d\d-", element)
    assert ElementTree.fromstring(element).get("viewBox")


def test_two_drawings_of_the_same_numbers_share_no_id(drawn: dict[str, str]) -> None:
    ids = [
        set(re.findall(r'\bid="([^"]+)"', svg.inline(drawn["roc"], name=name, title="", description=""))) for name in ("first", "second")
    ]
    assert all(ids)
    assert not ids[0] & ids[1]
    assert all(identifier.startswith("first-") for identifier in ids[0])


def test_references_still_point_into_their_own_drawing(drawn: dict[str, str]) -> None:
    for name, drawing in drawn.items():
        element = svg.inline(drawing, name=name, title="", description="")
        references = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', element))
        assert {one or other for one, other in references} <= set(re.findall(r'\bid="([^"]+)"', element))


def test_text_stays_text_and_is_never_read_as_mathematics() -> None:
    row = Compared(label="$x_1^{2}$ <b>", kind="federated", headline=Estimate(value=0.5), balanced_accuracy=Estimate())
    element = svg.inline(figures.comparison([row]), name="c", title="<i>", description="&")
    words = [node.text for node in ElementTree.fromstring(element).iter("text")]
    assert "$x_1^{2}$ <b>" in words
    assert "0.500" in words
    assert "–" in words


def test_drawing_leaves_the_settings_of_matplotlib_alone() -> None:
    before = dict(matplotlib.rcParams)
    drawings()
    assert dict(matplotlib.rcParams) == before


def test_a_figure_without_any_score_can_be_drawn() -> None:
    figures.convergence([Round(number=1)], planned=0, budget=None)
    figures.comparison([Compared(label="a", kind="federated", headline=Estimate(), balanced_accuracy=Estimate())])
    figures.calibration([], label="p", counted="patients")


def test_nobody_but_the_two_modules_that_draw_imports_matplotlib() -> None:
    importers = set()
    for path in ROOM.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            if any(name.split(".")[0] == "matplotlib" for name in names):
                importers.add(path.name)
    assert importers == {"benefit.py", "figures.py"}


def test_importing_the_report_loads_no_drawing_library() -> None:
    program = "import sys, simulations.report; print('matplotlib' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOM.parent.parent)
    assert found.stdout.strip() == "False"


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(
    ("front", "back"), [("ink", "pale"), ("soft", "pale"), ("soft", "white"), ("alarm", "alarm-pale"), ("alarm", "white")]
)
def test_text_can_be_read_by_tired_eyes(front: str, back: str) -> None:
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", (ROOM / "report.css").read_text(encoding="utf-8"))) | {"white": "#ffffff"}
    light, dark = sorted((luminance(colours[front]), luminance(colours[back])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG 2.2, success criterion 1.4.3


@pytest.mark.parametrize("colour", [figures.GREY, figures.RED, figures.INK, figures.BLUE, figures.VERMILLION])
def test_colours_of_figures_carry_text_too(colour: str) -> None:
    assert 1.05 / (luminance(colour) + 0.05) >= 4.5
