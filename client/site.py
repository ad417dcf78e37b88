# SPDX-License-Identifier: Apache-2.0
"""A hospital's end of a round: check, reserve, train, release, remember.

    request -> my plan? new? -> policy, snapshot, ledger: reserve -> open data: RawDelta -> release -> quantise -> store -> masked -> reply

The order is the point. A request that does not fit is refused before anything is opened. The cost is on the ledger before the first image
is read. The reply is on disk before it is sent, so that the same request always gets the same bytes.

A site answers secure aggregation (`client.fsa1`) and nothing else. Only a simulated site, whose own file says so, also answers with an
update that is not masked, to be compared with; no coordinator can ask another for one.

A `Site` is opened on its home folder:

    site.toml       its name, whose patients its data are, and (in simulations only) an unsafe noise seed and another aggregation
    policy.toml     what it allows, whatever a plan asks
    identity.key    its own key, with roster and roots: who it is, and who takes part
    ledger.jsonl    what was spent; ledger.head-N, how far it had come; ledger.sent-N, how far updates have left
    fsa1/           where it stands in secure aggregation
    answers/        the newest reply, where nothing is masked
    patient.key     the secret that turns patient ids into keys
    weights/        what was trained elsewhere, if the plan's model starts from it
    data/           the prepared data set and its manifest; cache/, what was decoded for it
"""

import os
import secrets
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from client import fsa1
from client.account import Account, Cost, Paid, Release
from client.attempts import AttemptStore
from client.audit import SiteAudit
from client.counting import judged, measured, noised
from client.echoes import Echoes
from client.home import (
    ANSWERS_FOLDER,
    ATTEMPTS_FOLDER,
    AggregationName,
    SiteFile,
    ledger_place,
    read_site_file,
)
from client.imaging.dataset import Dataset
from client.imaging.manifest import Manifest
from client.imaging.splits import Split
from client.ledger.sent import SentUpdates
from client.release import counts_on_lattice, on_lattice, quantise, release
from client.steps import Answered, StepStore, Update
from client.training import LocalWork, NoiseSource, SystemNoise, UnsafeSeededNoise, choose, noised_sum, train_locally
from common import canonical, credentials
from common.agreement import grid_of, group_around, terms_beside, terms_of
from common.counting import forms_of
from common.errors import FedwardError, PlanMismatch, TrainFailed
from common.models import initial_weights, layout_of_plan, look_in
from common.plan import Plan, digest_of
from common.privacy import round_charge
from common.privacy.entries import Use
from common.roster import Roster
from common.secagg import complaints
from common.secagg.stages import Invited
from common.secagg.terms import Kind, Seat
from common.update import Layout, NoisedSum, QuantisedDelta, ReleasedDelta, Vector, Weights
from common.wire import UPDATE, Hello, HelloReply, IdealReply, SecureReply, SecureRequest, Step, TrainReply, TrainRequest


