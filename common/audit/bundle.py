# SPDX-License-Identifier: Apache-2.0
"""A party's log and what belongs to it, as a folder or a .zip that can be handed to an auditor.

    bundle.json          whose bundle, how far its log goes, every file's hash; signed with the party's identity key
    audit.jsonl          the log, byte for byte
    roots                the consortium's root keys, as this party has them
    evidence/...         plans, rosters; from the coordinator the replies of every step, and masked updates where it kept them
    ledger.jsonl         the privacy ledger, where a site gives it too

A bundle is read by somebody who trusts nobody in it. Nothing is unpacked: files are read one by one, by the names that the manifest has,
none of which leads anywhere else, and never further than the size that it states. No link is followed. A file beyond the manifest, a
missing one, and one that differs in a byte are refused by name.
"""

import hashlib
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, BinaryIO, Final, Literal

from pydantic import Field, TypeAdapter

from common.audit.chain import Chain, lines_of
from common.audit.entries import Name, Role
from common.audit.log import LOG_FILE
from common.durable import write_atomically
from common.errors import BundleFormat, DiskFull, RunFolderTaken
from common.secagg.keys import SigningKey, signature_holds
from common.spelling import NO_SIGNATURE, STRICT, Count, Digest, Signature, Spelling, Stamp

MANIFEST: Final = "bundle.json"
ROOTS: Final = "roots"
LEDGER: Final = "ledger.jsonl"
ZIP: Final = ".zip"
LARGEST_MANIFEST: Final = 64 * 2**20
LARGEST_FILE: Final = 2**32
_FORMAT: Final = 1
_TITLE: Final = b"fedward bundle 1\n"
_BLOCK: Final = 2**20
UNREADABLE: Final = (OSError, KeyError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, struct.error)
"""What the standard library raises at a .zip that was damaged or made to harm."""
FileName = Annotated[str, Field(pattern=r"^(evidence/)?[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")]
"""Of letters, digits, dots, hyphens and underscores, in the bundle itself or in its one folder: there is no way out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """`lines` and `head` are where the log ended when the bundle was made; `files` has each file's name, SHA-256 and size."""

    __pydantic_config__ = STRICT
    v: Literal[1] = _FORMAT
    role: Role
    name: Name
    key: Digest
    t_utc: Stamp
    lines: Count
    head: Digest
    files: tuple[tuple[FileName, Digest, Count], ...]
    sig: Signature = NO_SIGNATURE


