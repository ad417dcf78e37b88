# SPDX-License-Identifier: Apache-2.0
"""The page for hospital IT says what the code does: every reason with its words, every decoder, every test that it names."""

import re
from pathlib import Path

from client.imaging import codecs
from client.imaging.rejection import REMEDY

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "imaging.md").read_text(encoding="utf-8")


def test_every_reason_is_on_the_page_in_the_words_that_are_shown() -> None:
    listed = dict(re.findall(r"^\| `(E_[A-Z_]+)` \| (.+) \|$", PAGE, re.MULTILINE))
    assert listed == {reason.value: remedy for reason, remedy in REMEDY.items()}


def test_every_decoder_is_on_the_page() -> None:
    names = {"": "NumPy", "pylibjpeg": "OpenJPEG", "pyjpegls": "CharLS", "gdcm": "GDCM", "pillow": "Pillow", codecs.TWELVE_BITS: "GDCM"}
    for decoders in codecs.DECODERS.values():
        for decoder in decoders:
            assert names[decoder] in PAGE


def test_every_test_that_the_page_names_is_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)
    assert len(named) > 4
    for path, test in named:
        assert f"def {test}(" in (ROOT / path).read_text(encoding="utf-8") if test else (ROOT / path).is_file()
