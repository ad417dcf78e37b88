# SPDX-License-Identifier: Apache-2.0
"""`fedward roster`: the consortium's custodian says who takes part, and the root keys say that it was the custodian.

The commands are the door: they read files and the clock, ask, and print. What a roster is stands in `common/roster.py`, where its files
lie in `server/membership/roster_folder.py`, what a key's file looks like in `common/keyfile.py`. Nothing here needs a network, so that the
machine with the root key need never have one.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from common import keyfile, roster
from common.errors import FedwardError, RosterNotFound
from common.fingerprint import Fingerprint
from common.keyfile import Role
from common.roster import Changes, Member, Roots, Roster
from server.membership import enrolling
from server.membership.roster_folder import Progress, RosterFolder, progress_of, read

_DAY_S: Final = 24 * 3600

_ASKS: Final = {
    "join": "join",
    "renew": "stay, under the key that it has",
    "rotate": "change its key; the old one consents",
    "recover": "change its key WITHOUT the old one's consent: it says that this was lost or stolen",
}

SESSION: Final = """\
fedward roster init consortium
fedward roster keygen north.key
fedward roster keygen south.key
fedward roster keygen west.key
fedward roster add north north.pub -C consortium
fedward roster add south south.pub -C consortium
fedward roster add west west.pub -C consortium
fedward roster sign consortium/root.key -C consortium
fedward roster check -C consortium
fedward roster revoke west -C consortium
fedward roster sign consortium/root.key -C consortium"""

app = typer.Typer(
    no_args_is_help=True,
    help="Who takes part: a signed list of sites and their public keys.\n\n"
    "Sites believe no coordinator about who else is in a round; they believe this file, signed by the consortium's offline root keys. "
    "Every edit makes a draft under a new epoch, signatures make the draft the roster, and a roster holds for thirty days.\n\n"
    "A first session, to be typed as it stands. At a real consortium every site makes its own key and sends a request, which holds no "
    "secret: fedward roster add north.request. See docs/enrolment.md.\n\n"
    "\b\n    " + SESSION.replace("\n", "\n    ") + "\n\n"
    "Two of three custodians: each makes a key (fedward roster keygen mine.key --role root), then fedward roster init consortium "
    "--root a.pub --root b.pub --root c.pub --needed 2, and each signs the same folder. "
    "To renew a roster before its thirty days are over: fedward roster sign KEY --renew.",
)

Folder = Annotated[Path, typer.Option("--folder", "-C", help="The consortium's folder, made by init.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Sign without asking, for scripts; read the changes before.")]


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The folder to make.")] = Path("consortium"),
    root: Annotated[
        list[str] | None, typer.Option(help="A custodian's public key, file or digits; repeat it for each. Default: make one.")
    ] = None,
    needed: Annotated[int, typer.Option(help="How many of the roots must sign.")] = 1,
    coordinator: Annotated[str | None, typer.Option(help="The coordinator's public key, file or digits. Default: make one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Begin a consortium: its root keys, its coordinator's key, and an empty draft of the roster."""
    place = RosterFolder(folder)
    place.check_free()
    given = [keyfile.public_key(key, "root") for key in root or ()]
    coordinating = keyfile.public_key(coordinator, "coordinator") if coordinator else None
    roster.render_roots(Roots(keys=frozenset(given or [bytes(32)]), needed=needed))  # refuse before a key is made
    place.make()
    roots = Roots(keys=frozenset(given) or frozenset({_make(folder / "root.key", "root")}), needed=needed)
    first = place.found(roots, coordinator=coordinating or _make(folder / "coordinator.key", "coordinator"), now=_now())
    if as_json:
        _print_json({"epoch": first.epoch, "roots": _names(roots.keys), "needed": roots.needed, "coordinator": _name(first.coordinator)})
        return
    _say(f"wrote '{place.roots_file}': {roots.needed} of these roots must sign", *(f"  {_words(key)}" for key in sorted(roots.keys)))
    _say(f"coordinator\n  {_words(first.coordinator)}")
    if not given:
        _say(f"'{folder / 'root.key'}' signs who takes part: move it to a medium that stays offline, never to the coordinator's machine.")
    if not coordinating:
        _say(f"'{folder / 'coordinator.key'}' goes to the coordinator's machine, and nowhere else.")
    _say(f"Next: fedward roster add SITE SITE.pub -C '{folder}'")


