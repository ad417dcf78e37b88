# SPDX-License-Identifier: Apache-2.0
"""A public key in six words, to be compared by telephone.

Two people who read the same six words to each other hold the same key: the words spell the first 96 bits of a digest of the key, as
proquints (D. S. Wilkerson, "A proposal for proquints" (2009), https://arxiv.org/abs/0901.4016), which anybody can pronounce and no word
list has to be shipped for. To make a second key with the words of a given one takes 2^96 tries. The hexadecimal form has 128 bits of the
same digest, for those who compare on paper.

It says that a key is the one that was read out, not who read it: call back on a number that you had before.

    >>> Fingerprint.of(bytes(32)).words
    'muhug-hiloh-bimum-migot-zupar-sikav'
"""

from dataclasses import dataclass
from typing import Final

from common import canonical

_CONSONANTS: Final = "bdfghjklmnprstvz"
_VOWELS: Final = "aiou"
_WORDS: Final = 6
_HEX_BYTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """One key's name, for people."""

    words: str
    hex: str

    @classmethod
    def of(cls, public_key: bytes) -> "Fingerprint":
        digest = canonical.digest(b"fedward key fingerprint 1", public_key)
        pairs = (digest[2 * i : 2 * i + 2] for i in range(_WORDS))
        return cls(words="-".join(_word(int.from_bytes(pair, "big")) for pair in pairs), hex=digest[:_HEX_BYTES].hex())


def _word(number: int) -> str:
    """Sixteen bits, from the highest: consonant 4, vowel 2, consonant 4, vowel 2, consonant 4."""
    return (
        _CONSONANTS[number >> 12]
        + _VOWELS[number >> 10 & 3]
        + _CONSONANTS[number >> 6 & 15]
        + _VOWELS[number >> 4 & 3]
        + _CONSONANTS[number & 15]
    )
