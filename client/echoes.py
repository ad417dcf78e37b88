# SPDX-License-Identifier: Apache-2.0
"""A site's records in the messages of secure aggregation: where they stand goes out with its keys, and what peers remember comes back.

    KEYS   -> own ledger's token and own audit log's head, and up to 16 peers' as they were last seen
    SHARE  <- everybody's: is there a line of my ledger that I do not have? Then nothing is dealt. Else theirs are remembered

Tokens of ledgers and their meaning stand in `client.ledger.echo`. The head of an audit log is the plain hash of its last line, since a
stranger has to find it there (`common.audit.verify`); so a peer could make one up. A head of this site's that its log does not have is
therefore written into the log, with the peer's name, and stops nobody.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from client.account import Account
from client.attempts import AttemptStore
from client.audit import SiteAudit
from client.ledger import echo
from client.ledger.echo import TokenKey
from common.errors import CheckpointCorrupt
from common.secagg import codec
from common.secagg.keys import SigningKey
from common.secagg.messages import Cohort, Down, Heads, Keys, PeerHead
from common.secagg.stages import Keyed


@dataclass(frozen=True, slots=True, kw_only=True)
class Echoes:
    """One site's, in one attempt. Call while the store is locked."""

    site_id: str
    signer: SigningKey
    account: Account
    store: AttemptStore
    audit: SiteAudit

    def announce(self) -> Heads:
        """What goes out with fresh keys. Raises: LedgerRollback, LedgerTampered, AuditTampered, CheckpointCorrupt."""
        return replace(echo.announce(self._key, self.account.chain(), self._peers()), audit=self.audit.head)

    def meet(self, stage: Keyed, cohort: bytes) -> None:
        """Look at what a cohort, whose signatures were found good, has announced. Raises: LedgerRollback, and then nothing may be dealt."""
        members = codec.read(Cohort, codec.read(Down, cohort).body).members
        said: Sequence[tuple[str, Heads]] = [(member.site_id, codec.read(Keys, member.body).heads) for member in members]
        if missing := echo.lost(self._key, self.account.chain(), self.site_id, said):
            self.account.testify(missing)
        self.audit.met(stage.tag, stage.kind, self.site_id, said)
        known = self._peers()
        if (kept := echo.remember(known, self.site_id, said)) != known:
            self.store.keep_peers(echo.save(kept))

    @property
    def _key(self) -> TokenKey:
        return TokenKey.of(self.signer)

    def _peers(self) -> dict[str, PeerHead]:
        content = self.store.peers()
        try:
            return {} if content is None else echo.load(content)
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointCorrupt(
                "what this site remembers of its peers' ledgers is torn.", fix="Remove fsa1/peers-*; they announce themselves again."
            ) from error
