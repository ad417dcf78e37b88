# SPDX-License-Identifier: Apache-2.0
"""What a plan asks of this hospital, in the words of whoever must answer for it.

Six questions, in the order in which a medical director asks them: what is it for, what is done with our images, who else is in, what leaves
the building, what does it cost our patients, what do our own rules say. Each answer follows from the signed plan, the roster in force, the
site's policy, its prepared data and its ledger; nothing is taken from the coordinator.

`Reading` is the facts, which `--json` prints; `in_words` is the page.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from client import policy
from client.home import read_site_file
from client.ledger.explain import posterior
from client.membership import forecast
from client.membership.approval import pinned_roots
from client.membership.forecast import Cost, Unknown
from client.policy import Policy, Release
from common import credentials, endorsement
from common.endorsement import Endorsement
from common.fingerprint import Fingerprint
from common.instant import instant
from common.plan import EvaluationSpec, InputSpec, Plan, digest_of
from common.privacy import own_share_epsilon
from common.roster import Member, Roster
from common.secagg.terms import FLOOR

_PRIOR: Final = 0.01
_FAMILIES: Final = {
    "backbone": "a network that was trained elsewhere, of which the end learns on",
    "cnn": "a convolutional network",
    "resnet": "a residual network",
    "scattering": "fixed wavelets and one layer that learns",
    "unet": "a network with an answer for each pixel, down and up again",
    "fcn": "a network of convolutions alone",
    "centre": "a network that finds where things have their centres",
    "srcnn": "a network that makes images better",
    "sequence": "a convolutional network for several images of a case",
    "mlp": "dense layers on the record",
    "text": "a vector for each word, weighted by attention",
    "fusion": "a network for an image and what else is known of the patient",
}
_LEARNS: Final = {
    "classification": "to tell apart",
    "multi-label": "to say which is there",
    "segmentation": "to outline, pixel by pixel",
    "detection": "to find, as boxes",
    "restoration": "to mend images that were made worse",
}
_MODALITIES: Final = {"any": "medical", "CR": "X-ray (CR)", "DX": "X-ray (DX)", "US": "ultrasound", "OT": "other"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One plan at one site.

    `parameters`: how many numbers travel. `objections`: what the policy has against it. `declined`: the releases that it leaves out.
    """

    site: str
    plan: Plan
    endorsement: Endorsement
    signed_by: tuple[str, ...]
    needed: int
    roster: Roster
    others: tuple[Member, ...]
    parameters: int
    allowed: Policy
    objections: tuple[str, ...]
    declined: tuple[Release, ...]
    cost: Cost | Unknown | None

    @property
    def smallest(self) -> int:
        """Hospitals in a round, at least: the protocol has a floor of its own."""
        return max(FLOOR, self.plan.aggregation.minimum_cohort, self.plan.noise_quorum)

    @property
    def bytes_up(self) -> int:
        """Of one update; what comes down is a model of four bytes a number."""
        return self.parameters * self.plan.aggregation.word_bits // 8


def read(home: Path, plan: Plan, said: Endorsement) -> Reading:
    """Gather the facts about a plan that was found signed. Raises: DataNotFound without a policy, RosterError, LedgerError, SecretFile."""
    from common.models import layout_of_plan  # brings torch, which no other command of enrolment needs

    name, held, roots, allowed = read_site_file(home).site.name, credentials.load_roster(home), pinned_roots(home), policy.load(home)
    cost = forecast.cost_of(home, plan, allowed) if plan.is_private else None
    units = cost.units if isinstance(cost, Cost) else None
    return Reading(
        site=name,
        plan=plan,
        endorsement=said,
        signed_by=tuple(Fingerprint.of(key).words for key in sorted(endorsement.signed_by(said, roots=roots))),
        needed=roots.needed,
        roster=held,
        others=tuple(member for member in held.members if member.site_id != name and not member.revoked),
        parameters=layout_of_plan(plan).size,
        allowed=allowed,
        objections=tuple(policy.objections(allowed, plan, units=units)),
        declined=policy.declined(allowed, plan),
        cost=cost,
    )


