# SPDX-License-Identifier: Apache-2.0
"""Every way in which fedward refuses, as one tree.

A leaf exists where a caller, or a tired person, would do something different. Each leaf carries a stable code: it is what logs,
audit entries and `--json` show, and what the documentation is indexed by. A message names the thing, what was found and what was
expected; `fix` says what to do next. No message holds a patient's data, a key, a share or a raw pixel value.

    FedwardError
    |-- PlanError                 E_PLAN                 a plan file that cannot be agreed to
    |   |-- PlanSyntax            E_PLAN_SYNTAX          not TOML
    |   |-- PlanUnknownKey        E_PLAN_UNKNOWN_KEY     a key that means nothing here
    |   |-- PlanValue             E_PLAN_VALUE           a value of the wrong type or outside its range
    |   |-- PlanConflict          E_PLAN_CONFLICT        values that exclude each other
    |   |-- PlanSignature         E_PLAN_SIGNATURE       a plan that too few of the consortium's root keys signed
    |   |-- PlanNotApproved       E_PLAN_NOT_APPROVED    no plan that this site's operator approved
    |   `-- ApprovalBroken        E_APPROVAL             an approval that this site did not sign, or of another plan
    |-- DataError                 E_DATA                 the data cannot be used as asked
    |   |-- DataNotFound          E_DATA_NOT_FOUND       no such folder or file
    |   |-- DataUnreadable        E_DATA_UNREADABLE      a file that does not decode
    |   |-- NoPatientId           E_NO_PATIENT_ID        the unit of privacy is missing
    |   |-- LabelsMismatch        E_LABELS               labels that match nothing, or one class only
    |   |-- PatientStraddles      E_SPLIT                one patient on two sides of a split
    |   |-- SnapshotMismatch      E_SNAPSHOT             data that are not the snapshot that was approved
    |   `-- TooFewPatients        E_TOO_FEW_PATIENTS     fewer than the plan's batch or split needs
    |-- PrivacyError              E_PRIVACY              the promise cannot be kept
    |   |-- EpsilonImpossible     E_EPSILON_IMPOSSIBLE   no noise reaches the plan's epsilon
    |   |-- BudgetExceeded        E_PRIVACY_BUDGET       training would pass the budget
    |   |-- TuningBeyondBudget    E_TUNING_BUDGET        a search for which a plan's epsilon is not enough
    |   |-- LedgerTampered        E_LEDGER_TAMPERED      the record of what was spent does not add up
    |   |-- LedgerRollback        E_LEDGER_ROLLBACK      the record of what was spent is gone, or older than others have seen it
    |   |-- LedgerFormat          E_LEDGER_FORMAT        a record of what was spent that another version wrote
    |   |-- PolicyRefused         E_POLICY               a plan, or caps, that this site's own policy does not allow
    |   `-- SimulatedSite         E_SIMULATED_SITE       a site of a simulation, which may skip what protects patients, was to serve
    |-- UpdateError               E_UPDATE               a delta that must not be used
    |   |-- ModelLayout           E_MODEL_LAYOUT         another model's shapes, or a layer that leaks
    |   |-- ModelHash             E_MODEL_HASH           weights that are not the announced ones
    |   |-- ModelNonFinite        E_MODEL_NONFINITE      a global model with NaN or infinity
    |   |-- ModelJump             E_MODEL_JUMP           a global model further from the last one, or from the first, than rounds allow
    |   |-- ModelChain            E_MODEL_CHAIN          a global model that follows from none seen here
    |   |-- UpdateNonFinite       E_UPDATE_NONFINITE     NaN or infinity
    |   |-- UpdateNorm            E_UPDATE_NORM          longer than the agreed bound
    |   |-- UpdateTerms           E_UPDATE_TERMS         made under another plan, or on another grid, than the round's
    |   `-- AggregateNorm         E_AGG_NORM             a sum longer than its sites could make it
    |-- RosterError               E_ROSTER               who takes part is not settled
    |   |-- RosterFormat          E_ROSTER_FORMAT        not a roster in its canonical form
    |   |-- RosterSignature       E_ROSTER_SIGNATURE     too few signatures by the consortium's root keys
    |   |-- RosterChanged         E_ROSTER_CHANGED       another or an older roster than the one held here
    |   |-- RosterExpired         E_ROSTER_EXPIRED       a roster, or a member, out of its validity
    |   |-- RosterNotFound        E_ROSTER_NOT_FOUND     no roster, draft or public key where one was named
    |   |-- RosterTaken           E_ROSTER_TAKEN         a folder, name or draft that is there already
    |   |-- RosterKey             E_ROSTER_KEY           something given for a public key that is none, or another party's
    |   |-- RosterPending         E_ROSTER_PENDING       a newer roster takes trust from somebody, and waits for this site's operator
    |   `-- EnrolmentRefused      E_ENROLMENT            a site's request or statement that does not hold, or is too old
    |-- ProtocolError             E_PROTOCOL             a message that may not be answered
    |   |-- MessageFormat         E_MSG_FORMAT           not one of ours
    |   |-- MessageTooLarge       E_MSG_TOO_LARGE        beyond the size the plan implies
    |   |-- PlanMismatch          E_PLAN_MISMATCH        another plan than the one approved here
    |   |-- Replay                E_REPLAY               a round that is over
    |   |-- Equivocation          E_EQUIVOCATION         two different requests for one step
    |   |-- UnknownVersion        E_VERSION              a protocol version that is not spoken here
    |   |-- CoordinatorSignature  E_COORDINATOR_SIGNATURE  not signed by the roster's coordinator
    |   |-- RoundTagMismatch      E_ROUND_TAG            a message of another round, attempt or model
    |   |-- WrongStage            E_STATE                a step that is not due now
    |   |-- RoundExpired          E_EXPIRED              an attempt that was given up or overtaken
    |   |-- CohortOrder           E_COHORT_ORDER         a list of sites that is not strictly sorted
    |   |-- UnknownPeer           E_UNKNOWN_PEER         a site that may not be in this cohort
    |   |-- PeerSignature         E_PEER_SIGNATURE       not signed by the site it names
    |   |-- DuplicateKey          E_DUP_KEY              one public key, two owners
    |   |-- OwnKey                E_OWN_KEY              my own announcement was left out or altered
    |   |-- ShareDecrypt          E_SHARE_DECRYPT        a sealed share that does not open
    |   |-- ShareFormat           E_SHARE_FORMAT         a share that is no field element
    |   |-- SurvivorSet           E_SURVIVOR_SET         survivors that are too few, not mine or without me
    |   |-- ConfirmQuorum         E_CONFIRM_QUORUM       too few sites confirmed these survivors
    |   |-- SplitView             E_SPLIT_VIEW           a peer confirmed other survivors
    |   |-- AlreadyMasked         E_ALREADY_MASKED       this update has left masked; it may not leave twice
    |   |-- AlreadyReleased       E_ALREADY_RELEASED     the shares of this attempt are out
    |   |-- AbandonQuorum         E_ABANDON_QUORUM       too few sites gave the earlier attempt up
    |   |-- SitePaused            E_SITE_PAUSED          the site's operator has paused it
    |   `-- SiteLeft              E_SITE_LEFT            the site has left the federation
    |-- RoundError                E_ROUND                a round that did not complete
    |   |-- CohortTooSmall        E_COHORT_TOO_SMALL     fewer answers than the plan's minimum
    |   |-- SecondCoordinator     E_SECOND_COORDINATOR   sites that know more of this run than this coordinator does
    |   |-- ShareReconstruct      E_SHARE_RECONSTRUCT    shares that give no committed secret
    |   |-- SumCanary             E_SUM_CANARY           a sum whose known words are wrong
    |   `-- TrainFailed           E_TRAIN_FAILED         local training raised
    |-- StorageError              E_STORAGE              the run folder
    |   |-- CheckpointCorrupt     E_CHECKPOINT_CORRUPT   a checkpoint that fails its hash
    |   |-- JournalLost           E_JOURNAL_LOST         a coordinator's journal that is gone or damaged, with rounds in it
    |   |-- RunFolderTaken        E_RUN_FOLDER           a folder that belongs to another run
    |   |-- AuditTampered         E_AUDIT_TAMPERED       an audit log that does not follow from its own lines
    |   |-- BundleFormat          E_BUNDLE               a file given for an audit bundle that is none
    |   |-- SecretFile            E_SECRET_FILE          a key's file that is damaged, or that others can read
    |   |-- StatusUnreadable      E_STATUS               a run's status that another version wrote, or that cannot be read
    |   `-- DiskFull              E_DISK_FULL            not enough room to finish safely
    |-- TransportError            E_TRANSPORT            Flower, which carries the messages, cannot be kept up
    |   |-- Exposed               E_EXPOSED              its port would be open to others than this machine
    |   |-- AddressTaken          E_ADDRESS_TAKEN        its port belongs to another process
    |   |-- CertificateMissing    E_CERTIFICATE          a certificate or its key that is not there, or not for this address
    |   |-- NodeKey               E_NODE_KEY             a transport key that is none, or another site's
    |   |-- CoordinatorRunning    E_COORDINATOR_RUNNING  a second coordinator on one folder
    |   |-- SiteRunning           E_SITE_RUNNING         a second process on one site's home, socket or mailbox
    |   |-- InsecureLink          E_INSECURE             a link without TLS to another machine
    |   |-- SiteAway              E_SITE_AWAY            the site process does not answer on its socket
    |   `-- RunStopped            E_STOPPED              a run that was told to stop before its last round
    |-- PacsError                 E_PACS                 images cannot be brought over from the hospital's archive
    |   |-- PacsAway              E_PACS_AWAY            an archive that does not answer
    |   |-- PacsRefused           E_PACS_REFUSED         an archive that does not let this computer, user or AE title in
    |   `-- PacsAnswer            E_PACS_ANSWER          an answer of the archive that cannot be believed
    |-- DeviceError               E_DEVICE               what a site trains on
    |   |-- GpuMissing            E_GPU_MISSING          a GPU that site.toml names and PyTorch does not see
    |   `-- GpuMemory             E_GPU_MEMORY           a GPU with no memory for one image
    |-- EngineError               E_ENGINE               a simulation worker that died
    |-- FailpointUnknown          E_FAILPOINT            a failpoint in the environment that is none
    `-- Unforeseen                E_UNFORESEEN           an exception that nobody named: a fault in fedward
"""

