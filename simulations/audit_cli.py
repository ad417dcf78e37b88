# SPDX-License-Identifier: Apache-2.0
"""`fedward audit`: attack training itself, to see whether its promise holds. Nobody's data are needed: the patients are made."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from common.durable import write_atomically
from common.plan import Plan, digest_of
from simulations import evidence_cli, scenario
from simulations.apps import CLIENT_APP
from simulations.audits.findings import USUAL_CANARIES, Audit, Kind, Report, in_words, verdict
from simulations.cli import cores, default_cache

if TYPE_CHECKING:
    from simulations.audits.privacy import Progress

audit = typer.Typer(
    no_args_is_help=True,
    help="Find out whether it was so. privacy: attack training itself, to see whether its promise holds. export, verify: what a run's "
    "parties wrote down, and whether it adds up.",
)
audit.command()(evidence_cli.export)
audit.command()(evidence_cli.verify)


@audit.callback()
def _group() -> None:
    """Attack training itself, or check what a run's parties wrote down."""


@audit.command()
def privacy(
    plan_name: Annotated[
        str, typer.Argument(metavar="[PLAN]", help="A plan file, or the name of one that ships with fedward (default: that of `simulate`).")
    ] = scenario.DEFAULT_PLAN,
    canaries: Annotated[
        int, typer.Option(min=10, max=1_000_000, help="Canary patients, each put in by a fair coin. More can show more.")
    ] = USUAL_CANARIES,
    kind: Annotated[
        Kind,
        typer.Option(
            help="gradient: every step is watched. slices: the same, 50 slices a patient. mislabelled: only the model is seen. network: a "
            "whole federation trains the plan's own network, and its sums are watched."
        ),
    ] = "gradient",
    patients: Annotated[
        int | None, typer.Option(min=8, help="Patients a site (default: minimum_patients, or four times the plan's batch).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the coins; never of the noise.")] = 0,
    controls: Annotated[bool, typer.Option(help="Also break training in ways that have to be caught.")] = True,
    through_network: Annotated[
        bool, typer.Option("--network/--no-network", help="With another kind: also watch the plan's own network, where its data are made.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Also write the result to this JSON file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """State what an observer of training can prove of its epsilon, beside what the plan claims.

    Exit code 1 if the bound is above the claim, if a control was not caught, or if sound training was accused.
    """
    import torch

    from simulations.audits import privacy as audits  # brings torch
    from simulations.show import Show

    torch.set_num_threads(1)  # pictures are small: a second thread would only wait
    asked = scenario.load(scenario.find(plan_name))
    plan = asked.plan
    how = Audit(canaries=canaries, kind=kind, patients=patients or audits.usual_patients(plan), seed=seed)
    with Show(Console(stderr=True, quiet=as_json)) as show:
        if kind == "network":
            report = _watched(asked, how, controls, show.step)
        else:
            report = audits.audit(plan, how, with_controls=controls, progress=show.step)
            if through_network and audits.can_be_watched(asked):
                report = replace(report, network=_watched(asked, how, False, show.step).plan)
    result = {"name": plan.name, "digest": digest_of(plan), **report.as_dict()}
    if out is not None:
        write_atomically(out, json.dumps(result, indent=1).encode(), fsync=False)
    if as_json:
        sys.stdout.write(json.dumps(result, indent=1) + "\n")
    else:
        _print(plan, report)
    if not report.passes:
        raise typer.Exit(1)


def _watched(asked: scenario.Scenario, how: Audit, controls: bool, progress: "Progress") -> Report:
    from simulations.audits.network import Studio
    from simulations.audits.privacy import audit_network
    from simulations.engine.nursery import Nursery

    with Nursery(CLIENT_APP) as nursery:
        studio = Studio(cache=default_cache(), workers=cores(), nursery=nursery)
        return audit_network(asked, how, studio, with_controls=controls, progress=progress)


def _print(plan: Plan, report: Report) -> None:
    asked = report.asked
    table = Table(title=f"{asked.canaries} {asked.kind} canaries, {asked.patients} patients a site", title_justify="left")
    for heading in ("training", "epsilon claimed", "at least (95 %)", "guessed right", "verdict"):
        table.add_column(heading, justify="left" if heading in ("training", "verdict") else "right")
    for trial in report.trials:
        tally = trial.bound.tally
        right, style = f"{tally.correct} of {tally.guesses}", None if trial.is_as_expected else "bold red"
        table.add_row(trial.name, f"{trial.claimed:g}", f"{trial.bound.epsilon:.2f}", right, verdict(trial), style=style)
    console = Console(highlight=False)
    console.print(table)
    for sentence in in_words(plan, report):
        console.print(sentence, markup=False)
