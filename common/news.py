# SPDX-License-Identifier: Apache-2.0
"""What a coordinator tells its sites beside rounds: that there is a newer roster, or a plan for them to read.

Roster and plan are believed for the root keys' signatures that they carry, and for nothing else; the coordinator can neither make one nor
change one. Its own signature here says only that it is the consortium's coordinator who brings them, so that nobody else fills a site's
incoming/ folder. An old message that is told again changes nothing: epochs only grow, and no plan comes into force by arriving.
"""

from dataclasses import dataclass

from common import canonical
from common.secagg.keys import SigningKey, signature_holds


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """The files as they are; empty where there is none. `endorsement` belongs to `plan`."""

    roster: bytes = b""
    plan: bytes = b""
    endorsement: bytes = b""
    signature: bytes = b""

    @property
    def statement(self) -> bytes:
        """What the coordinator signs."""
        return canonical.digest(b"fedward news 1", self.roster, self.plan, self.endorsement)


def signed(news: News, coordinator: SigningKey) -> News:
    return News(roster=news.roster, plan=news.plan, endorsement=news.endorsement, signature=coordinator.sign(news.statement))


def told_by(news: News, coordinator: bytes) -> bool:
    """Whether this coordinator's key signed it."""
    return signature_holds(coordinator, news.signature, news.statement)
