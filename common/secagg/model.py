# SPDX-License-Identifier: Apache-2.0
"""The global model at the site's door: is it the announced one, sound, and one that training could have led to?

A coordinator that may choose weights freely can choose weights that copy an image into the gradient (Fowl et al. 2022,
https://arxiv.org/abs/2110.13057; Boenisch et al. 2023, https://arxiv.org/abs/2112.02918). So a site trains a model only if it has seen
it before (the initial model of the plan counts as seen), or if it is no further from the last one it saw than the rounds in between
allow. And no model, seen or not, is further from the plan's initial one than the rounds before it allow: without that, sessions that each
start with the last one's end, or go back and move on in another direction, would add up to any distance. What this does not stop: crafted
weights inside these distances. Patient-level noise does not rely on it: what one patient can do to a sum is bounded for any weights
(client/training/clipping.py, company.py).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common import canonical
from common.errors import ModelChain, ModelHash, ModelJump, ModelLayout, ModelNonFinite
from common.secagg import quantise
from common.secagg.terms import Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The last model this site saw, or the plan's initial one at round 0. Shapes: values (d,) float32."""

    values: NDArray[np.float32]
    round: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A global model as it came, with what the site compares it to. Shapes: (d,) float32; `initial` is the plan's."""

    values: NDArray[np.float32]
    initial: NDArray[np.float32]
    reference: Reference | None


def digest(values: NDArray[np.float32], layout: bytes) -> bytes:
    """The same as `common.update.Weights.digest`, for values that are not yet trusted to be finite."""
    little_endian = np.ascontiguousarray(values, dtype="<f4")
    return canonical.digest(b"fedward model 1", layout, little_endian.data.cast("B"))


def check_layout(offer: Offer, terms: Terms) -> None:
    if offer.values.dtype != np.float32 or offer.values.shape != (terms.model_size,):
        raise ModelLayout(
            f"the model is {offer.values.dtype} of shape {offer.values.shape}, expected float32 of shape ({terms.model_size},).",
            fix="Both sides must build the model from the same plan and version of fedward.",
        )


def check_digest(offer: Offer, terms: Terms, announced: bytes) -> None:
    found = digest(offer.values, terms.model_layout)
    if found != announced:
        raise ModelHash(f"the model has digest {found.hex()[:16]}, announced was {announced.hex()[:16]}.", fix="Ask for the round again.")


def check_finite(offer: Offer) -> None:
    if not np.isfinite(offer.values).all():
        raise ModelNonFinite(
            "the global model holds NaN or infinite values.", fix="The coordinator must go back to its last good checkpoint."
        )


def check_chain(offer: Offer, terms: Terms, *, round_number: int, announced: bytes, seen: frozenset[bytes]) -> None:
    """A model never seen must come after one that was."""
    if announced == terms.initial_model or announced in seen:
        return
    if offer.reference is None or offer.reference.round >= round_number:
        raise ModelChain(
            f"the model of round {round_number} was never seen here, and no earlier one is known to compare it with.",
            fix="A roll-back may only go to a model that this site has seen; a new site starts from the plan's initial model.",
        )


def check_jump(offer: Offer, terms: Terms, *, round_number: int, announced: bytes, seen: frozenset[bytes]) -> None:
    """A model never seen must be near the last one: at most `step_norm` for each round in between."""
    if announced == terms.initial_model or announced in seen or offer.reference is None:
        return
    _check_distance(offer, terms, offer.reference.values, rounds=round_number - offer.reference.round, since="the last one seen here")


def check_reach(offer: Offer, terms: Terms, *, round_number: int) -> None:
    """Every model must be where the plan's rounds before this one could have led: the model of round 1 is the initial one."""
    _check_distance(offer, terms, offer.initial, rounds=round_number - 1, since="the plan's initial one")


def _check_distance(offer: Offer, terms: Terms, origin: NDArray[np.float32], *, rounds: int, since: str) -> None:
    distance = quantise.distance(offer.values, origin)
    limit = max(0, rounds) * terms.step_norm * quantise.SLACK
    if not distance <= limit:
        raise ModelJump(
            f"the model is {distance:.4g} from {since}, expected at most {limit:.4g} after {max(0, rounds)} rounds.",
            fix="Do not train on it: ask the coordinator which model this is.",
        )
