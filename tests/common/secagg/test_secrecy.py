# SPDX-License-Identifier: Apache-2.0
"""What the coordinator sees is noise: uniform bytes, uncorrelated with the update, and no secret in any message.

The last test is the point of it all: a plain gradient of one image gives the image back, the masked one gives noise.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2

from common.secagg import field, shamir
from common.secagg.coordinator import Inviting
from common.secagg.durable import load_record, save_record
from common.secagg.quantise import QuantisedUpdate, mean, quantise
from common.secagg.stages import Confirmed, Keyed, MaskedOut, Shared
from simulations.audits.inversion import invert, made_slice, psnr, update_of
from tests.common.secagg.federation import Federation, federation, seeded


def masked_vectors(f: Federation) -> dict[str, NDArray[np.uint32]]:
    f.to_masks(*f.to_shares(*f.to_keys()))
    return f.vectors


def uniformity(data: bytes) -> float:
    """The chi-square p-value of a byte histogram against the uniform one."""
    counts = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
    expected = len(data) / 256
    return float(chi2.sf(float(((counts - expected) ** 2 / expected).sum()), 255))


def test_ten_million_bytes_of_the_coordinators_view_are_uniform() -> None:
    """Every update is zero: whatever structure there is would be the masks' own."""
    f = federation(3, num_values=1_000_000)
    header = Inviting(chair=f.chair, tag=f.tag).header
    for site_id in f.site_ids:
        f.tell(site_id, header)
        f.updates[site_id] = QuantisedUpdate(body=np.zeros(1_000_000, np.uint32), weight=1)
    f.train = lambda site_id: f.updates[site_id]  # type: ignore[method-assign] # the one update of this test
    data = b"".join(vector.tobytes() for vector in masked_vectors(f).values())
    assert len(data) >= 10**7
    assert 1e-6 < uniformity(data) < 1 - 1e-6
    for lane in range(4):
        assert 1e-6 < uniformity(data[lane::4]) < 1 - 1e-6


def test_the_uniformity_test_sees_an_unmasked_update() -> None:
    """The control: the same statistic on an update that was not masked."""
    f = federation(3, num_values=100_000)
    assert uniformity(f.train("site-000").body.tobytes()) < 1e-6


def test_a_masked_vector_is_uncorrelated_with_its_update() -> None:
    f = federation(3, num_values=200_000)
    for site_id, vector in masked_vectors(f).items():
        q = f.updates[site_id].body.view(np.int32).astype(np.float64)
        y = vector.view(np.int32).astype(np.float64)
        assert abs(float(np.corrcoef(q, y)[0, 1])) < 5 / math.sqrt(q.size)


def test_two_attempts_mask_one_update_differently() -> None:
    f = federation(5, num_values=1000)
    first = {s: v.copy() for s, v in masked_vectors(f).items()}
    g = federation(5, num_values=1000, seed=1)
    second = masked_vectors(g)
    for site_id in f.site_ids:
        assert np.array_equal(f.updates[site_id].body, g.updates[site_id].body)
        difference = (first[site_id] - second[site_id]).view(np.int32) / 2.0**31
        assert np.abs(difference).mean() > 0.4


@pytest.mark.parametrize(("t", "n"), [(3, 5), (7, 10), (14, 20)])
def test_fewer_than_a_threshold_of_shares_fit_any_secret(t: int, n: int) -> None:
    """For 1,000 other secrets there is exactly one polynomial through the t - 1 shares: none of them is likelier."""
    entropy = seeded("any secret", t, n)
    shares = shamir.share(entropy(32), threshold=t, count=n, entropy=entropy)
    seen = {x: shares[x - 1] for x in range(2, t + 1)}
    xs = (0, *seen)
    at_spare = field.interpolate(xs, at=n + 1)
    rebuild = {x: field.interpolate((*seen, n + 1), at=x) for x in (0, *seen)}
    for _ in range(1000 if t < 14 else 100):
        other = int.from_bytes(entropy(32), "big")
        spare = sum(w * y for w, y in zip(at_spare, (other, *seen.values()), strict=True)) % field.P
        points = (*seen.values(), spare)
        for x, expected in ((0, other), *seen.items()):
            assert sum(w * y for w, y in zip(rebuild[x], points, strict=True)) % field.P == expected