@app.command()
def keygen(
    path: Annotated[Path, typer.Argument(help="The file of the secret half; the public half gets the ending .pub.")],
    role: Annotated[Role, typer.Option(help="Whose key it is.")] = "site",
    as_json: AsJson = False,
) -> None:
    """Make a key, on the machine where it will stay. Prints its fingerprint, to be compared by telephone."""
    public = _make(path, role)
    if as_json:
        _print_json({"role": role, "file": str(keyfile.public_path(path)), **_name(public)})
        return
    _say(f"wrote '{path}' (secret, stays here) and '{keyfile.public_path(path)}' (to give away)")
    _say(f"fingerprint {_words(public)}", f"            {Fingerprint.of(public).hex}")


@app.command()
def add(
    site: Annotated[
        str, typer.Argument(help="A site's request (fedward site enrol). Or, with KEY, its name: lower-case letters, digits, .-_")
    ],
    key: Annotated[str | None, typer.Argument(help="Its public key: a .pub file, or 64 hexadecimal digits.")] = None,
    days: Annotated[int, typer.Option(min=1, max=3660, help="How long the entry holds. A request says so itself.")] = 365,
    weight: Annotated[int, typer.Option(min=1, max=roster.MAX_WEIGHT, help="How much its update counts: a public band.")] = 1,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the site's entry: a new key, or a renewal.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With a request: do not ask, for scripts.")] = False,
    folder: Folder = Path("consortium"),
    as_json: AsJson = False,
) -> None:
    """Put a site into the draft. Compare the printed words with the site by telephone before anybody signs.

    SITE is the file of its request, such as north.request: to join, to stay longer, or for a new key. With KEY it is the site's name.
    """
    now = _now()
    if key is None:
        _add_request(Path(site), RosterFolder(folder), now=now, yes=yes, as_json=as_json)
        return
    member = Member(site_id=site, public_key=keyfile.public_key(key, "site"), not_before=now, not_after=now + days * _DAY_S, weight=weight)
    draft = RosterFolder(folder).add(member, replace=replace, now=now)
    if as_json:
        _print_json({"epoch": draft.epoch, "site": site, "until": _day(member.not_after), **_name(member.public_key)})
        return
    _say(f"drafted epoch {draft.epoch} with '{site}' until {_day(member.not_after)}", f"fingerprint {_words(member.public_key)}")
    _say("Have the site read these words to you, on a number that you knew before. Then: fedward roster sign KEY")


def _add_request(file: Path, place: RosterFolder, *, now: int, yes: bool, as_json: bool) -> None:
    """A site's own request: its proof holds, or it is refused; whose it is, a person hears by telephone."""
    if as_json and not yes:
        raise typer.BadParameter("--json cannot ask; give --yes too, after comparing the words by telephone.")
    request = enrolling.read_request(file, now=now)
    enrolling.check(request, place.newest())
    if not as_json:
        _say(f"'{request.site}' asks to {_ASKS[request.kind]}, for {request.days} days from now, weight {request.weight}")
        _say(f"fingerprint {_words(request.key)}", f"            {Fingerprint.of(request.key).hex}")
        _say("Have the site read these words to you, on a number that you knew before the request came.")
    if not yes:
        typer.confirm("Did it read these words?", abort=True)
    done = enrolling.enrol(place, request, now=now)
    if as_json:
        node_key = str(done.node_key) if done.node_key else None
        found = {"epoch": done.draft.epoch, "site": request.site, "kind": request.kind, "until": _day(done.member.not_after)}
        _print_json({**found, "node_key": node_key, **_name(request.key)})
        return
    _say(f"drafted epoch {done.draft.epoch} with '{request.site}' until {_day(done.member.not_after)}")
    if done.node_key:
        _say(f"'{done.node_key}' goes to the coordinator, into its folder nodes/: by it the site's mailbox may connect.")
    _say("Next: fedward roster sign KEY; then send roster and roots to the site, the roster to the coordinator.")


