# SPDX-License-Identifier: Apache-2.0
"""Everything that is known of a plan beforehand, in one place for whoever shows it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.plan import Plan
from simulations.planner.alternatives import Alternatives, alternatives
from simulations.planner.forecast import Forecast, Hospitals, ModeForecast, forecast
from simulations.planner.modes import Mode

if TYPE_CHECKING:
    from simulations.planner.sweep import Sweep  # brings torch and the engine: seconds, which arithmetic need not wait for


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """`others`: of every mode in which a hospital takes part; `measured`: None until `sweep` was asked for."""

    forecast: Forecast
    others: Mapping[Mode, Alternatives]
    measured: "Sweep | None" = None

    @property
    def plan(self) -> Plan:
        return self.forecast.plan

    @property
    def modes(self) -> tuple[ModeForecast, ...]:
        """The plan's own mode first."""
        asked = self.forecast.asked
        return (asked, *(entry for entry in self.forecast.possible if entry is not asked))


def outlook(plan: Plan, hospitals: Hospitals) -> Outlook:
    """All but what has to be measured. Raises: as `forecast`."""
    found = forecast(plan, hospitals)
    others = {entry.mode: known for entry in found.possible if (known := alternatives(entry)) is not None}
    return Outlook(forecast=found, others=others)
