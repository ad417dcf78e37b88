# SPDX-License-Identifier: Apache-2.0
"""A site's own limits: `policy.toml`, read by the site alone. It can make a plan stricter, or refuse it; it never widens anything.

    [budget]   eps_plan, eps_total    epsilon of one plan, and of all plans together, as seen from outside
               own_share_plan, ..     the same against more colluding sites than a plan assumes; the word "inf" lifts the cap
               delta                  of the sums over all plans, and the largest that a plan may have
    [plans]    units, noise, families, releases, minimum_cohort: what a plan may be
    [roster]   revocations, renewals, additions, changes: which changes of who takes part need nobody's word here; known_peers
    [images]   burned_in: whether pictures may be used that say themselves that a patient's data are written into them
               seconds, memory_gib, file_gib: what reading one file may cost, and how large it may be

Defaults are the strict end. With shared noise a site's own share is small, so own_share caps of 8 refuse nearly every such plan: a hospital
that wants one raises them, knowing that it relies on the other sites. Caps come from here, and from the ledger, which remembers the highest
that were ever signed for: the lower one holds, and a file with higher ones is refused until an OVERRIDE says who wanted it and why.

delta is the chance that the promise fails outright. At delta = 1/N it would be kept by publishing one patient of N whole, so it must be
far below: at most 1e-6 by default, and never above 1/(10 N) for N training units here.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, TypeAdapter

from common.errors import DataNotFound, PolicyRefused
from common.plan import Plan
from common.plan.parse import Sections, read_table, text_of, validate
from common.plan.values import STRICT
from common.privacy import public_count
from common.privacy.entries import Caps, Use
from common.secagg.terms import FLOOR

POLICY_FILE: Final = "policy.toml"
DELTA_PER_UNIT: Final = 0.1
Release = Literal["training", "evaluation", "statistics"]
Consent = Literal["automatic", "ask"]
RELEASE_OF: Final[dict[Use, Release]] = {"RESERVE": "training", "EVAL": "evaluation", "STAT": "statistics"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlansAllowed:
    """[plans]. `families` unset: all that this version knows. `minimum_cohort`: the smallest cohort that a plan may be content with."""

    __pydantic_config__ = STRICT
    units: tuple[Literal["none", "record", "patient"], ...] = ("patient",)
    noise: tuple[Literal["local", "distributed"], ...] = ("local", "distributed")
    families: tuple[str, ...] | None = None
    releases: tuple[Release, ...] = ("training",)
    minimum_cohort: Annotated[int, Field(ge=3, le=65_536)] = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RosterRules:
    """[roster]: what becomes of a roster that the consortium's root keys signed, without a person here.

    Each kind of change is "automatic" or "ask"; a roster with one that asks waits as a whole. `changes`: a known site's new key or weight.
    `known_peers`: in a roster that is taken automatically, so many of the other sites must have been trusted here before, under the same
    keys; else a person is asked, whatever the kinds say. So a stolen root key cannot fill a cohort with inventions overnight.
    """

    __pydantic_config__ = STRICT
    revocations: Consent = "automatic"
    renewals: Consent = "automatic"
    additions: Consent = "ask"
    changes: Consent = "ask"
    known_peers: Annotated[int, Field(ge=2, le=65_536)] = FLOOR - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRules:
    """[images]. `burned_in`: what becomes of an image whose Burned In Annotation (0028,0301) is YES; a model may learn to read.

    What one file may cost its reader, which is a process without keys: `seconds` of processor time and `memory_gib`; and how large it may
    be, `file_gib`. Whole slides of a hundred thousand tiles need more than other images do.
    """

    __pydantic_config__ = STRICT
    burned_in: Literal["refuse", "accept"] = "refuse"
    seconds: Annotated[int, Field(ge=1, le=86_400)] = 20
    memory_gib: Annotated[int, Field(ge=1, le=1024)] = 2
    file_gib: Annotated[int, Field(ge=1, le=256)] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A whole policy; without a file of its own a site has none and trains nothing."""

    __pydantic_config__ = STRICT
    budget: Caps = field(default_factory=Caps)
    plans: PlansAllowed = field(default_factory=PlansAllowed)
    roster: RosterRules = field(default_factory=RosterRules)
    images: ImageRules = field(default_factory=ImageRules)


_POLICY: Final[TypeAdapter[Policy]] = TypeAdapter(Policy)
_SECTIONS: Final[Sections] = {"budget": (Caps,), "plans": (PlansAllowed,), "roster": (RosterRules,), "images": (ImageRules,)}

TEMPLATE: Final = """\
# What this site allows, whatever a plan asks. It can only make plans stricter. Raising a cap later takes, beside the edit here,
# a signed entry in the ledger: fedward site ledger override --help

[budget]
eps_plan = 8.0          # epsilon of one plan, for each patient. At 8 odds can change by a factor of 2981, at 3 by 20, at 1 by 2.7
eps_total = 8.0         # of all plans together, for ever
own_share_plan = 8.0    # if more sites collude than the plan assumes. Plans with distributed noise need 20 to 50; "inf" lifts the cap
own_share_total = 8.0
delta = 1e-6            # the chance that the promise fails; never above 1 in 10 times the number of patients here

[plans]
units = ["patient"]                 # "record" promises to single images only, "none" to nobody
noise = ["local", "distributed"]    # "distributed" relies on the other sites' noise
releases = ["training"]             # also "evaluation", "statistics": noised, charged to the same budget
minimum_cohort = 3                  # a plan that is content with fewer sites is refused
# families = ["cnn", "resnet"]      # model families; all, if left out

[roster]                    # who takes part, once the consortium's root keys have signed it
revocations = "automatic"   # a site that lost the consortium's trust is out at once; "ask": this site rests until somebody here decides
renewals = "automatic"      # the same sites, keys and weights for longer
additions = "ask"           # a new hospital is in this site's cohorts once somebody here has approved it: fedward site approve
changes = "ask"             # a known site's new key or weight
known_peers = 2             # automatic only while so many of the other sites were trusted here before

[images]
burned_in = "refuse"        # "accept": also pictures that say that names or dates are written into them (ultrasound often is)
seconds = 20                # of processor time that reading one file may take; whole slides of very many tiles take longer
memory_gib = 2              # that it may take; about three times the size of the largest file
file_gib = 1                # larger files are not opened
"""


