# SPDX-License-Identifier: Apache-2.0
"""The forecast as one JSON object, for scripts: every number that the tables show, unrounded."""

from dataclasses import asdict
from typing import Any

from common.privacy import group_privacy
from simulations.planner import wording
from simulations.planner.forecast import Cost, ModeForecast, Refusal, SiteForecast
from simulations.planner.needed import LOSS, is_linear, needed
from simulations.planner.outlook import Outlook
from simulations.planner.tables import IMAGES


def as_dict(known: Outlook) -> dict[str, Any]:
    """Modes by name; a mode or hospital that is refused has `refused` with code, message and fix."""
    found, privacy = known.forecast, known.plan.privacy
    assert privacy.epsilon is not None
    assert privacy.delta is not None
    groups = [(images, *group_privacy(privacy.epsilon, privacy.delta, images)) for images in IMAGES]
    return {
        "plan": {"name": found.plan.name, "digest": found.digest, "unit": privacy.unit, "epsilon": privacy.epsilon, "delta": privacy.delta},
        "noise": privacy.noise,
        "modes": {
            mode: {"refused": asdict(entry)} if isinstance(entry, Refusal) else _mode(known, entry) for mode, entry in found.modes.items()
        },
        "alarms": wording.alarms(found),
        "advice": wording.advice(known),
        "measured": asdict(known.measured) if known.measured else None,
        **(
            {"patients": [dict(zip(("images", "epsilon", "delta"), row, strict=True)) for row in groups]}
            if privacy.unit == "record"
            else {}
        ),
    }


def _mode(known: Outlook, entry: ModeForecast) -> dict[str, Any]:
    others = known.others.get(entry.mode)
    return {
        "holds_rounds": entry.holds_rounds,
        "relative_noise": entry.relative_noise,
        "hospitals": [_hospital(site) for site in entry.sites],
        "needed": {
            "loss": LOSS,
            "model": asdict(needed(entry, linear=is_linear(entry.plan))),
            "scattering": asdict(needed(entry, linear=True)),
        },
        "alternatives": asdict(others) if others else None,
    }


def _hospital(site: SiteForecast) -> dict[str, Any]:
    facts = {"hospital": site.number, "units": site.units, "counted_as": site.counted_as}
    if isinstance(site.outcome, Refusal):
        return {**facts, "refused": asdict(site.outcome)}
    cost: Cost = site.outcome
    return {
        **facts,
        "sampling_rate": cost.charge.outside.sampling_rate,
        "noise_multiplier": cost.charge.outside.noise_multiplier,
        "own_noise_multiplier": cost.charge.own_share.noise_multiplier,
        "epsilon": cost.epsilon,
        "epsilon_pld": cost.epsilon_pld,
        "epsilon_own_share": cost.own_share,
        "epsilon_with_spare_rounds": cost.reserved,
    }
