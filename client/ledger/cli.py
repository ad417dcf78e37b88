# SPDX-License-Identifier: Apache-2.0
"""`fedward site ledger`: what a hospital's patients have cost, for its IT, its ethics board and its auditors.

The commands are the door: they read files and the clock, and print. What a ledger is stands in the modules beside this one.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import typer
from pydantic import TypeAdapter

from client import policy
from client.account import Account
from client.home import ledger_place, read_site_file
from client.ledger import explain as page
from client.ledger import export as bundle
from client.ledger import recovery, witness
from client.ledger.chain import Chain, read
from client.ledger.summary import summary_of
from client.telling import caps_as_json, caps_in_line, spending, tell, tighter_in_line
from common import keyfile
from common.errors import DataNotFound, LedgerTampered, PolicyRefused
from common.fingerprint import Fingerprint
from common.plan import digest_of, load
from common.privacy import round_charge
from common.privacy.entries import Caps, Entry, Fact, Overridden, Tallied, Voided, render

app = typer.Typer(
    no_args_is_help=True,
    help="What patients' data were used for here, and what that cost their privacy.\n\n"
    "A ledger is opened once for the patients of a hospital and shared by all plans. It is only ever added to; each line is signed and "
    "names the one before. When the next round would pass a cap, training is refused before an image is opened.\n\n"
    "\b\n"
    "    fedward site ledger show                       what is spent, what is left\n"
    "    fedward site ledger verify                     every line, link, signature\n"
    "    fedward site ledger explain --out page.html    for an ethics board\n"
    "    fedward site ledger export --out audit-2026    for an auditor\n"
    "    fedward site ledger override --eps-total 10 --reason WHY\n\n"
    "docs/ledger.md says what is noticed and what is not.",
)

HomeOption = Annotated[Path, typer.Option("--home", "-H", envvar="FEDWARD_SITE", help="The site's home folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Why = Annotated[str, typer.Option("--reason", help="Who decided this, and why: it stays in the ledger. No patient's name or number.")]
HERE: Final = Path()
_CAPS: Final = TypeAdapter(Caps)


@app.command("open")
def open_ledger(home: HomeOption = HERE, as_json: AsJson = False) -> None:
    """Begin the ledger of this site's patients, with the caps of its policy.toml. Once, when the site is set up."""
    file = read_site_file(home)
    chain, place = Account(home, file).begin(policy.load(home).budget).chain, ledger_place(home, file)
    tell(
        {"namespace": chain.namespace, "key": chain.key, "caps": caps_as_json(chain.caps)},
        f"opened '{place.file}' for the patients of '{chain.namespace}'",
        f"sealed head at '{place.head}-N': best on another mount ([ledger] head in site.toml, set before the ledger is opened)",
        "Keep the ledger in the backups, and never put an older copy back in silence: what it had recorded since is spent.",
        "Next: fedward site snapshot",
        as_json=as_json,
    )


@app.command()
def show(home: HomeOption = HERE, as_json: AsJson = False) -> None:
    """What each plan, and all of them, have spent: as seen from outside, and by more colluding sites than a plan assumes.

    Two figures each: the one that decides (Rényi), and a tighter one (PLD) that holds for a plan by itself, fixed beforehand and trained
    to its end.
    """
    found = summary_of(*_read_home(home))
    tell(
        bundle.as_json(found),
        f"patients of '{found.namespace}', {found.lines} lines, {found.opened[:10]} to {found.last[:10]}",
        spending(found),
        *tighter_in_line(found),
        f"caps: {caps_in_line(found.caps)}",
        f"withdrawn: {found.excluded} patient(s)",
        *([f"NOT PRIVATE, and not in these sums: {', '.join(found.unprotected)}"] if found.unprotected else []),
        as_json=as_json,
    )


