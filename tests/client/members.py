# SPDX-License-Identifier: Apache-2.0
"""A consortium's sites as their operators keep them, without data: keys, roots, a roster in force, and whoever signs the next one."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from client import policy
from client.membership.approval import SignedPlan
from common import credentials, endorsement, roster
from common.plan import Plan, to_toml
from common.roster import Member, Roster
from common.secagg.keys import SigningKey
from simulations import consortium
from simulations.consortium import YEAR_S, Consortium
from tests.common.secagg.federation import NOW, seeded
from tests.journeys.made import made_scenario

SITES = ("east", "north", "south", "west")
STRANGER = SigningKey(b"\x55" * 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """Everybody's keys, and the home of one of them: north's."""

    keys: Consortium
    home: Path

    @property
    def roster(self) -> Roster:
        return self.keys.roster

    def published(self, changed: Roster, *, epoch: int | None = None) -> bytes:
        """A roster that the root signed: the next epoch, unless another is wanted."""
        new = replace(changed, epoch=self.roster.epoch + 1 if epoch is None else epoch)
        return roster.sign(roster.render(new), root_seed=self.keys.root.seed)

    def endorsed(self, plan: Plan, *, epoch: int = 1) -> SignedPlan:
        said = endorsement.sign(
            endorsement.unsigned(plan, roots=self.keys.roots, minimum_epoch=epoch), self.keys.root, roots=self.keys.roots
        )
        return SignedPlan(text=to_toml(plan).encode(), endorsement=endorsement.render(said))


def members(folder: Path, *, rules: Iterable[tuple[str, str]] = ()) -> Members:
    """North in a consortium of four, with the template's policy; `rules` are replaced in it."""
    keys = consortium.found(SITES, entropy=seeded(7), now=NOW)
    home = folder / "north"
    home.mkdir()
    credentials.save(home, "site", signer=keys.sites["north"], signed_roster=keys.signed_roster, roots=keys.roots)
    (home / "site.toml").write_text('[site]\nname = "north"\n[data]\nnamespace = "north"\n')
    text = policy.TEMPLATE
    for old, new in rules:
        assert old in text
        text = text.replace(old, new)
    (home / policy.POLICY_FILE).write_text(text)
    return Members(keys=keys, home=home)


def newcomer(name: str = "anew", key: SigningKey = STRANGER) -> Member:
    return Member(site_id=name, public_key=key.public, not_before=NOW, not_after=NOW + YEAR_S)


def a_plan(**changes: object) -> Plan:
    """The journeys' plan: what it says does not matter here."""
    plan = made_scenario(private=True).plan
    return replace(plan, plan=replace(plan.plan, **changes))  # type: ignore[arg-type]
