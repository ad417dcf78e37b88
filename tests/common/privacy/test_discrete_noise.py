# SPDX-License-Identifier: Apache-2.0
"""The noise is the distribution that the docstring of `common.privacy.discrete` proves things about, to the bounds that it states."""

import math
import os
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.privacy import charged_as, noise_of
from common.privacy.discrete import _TAIL, Table, _table, log_ratio, smoothing_error, thresholds_of

STEPS = 65_536
VARIANCES = [Fraction(1, 3), Fraction(7), Fraction(128**2), Fraction(256**2), charged_as(0.7, 100)]


def law(variance: Fraction) -> tuple[np.ndarray, list[mpmath.mpf]]:
    """Values and their probabilities to 80 digits, each by its own exponential, out to where 10^-60 is left."""
    with mpmath.workdps(80):
        furthest = math.ceil(17 * math.sqrt(variance)) + 2
        weights = [mpmath.exp(-mpmath.mpf(z * z) * variance.denominator / (2 * variance.numerator)) for z in range(-furthest, furthest + 1)]
        total = mpmath.fsum(weights)
        return np.arange(-furthest, furthest + 1), [weight / total for weight in weights]


def of_sum(variance: Fraction, factor: int, other: Fraction) -> dict[int, mpmath.mpf]:
    """The law of x + factor * y."""
    with mpmath.workdps(80):
        result: dict[int, mpmath.mpf] = {}
        ys = list(zip(*law(other), strict=True))
        for x, chance in zip(*law(variance), strict=True):
            for y, other_chance in ys:
                result[int(x + factor * y)] = result.get(int(x + factor * y), mpmath.mpf(0)) + chance * other_chance
        return result


class Scripted:
    """Entropy that hands out prepared words, to ask for one exact 144-bit word."""

    def __init__(self, word: int) -> None:
        self._words = [word >> 128, word >> 64 & 2**64 - 1, word & 2**64 - 1]

    def __call__(self, size: int) -> bytes:
        if size == 2:
            return self._words[0].to_bytes(2, "little")
        assert size == 16, "one open word asks for 128 more bits"
        return self._words[1].to_bytes(8, "little") + self._words[2].to_bytes(8, "little")


# The tables, bit for bit


