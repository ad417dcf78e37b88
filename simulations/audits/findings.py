# SPDX-License-Identifier: Apache-2.0
"""What an audit of training asks and finds, and in which words that is told."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from common.plan import Plan
from simulations.audits.one_run import Bound, canaries_to_refute

Kind = Literal["gradient", "slices", "mislabelled", "network"]
USUAL_CANARIES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What to do: how many canaries, of which kind, among how many patients a site; `seed` is for the coins, never for the noise."""

    canaries: int
    kind: Kind
    patients: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One training run that was audited. `is_sound` says whether its claim is meant to hold."""

    name: str
    claimed: float
    bound: Bound
    is_sound: bool

    @property
    def is_refuted(self) -> bool:
        return self.bound.epsilon > self.claimed

    @property
    def is_as_expected(self) -> bool:
        return self.is_refuted != self.is_sound

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "is_refuted": self.is_refuted, "is_as_expected": self.is_as_expected}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The plan's own trial, the controls, and the most that any trial with so many canaries could have shown.

    `network`: the plan's trial through its own network, beside one with other canaries.
    """

    asked: Audit
    plan: Trial
    controls: tuple[Trial, ...]
    ceiling: float
    network: Trial | None = None

    @property
    def trials(self) -> tuple[Trial, ...]:
        return (self.plan, *([self.network] if self.network else []), *self.controls)

    @property
    def passes(self) -> bool:
        return all(trial.is_as_expected for trial in self.trials)

    def as_dict(self) -> dict[str, Any]:
        return {
            **asdict(self.asked),
            "plan": self.plan.as_dict(),
            "network": self.network.as_dict() if self.network else None,
            "controls": [trial.as_dict() for trial in self.controls],
            "ceiling": self.ceiling,
            "passes": self.passes,
        }


def verdict(trial: Trial) -> str:
    """A trial in a word or two."""
    if trial.is_sound:
        return "REFUTED" if trial.is_refuted else "not refuted"
    return "caught" if trial.is_refuted else "NOT CAUGHT"


def in_words(plan: Plan, report: Report) -> list[str]:
    """What was found, and what may not be read into it."""
    own, delta, asked = report.plan, plan.privacy.delta, report.asked
    assert delta is not None
    shown = f"An observer of {plan.name} can prove, with 95 % confidence, that its epsilon is at least {own.bound.epsilon:.2f}"
    said = [f"{shown}; it claims {own.claimed:g} at delta {delta:g} per {plan.privacy.unit}."]
    if (whole := report.network) is not None:
        said.append(
            f"Through the plan's own network, trained by a whole federation in which {whole.bound.tally.canaries} patients were planted, "
            f"the coordinator can prove at least {whole.bound.epsilon:.2f}."
        )
    if own.is_refuted or (whole is not None and whole.is_refuted):
        said.append("The claim does not hold. Do not train this plan with patients' data.")
    elif report.ceiling <= own.claimed:
        enough = canaries_to_refute(own.claimed, delta=delta)
        more = f" It takes --canaries {enough} to show more than {own.claimed:g}." if enough else ""
        said.append(f"With {asked.canaries} canaries no audit can show more than {report.ceiling:.2f}, however broken training is.{more}")
    else:
        said.append("That is no proof of the claim: another attack might show more.")
    missed = [trial.name for trial in report.controls if not trial.is_sound and not trial.is_as_expected]
    accused = [trial.name for trial in report.controls if trial.is_sound and not trial.is_as_expected]
    if missed:
        said.append(f"The auditor did not see: {', '.join(missed)}. What it says of the plan counts for nothing; try more --canaries.")
    if accused:
        said.append(
            "The auditor refuted training in which nothing is broken. By chance that happens in one of twenty audits: try another --seed."
        )
    return said
