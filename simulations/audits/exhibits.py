# SPDX-License-Identifier: Apache-2.0
"""What a run's report shows of attacks: computed when the run ends, while all its models are at hand, and left in the run folder."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from client.home import PREPARED_FOLDER
from client.imaging.prepared import load_prepared
from common.privacy import plan_charge
from common.update import Weights
from simulations.audits import membership, tradeoff
from simulations.audits.membership import Progress
from simulations.stage import Stage


def membership_of(stage: Stage, models: Mapping[str, Weights], progress: Progress) -> dict[str, Any]:
    """membership.json: the attack on each kind of model, and the most that the promise allows any attack; None where it allows anything."""
    people = {site: load_prepared(stage.home(site) / PREPARED_FOLDER) for site in stage.sites}
    attacked = membership.attack(people, stage.holdout(), models, stage.scenario.plan, progress=progress)
    return {
        "rates": membership.GRID,
        "models": {name: asdict(found) for name, found in attacked.items()},
        "allowed": allowed(stage),
    }


def allowed(stage: Stage) -> list[float] | None:
    """The share of members that any attack can find at most, at each of the membership attack's rates.

    None without a promise, and where the promise is per image and patients have several: an attack on patients is then outside of it.
    """
    plan, sites = stage.scenario.plan, stage.counts["sites"]
    if not plan.is_private or (plan.privacy.unit == "record" and any(site["images"] > site["patients"] for site in sites)):
        return None
    events = {plan_charge(plan, site["patients"]).outside for site in sites}
    bounds = [tradeoff.power(membership.GRID, tradeoff.promises_of([event])) for event in events]
    return [max(at_rate) for at_rate in zip(*bounds, strict=True)]