@pytest.mark.parametrize("variance", VARIANCES)
def test_a_table_is_within_its_bound_of_the_law(variance: Fraction) -> None:
    thresholds = thresholds_of(variance)
    drawn = np.diff([0, *thresholds, 2**144])
    lowest = -(len(thresholds) // 2)
    with mpmath.workdps(80):
        exact = dict(zip(*law(variance), strict=True))
        tabled = {lowest + i: mpmath.mpf(int(count)) / 2**144 for i, count in enumerate(drawn)}
        distance = mpmath.fsum(abs(chance - tabled.get(int(z), mpmath.mpf(0))) for z, chance in exact.items()) / 2
    bound = 2 * math.exp(-(_TAIL**2) / 2) + len(thresholds) * 2.0**-145
    assert 0 < float(distance) <= bound < 2**-127


@pytest.mark.parametrize("variance", VARIANCES)
def test_every_threshold_decides_at_exactly_its_own_bit(variance: Fraction) -> None:
    table, thresholds = _table(variance), thresholds_of(variance)
    lowest = -(len(thresholds) // 2)
    assert thresholds == sorted(thresholds)
    edges = [i for i, (t, following) in enumerate(pairwise([*thresholds, 2**144])) if 0 < t < following]
    assert len(edges) > 0.8 * len(thresholds)
    for i in edges[:: max(1, len(edges) // 200)]:
        assert table.draw(1, Scripted(thresholds[i])) == lowest + i + 1
        below = sum(threshold <= thresholds[i] - 1 for threshold in thresholds)
        assert table.draw(1, Scripted(thresholds[i] - 1)) == lowest + below


def test_the_extreme_words_give_the_extreme_values() -> None:
    table = _table(Fraction(9))
    assert table.draw(1, lambda size: bytes(size)) == -42
    assert table.draw(1, lambda size: b"\xff" * size) == 42


def test_words_drawn_together_mean_what_they_mean_alone() -> None:
    table = _table(Fraction(128**2))
    bits = np.random.default_rng(0)
    words, rest = bits.bytes(2 * 5000), bits.bytes(16 * 5000)
    opened = []

    def entropy(size: int) -> bytes:
        if size == 2 * 5000:
            return words
        opened.append(size // 16)
        return rest[:size]

    together = table.draw(5000, entropy)
    where = np.flatnonzero(table.guide[np.frombuffer(words, "<u2")] == -(2**15))
    assert opened == [where.size]
    high, low = np.frombuffer(rest[: 16 * where.size], "<u8").reshape(2, -1)
    for place, h, l in zip(where, high, low, strict=True):  # noqa: E741  # low
        word = int.from_bytes(words[2 * place : 2 * place + 2], "little") << 128 | int(h) << 64 | int(l)
        assert table.draw(1, Scripted(word)) == together[place]


# Sums and rounding


@pytest.mark.parametrize(
    ("narrow", "factor", "other"), [(Fraction(9), 2, Fraction(4)), (Fraction(5), 1, Fraction(5)), (Fraction(2), 1, Fraction(2))]
)
def test_a_sum_is_the_wide_law_but_for_the_factor_of_the_lemma(narrow: Fraction, factor: int, other: Fraction) -> None:
    wide = narrow + factor**2 * other
    summed, exact = of_sum(narrow, factor, other), dict(zip(*law(wide), strict=True))
    error = smoothing_error(float(narrow * other / wide))
    inner = [z for z in exact if abs(z) <= 8 * math.sqrt(wide)]
    with mpmath.workdps(80):
        ratios = [float(summed[int(z)] / exact[z] - 1) for z in inner]
    worst = max(map(abs, ratios))
    assert worst <= 2 * error / (1 - error)
    assert worst > error / 10  # and the bound is no wild guess


def test_a_continuous_gaussian_rounded_at_random_is_the_law_but_for_the_factor_of_the_lemma() -> None:
    """Use (2), by numerical integration: D_v around 0 against post-processing of N(0, v - r), at an r so small that the error shows."""
    v, r = mpmath.mpf(5), mpmath.mpf(1) / 2
    error = smoothing_error(float(r))
    bound = (1 + error) / (1 - error) - 1
    total = mpmath.nsum(lambda j: mpmath.exp(-j * j / (2 * v)), [-mpmath.inf, mpmath.inf])
    for z in (0, 1, 3, 6):

        def rounded_to_z(y: mpmath.mpf, z: int = z) -> mpmath.mpf:
            choices = mpmath.fsum(mpmath.exp(-((j - y) ** 2) / (2 * r)) for j in range(-30, 31))
            return mpmath.npdf(y, 0, mpmath.sqrt(v - r)) * mpmath.exp(-((z - y) ** 2) / (2 * r)) / choices

        ratio = mpmath.quad(rounded_to_z, mpmath.linspace(-16, 16, 17)) / (mpmath.exp(-mpmath.mpf(z * z) / (2 * v)) / total)
        assert abs(ratio - 1) <= bound
    assert 1e-5 < error < 1e-3


def test_the_error_of_the_lemma_is_attained() -> None:
    for t in (0.05, 0.3, 1.0):
        at = [math.fsum(math.exp(-((j - c) ** 2) / (2 * t)) for j in range(-40, 41)) / math.sqrt(2 * math.pi * t) for c in (0, 0.5)]
        assert at[0] - 1 == pytest.approx(smoothing_error(t), rel=1e-6)
        assert abs(at[1] - 1) <= smoothing_error(t)


@given(st.floats(1e-3, 1000), st.sampled_from([2**8, 2**12, STEPS]))
@settings(max_examples=60, deadline=None)
def test_every_noise_has_the_charged_variance_and_an_error_that_no_delta_notices(multiplier: float, clip_steps: int) -> None:
    variance = charged_as(multiplier, clip_steps)
    noise = noise_of(variance)
    assert variance == (Fraction(multiplier) * clip_steps) ** 2 + 3
    assert sum(factor**2 * _variance(table) for factor, table in noise.parts) == pytest.approx(float(variance), rel=1e-6)
    coordinates, steps, epsilon, delta = 1e7, 2000, 8, 1e-6
    assert coordinates * steps * (1 + math.exp(epsilon)) * noise.total_variation <= delta / 100
    assert noise.total_variation <= 2**-92


def _variance(table: Table) -> float:
    """By the table's own thresholds."""
    ends = [0, *(int(h) / 2**16 + int(f) for h, f in zip(table.high / 2.0**48, _firsts(table), strict=True)), 2**16]
    values = np.arange(len(ends) - 1) + table.lowest
    return float((np.diff(ends) / 2**16) @ values.astype(float) ** 2)


def _firsts(table: Table) -> np.ndarray:
    return np.searchsorted(table.last, np.arange(table.high.size), side="right")


# What comes out


def test_ten_million_draws_have_the_promised_width_and_no_memory() -> None:
    noise, count, block = noise_of(charged_as(1.0, STEPS)), 10_000_000, 1_000_000
    squares, lagged, mean = 0.0, np.zeros(4), 0.0
    for _ in range(count // block):
        z = noise.draw(block, os.urandom) / STEPS
        squares, mean = squares + z @ z, mean + z.sum()
        lagged += [z[lag:] @ z[:-lag] for lag in (1, 2, 60, 65_536)]
    assert math.sqrt(squares / count) == pytest.approx(1, rel=0.001)  # a hundredth is promised; this is four standard errors
    assert abs(mean) < 5 * math.sqrt(count)
    assert np.abs(lagged).max() < 5 * math.sqrt(count)


@pytest.mark.parametrize("variance", [Fraction(7), charged_as(0.02, STEPS), charged_as(1.0, STEPS)])
def test_draws_follow_the_discrete_law_kolmogorov_smirnov(variance: Fraction) -> None:
    count = 1_000_000
    drawn = np.sort(noise_of(variance).draw(count, os.urandom))
    sigma = math.sqrt(variance)
    furthest = math.ceil(8 * sigma)
    law_ = np.cumsum(np.exp(-(np.arange(-furthest, furthest + 1) ** 2) / (2 * float(variance))))
    law_ /= law_[-1]
    at = np.clip(np.unique(drawn), -furthest, furthest)
    empirical = np.searchsorted(drawn, at, side="right") / count
    assert np.abs(empirical - law_[at + furthest]).max() < 2.2 / math.sqrt(count)  # one failure in 8,000


def test_the_last_digits_are_even_too() -> None:
    """A wide draw is made of parts with factors 60 and 3600: its residues show whether the parts join without a seam."""
    drawn = noise_of(charged_as(1.0, STEPS)).draw(2_000_000, os.urandom)
    for modulus in (7, 60, 3600):
        counts = np.bincount(drawn % modulus, minlength=modulus)
        expected = drawn.size / modulus
        chi2 = float(((counts - expected) ** 2 / expected).sum())
        assert abs(chi2 - (modulus - 1)) < 6 * math.sqrt(2 * modulus)


def test_no_noise_is_none_and_the_same_bits_give_the_same_draw() -> None:
    assert charged_as(0.0, STEPS) == 0
    assert noise_of(Fraction(0)).draw(5, os.urandom).tolist() == [0] * 5
    one, other = (noise_of(charged_as(2.0, STEPS)).draw(70_000, np.random.default_rng(3).bytes) for _ in range(2))
    assert np.array_equal(one, other)


# What may be charged


def test_shares_add_up_to_what_is_charged_and_narrow_ones_do_not() -> None:
    assert log_ratio(float(charged_as(0.5, STEPS)), 10) < 2**-80
    assert log_ratio(float(charged_as(0.01, 256)), 4) < 2**-50
    assert log_ratio(3.0, 10) > 1e-13
    assert log_ratio(0.04, 10) == math.inf


def test_our_bound_is_under_the_published_one() -> None:
    """Kairouz, Liu and Steinke 2021, proposition 12 (and theorem 1): tau = 10 sum_k exp(-2 pi^2 s^2 k / (k + 1))."""
    for variance in (0.5, 1.0, 2.0):
        published = 10 * sum(math.exp(-2 * math.pi**2 * variance * k / (k + 1)) for k in range(1, 5))
        ours = log_ratio(variance, 5) - log_ratio(variance, 1)
        assert 0 < ours <= published


def test_the_sampled_mechanism_costs_what_the_continuous_one_costs() -> None:
    """At whole orders the Rényi divergence of the sampled discrete Gaussian equals the continuous one's, term by term."""
    sigma, rate, clip_steps = 0.8, 0.05, 64
    variance, order = Fraction(sigma * clip_steps) ** 2, 6
    z = np.arange(-20 * clip_steps, 21 * clip_steps)
    p = np.exp(-(z**2) / (2 * float(variance)))
    p /= p.sum()
    shifted = np.exp(-((z - clip_steps) ** 2) / (2 * float(variance)))
    shifted /= shifted.sum()
    discrete = math.log((p * ((1 - rate) + rate * shifted / p) ** order).sum()) / (order - 1)
    continuous = math.log(
        sum(math.comb(order, k) * (1 - rate) ** (order - k) * rate**k * math.exp((k * k - k) / (2 * sigma**2)) for k in range(order + 1))
    ) / (order - 1)
    assert discrete == pytest.approx(continuous, rel=1e-9)


def test_one_table_serves_all_wide_noise() -> None:
    parts = [noise_of(charged_as(multiplier, STEPS)).parts for multiplier in (1.0, 1.5)]
    assert parts[0][0][1] is parts[1][0][1]
    assert replace(parts[0][0][1], lowest=0).lowest == 0