class Site:
    """One hospital and the plan that it approved."""

    def __init__(self, *, home: Path, plan: Plan, file: SiteFile) -> None:
        simulated, power_cut_safe = file.simulation, file.power_cut_safe
        self.name = file.site.name
        self.home = home
        look_in(home / file.weights.folder)
        choose(file.training.device)
        self._plan = plan
        self._simulated = simulated
        self._unsafe_noise_seed = simulated.unsafe_noise_seed if simulated else None
        self._steps = StepStore(home / ANSWERS_FOLDER, power_cut_safe=power_cut_safe)
        self._attempts = AttemptStore(home / ATTEMPTS_FOLDER, power_cut_safe=power_cut_safe)
        self._sent = SentUpdates(ledger_place(home, file).sent, power_cut_safe=power_cut_safe)
        self._account = Account(home, file)
        self._audit = SiteAudit(home, file)
        self._opened: Dataset | None = None
        self._sides: dict[Split, Dataset] = {}

    @classmethod
    def open(cls, home: Path, plan: Plan) -> "Site":
        """Open a site on its home folder. Raises: DataNotFound, PlanSyntax, PlanUnknownKey, PlanValue, GpuMissing."""
        return cls(home=home, plan=plan, file=read_site_file(home))

    @cached_property
    def layout(self) -> Layout:
        """The layout that the approved plan implies; nothing else is accepted."""
        return layout_of_plan(self._plan)

    def hello(self, message: Hello) -> HelloReply:
        """Say who this is. Raises: PlanMismatch."""
        self._check_plan(message.plan)
        return HelloReply(site=self.name)

    def secure(self, request: SecureRequest) -> SecureReply:
        """Answer one step of secure aggregation; what is refused is in the audit log too, by its code.

        Where peers are at fault, the error that is raised has this site's signed complaint about them.

        Raises: ProtocolError, RosterError, UpdateError, CohortTooSmall, SecretFile, AuditTampered; before any image is opened
        BudgetExceeded, EpsilonImpossible, TooFewPatients.
        """
        try:
            return self._secure(request)
        except FedwardError as error:
            self._audit.refused(request.control, error.code)
            if error.accused:
                signer = credentials.load(self.home, "site").signer
                error.complaint = complaints.write(signer, self.name, request.control, error.accused)
            raise
        except Exception:
            self._audit.refused(request.control, TrainFailed.code)
            raise

    def _secure(self, request: SecureRequest) -> SecureReply:
        # Read anew each time: a roster may have been renewed, and other processes may serve this site too.
        mine = credentials.load(self.home, "site")
        self._audit.enter(self._plan, mine.roster)
        terms = terms_of(self._plan, self._initial, mine.roster, group_around(self.name, self._plan, mine.roster))
        seat = Seat(
            site_id=self.name,
            signer=mine.signer,
            terms=terms,
            roster=mine.roster,
            entropy=secrets.token_bytes,
            beside=terms_beside(terms, self._plan),
            workers=1 if self._simulated else os.cpu_count() or 1,  # simulated sites have one core each
        )

        def work(invited: Invited, model: Vector | None) -> QuantisedDelta:
            tag = invited.tag
            step = Step(session=tag.session, round=tag.round, attempt=tag.attempt, plan=digest_of(self._plan), kind=invited.kind.name)
            weights = self._initial if model is None else Weights(layout=self.layout, values=model)
            return self._quantised(TrainRequest(step=step, weights=weights), mine.roster)

        echoes = Echoes(site_id=self.name, signer=mine.signer, account=self._account, store=self._attempts, audit=self._audit)
        desk = fsa1.Desk(
            seat=seat,
            store=self._attempts,
            sent=self._sent,
            initial=self._initial,
            work=work,
            now=lambda: int(time.time()),
            echoes=echoes,
            audit=self._audit,
        )
        return fsa1.answer(desk, request)

    def train_ideal(self, request: TrainRequest) -> IdealReply:
        """What secure aggregation would sum, unmasked: in simulations only. Raises: as `train`, and RosterError."""
        # Counts are noised whole numbers also where updates are floats.
        self._allow(*(("ideal",) if request.step.kind == UPDATE else ("ideal", "plain")))
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

    def _allow(self, *aggregations: AggregationName) -> None:
        if self._simulated is None or self._simulated.aggregation not in aggregations:
            raise PlanMismatch(
                f"site '{self.name}' was asked for something that is not masked ({' or '.join(aggregations)} aggregation).",
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
        """Train or count, and put what came of it on the ring's lattice, where a noised sum is already.

        Rounding may be random, so the caller stores what this gives: a repeat is answered from there.
        """
        if request.step.kind != UPDATE:
            return self._counted(request, roster)
        if self._plan.shares_noise:
            return on_lattice(self._noised(request), grid_of(self._plan, roster))
        member = roster.find(self.name)
        entropy = self._randomness(request, b"rounding").open()
        return quantise(self._released(request), grid_of(self._plan, roster), weight=member.weight if member else 1, entropy=entropy)

    def _counted(self, request: TrainRequest, roster: Roster) -> QuantisedDelta:
        """A noised statistic or evaluation; paid for before an image is opened."""
        step, plan = request.step, self._plan
        form = next((form for form in forms_of(plan) if form.kind.name == step.kind and step.round in form.rounds), None)
        if form is None:
            raise PlanMismatch(f"round {step.round} of plan '{plan.name}' has no {step.kind[:16]}.", fix="Nothing was counted.")
        use: Use = "EVAL" if form.kind is Kind.EVAL else "STAT"
        paid = self._pay(step, use, lambda *_: form.charge)
        if form.kind is Kind.EVAL:
            counts = judged(request.weights, self._rows_of(Split.VALIDATION, paid.manifest), plan)
        else:
            counts = measured(self._rows_of(Split.TRAIN, paid.manifest), plan)
        member = roster.find(self.name)
        entropy = self._randomness(request, step.kind.encode()).open()
        return counts_on_lattice(noised(counts, form, entropy), form.grid, weight=member.weight if member else 1)

    def _noised(self, request: TrainRequest) -> NoisedSum:
        approved, work = self._reserve(request)
        return noised_sum(request.weights, self._rows_of(Split.TRAIN, approved), self._plan, work)

    def _released(self, request: TrainRequest) -> ReleasedDelta:
        approved, work = self._reserve(request)
        delta = train_locally(request.weights, self._rows_of(Split.TRAIN, approved), self._plan, work)
        return release(delta, max_norm=self._plan.aggregation.update_norm)

    def _rows_of(self, side: Split, approved: Manifest) -> Dataset:
        data = self._account.open_snapshot(approved)
        if self._opened is not data:
            self._opened, self._sides = data, {}
        return self._sides.setdefault(side, data.subset(data.rows_of(side)))

    def _reserve(self, request: TrainRequest) -> tuple[Manifest, LocalWork]:
        """How much work this round is, and on which snapshot; paid for on the ledger if the plan is private. Opens no image."""
        step, plan = request.step, self._plan
        order = canonical.digest(b"order", canonical.encode([plan.training.seed, self.name, step.round]))
        noise = self._randomness(request)
        if not plan.is_private:
            found = self._account.admit(plan)
            steps = self._plain_steps(found.training_records)
            return found, LocalWork(steps=steps, noise_multiplier=None, order_seed=order, round=step.round, noise=noise)
        paid = self._pay(step, "RESERVE", round_charge)
        own = paid.charge.own_share
        return paid.manifest, LocalWork(
            steps=own.steps, noise_multiplier=own.noise_multiplier, order_seed=order, round=step.round, noise=noise
        )

    def _pay(self, step: Step, use: Use, cost: Cost) -> Paid:
        """Charge the ledger; the audit log says which of its lines pays, where there is something to answer for."""
        release = Release(plan=self._plan, session=step.session.hex(), round=step.round, attempt=step.attempt, use=use)
        paid = self._account.pay(release, cost)
        if self._simulated is None or self._simulated.aggregation == "fsa1":
            self._audit.reserved(step, paid.line)
        return paid

    def _randomness(self, request: TrainRequest, *purpose: bytes) -> NoiseSource:
        """The system's. In a simulation that is to be compared bit by bit, a stream of this site, step, model and purpose alone.

        Who knows that seed can subtract the noise.
        """
        if self._unsafe_noise_seed is None:
            return SystemNoise()
        step = request.step
        context = canonical.digest(canonical.encode([self.name, step.session, step.round, step.attempt]), request.weights.digest, *purpose)
        return UnsafeSeededNoise(canonical.digest(b"unsafe noise", canonical.encode(self._unsafe_noise_seed), context))

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