SPELLING: Final = Spelling(_TITLE, TypeAdapter(Manifest))
Contents = Mapping[str, Path]
"""Name in the bundle -> the file that goes there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """Who makes a bundle. `now` is Unix seconds."""

    role: Role
    name: str
    signer: SigningKey
    now: float


def write(target: Path, party: Party, contents: Contents) -> Manifest:
    """Make a bundle, a .zip if it is called so, of files that do not change meanwhile; of the log, the whole lines.

    Raises: RunFolderTaken, if there is something already; AuditTampered, DiskFull.
    """
    if target.exists():
        raise RunFolderTaken(f"'{target}' exists already.", fix="Choose another --out; bundles are not overwritten.")
    log = contents[LOG_FILE].read_bytes()
    lines = lines_of(log)
    chain = Chain(name=f"audit log '{contents[LOG_FILE]}'")
    chain.check_signatures(lines)
    whole = b"".join(line + b"\n" for line in lines)
    others = {name: path for name, path in sorted(contents.items()) if name != LOG_FILE}
    files = [(LOG_FILE, hashlib.sha256(whole).hexdigest(), len(whole)), *(_described(name, path) for name, path in others.items())]
    manifest = Manifest(
        role=party.role,
        name=party.name,
        key=party.signer.public.hex(),
        t_utc=datetime.fromtimestamp(int(party.now), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        lines=len(chain),
        head=chain.head.hex(),
        files=tuple(sorted(files)),
    )
    signed = SPELLING.signed(manifest, party.signer.sign)
    (_write_zip if target.suffix == ZIP else _write_folder)(target, {MANIFEST: signed, LOG_FILE: whole}, others)
    return manifest


class Bundle:
    """A bundle, opened: its manifest is signed by the key that it names, and it has the files that it lists and no others."""

    def __init__(self, path: Path) -> None:
        """Raises: BundleFormat."""
        self.path = path
        self._zip = _opened_zip(path) if not path.is_dir() else None
        content = self._read(MANIFEST, LARGEST_MANIFEST)
        try:
            self.manifest = SPELLING.parse(content)
        except ValueError:
            raise self._broken(f"its {MANIFEST} does not parse") from None
        if not signature_holds(bytes.fromhex(self.manifest.key), bytes.fromhex(self.manifest.sig), SPELLING.signed_text(self.manifest)):
            raise self._broken(f"its {MANIFEST} is not signed by the key that it names")
        self._files = {name: (digest, size) for name, digest, size in self.manifest.files}
        if (found := set(self._names())) != {MANIFEST, *self._files}:
            strange = sorted(found ^ {MANIFEST, *self._files})[0]
            raise self._broken(f"'{strange[:64]}' is {'not listed' if strange in found else 'missing'}")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._files)

    def has(self, name: str) -> bool:
        return name in self._files

    def read(self, name: str) -> bytes:
        """A file as it was when the bundle was made. Raises: BundleFormat."""
        digest, size = self._files[name]
        if size > LARGEST_FILE:
            raise self._broken(f"'{name}' claims {size} bytes, expected at most {LARGEST_FILE}")
        content = self._read(name, size)
        if len(content) != size or hashlib.sha256(content).hexdigest() != digest:
            raise self._broken(f"'{name}' is not the file that its manifest names")
        return content

    def check(self, name: str) -> None:
        """Whether a file is as it was, without keeping it in memory. Raises: BundleFormat."""
        digest, size = self._files[name]
        hasher, left = hashlib.sha256(), size + 1
        try:
            with self._stream(name) as file:
                while left > 0 and (block := file.read(min(_BLOCK, left))):
                    hasher.update(block)
                    left -= len(block)
        except UNREADABLE as error:
            raise self._broken(f"'{name}' cannot be read") from error
        if left != 1 or hasher.hexdigest() != digest:
            raise self._broken(f"'{name}' is not the file that its manifest names")

    def _read(self, name: str, limit: int) -> bytes:
        try:
            with self._stream(name) as file:
                content = file.read(limit + 1)
        except UNREADABLE as error:
            raise self._broken(f"'{name}' cannot be read") from error
        if len(content) > limit:
            raise self._broken(f"'{name}' is longer than the {limit} bytes that may be there")
        return content

    @contextmanager
    def _stream(self, name: str) -> Iterator[BinaryIO]:
        if self._zip is not None:
            with self._zip.open(name) as packed:
                yield packed  # type: ignore[misc] # typeshed's IO[bytes] reads like a BinaryIO
            return
        with os.fdopen(os.open(self.path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError("not a file")
            yield file

    def _names(self) -> list[str]:
        if self._zip is not None:
            names = self._zip.namelist()
            if len(set(names)) != len(names):
                raise self._broken("a name stands in it twice")
            return names
        return [path.relative_to(self.path).as_posix() for path in self.path.rglob("*") if path.is_symlink() or not path.is_dir()]

    def _broken(self, why: str) -> BundleFormat:
        return BundleFormat(f"'{self.path}' is no bundle as it was made: {why}.", fix="Ask the party that made it for it again.")


def _opened_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except UNREADABLE as error:
        raise BundleFormat(
            f"'{path}' is neither a folder nor a .zip that can be read.", fix="Give the bundles that `fedward audit export` made."
        ) from error


def _described(name: str, path: Path) -> tuple[str, str, int]:
    with path.open("rb") as file:
        return name, hashlib.file_digest(file, "sha256").hexdigest(), os.fstat(file.fileno()).st_size


def _write_folder(target: Path, made: Mapping[str, bytes], files: Contents) -> None:
    target.mkdir(parents=True)
    for name, content in made.items():
        write_atomically(target / name, content, fsync=False)
    for name, path in files.items():
        (target / name).parent.mkdir(exist_ok=True)
        write_atomically(target / name, path.read_bytes(), fsync=False)


def _write_zip(target: Path, made: Mapping[str, bytes], files: Contents) -> None:
    beside = target.with_name(f".{target.name}.tmp")
    try:
        with zipfile.ZipFile(beside, "w", compression=zipfile.ZIP_DEFLATED) as packed:
            for name, content in made.items():
                packed.writestr(name, content)
            for name, path in files.items():
                packed.write(path, name)
        beside.replace(target)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise DiskFull(f"'{target}' could not be written: {error.strerror}.", fix="Free some space, or choose another --out.") from error
