# SPDX-License-Identifier: Apache-2.0
"""The sentences of the report: what a head of radiology or an ethics board reads before, or instead of, the figures.

Every sentence follows from numbers by a rule that stands here and nowhere else, so that good news and bad news are worded by the same
hand. "Better" and "worse" are said of points; "clearly" only where the intervals do not meet, and where they do, that is said too. An
unfinished run has no verdict, and a run without privacy says so before it says anything else.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from common.plan import ClassificationSpec, Plan
from simulations.report import numbers
from simulations.report.folder import Promise, RunFolder
from simulations.report.scores import ModelScores, Results, best_alone
from simulations.report.tabled import Estimate

_DATA: Mapping[str, str] = {
    "made": "The images are made, not taken of patients: the figures show that the method works, and nothing about any patient or scanner.",
    "given": "The images came from a folder given to this run; how they were collected, labelled and de-identified is not known here.",
}

_UNIT_SOURCES: Mapping[str, str] = {
    "patient_id": "Images belong to one patient when the data give them one patient id; whether they are right is not known here.",
    "group_id": "The data name groups of images, not patients; each group is counted as one patient.",
    "image_id": "The data tell no patients apart; each image is counted as one patient.",
    "none": "The data tell no patients apart; each image is counted as one patient.",
}


_WHO_KNOWS = "No site sends a count, a score or a loss. They are shown here because the simulation holds the data of every site."
_WHO_KNOWS_WHERE_SITES_COUNT = (
    "No site sends a score or a loss, or a count that is not noised and summed with the others'. What is not said to be noised is shown "
    "because the simulation holds the data of every site."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One sentence, and whether it has to alarm."""

    text: str
    is_alarm: bool


def verdict(folder: RunFolder, plan: Plan | None, results: Results) -> Verdict:
    """What this run showed, in one sentence that neither the figures nor the limits below contradict."""
    done, federated = _rounds_done(folder, plan), results.federated
    if folder.run.finished is None:
        text = f"Not finished: {done} on record. The run goes on or was interrupted; nothing here is a result yet."
        return Verdict(text=text, is_alarm=True)
    if federated is None:
        text = f"Trained for {done}, but not evaluated: the run folder holds no comparison, so nothing is known of the model."
        return Verdict(text=text, is_alarm=True)
    whom = f"{numbers.count(federated.count)} {federated.unit}s that no site trained on"
    reached = (
        f"reaches {article(federated.measure)} {federated.measure} of {estimate(federated.headline)}"
        if federated.headline.value is not None
        else f"was judged, though its {federated.measure} cannot be said,"
    )
    result = f"the model of {_sites(len(folder.run.sites))} {reached} on {whom}"
    return Verdict(text=f"{_under(folder.run.privacy)}, {result}{_against(federated, results.local)}.", is_alarm=False)


def estimate(found: Estimate) -> str:
    """'0.912 (95 % interval 0.880 to 0.941)'."""
    return f"{numbers.ratio(found.value)} ({interval(found)})" if interval(found) else numbers.ratio(found.value)


def interval(found: Estimate) -> str:
    """'95 % interval 0.880 to 0.941', or nothing where there is none."""
    if found.low is None or found.high is None:
        return ""
    return f"95 % interval {numbers.ratio(found.low)} to {numbers.ratio(found.high)}"


def standing(other: Estimate, federated: Estimate) -> str:
    """How another way of training did beside the federated one, no stronger than the intervals allow: 'does worse (0.830), though ...'."""
    if other.value is None or federated.value is None:
        return "cannot be compared"
    found = numbers.ratio(other.value)
    if found == numbers.ratio(federated.value):
        return f"does the same ({found})"
    word = "better" if other.value > federated.value else "worse"
    upper, lower = (other, federated) if other.value > federated.value else (federated, other)
    if upper.low is None or lower.high is None:
        return f"does {word} ({found})"
    return f"does clearly {word} ({found})" if upper.low > lower.high else f"does {word} ({found}), though the intervals overlap"


def comparison(results: Results) -> str:
    """The federated model beside pooled training and the best site alone; empty if there is neither."""
    if results.federated is None:
        return ""
    best, said = best_alone(results.local), []
    if results.pooled is not None:
        said.append(f"training with all images in one place {standing(results.pooled.headline, results.federated.headline)}")
    if best is not None:
        said.append(f"the best site alone {standing(best[1].headline, results.federated.headline)}")
    return f"By {results.measure}, {'; '.join(said)}." if said else ""


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
    if factor < 100:
        return numbers.decimals(factor, 1)
    return numbers.count(round(factor)) if factor < 1e6 else numbers.scientific(factor)


def limits(folder: RunFolder, plan: Plan | None, results: Results) -> list[str]:
    """What the figures do not say, in the order in which it matters to somebody who would act on them."""
    run, alone = folder.run, len(results.local)
    found = [
        _DATA.get(run.data, "The run folder does not say whether the images are made or taken of patients."),
        _UNIT_SOURCES.get(run.unit_source, "How patients were told apart is not recorded; figures per patient may be figures per image."),
        "The hold-out was taken from the same data as the training images. How the model does elsewhere was not measured.",
        "All sites were simulated on one machine, with the code that sites and coordinators run. Networks and people had no part in it.",
        _WHO_KNOWS if not folder.counted else _WHO_KNOWS_WHERE_SITES_COUNT,
    ]
    if results.federated is not None and results.unit == "patient":
        found.append(
            "Intervals come from resampling the patients of one hold-out. They do not hold what another seed or split would change."
        )
    if results.federated is not None and results.unit == "image":
        found.append("Scores count images, as patients are not known; images of one patient are alike, so no interval could be given.")
    if alone > 1:
        found.append(f"“Best site alone” is the best of {alone} after the fact, on this same hold-out: a comparison in that site's favour.")
    if run.aggregation == "ideal":
        found.append(
            "Masks were left out: the sums are those of secure aggregation to the bit, but a coordinator of such a run sees updates."
        )
    elif not run.secure_aggregation:
        found.append("Updates were not masked: a coordinator of such a run sees the update of each site, not only their sum.")
    if plan is not None and isinstance(plan.task, ClassificationSpec) and len(plan.task.classes) == 2:
        found.append(f"The threshold of {plan.task.threshold:g} was fixed in the plan beforehand and was not tuned for clinical use.")
    return [*found, "This is a research result and no medical device."]


def _under(promise: Promise | None) -> str:
    if promise is None or promise.unit == "none" or promise.epsilon is None:
        return "Without any privacy guarantee"
    only = ", not per patient" if promise.unit == "record" else ""
    return f"Under a privacy budget of ε = {numbers.epsilon(promise.epsilon)} per {unit_name(promise.unit)}{only}"


def _against(federated: ModelScores, local: dict[str, ModelScores]) -> str:
    best = best_alone(local)
    if best is None:
        return "; there is nothing to compare it with"
    site, scores = best
    return f"; the best site alone, {site}, {standing(scores.headline, federated.headline)}"


def _rounds_done(folder: RunFolder, plan: Plan | None) -> str:
    done = len(folder.rounds)
    return f"{done} of {plan.training.rounds} rounds" if plan is not None else f"{done} round{'' if done == 1 else 's'}"


def article(measure: str) -> str:
    """Initials are read letter by letter: an AUC, an AP50; a Dice, a PSNR."""
    return "an" if measure.startswith("A") else "a"


def _sites(found: int) -> str:
    return "one site" if found == 1 else f"{numbers.count(found)} sites"
