# SPDX-License-Identifier: Apache-2.0
"""`fedward server`: the coordinator's operator makes a folder, starts the run, looks at it, halts it, and takes the model out.

`start` is for machines too; its exit code says how the run ended.

    0  the last round is committed and the model is there       3  told to stop before that; a later start goes on
    1  refused by name: something has to be mended first        4  Flower cannot be kept up: its port, certificate, processes
    2  wrong usage                                              5  another coordinator runs on this folder
"""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any, Final

# Flower reads these once, when it is imported.
os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1")

import typer
from rich.console import Console

from common import keyfile
from common.credentials import KEY_FILE
from common.durable import write_atomically
from common.errors import DataNotFound, RunFolderTaken
from common.fingerprint import Fingerprint
from common.plan import digest_of, load
from server import bundle
from server.home import CARD_FILE, COORDINATOR_FILE, MODEL_FILE, NODES_FOLDER, PAUSE_FILE, STOP_FILE, TEMPLATE, CoordinatorHome, TlsSection
from server.live import show
from server.live.look import look
from server.process import tls
from server.process.start import LogFormat

app = typer.Typer(
    no_args_is_help=True,
    help="The coordinator's own commands: make its folder, run a plan to its last round, look at it, halt it, take the model out.\n\n"
    "A first session (the roster's part is in fedward roster --help):\n\n"
    "\b\n"
    "    fedward server init coordinator --plan plan.toml\n"
    "    fedward roster init consortium --coordinator coordinator/identity.pub\n"
    "    cp consortium/roster consortium/roots coordinator/    # once it is signed\n"
    "    fedward server start --folder coordinator\n"
    "    fedward server status --folder coordinator --watch\n"
    "    fedward server export --folder coordinator --out model\n\n"
    "start ends with code 0 when the last round is committed, 1 when something has to be mended first, 3 when it was told to stop, "
    "4 when Flower cannot be kept up, 5 when another coordinator has this folder. Whatever it ended with, a later start goes on.",
)