from typing import ClassVar


class FedwardError(Exception):
    """The root. `str(error)` is for people; `error.code` is for machines.

    `accused` are sites whose fault it is; `complaint` is what a site has signed of that, for the coordinator (common.secagg.complaints).
    """

    code: ClassVar[str] = "E_FEDWARD"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, fix: str = "", accused: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        self.accused = accused
        self.complaint = b""

    def __str__(self) -> str:
        return f"{self.message} {self.fix}".rstrip()

    def as_dict(self) -> dict[str, str]:
        """What `--json` prints: code, message and fix."""
        return {"code": self.code, "message": self.message, "fix": self.fix}


class PlanError(FedwardError):
    code = "E_PLAN"


class PlanSyntax(PlanError):
    code = "E_PLAN_SYNTAX"


class PlanUnknownKey(PlanError):
    code = "E_PLAN_UNKNOWN_KEY"


class PlanValue(PlanError):
    code = "E_PLAN_VALUE"


class PlanConflict(PlanError):
    code = "E_PLAN_CONFLICT"


class PlanSignature(PlanError):
    code = "E_PLAN_SIGNATURE"


class PlanNotApproved(PlanError):
    code = "E_PLAN_NOT_APPROVED"


class ApprovalBroken(PlanError):
    code = "E_APPROVAL"


