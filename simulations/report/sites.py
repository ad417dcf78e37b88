# SPDX-License-Identifier: Apache-2.0
"""How the federated model does for the held-out patients of each site, as comparison.json has it.

Only a simulation knows: it holds them all. Of sites with few held-out patients it wrote nothing down, so nothing can be shown by mistake
(common/tasks/scoring/groups.py).
"""

from dataclasses import dataclass

from pydantic import ConfigDict

from common.tasks import Scores
from simulations.report.tabled import OtherScores

_LENIENT = ConfigDict(extra="ignore", allow_inf_nan=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteScores:
    """The federated model on the held-out patients of one site."""

    __pydantic_config__ = _LENIENT
    name: str
    patients: int
    scores: Scores | OtherScores


@dataclass(frozen=True, slots=True, kw_only=True)
class BySite:
    """Sites with enough held-out patients, and how many have not."""

    __pydantic_config__ = _LENIENT
    shown: tuple[SiteScores, ...]
    hidden: int
