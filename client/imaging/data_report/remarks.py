# SPDX-License-Identifier: Apache-2.0
"""What somebody who has looked at many data sets would point at, with the numbers, most urgent first.

Each rule is one that has spoilt models before: images that silently do not take part, a class with hardly any patients, and above all a
class that comes from one scanner or one group of people, so that a model learns to tell machines or people apart instead of disease
(Zech et al. 2018, https://doi.org/10.1371/journal.pmed.1002683). A remark is a reason to look, not a verdict.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from client.imaging.data_report import tables
from client.imaging.data_report.facts import Case, Facts, Samples
from client.imaging.labels.agreement import Why
from client.imaging.rejection import REMEDY, Reason
from client.imaging.sample import WHITE

Weight = Literal["alarm", "look"]
MANY_LOST: Final = 0.1
FEW_PATIENTS: Final = 20
MOSTLY, SELDOM = 0.9, 0.6
ENOUGH_IMAGES: Final = 20
MANY_UNSTATED: Final = 0.2
MUCH_CLIPPED: Final = 0.5
ONE_PATIENTS_SHARE: Final = 0.2
NO_LOSS = (Reason.LABEL_SOURCE, Reason.DUPLICATE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """One thing to look at. alarm: training on this as it is would go wrong, or not go at all."""

    weight: Weight
    text: str


def of(facts: Facts) -> list[Remark]:
    """Alarms first."""
    found = [*_problems(facts), *_losses(facts), *_classes(facts), *_shortcuts(facts), *_labels(facts), *_series(facts), *_headers(facts)]
    found += [*_intensities(facts.samples)]
    return sorted(found, key=lambda remark: remark.weight != "alarm")


def _problems(facts: Facts) -> Iterator[Remark]:
    if facts.problem:
        yield Remark(weight="alarm", text=f"The labels cannot be used as they are. {facts.problem}")
    elif not facts.has_labels:
        yield Remark(weight="alarm", text="No labels were found: the files are counted as if each had one. Nothing can be trained yet.")


def _losses(facts: Facts) -> Iterator[Remark]:
    if facts.report is None:
        return
    lost = {reason: count for reason, count in facts.report.rejected.items() if count and reason not in NO_LOSS}
    seen = facts.report.seen - sum(facts.report.rejected.get(reason, 0) for reason in NO_LOSS)
    if not facts.report.used:
        yield Remark(weight="alarm", text=f"Not one of {facts.report.seen:,} files would be used.")
    if lost and sum(lost.values()) >= MANY_LOST * seen:
        worst = max(lost, key=lambda reason: lost[reason])
        share = f"{100 * sum(lost.values()) / seen:.0f} %"
        yield Remark(
            weight="alarm" if sum(lost.values()) * 2 > seen else "look",
            text=f"{share} of the files would not be used. Most often ({lost[worst]:,}): {REMEDY[worst]}",
        )


def _classes(facts: Facts) -> Iterator[Remark]:
    if not (facts.classes and facts.has_labels and not facts.problem):
        return
    used = [case for case in facts.cases if case.is_used]
    for label, name in enumerate(facts.classes):
        patients = len({case.patient for case in used if case.label == label})
        if patients == 0:
            yield Remark(weight="alarm", text=f"Nobody here has “{name}”. The model will see none of it from this site.")
        elif patients < FEW_PATIENTS:
            yield Remark(weight="look", text=f"“{name}” comes from {patients} patient{'s' * (patients != 1)} only.")
    by_patient: dict[str, int] = {}
    for case in used:
        by_patient[case.patient] = by_patient.get(case.patient, 0) + 1
    if len(by_patient) > 1 and max(by_patient.values()) > max(ONE_PATIENTS_SHARE * len(used), 2):
        yield Remark(weight="look", text=f"One patient has {max(by_patient.values()):,} of the {len(used):,} images that would be used.")


def _shortcuts(facts: Facts) -> Iterator[Remark]:
    """A class that stands and falls with something else: what a model would learn instead."""
    used = [case for case in facts.cases if case.is_used and case.label is not None and case.about]
    questions: tuple[tuple[str, Callable[[Case], str]], ...] = (
        ("scanner", tables.scanner),
        ("protocol", lambda case: case.about.get("protocol", "")),
        ("size", lambda case: case.about.get("size", "")),
        ("sex", tables.sex),
        ("age band", tables.band),
    )
    for what, value in questions:
        for label, name in enumerate(facts.classes):
            of_class, others = [value(case) for case in used if case.label == label], [value(case) for case in used if case.label != label]
            if min(len(of_class), len(others)) < ENOUGH_IMAGES:
                continue
            counts, other_counts = Counter(of_class), Counter(others)
            for answer in sorted(counts.keys() - {"", tables.NOT_STATED}):
                here, there = counts[answer] / len(of_class), other_counts[answer] / len(others)
                if here >= MOSTLY and there <= SELDOM:
                    yield Remark(
                        weight="look",
                        text=f"{100 * here:.0f} % of the images with “{name}” share one {what}, and {100 * there:.0f} % of the others do. "
                        f"A model can learn to recognise the {what} instead.",
                    )


def _labels(facts: Facts) -> Iterator[Remark]:
    account = facts.report.labels if facts.report is not None else None
    if account is None:
        return
    contested = account.settled + sum(account.unlabelled[why] for why in (Why.CONFLICT, Why.TIE, Why.UNDATED))
    if contested:
        yield Remark(
            weight="look",
            text=f"Images on which sources contradict each other: {contested:,}. Labelled all the same: {account.settled:,}.",
        )
    if account.unused[Why.OTHER_PATIENT]:
        times = f"{account.unused[Why.OTHER_PATIENT]:,} times"
        yield Remark(weight="alarm", text=f"{times} a document of one patient speaks of another patient's image. Have this looked at.")


def _series(facts: Facts) -> Iterator[Remark]:
    found = facts.findings
    if found is None:
        return
    if found.under_two_issuers:
        text = (
            f"{found.under_two_issuers:,} patients share their PatientID with a patient of another issuer, and count as different people."
        )
        yield Remark(weight="look", text=text)
    if found.series_with_gaps:
        text = (
            f"{found.series_with_gaps:,} of {found.series:,} series have gaps: {found.missing_slices:,} slices are missing between others."
        )
        yield Remark(weight="look", text=text)
    if found.duplicate_slices:
        yield Remark(weight="look", text=f"Slices that lie where another one of their series does: {found.duplicate_slices:,}.")


def _headers(facts: Facts) -> Iterator[Remark]:
    patients = {case.patient: case for case in facts.cases if case.patient and case.about}
    for what, value in (("sex", tables.sex), ("age", tables.band)):
        unstated = sum(value(case) == tables.NOT_STATED for case in patients.values())
        if patients and unstated >= MANY_UNSTATED * len(patients):
            share = f"{100 * unstated / len(patients):.0f} %"
            yield Remark(
                weight="look", text=f"The {what} of {share} of the patients is not stated: how well the model serves whom cannot be told."
            )
    burned = sum(case.about.get("burned_in", "").upper() == "YES" for case in facts.cases)
    if burned:
        yield Remark(weight="alarm", text=f"Images whose header says that a patient's data are written into the picture: {burned:,}.")


def _intensities(samples: Samples) -> Iterator[Remark]:
    if not len(samples.pixels):
        return
    for share, end in ((float(np.mean(samples.pixels == 0)), "black"), (float(np.mean(samples.pixels == WHITE)), "white")):
        if share >= MUCH_CLIPPED:
            yield Remark(
                weight="look",
                text=f"{100 * share:.0f} % of the pixels are plain {end} after the plan's window. "
                "If that is not background, the window is wrong.",
            )
