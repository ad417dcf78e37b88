# SPDX-License-Identifier: Apache-2.0
"""Everything that was ever charged to a site's patients, counted, and what it adds up to.

Equal charges are one number, so a hundred thousand rounds are as quick to add up as one: Rényi divergences of all of them are a sum over
the few distinct ones. A plan's cost is for its unit, and a cost for each record says something else than one for each patient. All plans
together count both: what was charged for a patient covers each image, and what was charged for an image covers a patient who has one. A
patient of m images has about m times as much from the plans of records.

    >>> from common.privacy.events import Event
    >>> tally, charge = Tally(), Charge.local(Event(sampling_rate=0.01, noise_multiplier=1.0, steps=100))
    >>> tally.add(Tallied(unit="patient", plan="a" * 64, charge=charge, times=10))
    >>> round(tally.epsilon(View(unit="patient"), 1e-5), 2)
    2.1
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from common.privacy.accountant import epsilon, epsilon_pld
from common.privacy.entries import Tallied
from common.privacy.events import Charge, Event


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Which part of a tally: of one plan, or of all, whose units are then added up; from outside, or for more colluders than assumed."""

    unit: str
    plan: str | None = None
    own_share: bool = False


@dataclass(slots=True)
class Tally:
    """Charges by unit, plan and kind, with how often each was made. It only grows."""

    _times: Counter[Tallied] = field(default_factory=Counter)

    def add(self, charged: Tallied) -> None:
        self._times[replace(charged, times=1)] += charged.times

    def items(self) -> tuple[Tallied, ...]:
        """In the order of their first charge."""
        return tuple(replace(kind, times=times) for kind, times in self._times.items())

    def beyond(self, other: "Tally") -> tuple[Tallied, ...]:
        """What is here and not in the other."""
        return tuple(replace(kind, times=times) for kind, times in (self._times - other._times).items())

    def plans(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(kind.plan for kind in self._times))

    def units(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(kind.unit for kind in self._times))

    def times(self, kind: Tallied) -> int:
        """How often just this was charged."""
        return self._times[replace(kind, times=1)]

    def epsilon(self, view: View, delta: float, *, plus: Charge | None = None) -> float:
        """By Rényi differential privacy, which is what decides: it holds when later charges depend on earlier ones."""
        return epsilon(self.events(view, plus=plus), delta)

    def epsilon_pld(self, view: View, delta: float) -> float:
        """By privacy loss distributions: smaller, for showing. Takes tenths of a second."""
        return epsilon_pld(self.events(view), delta)

    def events(self, view: View, *, plus: Charge | None = None) -> Iterator[Event]:
        """What an accountant adds up; with one more charge, if there is one."""
        for kind, times in self._times.items():
            if view.plan is None or (kind.plan, kind.unit) == (view.plan, view.unit):
                event = _seen(kind.charge, view)
                yield replace(event, steps=event.steps * times)
        if plus is not None:
            yield _seen(plus, view)


def tally_of(charges: Iterable[Tallied]) -> Tally:
    tally = Tally()
    for charged in charges:
        tally.add(charged)
    return tally


def _seen(charge: Charge, view: View) -> Event:
    return charge.own_share if view.own_share else charge.outside
