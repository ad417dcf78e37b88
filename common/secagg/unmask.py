# SPDX-License-Identifier: Apache-2.0
"""The last step: from masked vectors and opened shares to one sum, which is checked before anybody uses it.

The sum over U3 of y_i is the sum of their updates, plus every survivor's self mask, plus what remains of the pair masks with sites that
shared but did not survive. Both are made again from reconstructed secrets and taken away. Masked vectors are loaded one at a time into
one accumulator, so memory does not grow with the cohort; `load` may read them from disk.

A reconstructed secret must match what its owner committed to: b against H(T1, b), s against the public key. If a set of shares does not,
other sets are tried, then every holder whose share lies off the right polynomial is named and left out; dealers of whose secrets no set is
right are accused, all of them at once, since what follows costs everybody a training. Three known words sit in every
vector's tail: the survivors' declared weights, their number, and a word of T2. A sum in which they are wrong is noise, and is refused;
so is a sum longer than its sites could honestly make it. A site that boosts its update within that bound is not found here.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.errors import AggregateNorm, ConfirmQuorum, MessageFormat, ShareReconstruct, SumCanary
from common.secagg import keys, messages, quantise, shamir, stages
from common.secagg.coordinator import Masking, Rejected, Replies, Unmasking
from common.secagg.masks import Body, Mask, apply
from common.secagg.terms import Terms

Load = Callable[[str], Body]
_MOST_SUBSETS: Final = 500
_MASKS_AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateSum:
    """The integer sum over the survivors, and nothing about any one of them. Shapes: body (d,)."""

    body: Body
    total_weight: int
    survivors: tuple[str, ...]
    rejected: tuple[Rejected, ...]

    def mean(self, terms: Terms) -> NDArray[np.float32]:
        """The weighted mean delta."""
        return quantise.mean(self.body, terms.grid, total_weight=self.total_weight)


def open_sum(stage: Unmasking, replies: Replies, load: Load) -> AggregateSum:
    """The sum of the survivors' updates, exact.

    Raises: ConfirmQuorum with fewer than a threshold of opened shares, ShareReconstruct for a secret that no set of shares gives,
    MessageFormat for a stored vector that changed, SumCanary, AggregateNorm. Then there is no sum, and none was returned in part.
    """
    shares, rejected = stage.shares(replies)
    masking = stage.confirming.masking
    seeds, scalars, liars = _secrets(stage, shares)
    body, tail = _add_up(stage, load)
    for masks in _batches(_masks_to_remove(masking, seeds, scalars)):
        apply(masks, body=body, tail=tail, workers=masking.chair.workers)
    survivors = tuple(sorted(seeds))
    weight = _check_tail(masking, tail, survivors)
    check_norm(body, masking.chair.terms, num_sites=len(survivors))
    return AggregateSum(body=body, total_weight=weight, survivors=survivors, rejected=(*rejected, *liars))


def accused_by(stage: Unmasking, replies: Replies) -> tuple[str, ...]:
    """The dealers whose secrets no set of these shares gives; nobody, if all are there, or if it is not the dealers' doing.

    Raises: ConfirmQuorum with fewer than a threshold of opened shares.
    """
    try:
        _secrets(stage, stage.shares(replies)[0])
    except ShareReconstruct as error:
        return error.accused
    return ()


def check_norm(body: Body, terms: Terms, *, num_sites: int) -> None:
    """Raises: AggregateNorm for a sum longer than `num_sites` updates inside the plan's bound could make it."""
    norm, limit = quantise.ring_norm(body, terms.grid), num_sites * terms.grid.norm_limit(terms.max_norm, terms.num_values)
    if not norm <= limit:
        raise AggregateNorm(
            f"the sum's norm is {norm / limit:.3g} times what {num_sites} sites can make it.",
            fix="Discard the round; ask every site to open its commitment to an auditor.",
        )


def _secrets(stage: Unmasking, shares: Mapping[str, Mapping[int, int]]) -> tuple[dict[str, bytes], dict[str, bytes], tuple[Rejected, ...]]:
    """b of every survivor, s of every other sharer, and who returned wrong shares."""
    masking = stage.confirming.masking
    public = {member.site_id: member.keys.mask_key for member in masking.members}
    seeds: dict[str, bytes] = {}
    scalars: dict[str, bytes] = {}
    liars: set[int] = set()
    failed: list[str] = []
    for owner in masking.sharers:
        honest = {x: share for x, share in shares[owner].items() if x not in liars}
        survived = owner in stage.confirming.masked
        matches = partial(_opens_seed, masking, owner) if survived else partial(_opens_key, public[owner])
        secret = _reconstruct(stage, owner, honest, liars, matches)
        if secret is not None:
            (seeds if survived else scalars)[owner] = secret
            continue
        failed.append(owner)
        if 3 * len(failed) >= len(masking.members):
            break
    if failed:
        raise _unfit(stage, failed)
    names = [member.site_id for member in masking.members]
    named = tuple(
        Rejected(site_id=names[x - 1], reason=ShareReconstruct(f"site '{names[x - 1]}' returned a share that is off its polynomial."))
        for x in sorted(liars)
    )
    return seeds, scalars, named


