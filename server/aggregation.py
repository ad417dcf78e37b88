# SPDX-License-Identifier: Apache-2.0
"""What a round needs from whoever adds the updates up, and what everybody may watch.

Three ways exist: `server.fsa1`, the only one that a deployed site answers; and for simulations, in `server.unmasked`, the same integer
sum without masks and a sum of floats.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from common.counting import Form
from common.update import AggregateDelta, Weights
from server.absences import Absence
from server.counts import CountedRound
from server.journal import CommittedRound

SILENT: Final = "E_SILENT"
FAILED: Final = "E_SITE_FAILED"
LEFT_OUT: Final = "E_LEFT_OUT"
"""Why a site is missing that was not asked: in an earlier attempt at this sum its shares, or its word about another's, did not hold."""
ATTEMPTS: Final = 2
"""How often a round is tried before the run stops by name."""


class Observer(Protocol):
    """Whoever wants to see the run: progress on a terminal, a live page, a hold-out evaluation in a simulation. Never asked for an opinion.

    Inherit from `Silent` and say what you want to hear. A `phase` is a step of secure aggregation ("KEYS", "SHARE", ...; "STAT KEYS" where
    something is counted). Several groups take a step side by side, so a phase may be opened and closed several times in a round.
    """

    def round_opened(self, number: int, cohort: list[str]) -> None: ...

    def phase_opened(self, number: int, phase: str, *, asked: Sequence[str]) -> None:
        """These sites are being asked. A step that the journal knows already is not opened again."""
        ...

    def site_heard(self, number: int, phase: str, site: str, *, code: str | None, bytes_up: int) -> None:
        """A site answered a step, in so many bytes of records; or refused or failed, and the code of why."""
        ...

    def site_answered(self, number: int, site: str, *, refused: bool) -> None:
        """A site has trained, or counted; or refused to."""
        ...

    def phase_closed(self, number: int, phase: str, *, answered: int, asked: int) -> None:
        """A step of secure aggregation is over and in the journal."""
        ...

    def waiting(self, number: int, why: str) -> None:
        """Round `number` does not go on for now, and why, for people. Called again while that lasts; any other event ends it."""
        ...

    def counted(self, done: CountedRound) -> None:
        """A statistic or an evaluation is in the journal, or the reason why there is none. Called again for all of them on resuming."""
        ...

    def round_committed(self, done: CommittedRound, weights: Weights) -> None:
        """Called again for the last committed round when a run is resumed: the crash may have come before the first call."""
        ...

    def chosen(self, number: int, *, trained: int) -> None:
        """Training is over after `trained` rounds, and the model of round `number` is given out."""
        ...


class Silent:
    """An observer that says nothing; what others are made of, so that a new event breaks nobody."""

    def round_opened(self, number: int, cohort: list[str]) -> None: ...

    def phase_opened(self, number: int, phase: str, *, asked: Sequence[str]) -> None: ...

    def site_heard(self, number: int, phase: str, site: str, *, code: str | None, bytes_up: int) -> None: ...

    def site_answered(self, number: int, site: str, *, refused: bool) -> None: ...

    def phase_closed(self, number: int, phase: str, *, answered: int, asked: int) -> None: ...

    def waiting(self, number: int, why: str) -> None: ...

    def counted(self, done: CountedRound) -> None: ...

    def round_committed(self, done: CommittedRound, weights: Weights) -> None: ...

    def chosen(self, number: int, *, trained: int) -> None: ...


class Given(Silent):
    """Remembers which model was given out, for its card: `number` is the round that made it, of `trained`."""

    def __init__(self) -> None:
        self.number = self.trained = 0

    def chosen(self, number: int, *, trained: int) -> None:
        self.number, self.trained = number, trained

    def as_facts(self) -> dict[str, int]:
        return {"rounds": self.trained, "model_of_round": self.number}


class Several:
    """Several observers as one; each hears everything, in order."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def round_opened(self, number: int, cohort: list[str]) -> None:
        for each in self._observers:
            each.round_opened(number, cohort)

    def phase_opened(self, number: int, phase: str, *, asked: Sequence[str]) -> None:
        for each in self._observers:
            each.phase_opened(number, phase, asked=asked)

    def site_heard(self, number: int, phase: str, site: str, *, code: str | None, bytes_up: int) -> None:
        for each in self._observers:
            each.site_heard(number, phase, site, code=code, bytes_up=bytes_up)

    def site_answered(self, number: int, site: str, *, refused: bool) -> None:
        for each in self._observers:
            each.site_answered(number, site, refused=refused)

    def phase_closed(self, number: int, phase: str, *, answered: int, asked: int) -> None:
        for each in self._observers:
            each.phase_closed(number, phase, answered=answered, asked=asked)

    def waiting(self, number: int, why: str) -> None:
        for each in self._observers:
            each.waiting(number, why)

    def counted(self, done: CountedRound) -> None:
        for each in self._observers:
            each.counted(done)

    def round_committed(self, done: CommittedRound, weights: Weights) -> None:
        for each in self._observers:
            each.round_committed(done, weights)

    def chosen(self, number: int, *, trained: int) -> None:
        for each in self._observers:
            each.chosen(number, trained=trained)


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """A round's mean delta, and what became of every site that was asked.

    `sites` are those whose updates are in it, `missing` those whose are not, and why. `fallen` are sites whose masked update was in before
    they fell silent or failed: their updates count, so they are among `sites` too.
    """

    aggregate: AggregateDelta
    attempt: int
    sites: tuple[str, ...]
    missing: tuple[Absence, ...]
    fallen: tuple[Absence, ...] = ()


class Aggregation(Protocol):
    """From a global model to the mean of what the cohort made of it; and from a form to its noised sum."""

    def collect(self, number: int, weights: Weights, asked: Sequence[str]) -> Collected:
        """Raises: RoundError, ProtocolError or UpdateError by name when the round fails; then nothing was aggregated."""
        ...

    def count(self, number: int, form: Form, weights: Weights, asked: Sequence[str]) -> CountedRound:
        """The noised sum of a form over the sites, or the reason why there is none. Raises: CohortTooSmall, if nobody need be asked."""
        ...

    def settle(self, number: int) -> None:
        """Round `number` is committed: what was kept for it may go."""
        ...


def absent(missing: Mapping[str, str]) -> tuple[Absence, ...]:
    """In the order of names."""
    return tuple(Absence(site=site, why=why) for site, why in sorted(missing.items()))


def reasons(missing: tuple[Absence, ...]) -> str:
    """Who, why; the first ten."""
    return ", ".join(f"{one.site}: {one.why}" for one in missing[:10]) or "no other site is connected"
