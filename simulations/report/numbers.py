# SPDX-License-Identifier: Apache-2.0
"""How a number is spelled, decided once: a report in which 0.9 stands beside 0.912 makes its reader compare what cannot be compared.

Scores have three decimals, epsilon two, counts a comma at the thousands, a minus is a minus sign and not a hyphen. A value that does not
exist (the AUC of a hold-out with one class) is an en dash, never a zero.

    >>> ratio(0.9), signed(-0.0123), count(12345), duration(192)
    ('0.900', '−0.012', '12,345', '3 min 12 s')
    >>> runs([1, 3, 4, 5, 9])
    '1, 3–5, 9'
"""

import math
from collections.abc import Iterable
from datetime import UTC, datetime

NOTHING = "–"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")


def count(value: int | None) -> str:
    """12345 -> '12,345'."""
    return NOTHING if value is None else f"{value:,}"


def decimals(value: float | None, places: int) -> str:
    """A fixed number of decimals with a true minus sign; an en dash for what is missing or not finite."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:.{places}f}".replace("-", "−")


def ratio(value: float | None) -> str:
    """A score between 0 and 1."""
    return decimals(value, 3)


def epsilon(value: float | None) -> str:
    """A privacy loss: two decimals, and whole numbers beyond a hundred, where decimals would pretend to a meaning."""
    if value is not None and value >= 100:
        return count(round(value)) if math.isfinite(value) else NOTHING
    return decimals(value, 2)


def signed(value: float | None) -> str:
    """A difference of scores: the sign is always written, and a zero has none."""
    if value is None or not math.isfinite(value):
        return NOTHING
    text = ratio(abs(value))
    return text if float(text) == 0 else f"{'+' if value > 0 else '−'}{text}"


def percent(value: float | None) -> str:
    """0.256 -> '26 %'."""
    return NOTHING if value is None or not math.isfinite(value) else f"{100 * value:.0f} %"


def share(value: float | None) -> str:
    """A small share: 0.008 -> '0.8\u00a0%'."""
    return NOTHING if value is None or not math.isfinite(value) else f"{100 * value:.1f}\u00a0%"


def scientific(value: float | None) -> str:
    """1.25e-05 -> '1.25 × 10⁻⁵'."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if value == 0:
        return "0"
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    spelled = f"{float(mantissa):g}\u00a0×\u00a010{str(int(exponent)).translate(_SUPERSCRIPT)}"
    return spelled.replace("-", "−")


def duration(seconds: float | None) -> str:
    """Seconds for people: '0.42 s', '12.3 s', '3 min 12 s', '2 h 05 min'."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_of_hour = divmod(minutes, 60)
    return f"{hours} h {minutes_of_hour:02d} min" if hours else f"{minutes} min {rest:02d} s"


def moment(when: datetime | None) -> str:
    """'20 November 2026, 11:22 UTC'; spelled here because the names of months must not follow the machine's locale."""
    if when is None:
        return NOTHING
    utc = when.astimezone(UTC)
    return f"{utc.day} {_MONTHS[utc.month - 1]} {utc.year}, {utc:%H:%M} UTC"


def runs(values: Iterable[int]) -> str:
    """Whole numbers with their gaps: [1, 3, 4, 5] -> '1, 3–5'."""
    spans: list[tuple[int, int]] = []
    for value in sorted(set(values)):
        if spans and value == spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], value)
        else:
            spans.append((value, value))
    return ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in spans)


def listed(words: Iterable[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    *head, tail = list(words) or [NOTHING]
    return f"{', '.join(head)} and {tail}" if head else tail
