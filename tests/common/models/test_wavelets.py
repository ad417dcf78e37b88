# SPDX-License-Identifier: Apache-2.0
"""The scattering transform: Kymatio's values, and the laws for which it is used."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from common.models import wavelets
from common.models.wavelets import Geometry, scattering

CASES = json.loads((Path(__file__).parents[2] / "vectors" / "scattering" / "kymatio-0.3.0.json").read_text())["cases"]
USUAL = Geometry(height=32, width=32, scales=2, angles=8)


def geometry_of(case):
    return Geometry(**{key: case[key] for key in ("height", "width", "scales", "angles")})


def noise(count, height=32, width=32, seed=0):
    return torch.randn(count, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def texture(seed=0, frame=8):
    """Smooth noise in the middle of an empty image, so that a shift moves nothing over the edge."""
    inner = functional.interpolate(noise(1, 10, 10, seed)[None], size=(32 - 2 * frame,) * 2, mode="bicubic", align_corners=False)
    return functional.pad(inner, (frame,) * 4)[0]


def moved(before, after):
    """How far two tensors are apart, by the length of the first."""
    return float((before - after).norm() / before.norm())


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['height']}x{case['width']} J{case['scales']} L{case['angles']}")
def test_the_maps_are_kymatios(case):
    """To 1 in 10,000: Kymatio's filters are scaled by 3.1415 where ours have pi, three times over in the second order."""
    geometry = geometry_of(case)
    y, x = np.mgrid[: geometry.height, : geometry.width].astype(np.float64)
    image = np.sin(0.9 * y + 0.2 * x * x / geometry.width) + 0.5 * np.cos(0.35 * x * y / geometry.height)
    [maps] = scattering(torch.from_numpy(image)[None], geometry)
    assert list(maps.shape) == case["shape"] == [geometry.maps, *geometry.map_size]
    for found, key in ((maps.mean(dim=(1, 2)), "mean"), (maps[:, 0, 0], "first"), (maps[:, -1, -1], "last")):
        np.testing.assert_allclose(found.numpy(), case[key], rtol=1.2e-4, atol=2e-7)


def test_a_first_order_map_is_the_formula_written_out():
    """|x * psi| * phi by sums over pixels, at the image's own resolution: no spectrum, no folding."""
    geometry = Geometry(height=8, width=8, scales=1, angles=4)
    [image] = noise(1, 8, 8)
    padded = functional.pad(image[None, None], geometry.padding, mode="reflect")[0, 0].numpy()
    P, Q = geometry.padded

    def convolved(signal, kernel):
        return np.array(
            [[sum(signal[a, b] * kernel[(i - a) % P, (k - b) % Q] for a in range(P) for b in range(Q)) for k in range(Q)] for i in range(P)]
        )

    bell = wavelets._averaging(P, 1, 0)
    waves = [wavelets._morlet((P, Q), 0.8, 0.75 * math.pi, turn, 1.0) for turn in (math.pi / 4, 0.0, -math.pi / 4, -math.pi / 2)]
    expected = [bell @ np.abs(convolved(padded, wave)) @ bell.T for wave in waves]
    np.testing.assert_allclose(scattering(image[None], geometry)[0, 1:].numpy(), expected, rtol=1e-9)


def test_a_shift_hardly_shows():
    """By one pixel of the four that the average spans; the image itself is then nearly another one."""
    for seed in range(5):
        image = texture(seed)
        shifted = image.roll(1, dims=2)
        assert moved(image, shifted) > 0.25
        assert moved(scattering(image, USUAL), scattering(shifted, USUAL)) < 0.5 * moved(image, shifted)


def test_a_bend_hardly_shows():
    """Mallat 2012: what a deformation changes is in proportion to its gradient, even where the image's waves fall out of step."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 32, dtype=torch.float64), torch.linspace(-1, 1, 32, dtype=torch.float64), indexing="ij")
    waves = torch.sin(14 * math.pi * x)[None]

    def bent(by):
        grid = torch.stack([x + by * torch.sin(math.pi * y) * (1 - x**2), y], dim=-1)[None]
        return functional.grid_sample(waves[None], grid, mode="bicubic", align_corners=True)[0]

    plain, a_little, more = (scattering(image, USUAL) for image in (bent(0.0), bent(0.03), bent(0.06)))
    assert moved(bent(0.0), bent(0.06)) > 0.5
    assert moved(plain, a_little) < moved(plain, more) < 0.5 * moved(bent(0.0), bent(0.06))


def test_the_transform_never_draws_two_images_apart():
    """A contraction, but for the wavelets' overlap (their spectra and the average's add up to at most 1.1 anywhere)."""
    images, others = noise(20, seed=1), noise(20, seed=2)
    maps, other_maps = scattering(images, USUAL), scattering(others, USUAL)
    apart = (maps - other_maps).flatten(1).norm(dim=1) * 2**USUAL.scales  # one value stands for 4^J pixels
    pad = (0, *USUAL.padding)[1:]
    padded = functional.pad((images - others)[:, None], pad, mode="reflect").flatten(1).norm(dim=1)
    assert (apart <= 1.1 * padded).all()


def test_the_wavelets_cover_every_frequency_and_none_twice():
    P, Q = USUAL.padded
    spectra = [wavelets._wavelets(USUAL, j) for j in range(USUAL.scales)]
    bell = np.abs(np.fft.fft(wavelets._averaging(P, USUAL.scales, 0)[0]))  # one row of the average, moved
    covered = np.outer(bell, bell) ** 2
    for spectrum in spectra:
        mirrored = np.roll(spectrum[:, ::-1, ::-1], (1, 1), axis=(1, 2))
        covered += (spectrum**2 + mirrored**2).sum(axis=0) / 2
    assert covered.max() < 1.1**2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(P), np.fft.fftfreq(Q), indexing="ij"))
    assert covered[frequency < 0.4].min() > 0.1


def test_wavelets_see_no_brightness():
    flat = torch.full((1, 32, 32), 7.0, dtype=torch.float64)
    [maps] = scattering(flat, USUAL)
    torch.testing.assert_close(maps[0], torch.full((8, 8), 7.0, dtype=torch.float64))
    assert maps[1:].abs().max() < 1e-10


def test_many_images_are_worked_through_in_parts_that_change_nothing():
    images = noise(2 * wavelets.IMAGES_AT_ONCE + 1)
    assert torch.equal(scattering(images, USUAL)[-1], scattering(images[-1:], USUAL)[0])


def test_an_image_has_a_gradient_even_where_it_is_flat():
    image = torch.zeros(1, 32, 32, requires_grad=True)
    scattering(image, USUAL).sum().backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()
