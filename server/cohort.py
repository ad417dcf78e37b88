# SPDX-License-Identifier: Apache-2.0
"""Who is asked in a round, where a plan asks some of its sites and not all.

The draw follows from the plan's seed and the round, so that a resumed run asks the same sites; it is public, and no protection is drawn
from it. A site hides in its group's sum, so a group takes part with as many sites as a sum needs, or not at all:

    mean                as few groups as hold the number: the larger a group's part, the more an update hides among, and the more may fall
    median, trimmed     as many groups as can be filled: robustness is counted in groups

Groups are drawn anew each round, and sites within them, so that over the rounds every site that could be asked is asked about as often.
"""

import hashlib
import random
from collections.abc import Collection, Iterable

from common.plan import Plan
from common.secagg.terms import smallest_cohort


def draw(sites: Collection[str], groups: Iterable[frozenset[str]], plan: Plan, number: int) -> list[str]:
    """The sites asked in round `number`, in the order of names: all, or the plan's number of them. Groups that cannot sum are left out.

    Where no group can, sites are drawn as if there were none, and the sum is refused by name later.
    """
    wanted = plan.aggregation.sites_per_round
    if wanted is None or wanted >= len(sites):
        return sorted(sites)
    seed = hashlib.sha256(f"cohort {plan.training.seed} {number}".encode()).digest()
    rng = random.Random(seed)  # noqa: S311 - public choice, not a secret
    smallest = smallest_cohort(plan.aggregation.minimum_cohort, plan.noise_quorum)
    viable = [present for group in groups if len(present := sorted(group.intersection(sites))) >= smallest] or [sorted(sites)]
    fewest = -(-wanted // max(map(len, viable)))
    count = fewest if plan.aggregation.combine == "mean" else len(viable)
    chosen = sorted(rng.sample(viable, max(1, min(count, len(viable), wanted // smallest))), key=len)
    drawn: list[str] = []
    for place, group in enumerate(chosen):
        share = (wanted - len(drawn)) // (len(chosen) - place)
        drawn += rng.sample(group, min(share, len(group)))
    return sorted(drawn)
