# SPDX-License-Identifier: Apache-2.0
"""`fedward plan privacy`: arguments become a forecast, and a forecast becomes tables, a page, or one JSON object."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from simulations.planner import Outlook
    from simulations.planner.tables import Grid
    from simulations.scenario import Scenario

WIDE = 100
"""Columns of a terminal from which on a table of eleven has room to breathe."""
_STYLES = {"": None, "plan": "bold", "alarm": "red"}


def privacy(
    name: Annotated[str, typer.Argument(metavar="PLAN", help="A plan file, or the name of one that ships with fedward.")],
    patients: Annotated[
        str | None,
        typer.Option(
            help="Patients that each hospital trains on, those kept for validation left out: 800,1200,400. Default: the made data's."
        ),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Images of each patient, for plans whose promise counts images.")] = 1,
    measure: Annotated[
        bool, typer.Option("--sweep", help="Also train small made federations under the plan's noise, to see what it does. Minutes.")
    ] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes for --sweep (default: one a core).")] = None,
    out: Annotated[Path | None, typer.Option(help="Write a page with tables and plots, such as plan.html.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say beforehand what a plan will cost every hospital's patients, with shared and with local noise, and who has enough of them.

    The figures are those that the hospitals' ledgers will hold at the end. No data are opened.
    """
    from simulations import scenario
    from simulations.planner import Hospitals, outlook

    found = scenario.load(scenario.find(name))
    known = outlook(found.plan, Hospitals(patients=patients_of(patients, found), images_each=images))
    if measure:
        known = _measured(known, workers, quiet=as_json)
    if out is not None:
        from simulations.planner.page import write

        write(known, out)
    if as_json:
        from simulations.planner.record import as_dict

        sys.stdout.write(json.dumps(as_dict(known), indent=1) + "\n")
    else:
        _print(known)
        if out is not None:
            sys.stderr.write(f"page: {out}\n")


def _measured(known: "Outlook", workers: int | None, *, quiet: bool) -> "Outlook":
    from simulations.apps import CLIENT_APP
    from simulations.engine.nursery import Nursery

    with Nursery(CLIENT_APP) as nursery:
        import torch
        from rich.console import Console

        from simulations.cli import cores, default_cache
        from simulations.planner.sweep import sweep
        from simulations.show import Show
        from simulations.stage import Workshop

        torch.set_num_threads(1)
        with Show(Console(stderr=True, quiet=quiet)) as show:
            shop = Workshop(cache=default_cache(), workers=workers or cores(), progress=show.step)
            return replace(known, measured=sweep(known.forecast, shop, nursery))


def patients_of(asked: str | None, found: "Scenario") -> tuple[int, ...]:
    """Those that were typed, else those that the scenario's made hospitals train on. Raises: typer.BadParameter."""
    if asked is None:
        made = found.simulation.phantoms
        if made is None:
            raise typer.BadParameter("say how many patients each hospital trains on, such as 800,1200,400.", param_hint="--patients")
        from simulations.partition import number_kept

        given = made.patients_per_hospital - -(-made.patients_per_hospital // found.simulation.folds)
        judged = number_kept(given, found.simulation.validation) if found.plan.evaluation else 0
        return (given - judged,) * made.hospitals
    try:
        counts = tuple(int(part) for part in asked.split(","))
    except ValueError:
        counts = ()
    if not counts or min(counts) < 1:
        raise typer.BadParameter(f"'{asked}' is not a list of numbers such as 800,1200,400.", param_hint="--patients")
    return counts


def _print(known: "Outlook") -> None:
    from rich.console import Console

    from simulations.planner import tables, wording

    console = Console(highlight=False)

    def say(sentences: list[str], style: str = "") -> None:
        for sentence in sentences:
            console.print(sentence, style=style, markup=False)

    say(wording.promise(known.plan))
    say(wording.alarms(known.forecast), style="bold red")
    for grid in tables.of(known):
        console.print()
        console.print(table_of(grid, narrow=console.width < WIDE))
        console.print(grid.note, style="dim", markup=False)
    console.print()
    say(wording.advice(known))


def table_of(grid: "Grid", *, narrow: bool = False) -> "Table":
    """A grid for a terminal, on a narrow one with less air."""
    from rich import box
    from rich.table import Table

    table = Table(
        title=grid.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0 if narrow else 1)
    )
    for index, heading in enumerate(grid.headings):
        table.add_column(heading, justify="left" if index == 0 else "right", vertical="bottom")
    for row in grid.rows:
        table.add_row(*row.cells, style=_STYLES[row.kind])
    return table
