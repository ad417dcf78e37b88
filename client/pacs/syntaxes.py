# SPDX-License-Identifier: Apache-2.0
"""In which transfer syntaxes instances are taken over DIMSE: those that the intake reads, so that an archive sends files as it keeps them.

A presentation context settles on one transfer syntax. One context for each keeps the archive from decoding what it has compressed, and
from refusing what it cannot decode (PS3.8 9.3.2.2).
"""

from collections.abc import Sequence
from typing import Final

from pydicom import uid
from pynetdicom import StoragePresentationContexts, build_context
from pynetdicom.presentation import PresentationContext

from client.imaging.codecs import DECODERS

SYNTAXES: Final = list(DECODERS)
_MOST: Final = 126
"""An association has room for 128 contexts; one is the request's own."""
_COMMON: Final = _MOST // 3


def contexts_for(sop_class: str) -> list[PresentationContext]:
    """One context for each transfer syntax; where the archive did not say the class, three for each of the commonest."""
    if sop_class:
        return [build_context(sop_class, syntax) for syntax in SYNTAXES]
    few: Sequence[uid.UID] = (uid.ExplicitVRLittleEndian, uid.JPEG2000Lossless, uid.JPEGLosslessSV1)
    return [build_context(str(each.abstract_syntax), syntax) for each in _commonest() for syntax in few]


def _commonest() -> list[PresentationContext]:
    images = [context for context in StoragePresentationContexts if "Image" in str(uid.UID(str(context.abstract_syntax)).name)]
    return images[:_COMMON]