def as_json(found: Reading) -> dict[str, object]:
    """The facts, for machines."""
    plan, cost = found.plan, found.cost
    return {
        "site": found.site,
        "plan": plan.name,
        "version": plan.plan.version,
        "digest": digest_of(plan),
        "purpose": plan.plan.purpose,
        "signed_by": list(found.signed_by),
        "rounds": plan.training.rounds,
        "minimum_cohort": found.smallest,
        "roster_epoch": found.roster.epoch,
        "others": [member.site_id for member in found.others],
        "parameters": found.parameters,
        "bytes_up_per_round": found.bytes_up,
        "unit": plan.privacy.unit,
        "epsilon": plan.privacy.epsilon,
        "delta": plan.privacy.delta,
        "cost_here": _finite(cost) if isinstance(cost, Cost) else None,
        "cost_unknown": cost.reason if isinstance(cost, Unknown) else None,
        "objections": list(found.objections),
        "declined": list(found.declined),
    }


def in_words(found: Reading) -> Iterator[str]:
    """The page, line by line; a line without indent is a heading."""
    plan = found.plan
    yield f"{plan.name}, version {plan.plan.version}, as asked of {found.site}"
    yield f"  {plan.plan.purpose}"
    yield f"  Signed for the consortium by {', '.join(found.signed_by)} ({len(found.signed_by)} of {found.needed} needed)."
    yield f"  Digest {digest_of(plan)[:32]}: every hospital sees the same one."
    yield "\nWhat is done with our images"
    yield from _work(found)
    yield "\nWho else is in"
    yield from _company(found)
    yield "\nWhat leaves the building"
    yield from _leaving(found)
    yield "\nWhat it costs our patients"
    yield from _costs(found)
    yield "\nWhat our own rules say"
    yield from _rules(found)


def _work(found: Reading) -> Iterator[str]:
    plan, training, image = found.plan, found.plan.training, found.plan.input
    unit = "images" if plan.privacy.unit == "record" else "patients"
    each = f"{training.local_steps} step(s)" if training.local_steps else f"{training.local_epochs} pass(es) over the images"
    yield f"  {_looked_at(image)}: on our own machine and nowhere else."
    learns = _LEARNS[plan.task.kind] + (f": {', '.join(plan.task.classes)}" if plan.task.classes else "")
    yield f"  The model ({_FAMILIES[plan.model.family]}) learns {learns}."
    yield f"  {training.rounds} rounds; in each, {each} of about {training.batch} {unit}."
    if plan.evaluation:
        yield f"  {len(plan.evaluation_rounds)} times the model is tried on patients of ours whom it never trains on."
        yield from _chosen(plan.evaluation)
    if plan.statistics:
        yield "  Once, before the first, patients are counted."


def _chosen(spec: EvaluationSpec) -> Iterator[str]:
    if spec.patience is not None:
        times = "once" if spec.patience == 1 else f"{spec.patience} times in a row"
        yield f"  Training may end before: when the model was tried {times} and was no better."
    if spec.keep == "best":
        yield "  The model that was best when it was tried is given out, which may not be the last."


def _looked_at(image: InputSpec) -> str:
    """All of a patient's data that training reads, by name: who answers for them has to see it."""
    looked = []
    if image.has_image:
        several = f", {image.sequence} of a case together" if image.sequence > 1 else ""
        looked.append(f"{_kind(image.modality)} images, reduced to {image.height} x {image.width} pixels{several}")
    if image.second is not None:
        looked.append(f"a second image of the patient ({_kind(image.second.modality)}) where there is one")
    if image.record:
        looked.append(f"columns of the record ({', '.join(field.column for field in image.record)})")
    if image.text is not None:
        looked.append(f"the text in '{image.text.column}', its first {image.text.length} words and pairs of words, hashed")
    return "We train on " + "; ".join(looked)


def _kind(modality: str) -> str:
    return _MODALITIES.get(modality, modality)


def _company(found: Reading) -> Iterator[str]:
    held = found.roster
    joining = "you are asked about every hospital that joins" if found.allowed.roster.additions == "ask" else "others may join unasked"
    yield f"  Roster epoch {held.epoch}, signed, valid until {instant(held.not_after)[:10]}; {joining}."
    for member in found.others:
        yield f"    {member.site_id:<16} {Fingerprint.of(member.public_key).words}"
    yield f"    {'coordinator':<16} {Fingerprint.of(held.coordinator).words}"
    yield f"  A round needs {found.smallest} hospitals at least; with fewer, nothing is added up."


