# SPDX-License-Identifier: Apache-2.0
"""How large a message is that comes in pieces, before it is put together.

Flower's array lists its chunks by number, and may list one chunk many times: a few megabytes of pieces can be asked to become gigabytes.
"""

import json
from collections.abc import Mapping

from flwr.supercore.inflatable.inflatable_object import get_object_children_ids_from_object_content, get_object_type_from_object_content

_ARRAY, _CHUNK = "Array", "ArrayChunk"


def unfolded_size(pieces: Mapping[str, bytes]) -> int:
    """Bytes of the message that these pieces make, by their digests; a chunk counts as often as it is listed.

    Raises whatever a stranger's bytes make Flower's parsers raise.
    """
    return sum(_size(content, pieces) for content in pieces.values())


def _size(content: bytes, pieces: Mapping[str, bytes]) -> int:
    kind = get_object_type_from_object_content(content)
    if kind == _CHUNK:
        return 0  # counted where it is listed
    if kind != _ARRAY:
        return len(content)
    chunks = get_object_children_ids_from_object_content(content)
    listed = json.loads(content.partition(b"\x00")[2])["arraychunk_ids"]
    return len(content) + sum(len(pieces[chunks[number]]) for number in listed)
