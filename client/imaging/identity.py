# SPDX-License-Identifier: Apache-2.0
"""Who an image belongs to, said without saying who: keyed hashes of identifiers.

A patient is everything under one (issuer, PatientID). Outside the reader a patient is only ever

    patient_key = HMAC-SHA256(secret, len||"patient" || len||issuer || len||PatientID)[:16], in hex

The lengths make ("AB", "C") and ("A", "BC") two patients. Without the secret the key cannot be found by trying all medical record
numbers, which is what a plain hash would allow. The secret belongs to the site, lies in a file that only its owner can read, and must be
kept: with a new one every patient gets a new key, and with it perhaps another side of the train/test split.

Not protected: whoever reads both the secret and the images. The key is a pseudonym, not anonymity (GDPR recital 26).
"""

import hashlib
import hmac
import os
import secrets
import stat
import unicodedata
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from common.canonical import length_prefixed
from common.errors import SecretFile

SECRET_BYTES = 32
KEY_BYTES = 16
LONGEST_ID = 256  # characters; VR LO allows 64 (PS3.5 6.2), archives have been seen to write more

# What de-identification tools, scanners and tired people write where an identifier should be, without case and punctuation.
PLACEHOLDERS = frozenset(
    {
        "anon", "anonym", "anonymous", "anonymized", "anonymised", "anonymousid", "anonymouspatient", "blank", "default", "deidentified",
        "deleted", "dummy", "empty", "id", "missing", "na", "nan", "nd", "nil", "noid", "none", "nopatientid", "notavailable", "notknown",
        "null", "patient", "patientid", "pid", "pseudonymised", "pseudonymized", "redacted", "removed", "unidentified", "unknown",
        "unknownid", "unnamed",
    }
)  # fmt: skip

_UNSEEN = frozenset({"Cc", "Cf"})  # NUL and other padding; marks of order, joiners, spaces without width


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientSecret:
    """The site's 32 secret bytes. Never shown: not by repr, not in an error, not in a cache."""

    value: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.value) != SECRET_BYTES:
            raise SecretFile(
                f"patient secret: {len(self.value)} bytes found, {SECRET_BYTES} expected.",
                fix="Restore the file from its backup; a new secret would move patients between train and test.",
            )

    @property
    def fingerprint(self) -> str:
        """A public name for this secret: equal for equal secrets, and no help in finding them."""
        return self.keyed(b"fingerprint")

    def keyed(self, kind: bytes, *parts: str) -> str:
        """HMAC-SHA256 over the length-prefixed kind and parts, first 16 bytes, as 32 hex digits."""
        message = length_prefixed(kind, *map(_encoded, parts))
        return hmac.new(self.value, message, hashlib.sha256).digest()[:KEY_BYTES].hex()


def patient_key(secret: PatientSecret, issuer: str, patient_id: str) -> str:
    """The keyed name of one patient; padding spaces do not count (PS3.5 6.2, LO), nor what looks alike or is not seen in Unicode."""
    return secret.keyed(b"patient", _normal(issuer), _normal(patient_id))


def unit_key(secret: PatientSecret, unit_source: str, name: str) -> str:
    """The keyed name of what stands for a patient where no patient ids are: a group, an image; spelled as freely as a patient's."""
    return secret.keyed(unit_source.encode(), _normal(name))


def item_key(secret: PatientSecret, kind: str, identifier: str) -> str:
    """The keyed name of one image: of its SOPInstanceUID, its path in the folder or its row, as `kind` says."""
    return secret.keyed(b"item", kind, identifier)


def is_placeholder(patient_id: str) -> bool:
    """Whether this stands where an identifier should be, so that two patients could share it."""
    letters = "".join(character for character in _normal(patient_id).casefold() if character.isalnum())
    return letters in PLACEHOLDERS or not letters.strip("x")


def names_nobody(patient_id: str) -> bool:
    """The same of what stands in a DICOM file, where consoles fill an unknown id with zeros."""
    return is_placeholder(patient_id) or not _normal(patient_id).strip("0")


def load_or_create(path: Path) -> PatientSecret:
    """Read the site's secret, or make one (0600) where there is none. Two processes that make it at once get the same one.

    Raises: SecretFile, if others may read it, if it is not ours, is a link or has the wrong size.
    """
    if not path.is_symlink() and not path.exists():
        _create(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _refusal(path, f"cannot be opened ({error.strerror})", "Put the file itself there, not a link to it.") from error
    with os.fdopen(descriptor, "rb") as file:
        _check_private(path, os.fstat(file.fileno()))
        return PatientSecret(value=file.read(SECRET_BYTES + 1))


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process was first: its secret is the one that counts
            path.hardlink_to(beside)
    finally:
        beside.unlink()


def _check_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _refusal(path, "is not a regular file", "Put the secret's file there.")
    if status.st_mode & 0o077:
        raise _refusal(path, f"has mode {stat.S_IMODE(status.st_mode):04o}, 0600 expected", f"Run: chmod 600 '{path}'.")
    if status.st_uid != os.geteuid():
        raise _refusal(path, f"belongs to user {status.st_uid}, not {os.geteuid()}", "Run as its owner, or restore the owner.")


def _refusal(path: Path, found: str, fix: str) -> SecretFile:
    return SecretFile(f"patient secret '{path}' {found}.", fix=fix)


def _encoded(part: str) -> bytes:
    """A file's name with bytes that are no text, as the bytes that they were; half a character of somebody's JSON, in some way or other."""
    try:
        return part.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return part.encode("utf-8", "surrogatepass")


def _normal(identifier: str) -> str:
    """One spelling of what looks alike: digits as wide as ideograms are digits (NFKC), and what is not seen is not there.

    Capitals and spaces between others count. Of two spellings that nobody tells apart, two patients would be charged half of what one pays.
    """
    seen = (character for character in unicodedata.normalize("NFKC", identifier) if unicodedata.category(character) not in _UNSEEN)
    return "".join(seen).strip()
