# SPDX-License-Identifier: Apache-2.0
"""Who was trained on? Asked of the final model, patient by patient.

The attack is LiRA's offline form with a common variance (Carlini et al. 2022, https://arxiv.org/abs/2112.03570; difficulty calibration:
Watson et al. 2022, https://arxiv.org/abs/2111.08440). A model is surer of whom it has seen; how sure it is of an image anyway is told by
reference models that have not seen it. For each image, phi = log(p / (1 - p)) with p the probability given to its true class; a patient's
score is the mean over their images of

    phi(attacked model) - mean over references of phi(reference).

A federation has its references at hand: the models that the other sites trained alone never saw this site's patients. The strangers are the
hold-out, whom nobody saw, each counted to the site they come from, and judged by the references of that site.

What is counted: at a given rate of strangers called members, how many members are found (the low rates are what matters: an attack that is
right about few people, and sure, harms them), with intervals from resampling patients. A control shows that the attack can see: a model
that was trained until it knew 25 patients by heart. What this does not show: that a stronger attack does no better. An attacker who
trains hundreds of models, or watches every round, may; `one_run` asks that attacker.

    N  images      Q  accusations
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from client.imaging.dataset import Dataset
from client.training import LocalWork, predict, train_locally
from common.models import initial_weights
from common.plan import Plan, PrivacySpec
from common.tasks import roc_curve
from common.tasks.bootstrap import Interval, auc_by_weight, interval_of, sensitivity_by_weight
from common.update import Weights
from simulations.audits.tradeoff import rates
from simulations.partition import class_of_patients

FEDERATED = ("federated", "not_private")
ALONE = "alone"
CONTROL = "control"
RATES = (0.01, 0.001)
"""The rates of false alarm at which an attack is judged."""
GRID = tuple(rates(min(RATES)))
RESAMPLES = 500
MOST_REFERENCES = 10
MOST_PEOPLE = 500
"""Members asked about, and strangers: enough for the rates above, few enough that asking a dozen models takes seconds."""
MOST_IMAGES = 8
BY_HEART_PEOPLE = 25
BY_HEART_STEPS = 200
BY_HEART_BATCH = 32
_SUREST = 1e-6
_ROUNDING = 1e-12

Values = NDArray[np.float64]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The share of members found at a rate of false alarms; None where there are too few strangers to speak of that rate."""

    rate: float
    share: float | None
    interval: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attacked:
    """What the attack did to one model, or to several of a kind. `curve` is the share of members found at each rate of GRID."""

    members: int
    strangers: int
    auc: float
    auc_interval: Interval | None
    found: tuple[Found, ...]
    curve: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accusations:
    """Scores (Q,), each of one patient in one model, whether it was trained on them, and who they are (equal numbers, equal patient)."""

    scores: Values
    is_member: NDArray[np.bool_]
    person: NDArray[np.int64]

    @property
    def can_be_judged(self) -> bool:
        """Whether there is anybody to tell from anybody."""
        return bool(self.is_member.any() and not self.is_member.all())

    @classmethod
    def together(cls, parts: Sequence["Accusations"]) -> "Accusations":
        """Several models' accusations as one attack."""
        return cls(
            scores=np.concatenate([part.scores for part in parts]),
            is_member=np.concatenate([part.is_member for part in parts]),
            person=np.concatenate([part.person for part in parts]),
        )


