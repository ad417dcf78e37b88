# SPDX-License-Identifier: Apache-2.0
"""The account of labels: images = labelled + not labelled, each with a reason; and what was said that labels nothing.

Counts and codes only, like the account of an intake. Where two sources speak of the same images, how far they agree is said too: the share
of images on which they say the same, and Cohen's kappa (1960, https://doi.org/10.1177/001316446002000104), which takes from it what two who
guess would agree on.

    >>> pair = Pair(first="csv", second="fhir", both=Counter({(0, 0): 45, (1, 1): 35, (0, 1): 5, (1, 0): 15}))
    >>> pair.images, pair.agreed, round(pair.kappa, 3)
    (100, 80, 0.6)
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from client.imaging.labels.agreement import MEANING, Why
from common.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two sources and the images that both speak of: how often the one says this and the other that. -1: it contradicts itself."""

    first: str
    second: str
    both: Counter[tuple[int, int]]

    @property
    def images(self) -> int:
        return self.both.total()

    @property
    def agreed(self) -> int:
        return sum(count for (first, second), count in self.both.items() if first == second and first >= 0)

    @property
    def kappa(self) -> float | None:
        """None where one of the two tells nothing apart: it says one class of everything."""
        firsts, seconds = Counter[int](), Counter[int]()
        for (first, second), count in self.both.items():
            firsts[first] += count
            seconds[second] += count
        if min(len(firsts), len(seconds)) < 2:
            return None
        by_chance = sum(firsts[label] * seconds[label] for label in firsts if label >= 0) / self.images**2
        return (self.agreed / self.images - by_chance) / (1 - by_chance)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelAccount:
    """`labelled` by class, the other images by reason; `settled`: labelled although contested, by the site's own policy.

    spoke: of how many images each source says something; unused: what was said and labels no image, counted by reason.
    """

    images: int
    labelled: Counter[int]
    unlabelled: Counter[Why]
    settled: int
    spoke: Mapping[str, int]
    unused: Counter[Why]
    pairs: tuple[Pair, ...]

    def __post_init__(self) -> None:
        if self.images != self.labelled.total() + self.unlabelled.total():
            raise DataError(
                f"labels: {self.images} images, but {self.labelled.total()} labelled and {self.unlabelled.total()} not.",
                fix="This is a fault in fedward; nothing was used. Please report the three numbers.",
            )

    def as_dict(self) -> dict[str, Any]:
        """For `--json`: counts."""
        return {
            "images": self.images,
            "labelled": self.labelled.total(),
            "settled_by_policy": self.settled,
            "spoke": dict(self.spoke),
            "unlabelled": _sorted(self.unlabelled),
            "unused": _sorted(self.unused),
            "agreement": [
                {"first": pair.first, "second": pair.second, "images": pair.images, "agreed": pair.agreed, "kappa": pair.kappa}
                for pair in self.pairs
            ],
        }

    def lines(self) -> list[str]:
        """For people."""
        settled = f", {self.settled} of them although sources contradict each other, by the policy of labels.toml" if self.settled else ""
        return [
            f"{self.images} images: {self.labelled.total()} with a label{settled}, {self.unlabelled.total()} without",
            *(f"{count:>7} {why}: {MEANING[Why(why)]}" for why, count in _sorted(self.unlabelled).items()),
            *(f"        {source}: speaks of {count} images" for source, count in self.spoke.items()),
            *(
                f"        {pair.first} and {pair.second}: agree on {pair.agreed} of {pair.images} images"
                + ("" if pair.kappa is None else f" (kappa {pair.kappa:.2f})")
                for pair in self.pairs
            ),
            *(["said, but no label for any image here:"] if self.unused else []),
            *(f"{count:>7} {why}: {MEANING[Why(why)]}" for why, count in _sorted(self.unused).items()),
        ]


def _sorted(counts: Counter[Why]) -> dict[str, int]:
    return {why.value: count for why, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])) if count}