def load(folder: Path) -> Policy:
    """Raises: DataNotFound without a file; PlanSyntax, PlanUnknownKey, PlanValue with its line."""
    path = folder / POLICY_FILE
    if not path.is_file():
        raise DataNotFound(f"site folder '{folder}' has no {POLICY_FILE}.", fix="Write one: fedward site policy new, and read it.")
    return parse(text_of(path), name=str(path))


def load_or_default(folder: Path | None) -> Policy:
    """The folder's, if it has one: what a site asks of pictures holds before it has promised anything. Raises: as `load`."""
    return load(folder) if folder is not None and (folder / POLICY_FILE).is_file() else Policy()


def parse(text: str, *, name: str = POLICY_FILE) -> Policy:
    """Raises: PlanSyntax, PlanUnknownKey, PlanValue with the line."""
    return validate(_POLICY, read_table(text, name=name), text=text, name=name, sections=_SECTIONS, quoted=False)


def admitting(plan: Plan) -> Policy:
    """In simulations: a policy that has nothing against this plan, so that the plan's own promise is what decides."""
    privacy = plan.privacy
    budget = Caps(
        eps_plan=privacy.epsilon or 1.0,
        eps_total=privacy.epsilon or 1.0,
        own_share_plan=float("inf"),
        own_share_total=float("inf"),
        delta=privacy.delta or 1e-6,
    )
    return Policy(budget=budget, plans=PlansAllowed(units=(privacy.unit,), releases=("training", "evaluation", "statistics")))


def objections(policy: Policy, plan: Plan, *, units: int | None) -> list[str]:
    """Everything about a plan that the policy does not allow. `units`: training units here, where they are known."""
    allowed, privacy = policy.plans, plan.privacy
    found = []
    if privacy.unit not in allowed.units:
        found.append(f'unit = "{privacy.unit}", allowed are {_listed(allowed.units)}')
    if plan.is_private and privacy.noise not in allowed.noise:
        found.append(f'noise = "{privacy.noise}", allowed are {_listed(allowed.noise)}')
    if allowed.families is not None and plan.model.family not in allowed.families:
        found.append(f'family = "{plan.model.family}", allowed are {_listed(allowed.families)}')
    smallest = max(FLOOR, plan.aggregation.minimum_cohort, plan.noise_quorum)
    if smallest < allowed.minimum_cohort:
        found.append(f"cohorts of {smallest}, at least {allowed.minimum_cohort} sites are asked for")
    if plan.is_private and (privacy.delta or 0) > policy.budget.delta:
        found.append(f"delta = {privacy.delta:g}, at most {policy.budget.delta:g} is allowed")
    elif plan.is_private and units and (privacy.delta or 0) > (most := DELTA_PER_UNIT / public_count(units)):
        # Of the public count: whether a plan is refused here must not tell of one patient more or less.
        found.append(f"delta = {privacy.delta:g}, at most {most:.2g} is allowed with so many patients here (1/(10 N), N rounded down)")
    return found


def declined(policy: Policy, plan: Plan) -> tuple[Release, ...]:
    """The releases of a plan that the policy does not allow: this site has no part in them, in what else the plan does it has."""
    asked: dict[Release, object] = {"training": plan.training, "evaluation": plan.evaluation, "statistics": plan.statistics}
    return tuple(kind for kind, section in asked.items() if section is not None and kind not in policy.plans.releases)


def admit(policy: Policy, plan: Plan, use: Use, *, units: int) -> None:
    """Raises: PolicyRefused, naming everything that is in the way."""
    found = objections(policy, plan, units=units)
    if RELEASE_OF[use] not in policy.plans.releases:
        found.append(f'a release of kind "{RELEASE_OF[use]}", allowed are {_listed(policy.plans.releases)}')
    if found:
        raise PolicyRefused(
            f"plan '{plan.name}' has {'; '.join(found)}.",
            fix=f"Nothing was opened. The site's {POLICY_FILE} decides; change it only after reading the plan: fedward plan show.",
        )


def check_recorded(policy: Policy, recorded: Caps) -> None:
    """Whether nobody raised a cap in the file alone. Raises: PolicyRefused."""
    if raised := policy.budget.raised_over(recorded):
        words = ", ".join(f"{name} = {getattr(policy.budget, name):g} (signed for: {getattr(recorded, name):g})" for name in raised)
        raise PolicyRefused(
            f"{POLICY_FILE} raises {words}.",
            fix="A higher cap takes a signed entry that says why: fedward site ledger override --help. Nothing was opened.",
        )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in names) or "none"
