# SPDX-License-Identifier: Apache-2.0
"""A hospital's end of a round: check, reserve, train, release, remember.

    request -> is it my plan? is it new? -> ledger: reserve -> open data -> RawDelta -> release -> store -> reply

The order is the point. A request that does not fit is refused before anything is opened. The cost is on the ledger before the first image
is read. The reply is on disk before it is sent, so that the same request always gets the same bytes.

A `Site` is opened on its home folder:

    site.toml       its name, where its data lies, and (in simulations only) an unsafe noise seed
    ledger.jsonl    what was spent
    answers/        the newest reply
    patient.key     the secret that turns patient ids into keys
    data/           the prepared data set, or cache/, made from the folder that site.toml names
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from client.imaging.dataset import Dataset
from client.imaging.prepared import load_prepared
from client.imaging.splits import Split
from client.ledger import Ledger
from client.release import release
from client.steps import Answered, StepStore
from client.training import LocalWork, NoiseSource, SystemNoise, UnsafeSeededNoise, train_locally
from common import canonical
from common.errors import DataNotFound, PlanMismatch
from common.models import layout_of_plan
from common.plan import Plan, digest_of
from common.plan.parse import read_table, validate
from common.plan.spec import STRICT
from common.privacy import round_event
from common.update import Layout, ReleasedDelta
from common.wire import Hello, HelloReply, TrainReply, TrainRequest

SITE_FILE = "site.toml"
ANSWERS_FOLDER = "answers"
LEDGER_FILE = "ledger.jsonl"
PREPARED_FOLDER = "data"


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteName:
    """[site]"""

    __pydantic_config__ = STRICT
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedSite:
    """Only a simulated site has this: it skips fsync, and may draw its noise from a seed so that two runs can be compared bit by bit."""

    __pydantic_config__ = STRICT
    unsafe_noise_seed: int | None = None


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

    def __init__(self, *, name: str, home: Path, plan: Plan, noise: Callable[[bytes], NoiseSource], power_cut_safe: bool) -> None:
        self.name = name
        self.home = home
        self._plan = plan
        self._noise = noise
        self._steps = StepStore(home / ANSWERS_FOLDER, power_cut_safe=power_cut_safe)
        self._ledger = Ledger(home / LEDGER_FILE, power_cut_safe=power_cut_safe)

    @classmethod
    def open(cls, home: Path, plan: Plan) -> "Site":
        """Open a site on its home folder. Raises: DataNotFound, PlanSyntax, PlanUnknownKey, PlanValue, LedgerTampered."""
        file = read_site_file(home)
        simulated = file.simulation is not None
        unsafe = file.simulation.unsafe_noise_seed if file.simulation else None
        noise = _system_noise if unsafe is None else _seeded_noise(unsafe)
        return cls(name=file.site.name, home=home, plan=plan, noise=noise, power_cut_safe=not simulated)

    @cached_property
    def layout(self) -> Layout:
        """The layout that the approved plan implies; nothing else is accepted."""
        return layout_of_plan(self._plan)

    def hello(self, message: Hello) -> HelloReply:
        """Say who this is. Raises: PlanMismatch."""
        self._check_plan(message.plan)
        return HelloReply(site=self.name)

    def train(self, request: TrainRequest) -> TrainReply:
        """Answer a training request, from the store if it was answered before.

        Raises: PlanMismatch, Replay, Equivocation; before any image is opened BudgetExceeded, EpsilonImpossible, TooFewPatients; and
        UpdateError, if training diverged.
        """
        self._check_plan(request.step.plan)
        digest = request.weights.digest.hex()
        update = self._steps.find(request.step, digest)
        if update is None:
            update = self._train_anew(request)
            self._steps.store(Answered(step=request.step, request=digest, update=update))
        return TrainReply(step=request.step, site=self.name, update=update)

    def _train_anew(self, request: TrainRequest) -> ReleasedDelta:
        data = self._data
        work = self._reserve(request, len(data))
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
        noise = self._noise(canonical.digest(canonical.encode([self.name, step.session, step.round, step.attempt]), request.weights.digest))
        if not self._plan.is_private:
            return LocalWork(steps=self._plain_steps(num_units), noise_multiplier=None, order_seed=order, noise=noise)
        event = round_event(self._plan, num_units)
        self._ledger.reserve(
            event, spec=self._plan.privacy, plan=step.plan, session=step.session.hex(), number=step.round, attempt=step.attempt
        )
        return LocalWork(steps=event.steps, noise_multiplier=event.noise_multiplier, order_seed=order, noise=noise)

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
