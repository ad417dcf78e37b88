# SPDX-License-Identifier: Apache-2.0
"""Who was asked and did not answer to the end, and why: as the journal spells it."""

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Absence:
    """A site that was asked and did not answer to the end, and why (a code)."""

    site: str
    why: str


def spell(absences: tuple[Absence, ...]) -> str:
    """JSON: pairs of site and code."""
    return json.dumps([[absence.site, absence.why] for absence in absences])


def parse(text: str) -> tuple[Absence, ...]:
    """The other way round."""
    return tuple(Absence(site=site, why=why) for site, why in json.loads(text))
