# SPDX-License-Identifier: Apache-2.0
"""`fedward plan sign | verify`: the custodians put the consortium's root keys under a plan, or see whether they did.

What is signed stands in `common/endorsement.py`: the plan's digest, the consortium's roots, the oldest roster that goes with it. Mounted
beside the other plan commands (simulations/plan_cli.py). Nothing here needs a network.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from common import endorsement, keyfile
from common import roster as rosters
from common.durable import write_atomically
from common.endorsement import Endorsement
from common.errors import PlanSignature, PlanUnknownKey, RosterNotFound
from common.fingerprint import Fingerprint
from common.plan import Plan, digest_of, load
from common.roster import Roots
from server.membership.roster_folder import RosterFolder, read

Folder = Annotated[Path, typer.Option("--folder", "-C", help="The consortium's folder, made by fedward roster init.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
PlanFile = Annotated[Path, typer.Argument(metavar="PLAN", help="A plan file; its signatures lie beside it, ct.toml and ct.sig.")]


def sign(
    plan: PlanFile,
    key: Annotated[Path, typer.Option(help="A root's secret key file; it may lie on a stick.")],
    epoch: Annotated[
        int | None, typer.Option(min=1, help="The oldest roster that goes with this plan. Default: the signed one here.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Sign without asking, for scripts; read the plan before.")] = False,
    folder: Folder = Path("consortium"),
    as_json: AsJson = False,
) -> None:
    """Put a root key's signature under a plan, beside those of other custodians: ct.sig, for ct.toml, which is not touched.

    A plan that is edited afterwards, by a single value, is another plan and needs new signatures; a new roster needs none.
    """
    if as_json and not yes:
        raise typer.BadParameter("--json cannot ask; give --yes too, after reading the plan with fedward plan show.")
    found, place, file = _load(plan), RosterFolder(folder), plan.with_suffix(".sig")
    roots, root = place.roots(), keyfile.load(key, "root")
    said = _statement(found, place, roots, file, epoch)
    if not yes:
        _say(f"plan '{found.name}', version {found.plan.version}: {found.plan.purpose}")
        _say(f"digest {digest_of(found)}", f"with rosters from epoch {said.minimum_epoch} on")
        typer.confirm("Sign this?", abort=True)
    signed = endorsement.sign(said, root, roots=roots)
    write_atomically(file, endorsement.render(signed), fsync=True)
    _tell(found, signed, roots, file, as_json=as_json)


def verify(
    plan: PlanFile,
    roots: Annotated[
        Path | None, typer.Option(help="The file of root keys that you compared once. Default: the one in the folder.")
    ] = None,
    folder: Folder = Path("consortium"),
    as_json: AsJson = False,
) -> None:
    """Say whether enough root keys stand behind this very plan; refuse by name what was altered or is not signed."""
    found, file = _load(plan), plan.with_suffix(".sig")
    known = rosters.parse_roots(read(roots)) if roots else RosterFolder(folder).roots()
    said = endorsement.parse(read(file))
    endorsement.check(said, found, roots=known)
    _tell(found, said, known, file, as_json=as_json)


def _load(file: Path) -> Plan:
    """A plan as hospitals get it. Raises: DataNotFound, PlanError."""
    try:
        return load(file)
    except PlanUnknownKey as error:
        if "[simulation]" not in error.message:
            raise
        raise PlanUnknownKey(error.message, fix="That table is for simulations and no part of a plan: remove it, then sign.") from None


def _statement(plan: Plan, place: RosterFolder, roots: Roots, file: Path, epoch: int | None) -> Endorsement:
    """What other custodians have signed already, if it says the same; else a statement of its own. Raises: RosterNotFound, RosterError."""
    held = place.held()
    if epoch is None and held is None:
        raise RosterNotFound(f"'{place.path}' holds no signed roster.", fix="Sign it first (fedward roster sign), or give --epoch.")
    before = _before(file)
    if (
        before is not None
        and (before.plan, before.roots) == (digest_of(plan), endorsement.name_of(roots))
        and epoch in (None, before.minimum_epoch)
    ):
        return before
    return endorsement.unsigned(plan, roots=roots, minimum_epoch=epoch or (held.epoch if held else 0))


def _before(file: Path) -> Endorsement | None:
    try:
        return endorsement.parse(file.read_bytes())
    except (OSError, PlanSignature):
        return None


def _tell(plan: Plan, said: Endorsement, roots: Roots, file: Path, *, as_json: bool) -> None:
    signers = endorsement.signed_by(said, roots=roots)
    complete = len(signers) >= roots.needed
    if as_json:
        words = [Fingerprint.of(root).words for root in sorted(signers)]
        found = {"plan": plan.name, "digest": said.plan, "epoch": said.minimum_epoch, "signatures": str(file)}
        sys.stdout.write(json.dumps({**found, "signed_by": words, "needed": roots.needed, "complete": complete}, indent=1) + "\n")
        return
    _say(f"plan '{plan.name}': {len(signers)} of {roots.needed} signatures, in '{file}'; for rosters from epoch {said.minimum_epoch} on")
    for root in sorted(roots.keys):
        _say(f"  {Fingerprint.of(root).words} {'signed' if root in signers else 'has not signed'}")
    if complete:
        _say(f"Send '{file.with_suffix('.toml').name}' and '{file.name}' to the coordinator, or to the sites: fedward site approve PLAN")
    else:
        _say("Hand both files to the next custodian.")


def _say(*lines: str) -> None:
    Console(highlight=False, soft_wrap=True).print("\n".join(lines), markup=False)
