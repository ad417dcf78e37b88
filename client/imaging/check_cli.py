# SPDX-License-Identifier: Apache-2.0
"""`fedward site check-data`: what of a folder a plan would use, and why not the rest, before anyone approves or trains."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from client import policy
from client.telling import tell
from common.plan import load

if TYPE_CHECKING:
    from client.imaging.readers import Progress as Step
    from client.imaging.rows import Inventory


def check_data(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder of images: DICOM, or pictures with an index.csv.")],
    plan: Annotated[Path, typer.Option(help="The plan that the images are meant for.")],
    labels: Annotated[Path | None, typer.Option(help="The labels, if they are not labels.csv in the folder.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write one row for each file there: CSV, or JSON if it ends in .json. For this site alone (0600).")
    ] = None,
    home: Annotated[Path | None, typer.Option("--home", "-H", envvar="FEDWARD_SITE", help="The site's home, for the policy in it.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Reader processes; one for each core, unless said.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Account for every file of a folder: used or rejected, each rejection with a reason. Changes nothing, sends nothing.

    Standard output has counts only, so it may be shown to others. Names of files stand in the --report alone, with the shape and the
    SHA-256 of what was decoded. The exit status is 1 if not one file can be used.
    """
    from client.imaging import inventory, inventory_file  # brings the DICOM reader
    from client.imaging.intake import limits_of

    rules = policy.load_or_default(home)
    with progress_bar() as step:
        taken = inventory.take(
            folder,
            load(plan),
            labels_file=labels,
            accept_burned_in=rules.images.burned_in == "accept",
            limits=limits_of(rules.images),
            workers=workers,
            progress=step,
        )
    if report is not None:
        inventory_file.write(taken, report)
    found = {**taken.report.as_dict(), **asdict(taken.findings), "has_labels": taken.has_labels}
    tell(found, *_lines(taken, report), as_json=as_json)
    raise typer.Exit(0 if taken.report.used else 1)


def _lines(taken: "Inventory", report: Path | None) -> list[str]:
    found = taken.findings
    lines = [*taken.report.lines(), f"{found.images} images of {found.patients} patients in {found.series} series would be used"]
    if found.under_two_issuers:
        lines.append(
            f"{found.under_two_issuers} patients share their PatientID with a patient of another issuer, and count as different people. "
            "If they are not, set IssuerOfPatientID (0010,0021) alike."
        )
    if found.series_with_gaps:
        lines.append(f"{found.series_with_gaps} series have gaps: {found.missing_slices} slices are missing between others")
    if found.duplicate_slices:
        lines.append(f"{found.duplicate_slices} slices lie where another one of their series does")
    if not taken.has_labels:
        lines.append("No labels were found: every file was examined as if it had one.")
    if report is not None:
        lines.append(f"wrote '{report}': it names files, so it stays here")
    return lines


@contextmanager
def progress_bar() -> Iterator["Step | None"]:
    """A bar on standard error, where a person looks."""
    if not sys.stderr.isatty():
        yield None
        return
    columns: tuple[Any, ...] = (TextColumn("examining files"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("")
        yield lambda done, total: bar.update(task, completed=done, total=total)
