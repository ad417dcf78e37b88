# SPDX-License-Identifier: Apache-2.0
"""Small ledgers for tests: one site, a clock that stands, caps that can be chosen."""

from dataclasses import replace
from pathlib import Path

from client.ledger import Ledger, Limits, Occasion, Pen, Place
from client.ledger.gate import Cap
from common.privacy import Charge, Event
from common.privacy.entries import Caps, Entry
from common.secagg.keys import SigningKey

SIGNER = SigningKey(b"\x01" * 32)
OTHER = SigningKey(b"\x02" * 32)
NOON = 1_800_000_000
PLAN, OTHER_PLAN = "a" * 64, "b" * 64
EVENT = Event(sampling_rate=0.1, noise_multiplier=1.5, steps=5)
CHARGE = Charge.local(EVENT)
WIDE = Caps(eps_plan=1e6, eps_total=1e6, own_share_plan=1e6, own_share_total=1e6, delta=1e-5)


def place(folder: Path) -> Place:
    return Place(file=folder / "ledger.jsonl", head=folder / "apart" / "head")


def pen(signer: SigningKey = SIGNER) -> Pen:
    return Pen(signer=signer, clock=lambda: NOON, power_cut_safe=False)


def founded(folder: Path, caps: Caps = WIDE) -> Ledger:
    place(folder).head.parent.mkdir(parents=True)
    return Ledger.found(place(folder), pen(), site="north", namespace="north-patients", caps=caps)


def opened(folder: Path) -> Ledger:
    return Ledger(place(folder), pen())


def limits(epsilon: float, *, plan: str = PLAN, caps: Caps = WIDE, unit: str = "patient", delta: float = 1e-5) -> Limits:
    """The plan's own epsilon, and caps for all plans, as a site sets them."""
    site = "this site's policy allows"
    return Limits(
        plan=plan,
        unit=unit,
        delta=delta,
        delta_total=caps.delta,
        caps=(
            Cap(whose="the plan allows", whole=False, own_share=False, epsilon=epsilon),
            Cap(whose=site, whole=False, own_share=False, epsilon=caps.eps_plan),
            Cap(whose=site, whole=True, own_share=False, epsilon=caps.eps_total),
            Cap(whose=site, whole=False, own_share=True, epsilon=caps.own_share_plan),
            Cap(whose=site, whole=True, own_share=True, epsilon=caps.own_share_total),
        ),
    )


def occasion(number: int, *, plan: str = PLAN) -> Occasion:
    return Occasion(plan=plan, session="s", round=number, attempt=0, snapshot="c" * 64)


def reserve(ledger: Ledger, number: int, epsilon: float = 2.0, *, charge: Charge = CHARGE, bounds: Limits | None = None) -> Entry:
    bounds = bounds or limits(epsilon)
    return ledger.reserve(charge, occasion(number, plan=bounds.plan), bounds)


def spend_all(ledger: Ledger, *, bounds: Limits | None = None, charge: Charge = CHARGE) -> None:
    """Reserve until the ledger refuses, as it must before a thousand. Raises: BudgetExceeded."""
    for number in range(1000):
        reserve(ledger, number, bounds=bounds, charge=charge)
    raise AssertionError("the budget never bound")


def lines(folder: Path) -> list[bytes]:
    return place(folder).file.read_bytes().splitlines()


def newest_head(folder: Path) -> Path:
    return max((folder / "apart").iterdir())


def shared_noise(charge: Charge, colluders_see: float) -> Charge:
    """The same from outside, with less noise against more colluders."""
    return replace(charge, own_share=replace(charge.own_share, noise_multiplier=colluders_see))