class DataError(FedwardError):
    code = "E_DATA"


class DataNotFound(DataError):
    code = "E_DATA_NOT_FOUND"


class DataUnreadable(DataError):
    code = "E_DATA_UNREADABLE"


class NoPatientId(DataError):
    code = "E_NO_PATIENT_ID"


class LabelsMismatch(DataError):
    code = "E_LABELS"


class PatientStraddles(DataError):
    code = "E_SPLIT"


class SnapshotMismatch(DataError):
    code = "E_SNAPSHOT"


class TooFewPatients(DataError):
    code = "E_TOO_FEW_PATIENTS"


class PrivacyError(FedwardError):
    code = "E_PRIVACY"


class EpsilonImpossible(PrivacyError):
    code = "E_EPSILON_IMPOSSIBLE"


class BudgetExceeded(PrivacyError):
    code = "E_PRIVACY_BUDGET"


class TuningBeyondBudget(PrivacyError):
    """A search whose trials could not be told apart, or not be paid for, within the plan's epsilon; nothing was trained."""

    code = "E_TUNING_BUDGET"


class LedgerTampered(PrivacyError):
    code = "E_LEDGER_TAMPERED"


class LedgerRollback(PrivacyError):
    code = "E_LEDGER_ROLLBACK"


class LedgerFormat(PrivacyError):
    code = "E_LEDGER_FORMAT"


