# SPDX-License-Identifier: Apache-2.0
"""What stands between a plan and a site's patients: policy, approved snapshot, ledger, asked before any image is opened.

    the manifest is the approved one -> units -> policy allows it? -> cost of a round -> ledger: reserve -> only now the images

How many training units there are is read from the manifest of the last approved snapshot, so counting opens nothing. What may be opened
afterwards is that snapshot: `open_snapshot` compares.

A simulated site has nobody to type commands: its ledger is opened and its data are approved by the first charge, and without a policy.toml
it allows what the plan asks. A deployed one refuses until each was done on purpose.
"""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from client import policy
from client.home import PREPARED_FOLDER, SiteFile, ledger_place
from client.imaging import conservation, manifest
from client.imaging.dataset import Dataset
from client.imaging.manifest import NAMED_BY_PATIENT, Manifest
from client.imaging.prepared import load_prepared
from client.ledger import Chain, Ledger, Occasion, Pen, Position, limits_of, witness
from client.ledger.witness import Witness
from client.policy import POLICY_FILE, Policy
from common import failpoints, keyfile
from common.credentials import KEY_FILE
from common.errors import DataNotFound, LedgerRollback, LedgerTampered, NoPatientId, SnapshotMismatch
from common.plan import Plan, digest_of
from common.privacy import Charge, public_count, round_charge
from common.privacy.entries import Caps, Fact, PlanSeen, Snapshotted, Use
from common.secagg.keys import SigningKey

SIMULATED_NAMESPACE: Final = "simulation"
Cost = Callable[[Plan, int], Charge]
"""What a release of a plan costs at a site of so many units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What is to be released, as the ledger names it."""

    plan: Plan
    session: str
    round: int
    attempt: int
    use: Use = "RESERVE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Paid:
    """A charge that is on the ledger, the line that it is, and the snapshot that it may open."""

    charge: Charge
    line: Position
    manifest: Manifest