def _opens_seed(masking: Masking, owner: str, seed: bytes) -> bool:
    return messages.seed_commitment(masking.cohort_transcript, seed) == masking.seed_commitments[owner]


def _opens_key(public: bytes, scalar: bytes) -> bool:
    return keys.agreement_public(scalar) == public


def _unfit(stage: Unmasking, owners: list[str]) -> ShareReconstruct:
    """Dealers are accused while they are fewer than a third of the cohort. Of more, not all can be at fault: it is holders who lied."""
    dealers = 3 * len(owners) < len(stage.confirming.masking.members)
    names = ", ".join(f"'{owner}'" for owner in owners)
    return ShareReconstruct(
        f"the shares of {names} give no secret that was committed to, in any of the sets of {stage.threshold} that were tried.",
        fix="The next attempt is without them; or too many of the holders sent wrong shares."
        if dealers
        else "Holders sent wrong shares, more than can be told apart: keep the evidence, and ask every site what it runs.",
        accused=tuple(owners) if dealers else (),
    )


def _reconstruct(
    stage: Unmasking, owner: str, shares: Mapping[int, int], liars: set[int], matches: Callable[[bytes], bool]
) -> bytes | None:
    """One secret from any t of its shares, None if no set gives it; wrong holders are added to `liars`."""
    if len(shares) < stage.threshold:
        raise ConfirmQuorum(
            f"{len(shares)} usable shares of '{owner}' came back, expected {stage.threshold}.",
            fix="Wait for the others: the same attempt goes on when they answer.",
        )
    for attempt, subset in enumerate(shamir.subsets(tuple(sorted(shares)), stage.threshold, limit=_MOST_SUBSETS)):
        secret = shamir.reconstruct({x: shares[x] for x in subset})
        if secret is not None and matches(secret):
            if attempt:
                liars.update(shares.keys() - shamir.agree(shares, trusted=subset))
            return secret
    return None


def _add_up(stage: Unmasking, load: Load) -> tuple[Body, NDArray[np.uint32]]:
    """Sum of the survivors' masked vectors and tails, one vector in memory at a time."""
    terms = stage.confirming.masking.chair.terms
    body: Body = np.zeros(terms.num_values, dtype=terms.grid.word)
    tail = np.zeros(3, dtype=np.uint32)
    for site_id, masked in sorted(stage.confirming.masked.items()):
        vector = load(site_id)
        if vector.dtype != body.dtype or vector.shape != body.shape or messages.vector_digest(vector.data.cast("B")) != masked.vector:
            raise MessageFormat(f"the stored vector of '{site_id}' is not the one it signed.", fix="Ask it for step MASK again.")
        np.add(body, vector, out=body)
        np.add(tail, np.frombuffer(masked.tail, dtype="<u4"), out=tail)
    return body, tail


def _masks_to_remove(masking: Masking, seeds: Mapping[str, bytes], scalars: Mapping[str, bytes]) -> Iterator[Mask]:
    """Each survivor's self mask; then, from each survivor's side, its pair mask with each site that fell out."""
    public = {member.site_id: member.keys.mask_key for member in masking.members}
    for site_id, seed in seeds.items():
        yield Mask(stages.self_mask(seed, masking.transcript, site_id).key, negative=True)
    for fallen, scalar in scalars.items():
        mask_key = keys.AgreementKey.load(scalar)
        for survivor in seeds:
            # The pair's key is the same from both sides; the fallen side's sign is what takes the survivor's mask away.
            yield stages.pair_mask(mask_key, masking.transcript, fallen, survivor, public[survivor])


def _batches(masks: Iterator[Mask]) -> Iterator[list[Mask]]:
    """A few at a time: a mask is a cipher context while it is applied."""
    batch: list[Mask] = []
    for mask in masks:
        batch.append(mask)
        if len(batch) == _MASKS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _check_tail(masking: Masking, tail: NDArray[np.uint32], survivors: tuple[str, ...]) -> int:
    declared = {member.site_id: member.weight for member in masking.members}
    weight = sum(declared[site_id] for site_id in survivors)
    count = len(survivors)
    expected = (weight, count, count * messages.canary(masking.transcript) % 2**32)
    if tuple(int(word) for word in tail) != expected:
        raise SumCanary(
            f"the sum over {count} sites fails its known words.",
            fix="Discard the round: a vector was altered, or a site masked for another cohort or with a weight that is not its own.",
        )
    return weight