Folder = Annotated[Path, typer.Option("--folder", "-C", help="The coordinator's folder, made by init.")]
HERE: Final = Path("coordinator")
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The folder to make.")],
    plan: Annotated[Path, typer.Option(help="The plan to run; a copy of it goes into the folder.")],
    name: Annotated[
        list[str] | None, typer.Option(help="A host name or address by which sites reach this machine; repeat it for each.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="The coordinator's key, if fedward roster init made one. Default: make one.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65_535, help="The SuperLink's port, on loopback.")] = 8000,
    live_port: Annotated[int, typer.Option(min=0, max=65_535, help="The live page's port, on loopback; 0 for none.")] = 8800,
    as_json: AsJson = False,
) -> None:
    """Make a coordinator's folder: its settings with comments, its key, the plan, and a certificate for the SuperLink."""
    found = load(plan)
    if (folder / COORDINATOR_FILE).exists():
        raise RunFolderTaken(f"'{folder}' is a coordinator's folder already.", fix="Edit its coordinator.toml; nothing is overwritten.")
    given = keyfile.load(key, "coordinator") if key else None
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    public = (keyfile.create(folder / KEY_FILE, "coordinator", entropy=(lambda _: given.seed) if given else os.urandom)).public
    (folder / NODES_FOLDER).mkdir(exist_ok=True)
    if plan.resolve() != (folder / "plan.toml").resolve():
        shutil.copyfile(plan, folder / "plan.toml")
    opened = TEMPLATE.format(port=port, live_port=live_port)
    tls.create(_tls_place(folder), names=[tls.own_name(), *(name or ())], now=tls.now())
    write_atomically(folder / COORDINATOR_FILE, opened.encode(), fsync=True)
    words = Fingerprint.of(public)
    facts = {"folder": str(folder), "plan": digest_of(found), "key": public.hex(), "words": words.words, "hex": words.hex}
    _tell(
        facts,
        f"wrote '{folder / COORDINATOR_FILE}': look through it; every setting has a line that explains it",
        f"plan '{found.name}', {found.training.rounds} rounds, digest {digest_of(found)[:16]}",
        f"the coordinator's key: {words.words}",
        f"'{folder / 'tls' / 'ca.crt'}' is for mailboxes that connect without a proxy in between",
        f"Next: fedward roster init consortium --coordinator '{folder / 'identity.pub'}', and when it is signed put roster and roots into "
        f"'{folder}'. Then: fedward server start --folder '{folder}'",
        as_json=as_json,
    )


@app.command()
def start(
    folder: Folder = HERE,
    log_format: Annotated[LogFormat, typer.Option(help="How log lines are shown; the file run/log.jsonl is JSON.")] = LogFormat.text,
    as_json: AsJson = False,
) -> None:
    """Run the plan to its last round, whatever dies on the way.

    It goes on where the run folder stands. Ctrl-C, or SIGTERM, stops it and loses nothing: start it again. With --json all lines are JSON,
    and the last one says how it ended.
    """
    here = Path(__file__).parents[1] == Path.cwd()
    command = [sys.executable, *([] if here else ["-P"]), "-m", "server.process.start"]
    command += ["--folder", str(folder), "--log-format", log_format.value]
    os.execv(sys.executable, [*command, *(["--json"] if as_json else [])])  # noqa: S606 - ourselves, without what trains


@app.command()
def status(
    folder: Folder = HERE,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing it until the run is over, or Ctrl-C.")] = False,
    every_site: Annotated[bool, typer.Option("--all", help="Show all sites, however many.")] = False,
    as_json: AsJson = False,
) -> None:
    """Where the run stands: sites, phase, round, who is awaited and since when, rates, time left, and the programs that it needs."""
    run, console = CoordinatorHome.open(folder).run, Console(highlight=False)
    if as_json:
        _tell(show.as_facts(look(run)), as_json=True)
    elif watch:
        show.follow(run, console, all_sites=every_site)
    else:
        show.show(run, console, all_sites=every_site)


@app.command()
def pause(folder: Folder = HERE, as_json: AsJson = False) -> None:
    """Begin no further round until resume. The one that is open is finished; sites stay connected."""
    _flag(folder, PAUSE_FILE)
    _tell({"paused": True}, "no further round begins. To go on: fedward server resume", as_json=as_json)


@app.command()
def resume(folder: Folder = HERE, as_json: AsJson = False) -> None:
    """Go on after a pause."""
    was = (CoordinatorHome.open(folder).run / PAUSE_FILE).exists()
    (CoordinatorHome.open(folder).run / PAUSE_FILE).unlink(missing_ok=True)
    _tell({"paused": False, "was_paused": was}, "rounds go on" if was else "it was not paused", as_json=as_json)


@app.command()
def stop(folder: Folder = HERE, as_json: AsJson = False) -> None:
    """Ask sites nothing more, and end the coordinator. What they have answered so far is kept; a later start goes on from there."""
    _flag(folder, STOP_FILE)
    _tell({"stopping": True}, "it ends as soon as it looks. To go on later: fedward server start", as_json=as_json)


@app.command()
def export(
    folder: Folder = HERE,
    out: Annotated[Path, typer.Option(help="The folder to put it into.")] = Path("model"),
    with_vectors: Annotated[
        bool, typer.Option("--with-vectors", help="Also the masked updates, if the run kept them ([run] evidence): for computing it anew.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put the model, its card and the evidence of how it came about into a folder of their own.

    The evidence is audit.zip: with the bundles of the sites it is what `fedward audit verify` takes.
    """
    home = CoordinatorHome.open(folder)
    parts = [home.run / MODEL_FILE, home.run / CARD_FILE]
    for part in parts:
        if not part.is_file():
            raise DataNotFound(f"'{part}' is not there: the plan's last round is not committed.", fix="Look at: fedward server status.")
    out.mkdir(parents=True, exist_ok=True)
    audit = out / "audit.zip"
    bundle.export(bundle.Folders(run=home.run, key=home.folder, roster=home.roster_folder), audit, with_vectors=with_vectors)
    for part in parts:
        write_atomically(out / part.name, part.read_bytes(), fsync=True)
    names = [*(part.name for part in parts), audit.name]
    _tell({"out": str(out), "files": names}, f"wrote {', '.join(names)} to '{out}'", as_json=as_json)


def _tls_place(folder: Path) -> tls.Place:
    defaults = TlsSection()
    return tls.Place(ca=folder / defaults.ca, certificate=folder / defaults.certificate, key=folder / defaults.key)


def _flag(folder: Path, name: str) -> None:
    run = CoordinatorHome.open(folder).run
    run.mkdir(parents=True, exist_ok=True)
    write_atomically(run / name, b"", fsync=True)


def _tell(facts: dict[str, Any], *words: str, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(facts, indent=1) + "\n")
        return
    console = Console(highlight=False, soft_wrap=True)
    for line in words:
        console.print(line, markup=False)
