# SPDX-License-Identifier: Apache-2.0
"""A page that an ethics board, or a patient, can read: what was asked of the data, what it cost, what that means.

The page is one file: styles and drawings are inside, there is no script, and its own Content-Security-Policy forbids a browser to fetch
anything. What epsilon means is said as a change of odds: whoever believes something about one patient, and then sees everything that this
site ever released, has at most e^epsilon times the odds that they had (Dwork and Roth 2014, section 2.3,
https://doi.org/10.1561/0400000042), but for a chance of about delta.

    >>> [round(posterior(0.01, epsilon), 3) for epsilon in (1.0, 3.0, 8.0)]
    [0.027, 0.169, 0.968]
"""

import math
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from client.ledger import timeline
from client.ledger.summary import Summary, caps_in_words
from common.durable import write_atomically
from common.fingerprint import Fingerprint

_HERE = Path(__file__).parent
_PRIORS = (0.001, 0.01, 0.1, 0.5)
_LIKELY_ENOUGH = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """What somebody thought likely, and the most that they can think likely afterwards."""

    before: str
    after: str
    at_cap: str


def posterior(prior: float, epsilon: float) -> float:
    """The largest probability that evidence of this epsilon can leave of a prior one."""
    odds = prior / (1 - prior)
    return 1.0 if math.isinf(epsilon) else 1 / (1 + math.exp(-epsilon) / odds)


def render(found: Summary, *, head: str) -> str:
    """The page of one ledger. `head` is the hash of its last line."""
    patients = next((total for total in found.totals if total.unit == "patient"), None)
    spent = patients.outside.gate if patients else 0.0
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"eps": _epsilon, "factor": _factor, "caps": caps_in_words}
    return environment.get_template("explain.html.j2").render(
        found=found,
        patients=patients,
        spent=spent,
        left=max(0.0, found.caps.eps_total - spent),
        beliefs=[
            Belief(
                before=_percent(prior),
                after=_percent(posterior(prior, spent)),
                at_cap=_percent(posterior(prior, found.caps.eps_total)),
            )
            for prior in _PRIORS
        ],
        drawings=[(total.unit, Markup(timeline.draw(found, total.unit))) for total in found.totals],  # noqa: S704 - our own drawing
        decisions=[moment for moment in found.moments if not moment.unit],
        shares=any(plan.noise == "distributed" for plan in found.plans),
        records=any(total.unit == "record" for total in found.totals),
        words=Fingerprint.of(bytes.fromhex(found.key)).words,
        head=head,
        weak=spent > _LIKELY_ENOUGH,
    )


def write(path: Path, found: Summary, *, head: str) -> None:
    """Raises: DiskFull."""
    write_atomically(path, render(found, head=head).encode(), fsync=False)


def _epsilon(value: float) -> str:
    return "without limit" if math.isinf(value) else f"{value:.2f}"


def _factor(epsilon: float) -> str:
    """e^epsilon as a number that can be said."""
    if math.isinf(epsilon):
        return "any"
    factor = math.exp(min(epsilon, 700.0))
    return f"{factor:.1f}" if factor < 10 else f"{factor:,.0f}" if factor < 1e6 else f"10^{math.log10(factor):.0f}"


def _percent(probability: float) -> str:
    """So many digits that certainty is not claimed: 99.97 %, 0.1 %."""
    per_cent = 100 * probability
    for digits in (0, 1, 2, 3):
        shown = f"{per_cent:.{digits}f}"
        if float(shown) < 100 and abs(float(shown) - per_cent) <= 0.05 * min(per_cent, 100 - per_cent) + 1e-12:
            return f"{shown} %"
    return "nearly 100 %"
