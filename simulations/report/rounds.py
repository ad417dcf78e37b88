# SPDX-License-Identifier: Apache-2.0
"""What happened in the rounds, and what was spent: who took part, who was absent when and why, what each site's ledger adds up to.

All of it is counting, except `patient_cost`: what a promise that was made for one image leaves for a patient who has several.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from common.privacy import group_privacy
from simulations.report.folder import Absence, Round, RunFolder, Sums


@dataclass(frozen=True, slots=True, kw_only=True)
class Participation:
    """Who answered and who was absent, as (row of the site, round)."""

    sites: tuple[str, ...]
    rounds: int
    answered: tuple[tuple[int, int], ...]
    absent: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """One site, one reason, the rounds in which it did not answer to the end for it."""

    site: str
    why: str
    rounds: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientCost:
    """What an (epsilon, delta) per image leaves for a patient of `images` images, by the general rule for groups."""

    images: int
    epsilon: float
    delta: float

    @property
    def is_empty(self) -> bool:
        """Whether the bound allows everything."""
        return self.delta >= 1


def participation(folder: RunFolder) -> Participation:
    """The grid of sites and rounds, in the order of run.json; sites it does not name follow."""
    named = [site.site for site in folder.run.sites]
    seen = {site for line in folder.rounds for site in (*line.sites, *(absence.site for absence in line.missing))}
    sites = (*named, *sorted(seen - set(named)))
    row = {site: index for index, site in enumerate(sites)}
    return Participation(
        sites=sites,
        rounds=max((line.number for line in folder.rounds), default=0),
        answered=tuple((row[site], line.number) for line in folder.rounds for site in line.sites),
        absent=tuple((row[absence.site], line.number) for line in folder.rounds for absence in line.missing),
    )


def missed(rounds: Sequence[Round]) -> list[Missed]:
    """Absences by site and reason."""
    return _by_site_and_reason((absence, line.number) for line in rounds for absence in line.missing)


def fell(rounds: Sequence[Round]) -> list[Missed]:
    """The same, of sites that fell after their update was in."""
    return _by_site_and_reason((absence, line.number) for line in rounds for absence in line.fallen)


def _by_site_and_reason(absences: Iterable[tuple[Absence, int]]) -> list[Missed]:
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for absence, number in absences:
        found[absence.site, absence.why].append(number)
    return [Missed(site=site, why=why, rounds=tuple(numbers)) for (site, why), numbers in sorted(found.items())]


def spent_by(folder: RunFolder, site: str) -> Sums | None:
    """The sums after the last charge in a site's ledger."""
    return max((entry.after for entry in folder.ledgers.get(site, ())), key=lambda after: after.outside, default=None)


def spent(folder: RunFolder) -> float | None:
    """Epsilon of the site that spent most: by the ledgers, and where there are none by the rounds."""
    by_site = [after.outside for site in folder.ledgers if (after := spent_by(folder, site)) is not None]
    return max(by_site or [line.epsilon for line in folder.rounds if line.epsilon is not None], default=None)


def retrained(folder: RunFolder) -> list[int]:
    """Rounds that some site paid for more than once, because what it had trained was lost."""
    charged = (Counter(entry.round for entry in entries if entry.kind == "RESERVE") for entries in folder.ledgers.values())
    return sorted({number for rounds in charged for number, times in rounds.items() if times > 1})


def patient_cost(epsilon: float, delta: float, *, images: int) -> PatientCost:
    """What `common.privacy.group_privacy` says of a patient of that many images."""
    for_all, chance = group_privacy(epsilon, delta, images)
    return PatientCost(images=images, epsilon=for_all, delta=chance)
