# SPDX-License-Identifier: Apache-2.0
"""A consortium made on the fly: root, coordinator and site keys, and the roster that the root signs.

What takes a hospital a telephone call and a signed form takes a simulation a millisecond. The keys are real and the roster verifies;
only the ceremony is missing, which is why nothing here is imported by `client` or `server`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common import credentials, roster
from common.keyfile import Role
from common.roster import Member, Roots, Roster
from common.secagg.keys import SigningKey
from common.secagg.shamir import Entropy

YEAR_S = 365 * 24 * 3600
MONTH_S = 30 * 24 * 3600
CENTURY_S = 100 * YEAR_S
"""For a run's roster: nobody signs it anew, and a run may be resumed whenever its folder is still there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Consortium:
    """Everybody's keys, in one place: what never happens outside a simulation."""

    root: SigningKey
    coordinator: SigningKey
    sites: Mapping[str, SigningKey]
    roster: Roster
    signed_roster: bytes

    @property
    def roots(self) -> Roots:
        return Roots(keys=frozenset({self.root.public}))


def found(
    site_ids: Sequence[str],
    *,
    entropy: Entropy,
    now: int,
    weights: Mapping[str, int] | None = None,
    epoch: int = 1,
    valid_s: int = MONTH_S,
) -> Consortium:
    """Fresh keys for everybody, and a roster of them that is valid from `now` (Unix seconds): for a month, as a hospital's is."""
    root, coordinator = SigningKey(entropy(32)), SigningKey(entropy(32))
    sites = {site_id: SigningKey(entropy(32)) for site_id in sorted(site_ids)}
    until = now + max(YEAR_S, valid_s)
    members = tuple(
        Member(site_id=site_id, public_key=key.public, not_before=now, not_after=until, weight=(weights or {}).get(site_id, 1))
        for site_id, key in sites.items()
    )
    unsigned = Roster(epoch=epoch, not_before=now, not_after=now + valid_s, coordinator=coordinator.public, members=members)
    signed = roster.sign(roster.render(unsigned), root_seed=root.seed)
    return Consortium(root=root, coordinator=coordinator, sites=sites, roster=unsigned, signed_roster=signed)


def enrol(consortium: Consortium, *, homes: Mapping[str, Path], coordinator: Path) -> None:
    """Put into each site's home, and the coordinator's folder, what comes by courier: its key, the roster, the root's public key."""
    for site_id, home in homes.items():
        _hand_over(consortium, home, "site", consortium.sites[site_id])
    _hand_over(consortium, coordinator, "coordinator", consortium.coordinator)


def _hand_over(consortium: Consortium, folder: Path, role: Role, signer: SigningKey) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    credentials.save(folder, role, signer=signer, signed_roster=consortium.signed_roster, roots=consortium.roots)
