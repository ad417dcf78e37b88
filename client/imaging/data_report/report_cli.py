# SPDX-License-Identifier: Apache-2.0
"""`fedward site data-report`: one page about a folder of images, for the site alone, before anyone approves or trains."""

from pathlib import Path
from typing import Annotated

import typer

from client import policy
from client.imaging.check_cli import progress_bar
from client.telling import tell
from common.errors import DiskFull
from common.plan import load


def data_report(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder of images: DICOM, or pictures with an index.csv.")],
    plan: Annotated[Path, typer.Option(help="The plan that the images are meant for.")],
    out: Annotated[Path, typer.Option(help="The HTML file to write, for its owner alone (0600).")],
    labels: Annotated[Path | None, typer.Option(help="The labels, if not labels.toml or labels.csv in the folder.")] = None,
    home: Annotated[Path | None, typer.Option("--home", "-H", envvar="FEDWARD_SITE", help="The site's home, for the policy in it.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Reader processes; one for each core, unless said.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what is in a folder of images: scanners, protocols, ages, labels, intensities, samples, and what a plan would reject.

    The page shows patients' images, so it stays at the site: put it where the images may be. It names nobody. Standard output has counts
    only. Changes nothing, sends nothing.
    """
    from client.imaging.data_report import facts, page, remarks  # brings the DICOM reader
    from client.imaging.intake import limits_of

    rules = policy.load_or_default(home)
    if not out.parent.is_dir():
        raise DiskFull(f"'{out.parent}' is not a folder, so no report can be written there.", fix="Make it, or name another one.")
    with progress_bar() as step:
        found = facts.gather(
            facts.Wish(
                root=folder,
                plan=load(plan),
                labels=labels,
                beside=out.parent,
                accept_burned_in=rules.images.burned_in == "accept",
                limits=limits_of(rules.images),
                workers=workers,
                progress=step,
            )
        )
    page.write(found, out)
    noticed = remarks.of(found)
    alarms = sum(remark.weight == "alarm" for remark in noticed)
    used = sum(case.is_used for case in found.cases)
    tell(
        {"report": str(out), "images": len(found.cases), "used": used, "to_look_at": len(noticed), "before_training": alarms},
        f"wrote '{out}': {used} of {len(found.cases)} files would be used; things to look at: {len(noticed)}, before training: {alarms}",
        "It shows patients' images: it stays here.",
        as_json=as_json,
    )
