# SPDX-License-Identifier: Apache-2.0
"""What a search has spent, as the sites' ledgers say: every line and signature is looked at. Only a simulator sees them side by side."""

from collections.abc import Mapping
from dataclasses import dataclass

from client import ledger
from client.home import LEDGER_FILE
from common.plan import digest_of
from common.privacy import epsilon
from common.privacy.tally import Tally, View
from simulations.tuning.plans import of_fold
from simulations.tuning.price import Choices
from simulations.tuning.search import Search
from simulations.tuning.trials import ledger_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """Epsilon of everything, and of each trial by itself, at the site where it is highest; against more colluders than assumed, too."""

    outside: float
    own_share: float
    by_trial: Mapping[int, float]
    sites: Mapping[str, float]


def tallies(search: Search) -> dict[str, Tally]:
    """What every site was charged; nothing yet, where it has no ledger. Raises: LedgerTampered, LedgerFormat."""
    found = {}
    for site in search.stage.sites:
        file = ledger_folder(search.folder, site) / LEDGER_FILE
        found[site] = ledger.read(file.read_bytes(), name=f"the ledger of '{site}'")[0].tally if file.exists() else Tally()
    return found


def spending(search: Search, charged: Mapping[str, Tally]) -> Spending:
    """Of a private search whose sites were charged this."""
    privacy = search.base.plan.privacy
    assert privacy.delta is not None
    unit, delta = privacy.unit, privacy.delta
    sites = {site: tally.epsilon(View(unit=unit), delta) for site, tally in charged.items()}
    own = max(tally.epsilon(View(unit=unit, own_share=True), delta) for tally in charged.values())
    return Spending(outside=max(sites.values()), own_share=own, by_trial=_by_trial(search, charged, delta), sites=sites)


def spent_so_far(search: Search, charged: Mapping[str, Tally]) -> dict[str, Choices]:
    """The events that each site has paid for."""
    view = View(unit=search.base.plan.privacy.unit)
    return {site: [(1, [list(tally.events(view))])] for site, tally in charged.items()}


def _by_trial(search: Search, charged: Mapping[str, Tally], delta: float) -> dict[int, float]:
    found = {}
    for trial in search.trials:
        plans = {digest_of(of_fold(search.design, trial, fold.number, search.promise)) for fold in search.folds}
        events = [
            [event for plan in plans for event in tally.events(View(unit=search.base.plan.privacy.unit, plan=plan))]
            for tally in charged.values()
        ]
        found[trial.number] = max(epsilon(each, delta) for each in events)
    return found
