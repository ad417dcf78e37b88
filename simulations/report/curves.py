# SPDX-License-Identifier: Apache-2.0
"""Provisional."""

import numpy as np

from dataclasses import dataclass
from simulations.report.folder import Predictions


@dataclass(frozen=True, slots=True, kw_only=True)
class RocCurve:
    """One class against the rest; the operating point is (1 - specificity, sensitivity) at the plan's threshold."""

    label: str
    false_positive: tuple[float, ...]
    true_positive: tuple[float, ...]
    operating_point: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Patients of similar foretold probability: the mean foretold, the share found with its 95 % interval."""

    left: float
    right: float
    foretold: float
    found: float
    low: float
    high: float
    patients: int


def roc(p: Predictions, names, federated) -> list[RocCurve]:
    P = np.array(p.federated)
    y = np.array(p.labels)
    cols = [1] if P.shape[1] == 2 else range(P.shape[1])
    out = []
    for c in cols:
        order = np.argsort(-P[:, c])
        t = (y == c)[order]
        tp = np.r_[0, np.cumsum(t) / t.sum()]
        fp = np.r_[0, np.cumsum(~t) / (~t).sum()]
        op = None
        if len(cols) == 1 and federated is not None and federated.confusion:
            (tn, f), (fn, tpp) = federated.confusion
            op = (f / max(tn + f, 1), tpp / max(tpp + fn, 1))
        out.append(RocCurve(label=names[c], false_positive=tuple(fp), true_positive=tuple(tp), operating_point=op))
    return out


def describe(line: RocCurve) -> str:
    return line.label


def calibration(p: Predictions) -> list[Bin]:
    P = np.array(p.federated)
    y = np.array(p.labels)
    if P.shape[1] == 2:
        s = P[:, 1]
        hit = y == 1
    else:
        s = P.max(1)
        hit = P.argmax(1) == y
    out = []
    for k in range(10):
        m = (s >= k / 10) & ((s < (k + 1) / 10) | (k == 9))
        n = m.sum()
        if not n:
            continue
        f = hit[m].mean()
        z = 1.96
        c = (f + z * z / 2 / n) / (1 + z * z / n)
        h = z * np.sqrt(f * (1 - f) / n + z * z / 4 / n / n) / (1 + z * z / n)
        out.append(Bin(left=k / 10, right=k / 10 + 0.1, foretold=s[m].mean(), found=f, low=c - h, high=c + h, patients=int(n)))
    return out