class PolicyRefused(PrivacyError):
    code = "E_POLICY"


class SimulatedSite(PrivacyError):
    code = "E_SIMULATED_SITE"


class UpdateError(FedwardError):
    code = "E_UPDATE"


class ModelLayout(UpdateError):
    code = "E_MODEL_LAYOUT"


class ModelHash(UpdateError):
    code = "E_MODEL_HASH"


class ModelNonFinite(UpdateError):
    code = "E_MODEL_NONFINITE"


class ModelJump(UpdateError):
    code = "E_MODEL_JUMP"


class ModelChain(UpdateError):
    code = "E_MODEL_CHAIN"


class UpdateNonFinite(UpdateError):
    code = "E_UPDATE_NONFINITE"


class UpdateNorm(UpdateError):
    code = "E_UPDATE_NORM"


class UpdateTerms(UpdateError):
    code = "E_UPDATE_TERMS"


class AggregateNorm(UpdateError):
    code = "E_AGG_NORM"


class RosterError(FedwardError):
    code = "E_ROSTER"


class RosterFormat(RosterError):
    code = "E_ROSTER_FORMAT"


class RosterSignature(RosterError):
    code = "E_ROSTER_SIGNATURE"


class RosterChanged(RosterError):
    code = "E_ROSTER_CHANGED"


class RosterExpired(RosterError):
    code = "E_ROSTER_EXPIRED"


class RosterNotFound(RosterError):
    code = "E_ROSTER_NOT_FOUND"


class RosterTaken(RosterError):
    code = "E_ROSTER_TAKEN"


class RosterKey(RosterError):
    code = "E_ROSTER_KEY"


class RosterPending(RosterError):
    code = "E_ROSTER_PENDING"


class EnrolmentRefused(RosterError):
    code = "E_ENROLMENT"


class ProtocolError(FedwardError):
    code = "E_PROTOCOL"


class MessageFormat(ProtocolError):
    code = "E_MSG_FORMAT"


class MessageTooLarge(ProtocolError):
    code = "E_MSG_TOO_LARGE"


class PlanMismatch(ProtocolError):
    code = "E_PLAN_MISMATCH"


class Replay(ProtocolError):
    code = "E_REPLAY"


class Equivocation(ProtocolError):
    code = "E_EQUIVOCATION"


class UnknownVersion(ProtocolError):
    code = "E_VERSION"


class CoordinatorSignature(ProtocolError):
    code = "E_COORDINATOR_SIGNATURE"


class RoundTagMismatch(ProtocolError):
    code = "E_ROUND_TAG"


class WrongStage(ProtocolError):
    code = "E_STATE"


class RoundExpired(ProtocolError):
    code = "E_EXPIRED"


class CohortOrder(ProtocolError):
    code = "E_COHORT_ORDER"