def _leaving(found: Reading) -> Iterator[str]:
    plan, group = found.plan, found.plan.aggregation
    yield "  No image, no patient's name or number, no label, no exact count of our patients."
    noised = "clipped and noised " if plan.is_private else ""
    yield f"  In each round one {noised}change of the model, {_size(found.bytes_up)}, encrypted: the coordinator can only open the sum"
    yield f"  over all hospitals in the round ({found.smallest} or more). The model, {_size(4 * found.parameters)}, comes back."
    if group.combine != "mean":
        yield f"  With more than {group.max_group} hospitals it sees the sum of each group of them, not of all."
    if plan.evaluation or plan.statistics:
        yield "  Also noised counts of how the model does, or of what the data are like; these too can only be opened as a sum."
    yield "  Every field that is ever sent is listed in docs/what-leaves.md."


def _costs(found: Reading) -> Iterator[str]:
    plan, privacy, cost = found.plan, found.plan.privacy, found.cost
    if privacy.unit == "none":
        yield "  NOT PRIVATE: the plan adds no noise. What leaves is exact, and can give away patients."
        return
    assert privacy.epsilon is not None
    whom = "each patient with all their images" if privacy.unit == "patient" else "each single image; a patient with several has less"
    yield f"  The plan promises epsilon {privacy.epsilon:g} at delta {privacy.delta:g} for all rounds together, to {whom}."
    yield f"  {_meaning(privacy.epsilon)}"
    yield f"  That it is worse has a chance of {privacy.delta:g}."
    if isinstance(cost, Cost):
        yield from _costs_here(found, cost)
    elif isinstance(cost, Unknown):
        yield f"  For this hospital it cannot be computed yet: {cost.reason}"
        yield "  Once the data are prepared (fedward site snapshot --plan PLAN), look again: fedward site approve PLAN --look."
        if (worst := own_share_epsilon(plan)) is not None:
            yield f"  If more than {privacy.colluders} of the others collude, the smallest hospital is left with epsilon {worst:.1f}."


def _costs_here(found: Reading, cost: Cost) -> Iterator[str]:
    plan, caps = found.plan, found.allowed.budget
    yield f"  With the {cost.units} {plan.privacy.unit}s prepared for training here that is epsilon {cost.plan:.3f}."
    if plan.shares_noise:
        quorum, colluders = plan.noise_quorum, plan.privacy.colluders
        yield f"  The noise is shared: this holds while {quorum} hospitals are in the sum and at most {colluders} of them collude."
        yield f"  If more do, our patients are left with epsilon {cost.plan_own_share:.1f} (our rules allow {caps.own_share_plan:g})."
    yield f"  Spent for our patients so far, by all plans: epsilon {cost.spent:.3f} (delta {caps.delta:g})."
    left = max(0.0, caps.eps_total - cost.after)
    yield f"  With this plan: epsilon {cost.after:.3f} of {caps.eps_total:g} that our rules allow for ever; {left:.3f} would be left."
    if cost.rounds is not None:
        yield f"  ATTENTION: a cap of our rules stops this plan here after {cost.rounds} of {plan.training.rounds} rounds."


def _rules(found: Reading) -> Iterator[str]:
    if not found.objections:
        yield "  Nothing in policy.toml is against it."
    for objection in found.objections:
        yield f"  AGAINST IT: {objection}."
    if found.declined:
        yield f"  Left out here, since policy.toml does not allow it: {', '.join(found.declined)}."
    yield "  Approving trains nothing by itself. To stop at any time: fedward site pause. To go: fedward site leave."


def _meaning(epsilon: float) -> str:
    """What epsilon lets somebody learn at most, but for a chance of delta (client/ledger/explain.py)."""
    before, after = 100 * _PRIOR, 100 * posterior(_PRIOR, epsilon)
    return (
        f"Whoever thought it {before:g} % likely that a certain patient is among ours can think it {after:.2g} % likely after all, at most."
    )


def _size(count: int) -> str:
    if count < 1000:
        return f"{count} bytes"
    return f"{count / 1000:.3g} kB" if count < 10**6 else f"{count / 10**6:.3g} MB"


def _finite(cost: Cost) -> dict[str, object]:
    """JSON has no infinity: no limit is the word "inf"."""
    return {name: "inf" if value == math.inf else value for name, value in asdict(cost).items()}