class Account:
    """One home's account with its patients. `clock` gives Unix seconds."""

    def __init__(self, home: Path, file: SiteFile, *, clock: Callable[[], float] = time.time) -> None:
        self._home, self._file, self._clock = home, file, clock
        self._place = ledger_place(home, file)
        self._ledger: Ledger | None = None
        self._signer: SigningKey | None = None
        self._manifest: Manifest | None = None
        self._data: tuple[Manifest, Dataset] | None = None

    def chain(self) -> Chain | None:
        """The home's ledger as it stands now; None in a simulation that has spent nothing.

        Raises: LedgerRollback, LedgerTampered, LedgerFormat, SecretFile.
        """
        if self._is_simulated and not self._place.file.exists():
            return None
        return self._open().refresh()

    def admit(self, plan: Plan, *, use: Use = "RESERVE") -> Manifest:
        """Whether a plan may be followed here at all, and the snapshot of the data that it may see.

        A plan without privacy costs nothing that could be counted: that it was followed is written down all the same.
        Raises: PolicyRefused, SnapshotMismatch, NoPatientId; DataNotFound for a site without policy or namespace; as `chain`.
        """
        found = self._approved(plan)
        if not self._admits_all:
            policy.admit(self._policy(plan), plan, use, units=_units(plan, found))
        if not plan.is_private and self._ledger is not None:
            seen = _words(plan)
            self._ledger.note(lambda chain: None if seen.plan in chain.plans else seen)
        return found

    def pay(self, release: Release, cost: Cost = round_charge) -> Paid:
        """Charge one release of a private plan, or refuse.

        Guarantees: when it returns, the charge is on the disk, and no image was opened.
        Raises: as `admit`; BudgetExceeded, TooFewPatients, EpsilonImpossible, DiskFull.
        """
        plan, digest = release.plan, digest_of(release.plan)
        ledger = self._begun(plan)
        found = self.admit(plan, use=release.use)
        allowed = self._policy(plan)

        def permit(chain: Chain) -> None:
            if not self._admits_all:
                policy.check_recorded(allowed, chain.caps)

        charge = cost(plan, _units(plan, found))
        ledger.reserve(
            charge,
            Occasion(
                kind=release.use,
                plan=digest,
                session=release.session,
                round=release.round,
                attempt=release.attempt,
                snapshot=found.digest,
            ),
            limits_of(plan, digest, allowed.budget),
            words=_words(plan),
            permit=permit,
        )
        failpoints.reach("after_reserve")
        return Paid(charge=charge, line=ledger.chain.position, manifest=found)

    def open_snapshot(self, approved: Manifest) -> Dataset:
        """The images of an approved snapshot; those that were opened before, if it is the same. Raises: DataError."""
        if self._data is None or self._data[0].digest != approved.digest:
            data = load_prepared(self._home / PREPARED_FOLDER)
            manifest.check(data, approved, pixels=not self._is_simulated)
            conservation.check(self._home / PREPARED_FOLDER, cases=len(data))
            self._data = (approved, data)
        return self._data[1]

    def ledger(self) -> Ledger:
        """The home's ledger, to write facts into. Raises: as `chain`."""
        return self._open()

    def testify(self, missing: Witness) -> NoReturn:
        """Write down that a peer has seen a line which is not here; nothing is charged until its loss is. Raises: LedgerRollback."""
        witness.keep(self._place.witness, missing, power_cut_safe=not self._is_simulated)
        raise witness.missing(missing, self._place.file)

    def begin(self, budget: Caps, *, after_loss: bool = False) -> Ledger:
        """Open a new ledger; `after_loss`, beside the sealed head of one that is gone. Raises: LedgerRollback, where there is one."""
        return Ledger.found(
            self._place, self.pen(), site=self._file.site.name, namespace=self._namespace, caps=budget, after_loss=after_loss
        )

    def prepared_units(self, plan: Plan) -> int:
        """Training units of a plan in what is prepared here, approved or not. Raises: SnapshotMismatch, NoPatientId."""
        return _units(plan, manifest.read(self._home / PREPARED_FOLDER))

    def pen(self) -> Pen:
        """Raises: SecretFile."""
        signer = keyfile.load(self._home / KEY_FILE, "site")
        return Pen(signer=signer, clock=lambda: int(self._clock()), power_cut_safe=not self._is_simulated)

    @property
    def _is_simulated(self) -> bool:
        return self._file.simulation is not None

    @property
    def _admits_all(self) -> bool:
        return self._is_simulated and not (self._home / POLICY_FILE).exists()

    @property
    def _namespace(self) -> str:
        if self._file.data is None and not self._is_simulated:
            raise DataNotFound(
                f"site '{self._file.site.name}' does not say whose patients its data are.",
                fix='Add [data] namespace = "..." to site.toml: the same name for every export of the same patients.',
            )
        return self._file.data.namespace if self._file.data else SIMULATED_NAMESPACE

    @property
    def dataset(self) -> str:
        """The name of this preparation of the patients' images."""
        return self._file.data.dataset if self._file.data else "main"

    def _policy(self, plan: Plan) -> Policy:
        return policy.admitting(plan) if self._admits_all else policy.load(self._home)

    def _begun(self, plan: Plan) -> Ledger:
        if self._is_simulated and not self._place.file.exists():
            with suppress(LedgerRollback):  # another worker was first; if it was not that, opening says so
                self._ledger = self.begin(self._policy(plan).budget)
        return self._open()

    def _open(self) -> Ledger:
        pen = self.pen()
        if self._ledger is None or self._signer != pen.signer:  # a new identity key came into use: client/membership/rotation.py
            ledger = Ledger(self._place, pen)
            if ledger.chain.namespace != self._namespace:
                raise LedgerTampered(
                    f"ledger '{self._place.file}' is of namespace '{ledger.chain.namespace}', site.toml says '{self._namespace}'.",
                    fix="The same patients keep their namespace and their ledger; other patients need a home of their own.",
                )
            self._ledger, self._signer = ledger, pen.signer
        return self._ledger

    def _approved(self, plan: Plan) -> Manifest:
        """The manifest of the prepared data, which the ledger must have approved. Opens no image."""
        if self._is_simulated and not plan.is_private and not self._place.file.exists():
            return manifest.read(self._home / PREPARED_FOLDER)
        ledger = self._open()
        approved = ledger.refresh().snapshots.get(self.dataset)
        if self._manifest is not None and approved is not None and self._manifest.digest == approved.manifest:
            return self._manifest
        found = manifest.read(self._home / PREPARED_FOLDER)
        if approved is None and self._is_simulated:
            ledger.note(lambda chain: self.snapshot_fact(chain, found))
        elif approved is None or approved.manifest != found.digest:
            raise SnapshotMismatch(
                f"the prepared data '{self.dataset}' are not a snapshot that was approved here.",
                fix="Approve them: fedward site snapshot. Nothing was opened.",
            )
        self._manifest = found
        return found

    def snapshot_fact(self, chain: Chain, found: Manifest) -> Fact | None:
        """What the ledger says of a snapshot; None, if it says so already."""
        before = chain.snapshots.get(self.dataset)
        if before is not None and before.manifest == found.digest:
            return None
        return Snapshotted(
            dataset=self.dataset,
            manifest=found.digest,
            unit_source=found.unit_source,
            public_patients=public_count(found.training_patients),
            public_records=public_count(found.training_records),
        )


def _units(plan: Plan, found: Manifest) -> int:
    """Training units of a plan in a snapshot. Raises: NoPatientId."""
    if plan.privacy.unit != "patient":
        return found.training_records
    if found.unit_source not in NAMED_BY_PATIENT:
        raise NoPatientId(
            f"plan '{plan.name}' promises privacy to patients, and the images of this snapshot do not say who is one.",
            fix='Give a patient id with every image, or set [privacy] unit = "record", which protects single images only.',
        )
    return found.training_patients


def _words(plan: Plan) -> PlanSeen:
    privacy = plan.privacy
    return PlanSeen(
        plan=digest_of(plan),
        name=plan.name,
        purpose=plan.plan.purpose,
        unit=privacy.unit,
        noise=privacy.noise,
        epsilon=privacy.epsilon or math.inf,
        delta=privacy.delta or 0.0,
        rounds=plan.training.rounds,
    )