def secrets_of(f: Federation) -> dict[str, bytes]:
    """Every secret that a site holds while its shares are still in."""
    found: dict[str, bytes] = {}
    for site_id, record in f.records.items():
        stage = record.stage
        assert isinstance(stage, Keyed | Shared | MaskedOut | Confirmed)
        for name in ("mask_private", "share_private", "seed", "salt"):
            found[f"{site_id} {name}"] = getattr(stage.secrets, name)
        found[f"{site_id} identity"] = f.seats[site_id].signer.seed
        found[f"{site_id} update"] = f.updates[site_id].body.tobytes()[:64]
        if isinstance(stage, MaskedOut | Confirmed):
            for held in stage.held:
                found[f"{site_id} share of {held.site_id}"] = held.seed_share
                found[f"{site_id} key share of {held.site_id}"] = held.key_share
    return found


def test_no_secret_is_in_any_message_before_the_release() -> None:
    f = federation(5, num_values=64)
    f.to_confirmations(*f.to_masks(*f.to_shares(*f.to_keys())))
    wire = b"\x00".join(f.captured)
    found = secrets_of(f)
    assert len(found) >= 5 * (6 + 10)
    for name, secret in found.items():
        assert secret not in wire, name
        assert secret.hex().encode() not in wire, name
        assert secret[::-1] not in wire, name


def test_the_search_for_secrets_would_find_one() -> None:
    """The control: the site's own stored record holds them."""
    f = federation(5, num_values=64)
    f.to_confirmations(*f.to_masks(*f.to_shares(*f.to_keys())))
    stored = save_record(f.records["site-000"])
    found = {name: secret for name, secret in secrets_of(f).items() if name.startswith("site-000") and name.split()[1] in ("seed", "salt")}
    assert all(secret in stored for secret in found.values())


def test_the_release_shows_one_half_of_the_shares() -> None:
    """Of a survivor only shares of b come out, of a fallen site only shares of s: never enough of both."""
    f = federation(5, num_values=8)
    unmasking, quorum = f.to_confirmations(*f.to_masks(*f.to_shares(*f.to_keys()), f.site_ids[:4]))
    held = {s: f.records[s].stage.held for s in f.site_ids[:4]}  # type: ignore[union-attr] # Confirmed holds them
    before = len(f.captured)
    f.to_sum(unmasking, quorum)
    wire = b"".join(f.captured[before:])
    for shares in held.values():
        for each in shares:
            alive = each.site_id in f.site_ids[:4]
            assert (each.seed_share in wire) == alive
            assert (each.key_share in wire) == (not alive)


def test_nothing_secret_is_printed() -> None:
    f = federation(4, num_values=16)
    f.to_masks(*f.to_shares(*f.to_keys()))
    record = f.records["site-000"]
    shown = repr(record) + repr(f.seats["site-000"]) + repr(f.updates["site-000"])
    stage = record.stage
    assert isinstance(stage, MaskedOut)
    for secret in (stage.secrets.seed, stage.secrets.mask_private, f.seats["site-000"].signer.seed, stage.held[1].seed_share):
        assert repr(secret)[2:-1] not in shown
        assert secret.hex() not in shown


def test_a_record_says_nothing_when_it_is_read_back_twice() -> None:
    f = federation(4, num_values=16)
    f.to_keys()
    record = f.records["site-000"]
    assert load_record(save_record(record), update=f.updates["site-000"]) == record


# Gradient inversion: a dense layer's gradient contains its input.


def test_gradient_inversion_recovers_an_image_from_a_plain_update_and_noise_from_a_masked_one() -> None:
    picture = made_slice(24)
    gradient = update_of(picture)
    gradient = (gradient / np.linalg.norm(gradient) * 0.9).astype(np.float32)
    f = federation(5, num_values=gradient.size)
    plain = quantise(gradient, f.terms.grid, weight=1)
    f.train = lambda site_id: replace(plain)  # type: ignore[method-assign] # every site has this one image
    seen = masked_vectors(f)["site-000"]

    control = psnr(invert(mean(plain.body, f.terms.grid, total_weight=1), picture.shape), picture)
    attack = psnr(invert(mean(seen, f.terms.grid, total_weight=1), picture.shape), picture)
    rng = np.random.default_rng(5)
    noise = []
    for _ in range(200):
        words = rng.integers(0, 2**32, gradient.size, dtype=np.uint32)
        noise.append(psnr(invert(mean(words, f.terms.grid, total_weight=1), picture.shape), picture))
    assert control > 20
    assert attack < max(noise) + 0.5
    assert control > max(noise) + 10
