# SPDX-License-Identifier: Apache-2.0
"""`fedward rig`: a whole federation on this machine, as it is deployed, to look at and to break."""

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from common.errors import RunFolderTaken
from simulations.rig import toy
from simulations.rig.crew import end_leftovers
from simulations.rig.network import Namespaces, missing
from simulations.rig.places import Hospital, Places
from simulations.rig.proxy import Line
from simulations.rig.rig import Rig, Setting

app = typer.Typer(
    no_args_is_help=True,
    help="A whole federation on this machine: coordinator, nginx, mailboxes and site processes as they are deployed, with made-up "
    "patients.\n\n"
    "As root, each party is in a network namespace of its own, as a user of its own; otherwise all are on loopback.\n\n"
    "\b\n"
    "    fedward rig up --sites 3                   set up from nothing, train, show what runs where; Ctrl-C ends all\n"
    "    fedward rig up --rate 1000 --drop-every 60 over lines of 1 Mbit/s that are cut every minute\n"
    "    fedward rig cut h2                         from another terminal: partition one hospital; mend h2 joins it again\n"
    "    fedward rig down                           what is left of a rig whose `up` was killed",
)

FOLDER: Final = Path("runs/rig")
FolderOption = Annotated[Path, typer.Option("--dir", help="The rig's folder.")]
_LOOK_S: Final = 2.0


@app.command()
def up(
    sites: Annotated[int, typer.Option(min=3, max=30, help="Hospitals.")] = 7,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Rounds of the toy plan.")] = 5,
    rate: Annotated[float | None, typer.Option(min=1, help="Each hospital's line: kilobits a second, each way.")] = None,
    delay: Annotated[float, typer.Option(min=0, help="Seconds by which everything on it is late, each way.")] = 0.0,
    loss: Annotated[float, typer.Option(min=0, max=0.9, help="Part of its packets that is lost.")] = 0.0,
    drop_every: Annotated[
        float | None, typer.Option(min=1, help="Seconds after which all its connections are reset, again and again.")
    ] = None,
    stock: Annotated[
        list[int] | None, typer.Option(help="The number of a hospital with Flower's own SuperNode in its mailbox's place; may be repeated.")
    ] = None,
    loopback: Annotated[bool, typer.Option("--loopback", help="Without namespaces, even as root.")] = False,
    folder: FolderOption = FOLDER,
    fresh: Annotated[bool, typer.Option("--fresh", help="Remove an earlier rig's folder first.")] = False,
) -> None:
    """Set a federation up from nothing, by the commands that people type; train; show what runs where. Ctrl-C ends all of it.

    Every command is in DIR/logs/commands.log with what it printed, every process has its log there or in its hospital's logs/.
    """
    if folder.exists() and not fresh:
        raise RunFolderTaken(f"'{folder}' exists already.", fix="Look at it, then --fresh; or choose another --dir.")
    _clear(folder)
    why = "asked for" if loopback else missing()
    line = Line(rate_kbit=rate, delay_s=delay, loss=loss, drop_every_s=drop_every)
    plan = toy.plan_text(rounds=rounds, minimum_cohort=min(5, sites))
    setting = Setting(sites=sites, plan=plan, namespaces=not why, line=line, stock=frozenset(stock or ()))
    if why:
        typer.echo(f"on loopback, without namespaces: {why}")
    with Rig(folder, setting, tell=typer.echo) as rig:
        rig.begin()
        rig.enrol()
        rig.start()
        typer.echo("\n".join(_what_runs_where(rig)))
        _watch(rig)


@app.command()
def down(folder: FolderOption = FOLDER) -> None:
    """End whatever an earlier rig of this folder left running, and take its namespaces away. Files stay."""
    ended = _end(folder)
    typer.echo(f"{ended} processes ended; no namespace of this rig is left. Its files are in '{folder}'.")


@app.command()
def cut(hospital: Annotated[str, typer.Argument(help="h1, h2, ...")], folder: FolderOption = FOLDER) -> None:
    """Partition a hospital: nothing passes on its line, and nobody is told."""
    _set(folder, hospital, partition=True)
    typer.echo(f"{hospital} is cut off. Join it again: fedward rig mend {hospital}")


@app.command()
def mend(hospital: Annotated[str, typer.Argument(help="h1, h2, ...")], folder: FolderOption = FOLDER) -> None:
    """Join a partitioned hospital again."""
    _set(folder, hospital, partition=False)
    typer.echo(f"{hospital} is joined again.")


def _set(folder: Path, hospital: str, *, partition: bool) -> None:
    file = folder / hospital / "logs" / "line.json"
    if not file.exists():
        raise typer.BadParameter(f"'{folder}' has no running hospital '{hospital}'.")
    beside = file.with_suffix(".new")
    beside.write_text(json.dumps({**json.loads(file.read_text()), "partition": partition}))
    beside.replace(file)


def _end(folder: Path) -> int:
    places = Places(folder.resolve())
    ended = end_leftovers(places.state)
    if not missing():
        Namespaces(places.tag).down()
    return ended


def _clear(folder: Path) -> None:
    _end(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _what_runs_where(rig: Rig) -> list[str]:
    """A table for people."""
    rows = [("party", "process", "where", "reaches, and is reached")]
    host, port = rig.network.front()
    rows.append(("coordinator", _number(rig, "coordinator"), _where(rig, None), "SuperLink, on its own loopback alone"))
    rows.append(("nginx", _number(rig, "nginx"), _where(rig, None), f"listens at {host}:{port}, passes on /v1/fleet/"))
    for hospital in rig.hospitals:
        to = ":".join(map(str, rig.network.line(hospital)))
        kind, name = hospital.carrier.split()
        rows.append((f"{name} {kind}", _number(rig, hospital.carrier), _where(rig, hospital), f"{to} and its socket"))
        nothing = "its socket; it has no network" if rig.setting.namespaces else "its socket"
        rows.append(
            (f"{hospital.name} site", _number(rig, f"site {hospital.name}"), "no network" if rig.setting.namespaces else "-", nothing)
        )
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return ["", *("  ".join([*(word.ljust(width) for word, width in zip(row, widths, strict=False)), row[3]]) for row in rows), ""]


def _number(rig: Rig, name: str) -> str:
    return str(rig.crew.pid(name) or "-")


def _where(rig: Rig, hospital: Hospital | None) -> str:
    network = rig.network
    if not isinstance(network, Namespaces):
        return "loopback"
    return network.namespace(hospital) if hospital else network.coordinator


def _watch(rig: Rig) -> None:
    typer.echo(f"look at it from another terminal:  fedward server status --folder {rig.places.coordinator} --watch")
    typer.echo("Ctrl-C ends everything.\n")
    seen = 0
    try:
        while True:
            done = rig.committed()
            for each in done[seen:]:
                typer.echo(f"round {each.round} of {rig.plan.training.rounds}: {len(each.sites)} sites in the sum, {each.seconds:.1f} s")
            seen = len(done)
            if (code := rig.crew.ended("coordinator")) is not None:
                typer.echo("done." if code == 0 else f"the coordinator ended with {code}: see {rig.places.logs / 'coordinator.log'}")
                raise typer.Exit(code)
            time.sleep(_LOOK_S)
    except KeyboardInterrupt:
        sys.stderr.write("\nending all of it\n")