class UnknownPeer(ProtocolError):
    code = "E_UNKNOWN_PEER"


class PeerSignature(ProtocolError):
    code = "E_PEER_SIGNATURE"


class DuplicateKey(ProtocolError):
    code = "E_DUP_KEY"


class OwnKey(ProtocolError):
    code = "E_OWN_KEY"


class ShareDecrypt(ProtocolError):
    code = "E_SHARE_DECRYPT"


class ShareFormat(ProtocolError):
    code = "E_SHARE_FORMAT"


class SurvivorSet(ProtocolError):
    code = "E_SURVIVOR_SET"


class ConfirmQuorum(ProtocolError):
    code = "E_CONFIRM_QUORUM"


class SplitView(ProtocolError):
    code = "E_SPLIT_VIEW"


class AlreadyMasked(ProtocolError):
    code = "E_ALREADY_MASKED"


class AlreadyReleased(ProtocolError):
    code = "E_ALREADY_RELEASED"


class AbandonQuorum(ProtocolError):
    code = "E_ABANDON_QUORUM"


class SitePaused(ProtocolError):
    code = "E_SITE_PAUSED"


class SiteLeft(ProtocolError):
    code = "E_SITE_LEFT"


class RoundError(FedwardError):
    code = "E_ROUND"


class CohortTooSmall(RoundError):
    code = "E_COHORT_TOO_SMALL"


class SecondCoordinator(RoundError):
    code = "E_SECOND_COORDINATOR"


class ShareReconstruct(RoundError):
    code = "E_SHARE_RECONSTRUCT"


class SumCanary(RoundError):
    code = "E_SUM_CANARY"


class TrainFailed(RoundError):
    code = "E_TRAIN_FAILED"


class StorageError(FedwardError):
    code = "E_STORAGE"


class CheckpointCorrupt(StorageError):
    code = "E_CHECKPOINT_CORRUPT"


class JournalLost(StorageError):
    code = "E_JOURNAL_LOST"


class RunFolderTaken(StorageError):
    code = "E_RUN_FOLDER"


class AuditTampered(StorageError):
    code = "E_AUDIT_TAMPERED"


class BundleFormat(StorageError):
    code = "E_BUNDLE"


class SecretFile(StorageError):
    code = "E_SECRET_FILE"


class StatusUnreadable(StorageError):
    code = "E_STATUS"


class DiskFull(StorageError):
    code = "E_DISK_FULL"


class TransportError(FedwardError):
    code = "E_TRANSPORT"
    exit_code = 4


class Exposed(TransportError):
    code = "E_EXPOSED"


class AddressTaken(TransportError):
    code = "E_ADDRESS_TAKEN"


class CertificateMissing(TransportError):
    code = "E_CERTIFICATE"


class NodeKey(TransportError):
    code = "E_NODE_KEY"


class CoordinatorRunning(TransportError):
    code = "E_COORDINATOR_RUNNING"
    exit_code = 5


class SiteRunning(TransportError):
    code = "E_SITE_RUNNING"
    exit_code = 5


class InsecureLink(TransportError):
    code = "E_INSECURE"


class SiteAway(TransportError):
    code = "E_SITE_AWAY"


class RunStopped(TransportError):
    code = "E_STOPPED"
    exit_code = 3


class PacsError(FedwardError):
    code = "E_PACS"


class PacsAway(PacsError):
    code = "E_PACS_AWAY"


class PacsRefused(PacsError):
    code = "E_PACS_REFUSED"


class PacsAnswer(PacsError):
    code = "E_PACS_ANSWER"


class DeviceError(FedwardError):
    code = "E_DEVICE"


class GpuMissing(DeviceError):
    code = "E_GPU_MISSING"


class GpuMemory(DeviceError):
    code = "E_GPU_MEMORY"


class EngineError(FedwardError):
    code = "E_ENGINE"


class FailpointUnknown(FedwardError):
    code = "E_FAILPOINT"


class Unforeseen(FedwardError):
    code = "E_UNFORESEEN"
