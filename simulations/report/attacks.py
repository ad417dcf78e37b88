# SPDX-License-Identifier: Apache-2.0
"""What the attacks of this run came to, in numbers and in words.

The words follow a rule, as everywhere in the report: an attack "does no better than guessing" if the interval of its AUC holds 0.5;
nobody is called safe because an attack failed; and an attack that finds more than the promise allows is said in red: the promise is broken.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from common.tasks.bootstrap import Interval
from simulations.audits.membership import Attacked
from simulations.report import numbers
from simulations.report.folder import Membership, Picture
from simulations.report.tabled import Estimate

IN_THE_DRAWING: Mapping[str, str] = {
    "federated": "this run",
    "not_private": "not private",
    "alone": "sites alone",
    "control": "known by heart",
}
LABELS: Mapping[str, str] = {
    "federated": "Federated (this run's model)",
    "not_private": "Federated, not private",
    "alone": "Sites alone",
    "control": "Control: patients known by heart",
}
_PICTURES: Mapping[str, tuple[str, str]] = {
    "image": ("The image", "a made CT slice"),
    "plain": ("Plain update", "as without any protection"),
    "clipped": ("Clipped, no noise", "half of the method"),
    "masked": ("Masked update", "what the coordinator gets"),
    "private": ("Clipped and noised", "without a mask"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One kind of model under attack: the AUC of the attack, and the share of members found at each rate of false alarms."""

    name: str
    label: str
    auc: Estimate
    found: tuple[Estimate, ...]
    members: int
    strangers: int


def rows(membership: Membership) -> list[Row]:
    """The models that were attacked, this run's own first."""
    return [
        Row(
            name=name,
            label=label,
            auc=_estimate(found.auc, found.auc_interval),
            found=tuple(_estimate(at.share, at.interval) for at in found.found),
            members=found.members,
            strangers=found.strangers,
        )
        for name, label in LABELS.items()
        if (found := membership.models.get(name)) is not None
    ]


def judged_at(membership: Membership) -> list[float]:
    """The rates of false alarms for which shares are given."""
    return [at.rate for at in next(iter(membership.models.values())).found]


def allowed_at(membership: Membership, rate: float) -> float | None:
    """The most that the promise allows any attack at this rate; None without a promise to patients."""
    if membership.allowed is None:
        return None
    return max(share for share, at in zip(membership.allowed, membership.rates, strict=True) if at <= rate * (1 + 1e-9))


def words(membership: Membership) -> list[str]:
    """What may be said of it, own model first; empty if that was not attacked."""
    own = membership.models.get("federated")
    if own is None:
        return []
    said = [f"On this run's model the attack {_success(own)}."]
    control = membership.models.get("control")
    if control is not None:
        blind = "; it is blind here, and nothing follows from where it fails" if _is_guessing(control) else ", so it can see"
        said.append(f"On a control, a model trained to know {control.members} patients by heart, it {_success(control)}{blind}.")
    without = membership.models.get("not_private")
    if without is not None:
        told = "so these data do not show what the noise is for" if _is_guessing(without) else "which is what the noise is for"
        said.append(f"On the same federation without privacy it {_success(without)}, {told}.")
    if "alone" in membership.models:
        said.append(
            f"On the models that sites trained alone, each asked about its own patients, it {_success(membership.models['alone'])}."
        )
    return said


def broken(membership: Membership) -> str:
    """An alarm, if more members were found than the promise allows, beyond what chance explains; else nothing."""
    own = membership.models.get("federated")
    for at in own.found if own else ():
        most = allowed_at(membership, at.rate)
        if most is not None and at.interval is not None and at.interval.low > most:
            return (
                f"At {numbers.share(at.rate)} false alarms the attack found {numbers.share(at.share)} of the members; the promise allows "
                f"{numbers.share(most)} at most. It does not hold."
            )
    return ""


def lines_under(picture: Picture) -> tuple[str, ...]:
    """What stands under a picture."""
    title, what = _PICTURES.get(picture.name, (picture.name, ""))
    return (title, what) if picture.psnr is None else (title, what, loudness(picture.psnr))


def loudness(psnr: float) -> str:
    """'48 dB', and no number where the image came back whole."""
    return "the image, exactly" if psnr >= 60 else f"{numbers.decimals(psnr, 1)} dB"


def _is_guessing(found: Attacked) -> bool:
    return found.auc_interval is None or found.auc_interval.low <= 0.5 <= found.auc_interval.high


def _success(found: Attacked) -> str:
    interval = found.auc_interval
    spread = "" if interval is None else f", 95 % interval {numbers.ratio(interval.low)} to {numbers.ratio(interval.high)}"
    figure = f"(AUC {numbers.ratio(found.auc)}{spread})"
    if _is_guessing(found):
        return f"does no better than guessing {figure}"
    return f"tells members from strangers {figure}" if found.auc > 0.5 else f"is misled {figure}"


def _estimate(value: float | None, interval: Interval | None) -> Estimate:
    return Estimate(value=value, low=interval.low if interval else None, high=interval.high if interval else None)
