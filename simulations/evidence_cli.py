# SPDX-License-Identifier: Apache-2.0
"""`fedward audit export` and `fedward audit verify`: what a party gives to an auditor, and what an auditor makes of it.

The verifier stands where both rooms can be seen, because it has to know the coordinator's arithmetic and a hospital's ledger; it trusts
neither. It needs no key, no network and nobody's permission.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from common.audit.findings import MEANING
from common.audit.verify import Report, RoundVerdict
from common.errors import DataNotFound, RosterNotFound, RunFolderTaken
from common.fingerprint import Fingerprint
from common.roster import Roots, parse_roots

_KINDS: Final = {"UPDATE": "training", "STAT": "statistic", "EVAL": "evaluation"}
_LEGEND: Final = """\
shown: logs = all logs here tell the same; replies = the sites' own signatures say who was in it, and that they opened no more;
sum = the masked updates give it; model = the sum makes it of the model before, bit for bit."""
_AS_JSON = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]


def export(
    folder: Annotated[Path, typer.Argument(help="A site's home, a coordinator's folder, or the folder of a simulation (all its parties).")],
    out: Annotated[Path, typer.Option(help="The bundle: FILE.zip, or a folder to make. For a simulation, a folder of bundles.")],
    with_ledger: Annotated[bool, typer.Option(help="A site's privacy ledger too: what all its plans have spent.")] = False,
    with_vectors: Annotated[bool, typer.Option(help="The masked updates too, if the run kept them.")] = False,
    as_json: _AS_JSON = False,
) -> None:
    """Make an audit bundle: a party's log and what belongs to it, signed. Nothing in it names a patient, or counts any.

    A bundle goes to whoever is to check the run (fedward audit verify). What it tells them is in docs/evidence.md.
    """
    made = [*_export(folder, out, with_ledger=with_ledger, with_vectors=with_vectors)]
    if as_json:
        sys.stdout.write(json.dumps({"bundles": [{"party": name, "path": str(path)} for name, path in made]}, indent=1) + "\n")
        return
    for name, path in made:
        Console(highlight=False, soft_wrap=True).print(f"{name}: {path}", markup=False)


def verify(
    bundles: Annotated[list[Path], typer.Argument(help="Bundles of as many parties as you have: .zip files or folders.")],
    roots: Annotated[
        Path | None, typer.Option(help="The consortium's root keys, from somebody you trust (default: those in the bundles).")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="The folder of the model that was given out (model.safetensors, model.json).")] = None,
    as_json: _AS_JSON = False,
) -> None:
    """Reconstruct a run from its parties' audit bundles, and say what contradicts what.

    Every log whole and signed; every round's cohort, survivors and masked updates the same in all logs; every log as its peers saw it; what
    was released paid for before; and, where the coordinator kept the masked updates, sums and models computed again, bit for bit.

    Exit code 1 on any finding. The more bundles, the more is checked; what could not be is said.
    """
    from common.audit.verify import verify as verify_bundles
    from server.recompute import arithmetic  # brings torch
    from simulations.paid import check_ledgers

    for path in bundles:
        if not path.exists():
            raise DataNotFound(f"there is no '{path}'.", fix="Give the bundles that `fedward audit export` made.")
    report = verify_bundles(bundles, arithmetic(), roots=_roots(roots), published=_digest_of(model), beside=check_ledgers)
    if as_json:
        sys.stdout.write(json.dumps(as_facts(report), indent=1) + "\n")
    else:
        _print(report, trusted=roots is not None)
    if not report.is_clean:
        raise typer.Exit(1)


def as_facts(report: Report) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "clean": report.is_clean,
        "session": report.session,
        "plan": report.plan,
        "roots": sorted(key.hex() for key in report.roots.keys) if report.roots else [],
        "parties": [{"name": each.name, "role": each.role, "lines": each.lines, "findings": each.findings} for each in report.parties],
        "rounds": [
            {
                "round": each.at.round,
                "kind": each.at.kind,
                "attempt": each.at.attempt,
                "group": each.group,
                "invited": each.invited,
                "survivors": list(each.survivors),
                "shown": list(each.shown),
                "findings": each.findings,
            }
            for each in report.rounds
        ],
        "findings": [each.as_dict() for each in report.findings],
        "unchecked": list(report.unchecked),
    }


def _export(folder: Path, out: Path, *, with_ledger: bool, with_vectors: bool) -> Iterator[tuple[str, Path]]:
    from client import bundle as client_bundle
    from client.home import SITE_FILE
    from server import bundle as server_bundle
    from server.home import COORDINATOR_FILE, CoordinatorHome
    from simulations.stage import STAGE_FILE, find_stage

    if (folder / SITE_FILE).is_file():
        yield client_bundle.export(folder, out, with_ledger=with_ledger).name, out
    elif (folder / COORDINATOR_FILE).is_file():
        home = CoordinatorHome.open(folder)
        folders = server_bundle.Folders(run=home.run, key=home.folder, roster=home.roster_folder)
        yield server_bundle.export(folders, out, with_vectors=with_vectors).name, out
    elif (folder / STAGE_FILE).is_file():
        stage = find_stage(folder)
        if out.exists():
            raise RunFolderTaken(f"'{out}' exists already.", fix="Choose another --out; bundles are not overwritten.")
        out.mkdir(parents=True)
        for site in stage.sites:
            yield client_bundle.export(stage.home(site), out / f"{site}.zip", with_ledger=with_ledger).name, out / f"{site}.zip"
        folders = server_bundle.Folders(run=folder, key=stage.coordinator, roster=stage.coordinator)
        path = out / "coordinator.zip"
        yield server_bundle.export(folders, path, with_vectors=with_vectors).name, path
    else:
        raise DataNotFound(
            f"'{folder}' is neither a site's home, nor a coordinator's folder, nor a simulation's.",
            fix=f"Give the folder that holds {SITE_FILE}, {COORDINATOR_FILE} or {STAGE_FILE}.",
        )


def _roots(path: Path | None) -> Roots | None:
    if path is None:
        return None
    try:
        return parse_roots(path.read_bytes())
    except OSError as error:
        raise RosterNotFound(f"'{path}' cannot be read: {error.strerror}.", fix="Give the consortium's file `roots`.") from error


def _digest_of(model: Path | None) -> str | None:
    from simulations.evaluation import load_model

    return None if model is None else load_model(model)[0].digest.hex()


def _print(report: Report, *, trusted: bool) -> None:
    console = Console(highlight=False, soft_wrap=True)
    session, plan = report.session or "none", report.plan or "unknown"
    console.print(f"session {session[:16]}   plan {plan[:16]}", markup=False)
    if report.roots and not trusted:
        words = ", ".join(Fingerprint.of(key).words for key in sorted(report.roots.keys))
        console.print(f"root keys, as the bundles have them: {words}\n  Compare the words by telephone, or give --roots.", markup=False)
    console.print(_party_table(report))
    console.print(_round_table(report.rounds))
    console.print(_LEGEND, style="dim", markup=False)
    _print_findings(console, report)
    if report.unchecked:
        console.print("\nNot looked at:")
        for each in report.unchecked:
            console.print(f"  {each}", markup=False)


def _party_table(report: Report) -> Table:
    table = Table(box=None, pad_edge=False, title="\nparties", title_justify="left")
    for name in ("party", "lines of log", "verdict"):
        table.add_column(name, justify="right" if name == "lines of log" else "left")
    for each in report.parties:
        verdict = f"[bold red]{each.findings} findings[/]" if each.findings else "agrees with all others"
        table.add_row(each.name, str(each.lines), verdict)
    return table


def _round_table(rounds: Sequence[RoundVerdict]) -> Table:
    """A row for each run of rounds that came out alike: a page, however long the run was."""
    table = Table(box=None, pad_edge=False, title="\nrounds", title_justify="left")
    for name in ("rounds", "of", "in the sum", "shown", "verdict"):
        table.add_column(name, no_wrap=name != "shown")
    for alike, members in groupby(sorted(rounds, key=lambda each: list(_KINDS).index(each.at.kind)), key=_alike):
        each = list(members)
        kind, attempt, invited, survivors, shown, wrong = alike
        first, last = each[0].at.round, each[-1].at.round
        what = _KINDS[kind] + (f", attempt {attempt + 1}" if attempt else "")
        verdict = "[bold red]contradicted[/]" if wrong else "holds" if survivors else "no sum"
        numbers = str(first) if first == last else f"{first} to {last}"
        table.add_row(numbers, what, f"{survivors} of {invited}", ", ".join(shown), verdict)
    return table


def _alike(each: RoundVerdict) -> tuple[str, int, int, int, tuple[str, ...], bool]:
    return each.at.kind, each.at.attempt, each.invited, len(each.survivors), each.shown, each.findings > 0


def _print_findings(console: Console, report: Report) -> None:
    if report.is_clean:
        console.print("\nNothing contradicts anything else.", style="green")
        return
    console.print(f"\n{len(report.findings)} findings", style="bold red")
    for code in sorted({each.code for each in report.findings}):
        console.print(f"{code}  {MEANING[code]}", style="bold", markup=False)
        alike = [each for each in report.findings if each.code == code]
        for each in alike[:10]:
            where = f" (line {each.line} of the log of '{each.party}')" if each.line else ""
            console.print(f"  {each.text}{where}", markup=False)
        if len(alike) > 10:
            console.print(f"  and {len(alike) - 10} more; --json lists all")
