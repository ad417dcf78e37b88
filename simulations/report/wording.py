# SPDX-License-Identifier: Apache-2.0
"""The sentences of the report: what a head of radiology or an ethics board reads before, or instead of, the figures.

Every sentence follows from numbers by a rule that stands here and nowhere else, so that good news and bad news are worded by the same
hand. "Above" is said of points; "clearly above" only where the intervals do not meet; where no interval is known no such claim is made.
An unfinished run has no verdict, and a run without privacy says so before it says anything else.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from common.plan import CnnSpec, Plan
from simulations.report import numbers
from simulations.report.evidence import Estimate, ModelScores, Results, best_alone
from simulations.report.folder import Promise, Round, RunFolder

REASONS: Mapping[str, str] = {
    "E_SILENT": "did not answer before the deadline",
    "E_SITE_FAILED": "failed while answering",
    "E_TRAIN_FAILED": "local training raised an error",
    "E_PRIVACY_BUDGET": "privacy budget used up; training refused",
    "E_EPSILON_IMPOSSIBLE": "no noise reaches the plan's epsilon with this site's data",
    "E_TOO_FEW_PATIENTS": "too few patients for the plan",
    "E_PLAN_MISMATCH": "approved another plan",
    "E_MSG_FORMAT": "its answer was malformed and was left out",
    "E_UPDATE_NONFINITE": "its update held no finite numbers and was left out",
    "E_UPDATE_NORM": "its update was longer than agreed and was left out",
    "E_MODEL_LAYOUT": "its update was for another model and was left out",
    "E_MODEL_HASH": "did not hold the announced weights",
    "E_REPLAY": "answered a round that was over",
    "E_EQUIVOCATION": "was asked two different things in one round",
    "E_ENGINE": "the simulation's worker died",
    "E_DISK_FULL": "had no disk space",
}

_UNIT_SOURCES: Mapping[str, str] = {
    "patient_id": "Images belong to one patient when the data give them one patient id.",
    "group_id": "The data name groups of images, not patients; each group is counted as one patient.",
    "image_id": "The data tell no patients apart; each image is counted as one patient.",
    "none": "The data tell no patients apart; each image is counted as one patient.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One sentence, and whether it has to alarm."""

    text: str
    is_alarm: bool


def verdict(folder: RunFolder, plan: Plan | None, results: Results) -> Verdict:
    """What this run showed, in one sentence that neither the figures nor the limits below contradict."""
    done, federated = _rounds_done(folder, plan), results.federated
    if folder.run.finished is None:
        return Verdict(text=f"Not finished: {done} on record. The run goes on or was interrupted; nothing here is a result yet.", is_alarm=True)
    if federated is None:
        return Verdict(text=f"Trained for {done}, but not evaluated: the run folder holds no comparison, so nothing is known of the model.", is_alarm=True)
    whom = f" on {numbers.count(federated.patients)} patients that no site trained on" if federated.patients else " on the hold-out"
    result = f"the model of {_sites(len(folder.run.sites))} reaches an AUC of {estimate(federated.auc)}{whom}"
    return Verdict(text=f"{_under(folder.run.privacy)}, {result}{_against(federated, results.local)}.", is_alarm=False)


def estimate(found: Estimate) -> str:
    """'0.912 (95 % interval 0.880 to 0.941)'."""
    if found.value is None:
        return "an undefined value"
    return f"{numbers.ratio(found.value)} ({interval(found)})" if interval(found) else numbers.ratio(found.value)


def interval(found: Estimate) -> str:
    """'95 % interval 0.880 to 0.941', or nothing where there is none."""
    if found.low is None or found.high is None:
        return ""
    return f"95 % interval {numbers.ratio(found.low)} to {numbers.ratio(found.high)}"


def relation(one: Estimate, other: Estimate) -> str:
    """How one estimate stands to another, no stronger than the intervals allow."""
    if one.value is None or other.value is None:
        return "not comparable with"
    if numbers.ratio(one.value) == numbers.ratio(other.value):
        return "level with"
    word = "above" if one.value > other.value else "below"
    upper, lower = (one, other) if one.value > other.value else (other, one)
    if upper.low is None or lower.high is None:
        return word
    return f"clearly {word}" if upper.low > lower.high else f"{word}, with overlapping intervals,"


def reason(code: str) -> str:
    """A code in words; a code that this version does not know is shown as it is."""
    return REASONS.get(code, "no reason was recorded" if not code else code)


def promise_title(promise: Promise | None) -> str:
    if promise is None or promise.unit == "none" or promise.epsilon is None:
        return "No privacy guarantee"
    return f"ε = {numbers.epsilon(promise.epsilon)} and δ = {numbers.scientific(promise.delta)} for each {unit_name(promise.unit)}"


def unit_name(unit: str) -> str:
    """The unit in a word a clinician uses; the plan's own word for it is 'record'."""
    return {"record": "image", "patient": "patient"}.get(unit, unit)


