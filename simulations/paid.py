# SPDX-License-Identifier: Apache-2.0
"""Where a site's bundle holds its privacy ledger: is every line there that its audit log says has paid, and did it pay for that?

    RESERVE at round 7, ledger line 12, hash 5d0a...  ->  line 12 has that hash, and is a charge for round 7 of that session

A ledger is a hospital's own and is given only on purpose (`fedward audit export --with-ledger`). Without it the audit log still shows that
something was charged before the site answered, by the hash of a line that the hospital can be asked for.
"""

from collections.abc import Sequence

from client import ledger
from common.audit.bundle import LEDGER
from common.audit.entries import Reserved
from common.audit.findings import Findings
from common.audit.parties import Witness
from common.errors import FedwardError
from common.privacy.entries import Spent
from common.spelling import digest, render

_KINDS = {"RESERVE": "UPDATE", "STAT": "STAT", "EVAL": "EVAL"}


def check_ledgers(parties: Sequence[Witness], found: Findings) -> None:
    """Note every payment that a ledger does not have."""
    for party in parties:
        if party.role != "site":
            continue
        if not party.bundle.has(LEDGER):
            found.skip(f"what the privacy ledger of '{party.name}' says: it was not given")
            continue
        _check_ledger(party, found)


def _check_ledger(party: Witness, found: Findings) -> None:
    try:
        chain, entries = ledger.read(party.bundle.read(LEDGER), name=f"the ledger of '{party.name}'")
    except FedwardError as error:
        found.add("F_LEDGER", party.name, error.message)
        return
    if chain.opened is None or chain.opened.site != party.name:
        found.add("F_LEDGER", party.name, f"the ledger in the bundle of '{party.name}' is another site's.")
        return
    for line, paid in party.facts(Reserved):
        entry = entries[paid.line] if paid.line < len(entries) else None
        fact = entry.fact if entry and digest(render(entry)).hex() == paid.head else None
        if not isinstance(fact, Spent) or _place(fact) != (paid.at.session, paid.at.round, paid.at.attempt, paid.at.kind):
            text = f"round {paid.at.round}: line {paid.line + 1} of the ledger of '{party.name}' is not what paid for it."
            found.add("F_LEDGER", party.name, text, line=line, number=paid.at.round)


def _place(fact: Spent) -> tuple[str, int, int, str]:
    return fact.session, fact.round, fact.attempt, _KINDS[fact.kind]