@app.command()
def renew(
    site: Annotated[str, typer.Argument(help="The site's name.")],
    days: Annotated[int, typer.Option(min=1, max=3660, help="How long the entry holds from now.")] = 365,
    folder: Folder = Path("consortium"),
    as_json: AsJson = False,
) -> None:
    """Let a site's entry hold for longer, in the draft: the same key, the same weight."""
    now, place = _now(), RosterFolder(folder)
    member = roster.active_member(place.newest(), site, now=place.newest().not_before)
    draft = place.add(dataclasses.replace(member, not_before=now, not_after=now + days * _DAY_S), replace=True, now=now)
    if as_json:
        _print_json({"epoch": draft.epoch, "site": site, "until": _day(now + days * _DAY_S)})
        return
    _say(f"drafted epoch {draft.epoch} with '{site}' until {_day(now + days * _DAY_S)}. Then: fedward roster sign KEY")


@app.command()
def revoke(
    site: Annotated[str, typer.Argument(help="The site's name; or the statement by which it leaves (fedward site leave).")],
    folder: Folder = Path("consortium"),
    as_json: AsJson = False,
) -> None:
    """Take trust from a site, in the draft. It holds from the first round after the signed roster has arrived.

    SITE is its name, or the file of its statement that it leaves, such as north.leave.
    """
    now, place = _now(), RosterFolder(folder)
    name = enrolling.read_leave(Path(site), place.newest(), now=now).site if Path(site).is_file() else site
    draft = place.revoke(name, now=now)
    if as_json:
        _print_json({"epoch": draft.epoch, "revoked": name})
        return
    _say(f"drafted epoch {draft.epoch} without trust in '{name}'. Then: fedward roster sign KEY")


@app.command()
def coordinator(
    key: Annotated[str, typer.Argument(help="Its new public key: a .pub file, or 64 hexadecimal digits.")],
    folder: Folder = Path("consortium"),
    as_json: AsJson = False,
) -> None:
    """Give the coordinator another key, in the draft: the old one is lost, stolen, or a year old. Every site is asked to approve it."""
    public = keyfile.public_key(key, "coordinator")
    draft = RosterFolder(folder).with_coordinator(public, now=_now())
    if as_json:
        _print_json({"epoch": draft.epoch, "coordinator": _name(public)})
        return
    _say(f"drafted epoch {draft.epoch} with another coordinator's key", f"fingerprint {_words(public)}")
    _say("Have the coordinator's operator read these words to you. Then: fedward roster sign KEY")


@app.command()
def sign(
    key: Annotated[Path, typer.Argument(help="A root's secret key file; it may lie on a stick.")],
    renew: Annotated[
        bool, typer.Option("--renew", help="Sign the same roster for another thirty days. Refused while a draft waits.")
    ] = False,
    yes: Yes = False,
    folder: Folder = Path("consortium"),
    as_json: AsJson = False,
) -> None:
    """Sign the draft, after showing what it changes. With enough signatures it becomes the roster."""
    if as_json and not yes:
        raise typer.BadParameter("--json cannot ask; give --yes too, after reading the draft with fedward roster check.")
    place, now = RosterFolder(folder), _now()
    root = keyfile.load(key, "root")
    draft = place.renewal(now=now) if renew else place.draft()
    if draft is None:
        raise RosterNotFound(f"'{folder}' has no draft to sign.", fix="Edit first (fedward roster add, revoke), or sign with --renew.")
    if not yes:
        _show_changes(place.held(), roster.parse(draft)[0])
        typer.confirm("Sign this?", abort=True)
    progress = place.sign(draft, root, now=now)
    if as_json:
        _print_json(_as_dict(progress))
        return
    _say(f"epoch {progress.roster.epoch}: {len(progress.signed_by)} of {progress.needed} signatures")
    if progress.complete:
        _say(f"'{place.held_file}' is signed. Send it to the coordinator and to every site; it needs no secrecy.")
    else:
        _say("Hand the folder to the next custodian, without any .key file.")