def odds_factor(epsilon: float) -> str:
    """e^epsilon, the most by which odds can change; in powers of ten where digits would pretend to be known."""
    factor = math.exp(min(epsilon, 700.0))
    return numbers.decimals(factor, 1) if factor < 100 else numbers.count(round(factor)) if factor < 1e6 else numbers.scientific(factor)


def model(plan: Plan) -> str:
    """The network in words."""
    spec = plan.model
    if isinstance(spec, CnnSpec):
        norm = "group normalisation" if spec.norm == "group" else "no normalisation"
        layers = f"{len(spec.widths)} convolutions ({', '.join(map(str, spec.widths))} channels), {norm}, a dense layer of {spec.hidden}"
        return f"Convolutional network: {layers} and an output layer"
    stages = f"{len(spec.widths)} stages ({', '.join(map(str, spec.widths))} channels) of {spec.blocks}"
    return f"Residual network: {stages} residual block{'s' if spec.blocks > 1 else ''} each, group normalisation"


def images(plan: Plan) -> str:
    """The input in words."""
    spec = plan.input
    window = f", window centre {spec.window.centre:g}, width {spec.window.width:g}" if spec.window else ""
    kind = "Any modality" if spec.modality == "any" else spec.modality
    return f"{kind}, {spec.width} × {spec.height} pixels, {spec.channels} channel{'s' if spec.channels > 1 else ''}{window}".replace("-", "−")


def training(plan: Plan) -> str:
    """One round in words."""
    spec = plan.training
    work = f"{spec.local_steps} steps" if spec.local_steps else f"{spec.local_epochs or 1} pass{'es' if (spec.local_epochs or 1) > 1 else ''} over its images"
    strategy = {"fedavg": "federated averaging", "fedavgm": "federated averaging with server momentum"}[spec.strategy]
    return f"{spec.rounds} rounds of {strategy}; in each, a site takes {work} with batches of {spec.batch} ({spec.optimiser.upper()}, learning rate {spec.learning_rate:g})"


def survived(rounds: Sequence[Round]) -> str:
    """What became of rounds that somebody missed."""
    hit = [line for line in rounds if line.missing]
    fewest = min(len(line.sites) for line in hit)
    which = f"{len(hit)} of {len(rounds)} rounds" if len(rounds) > 1 else "The one round on record"
    return f"{which} went on without at least one site that had been asked, the smallest with {numbers.count(fewest)} site{'' if fewest == 1 else 's'}."


def limits(folder: RunFolder, plan: Plan | None, results: Results) -> list[str]:
    """What the figures do not say, in the order in which it matters to somebody who would act on them."""
    run = folder.run
    data = {
        "made": "The images are made, not taken of patients. Figures show that the method works end to end; they say nothing about any patient or scanner.",
        "own": "The images were given to this run from a folder; how they were collected, labelled and de-identified is not known to this report.",
    }.get(run.data, "The run folder does not say whether the images are made or taken of patients.")
    found = [
        data,
        _UNIT_SOURCES.get(run.unit_source, "How patients were told apart is not recorded; figures per patient may be figures per image."),
        "All sites were simulated on one machine, with the code that sites and coordinator run. Networks, firewalls and people were not part of it.",
        "The hold-out comes from the same sites as the training images. How the model does at a site that took no part was not measured.",
        "Intervals are bootstrap intervals over the patients of one hold-out. They do not cover what another seed, split or set of sites would change.",
    ]
    if len(results.local) > 1:
        found.append(f"“Best site alone” is the best of {len(results.local)} after the fact, on this same hold-out: a comparison in that site's favour.")
    found.append("No site sends a count, a score or a loss. This report shows counts and scores because the simulation holds the data of every site.")
    if plan is not None and len(plan.task.classes) == 2:
        found.append(f"The threshold of {plan.task.threshold:g} was fixed in the plan beforehand and was not tuned for clinical use.")
    found.append("This is a research result and no medical device.")
    return found


def _under(promise: Promise | None) -> str:
    if promise is None or promise.unit == "none" or promise.epsilon is None:
        return "Without any privacy guarantee"
    return f"Under a privacy budget of ε = {numbers.epsilon(promise.epsilon)} per {unit_name(promise.unit)}"


def _against(federated: ModelScores, local: dict[str, ModelScores]) -> str:
    best = best_alone(local)
    if best is None:
        return "; there is nothing to compare it with"
    site, scores = best
    return f", {relation(federated.auc, scores.auc)} the best site alone ({site}: {numbers.ratio(scores.auc.value)})"


def _rounds_done(folder: RunFolder, plan: Plan | None) -> str:
    done = len(folder.rounds)
    return f"{done} of {plan.training.rounds} rounds" if plan is not None else f"{done} round{'' if done == 1 else 's'}"


def _sites(found: int) -> str:
    return "one site" if found == 1 else f"{numbers.count(found)} sites"