def attack(
    people: Mapping[str, Dataset], strangers: Dataset, models: Mapping[str, Weights], plan: Plan, *, progress: Progress
) -> dict[str, Attacked]:
    """Attack the federated models, the models that sites trained alone, and the control.

    `people` are the patients of each site. `models` are "federated", perhaps "not_private", and those that sites trained alone, by the
    site's name: these are the references. The result has "alone" in place of the sites, and "control"; what cannot be said, for want of
    strangers, is left out.
    """
    panel = tuple(site for site in people if site in models)[: MOST_REFERENCES + 1]
    first, share = next(iter(people)), -(-MOST_PEOPLE // len(people))
    groups = {site: _some(data, share, seed=number) for number, (site, data) in enumerate(people.items())}
    outside, known = _some(strangers, MOST_PEOPLE, seed=len(groups)), _some(people[first], BY_HEART_PEOPLE, seed=0)
    asked = {name: models[name] for name in (*FEDERATED, *panel) if name in models}
    with_control, heard = {**asked, CONTROL: learn_by_heart(known, plan)}, []
    for number, (data, of) in enumerate([*((group, asked) for group in groups.values()), (known, with_control), (outside, with_control)]):
        heard.append(_hear(data, of, plan))
        progress(number + 1, len(groups) + 2)
    *of_groups, of_known, of_outside = heard
    sites = _sites_of(outside, tuple(groups))
    court = _Court(members=dict(zip(groups, of_groups, strict=True)), strangers=of_outside, sites=sites, panel=panel)
    trials = {name: court.of_federation(name) for name in FEDERATED if name in models}
    if panel:
        trials[ALONE] = Accusations.together([court.of_site(site, site) for site in panel])
    # The site is the first there too, so its strangers stay its own.
    trials[CONTROL] = replace(court, members={first: of_known}).of_site(first, CONTROL)
    return {name: judge(trial) for name, trial in trials.items() if trial.can_be_judged}


def learn_by_heart(data: Dataset, plan: Plan) -> Weights:
    """The plan's network after so many steps on so few patients, without privacy, that it knows them better than what they have."""
    training = replace(plan.training, strategy="fedavg", optimiser="adam", learning_rate=0.003, weight_decay=0.0, batch=BY_HEART_BATCH)
    eager = replace(plan, privacy=PrivacySpec(unit="none"), training=training)
    start = initial_weights(plan)
    delta = train_locally(start, data, eager, LocalWork(steps=BY_HEART_STEPS, noise_multiplier=None, order_seed=b"by heart"))
    return Weights(layout=start.layout, values=start.values + delta.values)


def confidence(weights: Weights, data: Dataset, plan: Plan) -> Values:
    """phi of each image, (N,)."""
    probabilities = predict(weights, data, plan).astype(np.float64)
    of_truth = np.clip(probabilities[np.arange(len(data)), data.labels], _SUREST, 1 - _SUREST)
    return np.asarray(np.log(of_truth / (1 - of_truth)))


def judge(accusations: Accusations, *, seed: int = 0) -> Attacked:
    """The curve, and how many members are found at low rates of false alarm, with intervals from resampling patients.

    The accusations must hold members and strangers.
    """
    scores, is_member = accusations.scores, accusations.is_member
    people, row = np.unique(accusations.person, return_inverse=True)
    drawn = np.random.default_rng(seed).multinomial(len(people), np.full(len(people), 1 / len(people)), size=RESAMPLES)
    once, weights = np.ones((1, len(scores))), drawn[:, row].astype(np.float64)
    either = np.stack([-scores, scores], axis=1).astype(np.float32)
    return Attacked(
        members=int(np.unique(accusations.person[is_member]).size),
        strangers=int(np.unique(accusations.person[~is_member]).size),
        auc=float(auc_by_weight(either, is_member.astype(np.int64), once)[0]),
        auc_interval=interval_of(auc_by_weight(either, is_member.astype(np.int64), weights)),
        found=tuple(_found(accusations, once, weights, rate) for rate in RATES),
        curve=_curve(scores, is_member),
    )


def _curve(scores: Values, is_member: NDArray[np.bool_]) -> tuple[float, ...]:
    corners = roc_curve(scores.astype(np.float32), is_member)
    assert corners is not None
    last_below = np.searchsorted(corners.false_positive_rate, np.array(GRID) + _ROUNDING, side="right") - 1
    return tuple(corners.true_positive_rate[place] for place in last_below)


def _found(accusations: Accusations, once: Values, weights: Values, rate: float) -> Found:
    scores, is_member = accusations.scores, accusations.is_member
    if (~is_member).sum() * rate < 1:
        return Found(rate=rate, share=None, interval=None)
    share = sensitivity_by_weight(scores, is_member, once, false_positive=rate)
    spread = sensitivity_by_weight(scores, is_member, weights, false_positive=rate)
    return Found(rate=rate, share=float(share[0]), interval=interval_of(spread))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Testimony:
    """What each model said of some patients, (patients,) by model, and their classes."""

    said: Mapping[str, Values]
    classes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Court:
    """Members of each site against strangers, each of whom is counted to one site too: `sites`, (strangers,), indices of members' names."""

    members: Mapping[str, _Testimony]
    strangers: _Testimony
    sites: NDArray[np.int64]
    panel: tuple[str, ...]

    def of_federation(self, name: str) -> Accusations:
        """A federated model, of which all sites' patients are the members."""
        return Accusations.together(
            [self._trial(site, name, np.arange(len(members)), self._kin(site)) for site, members in self.members.items()]
        )

    def of_site(self, site: str, model: str) -> Accusations:
        """A model trained on one site's patients alone: they are the members. Strangers are as often of each class as they are.

        A model is surer of the commoner class, and of its own scanner's images, whoever was trained on: that is not memory. Of a class that
        no stranger of the site has, nobody is asked about.
        """
        kin, own = self._kin(site), self.members[site].classes
        found = self.strangers.classes[kin]
        both = np.intersect1d(own, found)
        part = min(1.0, *((found == c).sum() / (own == c).sum() for c in both), 1.0)
        alike = [kin[found == c][: round(part * (own == c).sum())] for c in both]
        return self._trial(site, model, np.flatnonzero(np.isin(own, both)), np.concatenate([*alike, np.empty(0, dtype=np.int64)]))

    def _kin(self, site: str) -> NDArray[np.int64]:
        return np.flatnonzero(self.sites == list(self.members).index(site))

    def _trial(self, site: str, model: str, members: NDArray[np.int64], strangers: NDArray[np.int64]) -> Accusations:
        references = [name for name in self.panel if name != site][: len(self.panel) - 1]
        own = _calibrated(self.members[site].said, model, references)[members]
        others = _calibrated(self.strangers.said, model, references)[strangers]
        before = itertools.takewhile(lambda name: name != site, self.members)
        first = len(self.strangers) + sum(len(self.members[name]) for name in before)
        return Accusations(
            scores=np.concatenate([own, others]),
            is_member=np.arange(len(own) + len(others)) < len(own),
            person=np.concatenate([first + members, strangers]),
        )


def _calibrated(said: Mapping[str, Values], model: str, references: Sequence[str]) -> Values:
    return said[model] - np.mean([said[name] for name in references], axis=0) if references else said[model]


def _hear(data: Dataset, models: Mapping[str, Weights], plan: Plan) -> _Testimony:
    _, patient, images = np.unique(data.patients, return_inverse=True, return_counts=True)
    said = {name: np.bincount(patient, confidence(weights, data, plan)) / images for name, weights in models.items()}
    return _Testimony(said=said, classes=class_of_patients(data, np.unique(data.patients)))


def _sites_of(strangers: Dataset, sites: tuple[str, ...]) -> NDArray[np.int64]:
    """The site of each stranger: where their images come from, if that is one of these sites, else by lot."""
    people, first = np.unique(strangers.patients, return_index=True)
    lot = np.random.default_rng(0).permutation(len(people)) % len(sites)
    if strangers.sites is None or strangers.site_index is None:
        return lot
    named = [strangers.sites[index] for index in strangers.site_index[first]]
    return np.array([sites.index(name) if name in sites else drawn for name, drawn in zip(named, lot.tolist(), strict=True)])


def _some(data: Dataset, most: int, *, seed: int) -> Dataset:
    """At most so many of the patients, drawn by lot, and at most MOST_IMAGES of the images of each."""
    patients = np.unique(data.patients)
    chosen = np.random.default_rng(seed).permutation(patients)[:most]
    rows = [np.flatnonzero(data.patients == patient)[:MOST_IMAGES] for patient in np.sort(chosen)]
    return data.subset(np.concatenate(rows))
