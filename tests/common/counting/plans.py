# SPDX-License-Identifier: Apache-2.0
"""Plans that count, for the tests."""

from common.plan import Plan, parse
from tests.common.test_plan import GOOD, SHARED

COUNTING = """
[evaluation]
every = 1
epsilon = 1.0
[statistics]
epsilon = 0.5
"""
THREE = ('["normal", "nodule"]\nthreshold = 0.5', '["normal", "nodule", "mass"]')


def counting_plan(*changes: tuple[str, str], shared: bool = False) -> Plan:
    """Two classes, three rounds, each model judged, a statistic; with pieces of its text replaced."""
    text = (SHARED if shared else GOOD.replace('"record"', '"patient"')) + COUNTING
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return parse(text)
