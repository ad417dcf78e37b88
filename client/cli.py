# SPDX-License-Identifier: Apache-2.0
"""`fedward site`: what a hospital does for itself, on its own machine, by nobody's leave.

init ..     how a site comes in, stays in, and goes (client/membership/enrol_cli.py)
check-data  what of a folder a plan would use, and why not the rest (client/imaging/check_cli.py)
data-report one page about a folder of images, for the site alone (client/imaging/data_report)
snapshot    approve the data set as it stands now
exclude     take out a patient who withdrew
policy      what this site allows
ledger      what was spent (client/ledger/cli.py)
doctor      whether this machine is ready (client/doctor/cli.py)
serve       the site process (client/process/serve_cli.py); status, where it stands
join        the mailbox (client/mailbox/join_cli.py)
import      images from the hospital's archive (client/pacs/import_cli.py)
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from client import exclusion, policy
from client import snapshot as snapshots
from client.account import Account
from client.doctor.cli import doctor
from client.home import PATIENT_KEY_FILE, PREPARED_FOLDER, read_site_file
from client.imaging import identity, manifest
from client.imaging.check_cli import check_data
from client.imaging.data_report.report_cli import data_report
from client.ledger.cli import HERE, AsJson, HomeOption
from client.ledger.cli import app as ledger
from client.mailbox.join_cli import join
from client.membership.enrol_cli import COMMANDS
from client.pacs.import_cli import import_
from client.policy import POLICY_FILE
from client.process.serve_cli import serve, show_status
from client.process.textfile import metrics
from client.telling import tell
from common.durable import write_atomically
from common.errors import DataNotFound, RunFolderTaken
from common.plan import load

app = typer.Typer(
    no_args_is_help=True,
    help="A hospital's own commands: which data may be trained on, who withdrew, what is allowed, what was spent.\n\n"
    "A site of a simulation is a home folder like any other; try the commands there:\n\n"
    "\b\n"
    "    fedward site ledger show --home runs/default/sites/hospital_00\n"
    "    fedward site exclude PATIENT --home runs/default/sites/hospital_00\n"
    "    fedward site snapshot --home runs/default/sites/hospital_00",
)
rules = typer.Typer(no_args_is_help=True, help="What this site allows, whatever a plan asks: policy.toml.")
app.add_typer(ledger, name="ledger")
app.add_typer(rules, name="policy")
app.command()(serve)
app.command("status")(show_status)
app.command()(join)
app.command("import")(import_)
app.command()(doctor)
app.command()(check_data)
app.command()(data_report)
app.command()(metrics)
for command_name, command in COMMANDS.items():
    app.command(command_name)(command)


@app.command()
def snapshot(
    plan: Annotated[Path | None, typer.Option(help="The plan to prepare for, where site.toml names a folder of images.")] = None,
    home: HomeOption = HERE,
    as_json: AsJson = False,
) -> None:
    """Approve the data set as it stands now: new images come in, corrected labels count, patients who withdrew are out.

    Training opens the approved snapshot and nothing else. With [data] root in site.toml the folder of images is read anew, for the plan
    given; otherwise what is prepared already is looked at again.
    """
    file = read_site_file(home)
    if file.data and file.data.root and plan is None:
        raise typer.BadParameter("site.toml names a folder of images; give --plan, which says how to prepare them.")
    account = Account(home, file)
    taken = snapshots.take(home, account, file.data, load(plan) if plan else None)
    tell(
        asdict(taken),
        f"{'approved' if taken.is_news else 'nothing has changed since'} snapshot {taken.digest[:16]} of data set '{account.dataset}'",
        f"  {taken.patients} patients with {taken.records} images; for training {taken.training_patients} with {taken.training_records}",
        f"  {taken.new} patients new, {taken.gone} gone, {taken.changed} changed; {taken.excluded} left out because they withdrew",
        *_files(taken.intake),
        as_json=as_json,
    )


def _files(intake: Mapping[str, Any] | None) -> list[str]:
    """One line for what became of the files, where they were read."""
    if intake is None:
        return []
    lost = ", ".join(f"{reason} {count}" for reason, count in intake["rejected"].items())
    return [
        f"  {intake['seen']} files seen: {intake['used']} used, {intake['seen'] - intake['used']} rejected{f' ({lost})' if lost else ''}"
    ]


@app.command()
def exclude(
    patient_ids: Annotated[list[str] | None, typer.Argument(metavar="[PATIENT_ID]...", help="As they stand in the images.")] = None,
    from_file: Annotated[
        typer.FileText | None, typer.Option(help="One id a line; - is standard input, which keeps ids out of the shell's history.")
    ] = None,
    issuer: Annotated[str, typer.Option(help="Issuer of Patient ID (0010,0021), where the images have one.")] = "",
    not_yet_here: Annotated[bool, typer.Option("--not-yet-here", help="Also patients of whom there are no images yet.")] = False,
    home: HomeOption = HERE,
    as_json: AsJson = False,
) -> None:
    """Take out patients who withdrew their consent, from the next snapshot on. The ledger gets a mark that names nobody.

    The id is keyed at once and stored nowhere. Models that were trained before keep what they learnt, within their promise.
    """
    ids = [each.strip() for each in (*(patient_ids or ()), *(from_file or ())) if each.strip()]
    if not ids:
        raise typer.BadParameter("no patient id was given.")
    if not (home / PATIENT_KEY_FILE).exists():
        raise DataNotFound(f"'{home / PATIENT_KEY_FILE}' is not there.", fix="Without the site's patient key no id can be recognised.")
    approved = manifest.read(home / PREPARED_FOLDER)
    secret = identity.load_or_create(home / PATIENT_KEY_FILE)
    keys = [exclusion.key_of(secret, approved.unit_source, issuer, each) for each in ids]
    opened = Account(home, read_site_file(home)).ledger()
    done = exclusion.exclude(opened, keys, approved, not_yet_here=not_yet_here)
    waiting = exclusion.pending(approved, opened.chain.excluded)
    alike = exclusion.staying(approved, [exclusion.key_of(secret, approved.unit_source, "", each) for each in ids], opened.chain.excluded)
    tell(
        {**asdict(done), "still_in_snapshot": waiting, **({"stay_without_issuer": alike} if issuer else {})},
        f"{done.new} patient(s) excluded, {done.before} had been before; {waiting} still in the approved snapshot",
        *(
            [f"{alike} of these ids stand in images without an issuer too, and those stay. The same people? Then again, without --issuer."]
            if issuer and alike
            else []
        ),
        *(["Next: fedward site snapshot"] if waiting else []),
        as_json=as_json,
    )


@rules.command()
def new(home: HomeOption = HERE, as_json: AsJson = False) -> None:
    """Write a policy.toml with the strict defaults, every key with its meaning, to be read and edited by hand."""
    path = home / POLICY_FILE
    if path.exists():
        raise RunFolderTaken(f"'{path}' exists already.", fix="Edit it; it is not overwritten.")
    write_atomically(path, policy.TEMPLATE.encode(), fsync=True)
    tell({"policy": str(path)}, f"wrote '{path}'; read it, then: fedward site policy check PLAN", as_json=as_json)


@rules.command()
def check(
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="A plan file.")], home: HomeOption = HERE, as_json: AsJson = False
) -> None:
    """Say whether this site's policy would allow a plan, and everything that is in its way. Changes nothing."""
    found = policy.objections(policy.load(home), load(plan), units=None)
    free = "nothing that the plan says is against the policy; its rounds are still held to the caps"
    tell({"ok": not found, "objections": found}, *(found or [free]), as_json=as_json)
    raise typer.Exit(1 if found else 0)