@app.command()
def verify(
    home: HomeOption = HERE,
    file: Annotated[Path | None, typer.Option(help="A ledger elsewhere, such as an export. Its head and peers are not asked.")] = None,
    key: Annotated[str | None, typer.Option(help="With --file: the site's public key, a .pub file or its digits.")] = None,
    as_json: AsJson = False,
) -> None:
    """Look at every line, link and signature; at the sealed head; at what peers remember. What is wrong is refused by name."""
    if file is None:
        chain, _ = _read_home(home)
        witness.check(ledger_place(home, read_site_file(home)).witness, chain)
    else:
        chain = _read_elsewhere(file, key)
    last, words = chain.digests[-1].hex(), Fingerprint.of(bytes.fromhex(chain.key)).words
    tell(
        {"ok": True, "lines": len(chain), "last": last, "key": chain.key, "words": words},
        f"{len(chain)} lines: each names the one before and is signed",
        *(["the sealed head agrees; no peer remembers more"] if file is None else []),
        f"key {words}",
        f"last line {last}",
        as_json=as_json,
    )


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="The folder to make.")] = Path("ledger-export"),
    home: HomeOption = HERE,
    as_json: AsJson = False,
) -> None:
    """Write the ledger for an auditor: lines, public key, sums, and a short checker that needs no fedward. No patient's data."""
    chain, entries = _read_home(home)
    bundle.write(out, chain, entries)
    tell(
        {"folder": str(out), "lines": len(chain), "last": chain.digests[-1].hex()},
        f"wrote '{out}': {len(chain)} lines. '{out / 'README.txt'}' says how to check them.",
        as_json=as_json,
    )


@app.command()
def explain(
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("ledger.html"),
    home: HomeOption = HERE,
    as_json: AsJson = False,
) -> None:
    """Write a page that an ethics board understands: what was asked, what it cost, what that means for a patient. One file, no script."""
    chain, entries = _read_home(home)
    page.write(out, summary_of(chain, entries), head=chain.digests[-1].hex())
    tell({"page": str(out)}, f"wrote '{out}'", as_json=as_json)


@app.command()
def override(
    reason: Why,
    eps_plan: Annotated[float | None, typer.Option(help="Epsilon of one plan.")] = None,
    eps_total: Annotated[float | None, typer.Option(help="Epsilon of all plans together.")] = None,
    own_share_plan: Annotated[str | None, typer.Option(help='Of one plan against more colluders than it assumes, or "inf".')] = None,
    own_share_total: Annotated[str | None, typer.Option(help='The same of all plans, or "inf".')] = None,
    delta: Annotated[float | None, typer.Option(help="delta of the sums over all plans.")] = None,
    home: HomeOption = HERE,
    as_json: AsJson = False,
) -> None:
    """Sign for other caps. Raising one takes this and the edit in policy.toml: the lower of the two holds."""
    own = {"own_share_plan": _cost(own_share_plan), "own_share_total": _cost(own_share_total)}
    given = {"eps_plan": eps_plan, "eps_total": eps_total, **own, "delta": delta}
    chosen = {name: value for name, value in given.items() if value is not None}
    if not chosen:
        raise typer.BadParameter("give at least one cap, such as --eps-total 10.")
    words = _reason(reason)
    entry, chain = _note(home, lambda chain: Overridden(caps=_changed(chain.caps, chosen), reason=words))
    tell(
        {"line": entry.seq + 1, "caps": caps_as_json(chain.caps)},
        f"line {entry.seq + 1}: caps are now {caps_in_line(chain.caps)}",
        "policy.toml may go up to these; edit it too.",
        as_json=as_json,
    )


@app.command()
def restore(
    reason: Why,
    plan: Annotated[Path | None, typer.Option(help="The plan whose rounds were lost, where the sealed head does not know.")] = None,
    rounds: Annotated[int, typer.Option(min=0, help="How many of its rounds to charge: ask the coordinator.")] = 0,
    anew: Annotated[bool, typer.Option("--anew", help="There is no copy at all: begin a new ledger beside the old sealed head.")] = False,
    home: HomeOption = HERE,
    as_json: AsJson = False,
) -> None:
    """Go on after an older copy of the ledger was put back: what was lost is charged again.

    As far as the sealed head knows, that is exact; beyond it, rounds are charged that you state. Nothing is given back, and who withdrew
    stays out.
    """
    file = read_site_file(home)
    account = Account(home, file)
    if (plan is None) != (rounds == 0):
        raise typer.BadParameter("--plan and --rounds go together.")
    if anew:
        account.begin(policy.load(home).budget, after_loss=True)
    stated = [] if plan is None else [_stated(account, plan, rounds)]
    entry = recovery.restore(ledger_place(home, file), account.pen(), reason=_reason(reason), stated=stated)
    found = summary_of(*_read_home(home))
    tell(
        {"line": entry.seq + 1, **bundle.as_json(found)},
        f"line {entry.seq + 1}: what was lost is charged; the ledger goes on",
        spending(found),
        "Who withdrew after the copy was made is known again only if the sealed head was there: compare with your own register.",
        as_json=as_json,
    )


