# SPDX-License-Identifier: Apache-2.0
"""Six words for a key: the published spelling, and nothing lost."""

import doctest
import re

from common import fingerprint
from common.fingerprint import Fingerprint


def test_words_are_spelt_as_published() -> None:
    """The proposal's own example: 127.0.0.1 is lusab-babad."""
    assert fingerprint._word(0x7F00) + "-" + fingerprint._word(0x0001) == "lusab-babad"


def test_every_number_has_a_word_of_its_own() -> None:
    assert len({fingerprint._word(number) for number in range(2**16)}) == 2**16


def test_a_fingerprint_is_six_words_and_thirty_two_digits() -> None:
    found = Fingerprint.of(b"\x01" * 32)
    assert re.fullmatch(r"([a-z]{5}-){5}[a-z]{5}", found.words)
    assert re.fullmatch(r"[0-9a-f]{32}", found.hex)
    assert found != Fingerprint.of(b"\x02" * 32)


def test_the_documented_fingerprint_is_right() -> None:
    assert doctest.testmod(fingerprint).failed == 0
