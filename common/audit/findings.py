# SPDX-License-Identifier: Apache-2.0
"""What a verifier can find, one stable code for each, and what it means to whoever has to act on it.

A finding is a contradiction that bundles cannot have if everybody did as they say. It names the party whose bundle contradicts itself or
others', which need not be the one who did wrong: where two stories differ, a third decides, and the text says who told which.

What could not be looked at is no finding. It is listed apart, so that nobody takes silence for proof.
"""

from dataclasses import dataclass, field
from typing import Final

MEANING: Final = {
    "F_BUNDLE": "a bundle, or a file in it, is not as it was made",
    "F_CHAIN": "a log's line was changed, removed, added or moved after it was written",
    "F_HEAD": "a log is shorter, longer or another than its owner signed when the bundle was made",
    "F_KEY": "a log is signed by a key that no roster gives to its owner",
    "F_ROSTER": "a roster that the roots did not sign, that is missing, or that is older than the one before it",
    "F_PLAN": "a plan is not the one that the log names, or parties of one session follow different plans",
    "F_ORDER": "a site's lines are in an order that the protocol does not have",
    "F_TWICE": "one step was answered in two ways",
    "F_LEDGER": "something was answered that the privacy ledger had not paid for before",
    "F_SPLIT": "sites were sent different requests where all are sent the same",
    "F_TRANSCRIPT": "parties saw different cohorts, sharers or survivors in one round",
    "F_ROUND": "coordinator and site do not agree on what a round was about",
    "F_REPLY": "the coordinator has a reply that its site's log does not have, or has otherwise",
    "F_VECTOR": "a masked update in the sum is not the one that its site masked",
    "F_LOST": "a site signed that its log ended with a line that the log does not have: it was rewritten or begun anew",
    "F_ECHO": "a peer saw a line of a log that the log does not have: it was rewritten or begun anew, or the peer is wrong",
    "F_EVIDENCE": "the replies that the coordinator kept do not give what its log says",
    "F_SUM": "the sum is not what the masked updates give",
    "F_MODEL": "a model is not what the round's sum makes of the model before it, or not the one that sites were sent",
    "F_PUBLISHED": "the model that was given is not one that the plan gives out",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`line` counts from 1 in the party's log; `round` is empty for what belongs to none."""

    code: str
    party: str
    text: str
    line: int | None = None
    round: int | None = None

    def as_dict(self) -> dict[str, str | int | None]:
        return {"code": self.code, "party": self.party, "round": self.round, "line": self.line, "text": self.text}


@dataclass(slots=True, kw_only=True)
class Findings:
    """What has been found so far, and what could not be looked at."""

    items: list[Finding] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    def add(self, code: str, party: str, text: str, *, line: int | None = None, number: int | None = None) -> None:
        """Note a contradiction. `line` counts from 0, `number` is the round."""
        assert code in MEANING
        found = Finding(code=code, party=party, text=text, line=None if line is None else line + 1, round=number)
        if found not in self.items:
            self.items.append(found)

    def skip(self, why: str) -> None:
        """Note something that could not be looked at."""
        if why not in self.unchecked:
            self.unchecked.append(why)
