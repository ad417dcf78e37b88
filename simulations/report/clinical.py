# SPDX-License-Identifier: Apache-2.0
"""Sentences about calibration and thresholds, for whoever would act on a probability.

They follow from figures by rules that stand here: "about right" is said of a slope between 0.9 and 1.1 and of a shift of less than a tenth
of a log-odds, which moves a probability of one half by two and a half points.
"""

from common.tasks.scoring.calibration import Calibration
from common.tasks.scoring.operating import OperatingPoint
from simulations.report import numbers

_SLOPE_RIGHT, _SHIFT_RIGHT = 0.1, 0.1


def calibrated(found: Calibration, unit: str) -> str:
    """How far probabilities can be taken at their word."""
    said = [
        f"Probabilities are off by {_points(found.ece)} on average (expected calibration error), and by {_points(found.largest_gap)} in "
        f"the worst tenth of the scale; with few {unit}s some of that is chance."
    ]
    if found.slope is not None:
        said.append(f"Calibration slope {numbers.decimals(found.slope, 2)}: {_slope(found.slope)}.")
    if found.intercept is not None:
        said.append(f"Shift {numbers.signed(found.intercept)} in log-odds: {_shift(found.intercept)}.")
    return " ".join(said)


def chosen(point: OperatingPoint) -> str:
    """Where a threshold came from, and what it did there."""
    rule, _, least = point.rule.partition("=")
    aim = {
        "youden": "the largest sensitivity + specificity − 1 (Youden)",
        "f1": "the largest F1",
        "sensitivity": f"the highest that keeps a sensitivity of {least}",
        "specificity": f"the lowest that keeps a specificity of {least}",
    }[rule]
    return (
        f"Chosen on {numbers.count(point.patients)} validation patients, who are not among those judged here: {aim}. "
        f"There it had sensitivity {numbers.ratio(point.sensitivity)} and specificity {numbers.ratio(point.specificity)}; what it does for "
        "others is said by the figures on this page, and is mostly a little worse."
    )


def threshold(value: float) -> str:
    """As many digits as a person reads: '0.5', '0.137'."""
    return f"{value:.3g}"


def _points(share: float | None) -> str:
    return numbers.NOTHING if share is None else f"{numbers.decimals(100 * share, 1)} percentage points"


def _slope(slope: float) -> str:
    if slope < 0:
        return "higher probabilities go with fewer findings"
    if abs(slope - 1) <= _SLOPE_RIGHT:
        return "about right"
    return (
        "too extreme, high ones are too high and low ones too low"
        if slope < 1
        else "too cautious, high ones could be higher and low ones lower"
    )


def _shift(intercept: float) -> str:
    if abs(intercept) <= _SHIFT_RIGHT:
        return "on the whole about right"
    return "on the whole too low" if intercept > 0 else "on the whole too high"