@app.command()
def void(
    line: Annotated[int, typer.Argument(min=1, help="The line's number, from 1.")],
    reason: Why,
    home: HomeOption = HERE,
    as_json: AsJson = False,
) -> None:
    """Write a remark on an earlier line, for instance that its round came to nothing. It gives nothing back."""
    words = _reason(reason)

    def remark(chain: Chain) -> Fact:
        if line > len(chain):
            raise typer.BadParameter(f"the ledger has {len(chain)} lines.")
        return Voided(entry=line - 1, reason=words)

    entry, _ = _note(home, remark)
    tell(
        {"line": entry.seq + 1},
        f"line {entry.seq + 1}: a remark on line {line}. What that line charged stays charged.",
        as_json=as_json,
    )


@app.command()
def rekey(
    new_key: Annotated[Path, typer.Argument(help="The new identity.key, made by: fedward roster keygen.")],
    home: HomeOption = HERE,
    as_json: AsJson = False,
) -> None:
    """Let a new identity key go on with the ledger; the present one signs for it. Then put the new key in the home."""
    signer = keyfile.load(new_key, "site")
    entry = Account(home, read_site_file(home)).ledger().take_key(signer)
    tell(
        {"line": entry.seq + 1, "key": signer.public.hex()},
        f"line {entry.seq + 1}: from here on {Fingerprint.of(signer.public).words} signs",
        f"Now: mv '{new_key}' '{home}/identity.key'",
        as_json=as_json,
    )


def _read_home(home: Path) -> tuple[Chain, list[Entry]]:
    """A home's ledger: opened as the site process opens it, and then every signature looked at."""
    file = read_site_file(home)
    Account(home, file).ledger()
    place = ledger_place(home, file)
    return read(_bytes(place.file), name=f"ledger '{place.file}'")


def _read_elsewhere(file: Path, key: str | None) -> Chain:
    if key is None:
        raise typer.BadParameter("--file needs --key: without it anybody's signatures would do.")
    chain, _ = read(_bytes(file), name=f"ledger '{file}'")
    if chain.key != keyfile.public_key(key, "site").hex():
        raise LedgerTampered(f"ledger '{file}' ends with key {chain.key[:16]}, not the one given.", fix="Ask the site for its key again.")
    return chain


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataNotFound(f"'{file}' cannot be read: {error.strerror}.", fix="Name the ledger's file.") from None


def _note(home: Path, fact: Callable[[Chain], Fact]) -> tuple[Entry, Chain]:
    ledger = Account(home, read_site_file(home)).ledger()
    entry = ledger.note(fact)
    assert entry is not None
    return entry, ledger.chain


def _stated(account: Account, plan_file: Path, rounds: int) -> Tallied:
    """So many rounds of a plan, at what one costs with the data that are prepared here."""
    plan = load(plan_file)
    if plan.privacy.unit == "none":
        raise PolicyRefused(f"plan '{plan.name}' is not private; its rounds cost nothing.", fix="Name the plan that was running.")
    charge = round_charge(plan, account.prepared_units(plan))
    return Tallied(unit=plan.privacy.unit, plan=digest_of(plan), charge=charge, times=rounds)


def _changed(caps: Caps, chosen: Mapping[str, float]) -> Caps:
    try:
        return _CAPS.validate_json(render(replace(caps, **chosen)))
    except ValueError:
        raise typer.BadParameter(
            'an epsilon is a number above 0, of own shares also 0 or "inf"; delta is above 0 and at most 0.001. Nothing was written.'
        ) from None


def _reason(words: str) -> str:
    if not 1 <= len(words.strip()) <= 500 or not words.strip().isprintable():
        raise typer.BadParameter("a reason has 1 to 500 characters that can be shown, in one line.")
    return words.strip()


def _cost(given: str | None) -> float | None:
    if given is None:
        return None
    try:
        return math.inf if given == "inf" else float(given)
    except ValueError:
        raise typer.BadParameter(f'{given} is neither a number nor "inf".') from None
