# SPDX-License-Identifier: Apache-2.0
"""How a site's commands answer: words and tables for people on standard output, or with `--json` one object and nothing else."""

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from client.ledger.summary import Sum, Summary
from common.privacy.entries import Caps


def tell(found: Mapping[str, Any], *told: str | Table, as_json: bool) -> None:
    """`found` as JSON, or what is told of it."""
    if as_json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return
    console = Console(highlight=False, soft_wrap=True)
    for part in told:
        console.print(part, markup=isinstance(part, Table))


def spending(found: Summary) -> Table:
    """A line for each plan, and one for all plans of each unit."""
    table = Table(box=None, pad_edge=False)
    for name in ("plan", "releases"):
        table.add_column(name, no_wrap=True)
    for name in ("outside", "(PLD)", "own share", "(PLD)", "allowed", "delta"):
        table.add_column(name, justify="right", no_wrap=True)
    for plan in found.plans:
        releases = ", ".join(f"{count} {kind}" for kind, count in plan.releases.items())
        allowed = min(plan.promised, found.caps.eps_plan)
        table.add_row(plan.name, releases, *_sums(plan.outside, plan.own_share), _epsilon(allowed), f"{plan.delta:g}")
    for total in found.totals:
        name = f"[bold]all, per {total.unit}[/]"
        table.add_row(name, "", *_sums(total.outside, total.own_share), _epsilon(found.caps.eps_total), f"{found.caps.delta:g}")
    return table


def tighter_in_line(found: Summary) -> list[str]:
    """Of which plans the tighter figure is no bound; nothing, if of none."""
    unfinished = [plan.name for plan in found.plans if not plan.is_whole]
    return (
        [f"(PLD) is a bound once all rounds of a plan are over; not yet, or they ended early: {', '.join(unfinished)}"]
        if unfinished
        else []
    )


def caps_as_json(caps: Caps) -> dict[str, float | str]:
    """No limit is the word "inf"."""
    return {name: "inf" if value == math.inf else value for name, value in asdict(caps).items()}


def caps_in_line(caps: Caps) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in asdict(caps).items())


def _sums(*sums: Sum) -> list[str]:
    return [_epsilon(value) for each in sums for value in (each.gate, each.pld)]


def _epsilon(value: float) -> str:
    return "inf" if math.isinf(value) else f"{value:.3f}"