@app.command()
def check(
    file: Annotated[Path | None, typer.Argument(help="A roster's file. Default: the one in the folder.")] = None,
    roots: Annotated[
        Path | None, typer.Option(help="The file of root keys that you compared once. Default: the one in the folder.")
    ] = None,
    since: Annotated[Path | None, typer.Option(help="A roster that you hold: show what changed, refuse to go back.")] = None,
    folder: Folder = Path("consortium"),
    as_json: AsJson = False,
) -> None:
    """Say who is in, until when and by whose signature; refuse what is not signed, not valid, or older than what you hold."""
    place = RosterFolder(folder)
    known = roster.parse_roots(read(roots or place.roots_file))
    data = read(file) if file else _newest_file(place)
    progress = progress_of(data, known)
    held = roster.verify(read(since), roots=known) if since else None
    problem = _problem(data, known, held)
    if as_json:
        _print_json({"ok": problem is None, **({"error": problem.as_dict()} if problem else {}), **_as_dict(progress)})
        raise typer.Exit(1 if problem else 0)
    _show(progress, known)
    if held:
        _show_changes(held, progress.roster)
    if problem:
        raise problem
    _say("ok: signed and valid")


def _problem(data: bytes, roots: Roots, held: Roster | None) -> FedwardError | None:
    """The first reason not to use a roster."""
    try:
        found = roster.verify(data, roots=roots)
        roster.check_valid(found, now=_now())
        roster.check_successor(found, held=held)
    except FedwardError as problem:
        return problem
    return None


def _newest_file(place: RosterFolder) -> bytes:
    """The signed roster; before there is one, the draft, which a check will find unsigned."""
    if place.held_file.exists():
        return read(place.held_file)
    draft = place.draft()
    if draft is None:
        raise RosterNotFound(f"'{place.path}' holds no roster.", fix=f"Begin one: fedward roster init '{place.path}'.")
    return draft


def _make(path: Path, role: Role) -> bytes:
    return keyfile.create(path, role).public


def _now() -> int:
    return int(time.time())


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def _words(public: bytes) -> str:
    return Fingerprint.of(public).words


def _name(public: bytes) -> dict[str, str]:
    name = Fingerprint.of(public)
    return {"key": public.hex(), "words": name.words, "hex": name.hex}


def _names(keys: Iterable[bytes]) -> list[dict[str, str]]:
    return [_name(key) for key in sorted(keys)]


def _as_dict(progress: Progress) -> dict[str, Any]:
    found = progress.roster
    return {
        "epoch": found.epoch,
        "digest": found.digest.hex(),
        "valid": [_day(found.not_before), _day(found.not_after)],
        "signed_by": _names(progress.signed_by),
        "needed": progress.needed,
        "complete": progress.complete,
        "coordinator": _name(found.coordinator),
        "sites": [
            {
                "site": member.site_id,
                "valid": [_day(member.not_before), _day(member.not_after)],
                "revoked": member.revoked,
                "weight": member.weight,
                **_name(member.public_key),
            }
            for member in found.members
        ],
    }


def _show(progress: Progress, roots: Roots) -> None:
    found = progress.roster
    _say(f"roster epoch {found.epoch}, valid {_day(found.not_before)} to {_day(found.not_after)}, digest {found.digest.hex()[:16]}")
    table = Table(box=None, pad_edge=False)
    for column in ("", "state", "until", "weight", "fingerprint"):
        table.add_column(column, no_wrap=True)
    table.add_row("coordinator", "", "", "", _words(found.coordinator))
    for member in found.members:
        state = "[red]revoked[/]" if member.revoked else "active"
        table.add_row(member.site_id, state, _day(member.not_after), str(member.weight), _words(member.public_key))
    _console().print(table)
    _say(f"signatures: {len(progress.signed_by)}, needed {progress.needed} of {len(roots.keys)}")
    for key in sorted(roots.keys):
        _say(f"  {_words(key)} {'signed' if key in progress.signed_by else 'has not signed'}")


def _show_changes(held: Roster | None, new: Roster) -> None:
    """What a person signs or approves, in words."""
    _say(f"epoch {held.epoch if held else 'none'} -> {new.epoch}, valid until {_day(new.not_after)}")
    if held is None:
        found = Changes(added=tuple(member.site_id for member in new.members), coordinator_changed=True)
    else:
        found = roster.changes(held, new)
    for kind in ("added", "reinstated", "rekeyed", "reweighted", "renewed", "revoked", "removed"):
        for name in getattr(found, kind):
            member = new.find(name)
            _say(f"  {kind} {name}" + (f" {_words(member.public_key)}" if member else ""))
    if found.coordinator_changed:
        _say(f"  coordinator {_words(new.coordinator)}")


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=1) + "\n")


def _say(*lines: str) -> None:
    _console().print("\n".join(lines), markup=False)


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)
