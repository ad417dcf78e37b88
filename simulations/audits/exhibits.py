# SPDX-License-Identifier: Apache-2.0
"""What a run's report shows of attacks: computed when the run ends, while all its models are at hand, and left in the run folder."""

import secrets
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.home import PREPARED_FOLDER
from client.imaging.dataset import Dataset
from client.imaging.prepared import load_prepared
from client.imaging.splits import Split
from common.privacy import lattice_of, plan_charge
from common.secagg.quantise import Grid
from common.secagg.shamir import Entropy
from common.update import Weights
from simulations.audits import inversion, membership, tradeoff
from simulations.audits.membership import Progress
from simulations.stage import Stage

INVERTED_PX = 48


def membership_of(stage: Stage, models: Mapping[str, Weights], progress: Progress) -> dict[str, Any]:
    """membership.json: the attack on each kind of model, and the most that the promise allows any attack; None where it allows anything."""
    people = {site: _trained_on(load_prepared(stage.home(site) / PREPARED_FOLDER)) for site in stage.sites}
    attacked = membership.attack(people, stage.holdout(), models, stage.scenario.plan, progress=progress)
    return {
        "rates": membership.GRID,
        "models": {name: asdict(found) for name, found in attacked.items()},
        "allowed": allowed(stage),
    }


def inversion_of(stage: Stage, *, entropy: Entropy = secrets.token_bytes) -> dict[str, Any]:
    """inversion.json: a made image, and what comes back from its update: plain, under masks, and under the plan's clipping and noise."""
    plan, truth = stage.scenario.plan, inversion.made_slice(INVERTED_PX)
    update = inversion.update_of(truth)
    unit = update / np.linalg.norm(update)
    seen: dict[str, NDArray[Any]] = {"plain": update}
    noise = None
    if plan.is_private:
        # The site that adds least of it.
        noise = min(plan_charge(plan, units).outside.noise_multiplier for units in _units(stage))
        lattice = lattice_of(plan)
        seen["clipped"] = inversion.clipped(update, lattice)
        seen["private"] = inversion.noised(seen["clipped"], lattice, noise, entropy)
    seen["masked"] = inversion.masked(unit, Grid.for_cohort(plan.aggregation.max_group, coordinate_range=1.0), entropy)
    pictures: list[dict[str, Any]] = [{"name": "image", "psnr": None, "pixels": _grey(truth)}]
    for name, what in seen.items():
        guess = inversion.invert(what, truth.shape)
        pictures.append({"name": name, "psnr": inversion.psnr(guess, truth), "pixels": _grey(guess)})
    return {"noise_multiplier": noise, "pictures": pictures}


def allowed(stage: Stage) -> list[float] | None:
    """The share of members that any attack can find at most, at each of the membership attack's rates.

    None without a promise, and where the promise is per image and patients have several: an attack on patients is then outside of it.
    """
    plan, sites = stage.scenario.plan, stage.counts["sites"]
    if not plan.is_private or (plan.privacy.unit == "record" and any(site["images"] > site["patients"] for site in sites)):
        return None
    events = {plan_charge(plan, units).outside for units in _units(stage)}
    bounds = [tradeoff.power(membership.GRID, tradeoff.promises_of([event])) for event in events]
    return [max(at_rate) for at_rate in zip(*bounds, strict=True)]


def _trained_on(data: Dataset) -> Dataset:
    return data.subset(data.rows_of(Split.TRAIN))


def _units(stage: Stage) -> set[int]:
    """How many of what the plan protects each site trains on."""
    unit = "patients" if stage.scenario.plan.privacy.unit == "patient" else "images"
    return {site[unit] - site.get("validation", {}).get(unit, 0) for site in stage.counts["sites"]}


def _grey(picture: inversion.Picture) -> list[list[int]]:
    levels: list[list[int]] = np.rint(255 * picture).astype(int).tolist()
    return levels
