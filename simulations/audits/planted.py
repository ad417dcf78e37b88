# SPDX-License-Identifier: Apache-2.0
"""Canary patients at the sites of a whole federation, in their data folders among the made patients of the plan.

A canary is a mosaic of black and white in the plan's own input, with a class drawn at random: nothing that others teach explains it, so
its gradient is its own for as long as the training lasts. A fair coin puts it among a site's patients, or not; nobody takes its place.

How many patients a site has is public to three bits (`common.privacy.events`), and the promise is about two worlds in which those bits are
the same. So a site keeps as many others as begin such a step, and gets fewer canaries than end it.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.home import PREPARED_FOLDER
from client.imaging.dataset import Dataset, Images
from client.imaging.prepared import load_prepared, save_prepared
from client.imaging.splits import Split
from client.training import units_of
from client.training.batches import FULL_SCALE
from common.errors import PlanConflict
from common.plan import ClassificationSpec, Plan
from common.privacy import public_count
from simulations.audits.canaries import Coins
from simulations.stage import Stage, merge

_TILES = 8
"""Each way."""
Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cast:
    """Who might train at a site: `canaries`, in or not, one image each; `numbers` (n,) their places among all coins; and the `others`."""

    numbers: Numbers
    canaries: Dataset
    others: Dataset

    def units(self, plan: Plan, *, records: int) -> int:
        """How many units a plan finds here, on average over the coins, where a canary is so many."""
        return len(units_of(self.others, plan)) + len(self.numbers) * records // 2


def check(plan: Plan) -> None:
    """Raises: PlanConflict, for a plan whose patients are not one kind of pictures with a class."""
    image = plan.input
    if (
        isinstance(plan.task, ClassificationSpec)
        and image.has_image
        and image.sequence == 1
        and not (image.record or image.text or image.second)
    ):
        return
    raise PlanConflict(
        f"plan '{plan.name}': canaries for the plan's own network are pictures with a class, and its task or input is another.",
        fix="Audit it with --kind gradient, whose canaries need no pictures.",
    )


def plant(stage: Stage, *, canaries: int, slices: int, rng: np.random.Generator) -> tuple[Coins, dict[str, Cast]]:
    """Put up to so many canaries of so many identical images each into the sites' folders; and who is where."""
    homes = {site: load_prepared(stage.home(site) / PREPARED_FOLDER) for site in stage.sites}
    kept = {site: _others(data, rng) for site, data in homes.items()}
    room = [_step_of(_trained_on(data)) - 1 for data in kept.values()]
    shares = _dealt(canaries, room)
    coins, first, found = rng.random(sum(shares)) < 0.5, 0, {}
    for (site, others), share in zip(kept.items(), shares, strict=True):
        cast = Cast(
            numbers=np.arange(first, first + share),
            canaries=_pictures(others, share, classes=len(stage.scenario.plan.task.classes), rng=rng),
            others=others.subset(others.rows_of(Split.TRAIN)),
        )
        present = np.repeat(np.flatnonzero(coins[cast.numbers]), slices)
        _settle(stage.home(site) / PREPARED_FOLDER, others, cast.canaries.subset(present))
        found[site], first = cast, first + share
    return coins, found


def _others(data: Dataset, rng: np.random.Generator) -> Dataset:
    """As many training patients as are a public count, and all whom a site keeps for judging."""
    trained = data.rows_of(Split.TRAIN)
    patients = np.unique(data.patients[trained])
    gone = rng.permutation(patients)[public_count(len(patients)) :]
    return data.subset(~np.isin(data.patients, gone))


def _trained_on(data: Dataset) -> int:
    return len(np.unique(data.patients[data.rows_of(Split.TRAIN)]))


def _step_of(count: int) -> int:
    """How many more patients make another public count.

    >>> _step_of(192), _step_of(7)
    (32, 1)
    """
    more = 1
    while public_count(count + more) == count:
        more += 1
    return more


def _dealt(canaries: int, room: list[int]) -> list[int]:
    """How many each site gets: as evenly as its room allows.

    >>> _dealt(10, [2, 9, 9])
    [2, 4, 4]
    """
    shares = [0] * len(room)
    for _ in range(min(canaries, sum(room))):
        place = min((number for number, most in enumerate(room) if shares[number] < most), key=lambda number: shares[number])
        shares[place] += 1
    return shares


def _pictures(like: Dataset, count: int, *, classes: int, rng: np.random.Generator) -> Dataset:
    channels, height, width = like.images.shape[-3:]
    tiles = rng.integers(0, 2, (count, channels, _TILES, _TILES)).astype(np.uint16) * np.uint16(FULL_SCALE)
    pictures = tiles[:, :, np.arange(height) * _TILES // height][..., np.arange(width) * _TILES // width]
    return Dataset(
        images=Images(pictures, np.arange(count)),
        labels=rng.integers(0, classes, count),
        patients=np.arange(count, dtype=np.int32),
        patient_keys=tuple(f"canary-{number}" for number in range(count)),
        splits=np.full(count, Split.TRAIN, dtype=np.int8),
        unit_source="patient_id",
    )


def _settle(folder: Path, others: Dataset, present: Dataset) -> None:
    parts: Mapping[str, Dataset] = {"others": others, "canaries": present} if len(present) else {"others": others}
    shutil.rmtree(folder)
    save_prepared(replace(merge(parts), sites=None, site_index=None), folder)
