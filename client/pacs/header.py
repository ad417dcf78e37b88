# SPDX-License-Identifier: Apache-2.0
"""Whether a file that arrived is the instance that was asked for: its own data set says so.

The meta group's UID is not asked: archives and tools that changed an instance have been seen to leave the old one there.

No pixel is looked at, and no more than the first few megabytes are parsed, whatever lengths the file claims; a deflated data set is
inflated that far and no further. What a parser says of hostile bytes is not repeated: it may quote them. The site's own intake looks at
everything else later, in a process with limits.
"""

import zlib
from io import BytesIO
from pathlib import Path
from typing import Final

from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag

from client.pacs.failure import Failed, Reason
from client.pacs.wanted import Wanted

HEAD_BYTES: Final = 8 << 20
_PREFIX_ENDS: Final = 132
_INSTANCE, _STUDY, _SERIES = Tag(0x0008, 0x0018), Tag(0x0020, 0x000D), Tag(0x0020, 0x000E)
_META_GROUP: Final = 0x0002


def check(path: Path, wanted: Wanted) -> None:
    """Raises: Failed with NOT_DICOM, HEADER or OTHER_INSTANCE."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if head[_PREFIX_ENDS - 4 : _PREFIX_ENDS] != b"DICM":
        raise Failed(Reason.NOT_DICOM)
    try:
        found = _identity(head)
    except Exception as error:  # whatever a parser raises on hostile bytes, RecursionError included
        raise Failed(Reason.HEADER) from error
    if found != (wanted.instance, wanted.study, wanted.series):
        raise Failed(Reason.OTHER_INSTANCE)


def _identity(head: bytes) -> tuple[str, str, str]:
    """Instance, study and series."""
    file = BytesIO(head)
    file.seek(_PREFIX_ENDS)
    meta = read_dataset(file, False, True, stop_when=_after_meta)
    syntax = str(meta.get("TransferSyntaxUID", ""))
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        file = BytesIO(zlib.decompressobj(-zlib.MAX_WBITS).decompress(head[file.tell() :], HEAD_BYTES))
    dataset = read_dataset(
        file,
        is_implicit_VR=syntax == uid.ImplicitVRLittleEndian,
        is_little_endian=syntax != uid.ExplicitVRBigEndian,
        stop_when=_after_series,
        specific_tags=[_INSTANCE, _STUDY, _SERIES],
    )
    return _text(dataset, _INSTANCE), _text(dataset, _STUDY), _text(dataset, _SERIES)


def _after_meta(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag.group != _META_GROUP


def _after_series(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return int(tag) > int(_SERIES)


def _text(dataset: Dataset, tag: BaseTag) -> str:
    return str(dataset[tag].value).strip(" \0")
