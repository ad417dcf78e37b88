# SPDX-License-Identifier: Apache-2.0
"""A hospital's end of a round: check, reserve, train, release, remember.

    request -> is it my plan? is it new? -> ledger: reserve -> open data -> RawDelta -> release -> quantise -> store -> masked -> reply

The order is the point. A request that does not fit is refused before anything is opened. The cost is on the ledger before the first image
is read. The reply is on disk before it is sent, so that the same request always gets the same bytes.

A site answers secure aggregation (`client.fsa1`) and nothing else. Only a simulated site, whose own file says so, also answers with an
update that is not masked, to be compared with; no coordinator can ask another for one.

A `Site` is opened on its home folder:

    site.toml       its name, where its data lies, and (in simulations only) an unsafe noise seed and another aggregation
    identity.key    its own key, with roster and roots: who it is, and who takes part
    ledger.jsonl    what was spent
    fsa1/           where it stands in secure aggregation
    answers/        the newest reply, where nothing is masked
    patient.key     the secret that turns patient ids into keys
    data/           the prepared data set, or cache/, made from the folder that site.toml names
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from client import fsa1
from client.attempts import AttemptStore
from client.imaging.dataset import Dataset
from client.imaging.prepared import load_prepared
from client.imaging.splits import Split
from client.ledger import Ledger
from client.release import on_lattice, quantise, release
from client.steps import Answered, StepStore, Update
from client.training import LocalWork, NoiseSource, SystemNoise, UnsafeSeededNoise, noised_sum, train_locally, units_of
from common import canonical, credentials
from common.agreement import grid_of, group_around, terms_of
from common.errors import DataNotFound, PlanMismatch
from common.models import initial_weights, layout_of_plan
from common.plan import Plan, digest_of
from common.plan.parse import read_table, validate
from common.plan.spec import STRICT
from common.privacy import round_charge
from common.roster import NAME_PATTERN, Roster
from common.secagg.messages import RoundTag
from common.secagg.terms import Seat
from common.update import Layout, NoisedSum, QuantisedDelta, ReleasedDelta, Vector, Weights
from common.wire import Hello, HelloReply, IdealReply, SecureReply, SecureRequest, Step, TrainReply, TrainRequest

SITE_FILE = "site.toml"
ANSWERS_FOLDER = "answers"
ATTEMPTS_FOLDER = "fsa1"
LEDGER_FILE = "ledger.jsonl"
PREPARED_FOLDER = "data"


AggregationName = Literal["fsa1", "ideal", "plain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteName:
    """[site]: the name that the roster has for it."""

    __pydantic_config__ = STRICT
    name: Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedSite:
    """Only a simulated site has this: it skips fsync, and may draw its noise from a seed so that two runs can be compared bit by bit.

    aggregation: "fsa1" as deployed; "ideal" sends the same integers without masks, for large sweeps; "plain" floats, for comparison.
    """

    __pydantic_config__ = STRICT
    unsafe_noise_seed: int | None = None
    aggregation: AggregationName = "fsa1"


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteFile:
    """site.toml: what a site knows about itself. `simulation` is refused by `fedward site serve`."""

    __pydantic_config__ = STRICT
    site: SiteName
    simulation: SimulatedSite | None = None


_SITE_FILE: TypeAdapter[SiteFile] = TypeAdapter(SiteFile)


def read_site_file(home: Path) -> SiteFile:
    """Raises: DataNotFound, PlanSyntax, PlanUnknownKey, PlanValue."""
    path = home / SITE_FILE
    if not path.is_file():
        raise DataNotFound(f"site folder '{home}' has no {SITE_FILE}.", fix="Point FEDWARD_SITE at a site's home folder.")
    text = path.read_text(encoding="utf-8")
    return validate(_SITE_FILE, read_table(text, name=str(path)), text=text, name=str(path))


class Site:
    """One hospital and the plan that it approved."""

    def __init__(self, *, name: str, home: Path, plan: Plan, simulated: SimulatedSite | None) -> None:
        power_cut_safe = simulated is None
        self.name = name
        self.home = home
        self._plan = plan
        self._simulated = simulated
        unsafe = simulated.unsafe_noise_seed if simulated else None
        self._noise = _system_noise if unsafe is None else _seeded_noise(unsafe)
        self._steps = StepStore(home / ANSWERS_FOLDER, power_cut_safe=power_cut_safe)
        self._attempts = AttemptStore(home / ATTEMPTS_FOLDER, power_cut_safe=power_cut_safe)
        self._ledger = Ledger(home / LEDGER_FILE, power_cut_safe=power_cut_safe)

    @classmethod
    def open(cls, home: Path, plan: Plan) -> "Site":
        """Open a site on its home folder. Raises: DataNotFound, PlanSyntax, PlanUnknownKey, PlanValue, LedgerTampered."""
        file = read_site_file(home)
        return cls(name=file.site.name, home=home, plan=plan, simulated=file.simulation)

    @cached_property
    def layout(self) -> Layout:
        """The layout that the approved plan implies; nothing else is accepted."""
        return layout_of_plan(self._plan)

    def hello(self, message: Hello) -> HelloReply:
        """Say who this is. Raises: PlanMismatch."""
        self._check_plan(message.plan)
        return HelloReply(site=self.name)

    def secure(self, request: SecureRequest) -> SecureReply:
        """Answer one step of secure aggregation.

        Raises: ProtocolError, RosterError, UpdateError, CohortTooSmall, SecretFile; before any image is opened BudgetExceeded,
        EpsilonImpossible, TooFewPatients.
        """
        # Read anew each time: a roster may have been renewed, and other processes may serve this site too.
        mine = credentials.load(self.home, "site")
        terms = terms_of(self._plan, self._initial, mine.roster, group_around(self.name, self._plan, mine.roster))
        seat = Seat(site_id=self.name, signer=mine.signer, terms=terms, roster=mine.roster, entropy=secrets.token_bytes)

        def train(tag: RoundTag, model: Vector) -> QuantisedDelta:
            step = Step(session=tag.session, round=tag.round, attempt=tag.attempt, plan=digest_of(self._plan))
            return self._quantised(TrainRequest(step=step, weights=Weights(layout=self.layout, values=model)), mine.roster)

        desk = fsa1.Desk(seat=seat, store=self._attempts, initial=self._initial, train=train, now=lambda: int(time.time()))
        return fsa1.answer(desk, request)

    def train_ideal(self, request: TrainRequest) -> IdealReply:
        """What secure aggregation would sum, unmasked: in simulations only. Raises: as `train`, and RosterError."""
        self._allow("ideal")
        roster = credentials.load_roster(self.home)
        update = self._answered(request, lambda: self._quantised(request, roster))
        assert isinstance(update, QuantisedDelta)
        return IdealReply(step=request.step, site=self.name, update=update)

    def train(self, request: TrainRequest) -> TrainReply:
        """Answer a training request with floats, from the store if it was answered before: in simulations only.

        Raises: PlanMismatch, Replay, Equivocation; before any image is opened BudgetExceeded, EpsilonImpossible, TooFewPatients; and
        UpdateError, if training diverged.
        """
        self._allow("plain")
        if self._plan.shares_noise:
            raise PlanMismatch(
                f"plan '{self._plan.name}' shares its noise among sites: no site's own update is private enough to leave in plain floats.",
                fix="Sum securely, or in a simulation with --aggregation ideal.",
            )
        update = self._answered(request, lambda: self._released(request))
        assert isinstance(update, ReleasedDelta)
        return TrainReply(step=request.step, site=self.name, update=update)

    def _allow(self, aggregation: AggregationName) -> None:
        if self._simulated is None or self._simulated.aggregation != aggregation:
            raise PlanMismatch(
                f"site '{self.name}' was asked for an update that is not masked ({aggregation} aggregation).",
                fix="Only a simulated site can be told to; [simulation] in its site.toml.",
            )

    def _answered(self, request: TrainRequest, train: Callable[[], Update]) -> Update:
        self._check_plan(request.step.plan)
        digest = request.weights.digest.hex()
        update = self._steps.find(request.step, digest)
        if update is None:
            update = train()
            self._steps.store(Answered(step=request.step, request=digest, update=update))
        return update

    @cached_property
    def _initial(self) -> Weights:
        return initial_weights(self._plan)

    def _quantised(self, request: TrainRequest, roster: Roster) -> QuantisedDelta:
        """Train, and put what came of it on the ring's lattice, where a noised sum is already.

        Rounding may be random, so the caller stores what this gives: a repeat is answered from there.
        """
        if self._plan.shares_noise:
            return on_lattice(self._noised(request), grid_of(self._plan, roster))
        member = roster.find(self.name)
        entropy = self._randomness(request, b"rounding").open()
        return quantise(self._released(request), grid_of(self._plan, roster), weight=member.weight if member else 1, entropy=entropy)

    def _noised(self, request: TrainRequest) -> NoisedSum:
        work = self._reserve(request, len(units_of(self._data, self._plan)))
        return noised_sum(request.weights, self._data, self._plan, work)

    def _released(self, request: TrainRequest) -> ReleasedDelta:
        data = self._data
        work = self._reserve(request, len(units_of(data, self._plan)))
        delta = train_locally(request.weights, data, self._plan, work)
        return release(delta, max_norm=self._plan.aggregation.update_norm)

    @cached_property
    def _data(self) -> Dataset:
        data = load_prepared(self.home / PREPARED_FOLDER)
        return data.subset(data.rows_of(Split.TRAIN))

    def _reserve(self, request: TrainRequest, num_units: int) -> LocalWork:
        """How much work this round is, paid for on the ledger if the plan is private."""
        step, training = request.step, self._plan.training
        order = canonical.digest(b"order", canonical.encode([training.seed, self.name, step.round]))
        noise = self._randomness(request)
        if not self._plan.is_private:
            return LocalWork(steps=self._plain_steps(num_units), noise_multiplier=None, order_seed=order, noise=noise)
        charge = round_charge(self._plan, num_units)
        event = charge.outside
        self._ledger.reserve(
            event, spec=self._plan.privacy, plan=step.plan, session=step.session.hex(), number=step.round, attempt=step.attempt
        )
        return LocalWork(steps=event.steps, noise_multiplier=charge.own_share.noise_multiplier, order_seed=order, noise=noise)

    def _randomness(self, request: TrainRequest, *purpose: bytes) -> NoiseSource:
        """The system's, or in a simulation that was asked for it a stream of this site, step, model and purpose alone."""
        step = request.step
        context = canonical.encode([self.name, step.session, step.round, step.attempt])
        return self._noise(canonical.digest(context, request.weights.digest, *purpose))

    def _plain_steps(self, num_units: int) -> int:
        training = self._plan.training
        if training.local_steps is not None:
            return training.local_steps
        assert training.local_epochs is not None
        return training.local_epochs * -(-num_units // training.batch)

    def _check_plan(self, digest: str) -> None:
        if digest != digest_of(self._plan):
            raise PlanMismatch(
                f"the coordinator runs plan {digest[:12]}, site '{self.name}' approved {digest_of(self._plan)[:12]}.",
                fix="Compare `fedward plan show` on both sides; a plan is agreed to whole.",
            )


def _system_noise(_: bytes) -> NoiseSource:
    return SystemNoise()


def _seeded_noise(seed: int) -> Callable[[bytes], NoiseSource]:
    """For comparing runs bit by bit, in simulations only: who knows the seed can subtract the noise."""

    def source(context: bytes) -> NoiseSource:
        return UnsafeSeededNoise(canonical.digest(b"unsafe noise", canonical.encode(seed), context))

    return source
