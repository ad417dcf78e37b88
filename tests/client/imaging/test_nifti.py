# SPDX-License-Identifier: Apache-2.0
"""NIfTI volumes: slices as a reader sees them, whatever the file's axes; patients from the index; bombs and wrecks cost a reason."""

import gzip
from collections.abc import Callable
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from client.imaging import inventory, nifti
from client.imaging.identity import PatientSecret
from client.imaging.intake import DataSource, open_dataset
from client.imaging.rejection import Reason, Rejected
from client.imaging.sample import Sample
from common.plan import InputSpec, Plan, Window

Plans = Callable[..., Plan]


def spec(**fields: Any) -> InputSpec:
    return InputSpec(**{"modality": "any", "height": 16, "width": 16, "frames": "each", "window": Window(centre=500, width=1000), **fields})


def volume() -> NDArray[np.int16]:
    """(right to left, back to front, feet to head) as NIfTI's RAS has it: bright on the left, dark elsewhere; the head is brighter."""
    values = np.zeros((16, 16, 4), dtype=np.int16)
    values[:4, 8:] = 400  # x small is left in RAS+, y large is in front
    return values + np.arange(4, dtype=np.int16) * 100 + np.eye(16, dtype=np.int16)[..., np.newaxis]


def packed(values: NDArray[Any], affine: NDArray[np.float64] | None = None, *, kind: Any = nibabel.Nifti1Image) -> bytes:
    content: bytes = kind(values, np.diag([1.0, 1, 3, 1]) if affine is None else affine).to_bytes()
    return content


def shown(content: bytes, **fields: Any) -> list[tuple[float, Sample]]:
    return list(nifti.samples(nifti.open_volume(content), spec(**fields)))


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("is_zipped", [False, True])
def test_slices_show_left_on_the_right_and_the_front_above(kind: Any, is_zipped: bool) -> None:
    content = packed(volume(), kind=kind)
    content = gzip.compress(content) if is_zipped else content
    assert nifti.is_nifti(content)
    assert nifti.count(content, spec()) == 4
    found = shown(content)
    assert [place for place, _ in found] == [0, 3, 6, 9]
    image = found[0][1][0]
    assert image[:8, -4:].min() > 25_000
    assert image[8:].max() < 100
    assert image[:, :-4].max() < 100
    assert [int(sample[0, -1, 1]) for _, sample in found] == pytest.approx([0, 6554, 13107, 19660], abs=80)


@pytest.mark.parametrize("flips", list(product((1, -1), repeat=3)))
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_the_files_axes_do_not_matter(flips: tuple[int, int, int], order: tuple[int, int, int]) -> None:
    plain = shown(packed(volume()))
    image = nibabel.Nifti1Image(volume(), np.diag([1.0, 1, 3, 1]))
    axes = np.array([[axis, flip] for axis, flip in zip(order, flips, strict=True)])
    other = shown(image.as_reoriented(axes).to_bytes())
    for (place, sample), (other_place, other_sample) in zip(plain, other, strict=True):
        assert place == other_place
        np.testing.assert_array_equal(sample, other_sample)


@pytest.mark.parametrize(("frames", "places"), [("first", [0]), ("middle", [6]), ("each", [0, 3, 6, 9])])
def test_the_plan_chooses_the_slices(frames: str, places: list[float]) -> None:
    assert [place for place, _ in nifti.samples(nifti.open_volume(packed(volume())), spec(frames=frames))] == places


def test_slices_are_refused_unless_the_plan_says_otherwise() -> None:
    with pytest.raises(Rejected) as refused:
        shown(packed(volume()), frames="single")
    assert refused.value.reason is Reason.MULTIFRAME


def test_without_a_window_the_volumes_own_range_is_shown() -> None:
    samples = [sample for _, sample in nifti.samples(nifti.open_volume(packed(volume())), spec(window=None))]
    assert min(sample.min() for sample in samples) == 0
    assert max(sample.max() for sample in samples) == 65535


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (packed(np.zeros((4, 4, 2, 3), dtype=np.int16)), Reason.VOLUMES),
        (packed(np.zeros((4, 4), dtype=np.int16)), Reason.PIXEL_FORMAT),
        (packed(np.zeros((4, 4, 2), dtype=np.complex64)), Reason.PIXEL_FORMAT),
        (packed(np.full((4, 4, 2), np.nan, dtype=np.float32)), Reason.CONSTANT),
        (packed(np.array([0, 1, np.inf, 2], dtype=np.float32).reshape(2, 2, 1)), Reason.PIXEL_FORMAT),
        (packed(np.zeros((4, 4, 2), dtype=np.int16)), Reason.CONSTANT),
        (packed(volume())[:400], Reason.TRUNCATED),
        (packed(volume())[:900], Reason.TRUNCATED),
    ],
    ids=["time", "flat", "complex", "not a number", "infinite", "constant", "no data", "cut"],
)
def test_a_volume_that_cannot_be_used_is_a_reason(content: bytes, reason: Reason) -> None:
    with pytest.raises(Rejected) as refused:
        shown(content)
    assert refused.value.reason is reason


def test_what_was_never_measured_is_black_and_moves_no_window() -> None:
    values = volume().astype(np.float32)
    values[8:, :, 1] = np.nan
    plain, holed = (shown(packed(each), window=None) for each in (volume().astype(np.float32), values))
    np.testing.assert_array_equal(holed[0][1], plain[0][1])
    assert holed[1][1][0, :, :8].max() == 0
    np.testing.assert_array_equal(holed[1][1][0, :, 8:], plain[1][1][0, :, 8:])


def test_a_volume_of_one_moment_is_a_volume() -> None:
    plain, timed = (shown(packed(each)) for each in (volume(), volume()[..., np.newaxis, np.newaxis]))
    for (place, one), (same, other) in zip(plain, timed, strict=True):
        assert place == same
        np.testing.assert_array_equal(one, other)


def test_a_bomb_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nifti, "LARGEST_VOLUME", 1 << 20)
    bomb = gzip.compress(packed(volume()) + bytes(8 << 20))
    with pytest.raises(Rejected) as refused:
        shown(bomb)
    assert refused.value.reason is Reason.TOO_LARGE


@given(st.data())
def test_a_damaged_volume_is_read_or_gives_a_reason(data: st.DataObject) -> None:
    content = bytearray(packed(volume()))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, 399))] = data.draw(st.integers(0, 255))
    if nifti.is_nifti(bytes(content)):
        with suppress(Rejected), np.errstate(all="ignore"):
            shown(bytes(content))


def test_a_folder_of_volumes_becomes_their_slices(plan_for: Plans, secret: PatientSecret, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.nii.gz").write_bytes(gzip.compress(packed(volume())))
    (root / "b.nii").write_bytes(packed(volume()[..., :2]))
    (root / "c.nii").write_bytes(b"none")
    (root / "index.csv").write_text("file,label,patient_id\na.nii.gz,0,P1\nb.nii,1,P2\nc.nii,1,P3\n")
    plan = plan_for(modality="any", frames="each", window=Window(centre=500, width=1000))
    data, report = open_dataset(DataSource(root=root), plan, cache=tmp_path / "cache", key=secret, workers=1)
    assert (report.seen, report.used, report.images, report.rejected) == (3, 2, 6, {Reason.NOT_A_PICTURE: 1})
    assert data.labels.tolist() == [0, 0, 0, 0, 1, 1]
    assert data.num_patients == 2
    taken = inventory.take(root, plan, workers=1)
    assert (taken.report.seen, taken.report.used, taken.report.images) == (3, 2, 6)


@pytest.mark.parametrize("axis", range(3))
def test_a_thread_of_voxels_is_no_volume(axis: int) -> None:
    """Packed it is small, and a place is kept for each of its slices, which may lie along any axis of the file."""
    shape, affine = np.roll([1, 1, 2**19], axis - 2), np.eye(4)
    affine[:3] = np.roll(affine[:3], 2 - axis, axis=0)
    content = gzip.compress(packed(np.zeros(shape, dtype=np.uint8), affine, kind=nibabel.Nifti2Image))
    with pytest.raises(Rejected) as refused:
        nifti.count(content, spec())
    assert refused.value.reason is Reason.TOO_LARGE


@pytest.mark.parametrize("frames", ["each", "middle"])
@pytest.mark.parametrize(("claimed", "reason"), [(10**12, Reason.TOO_LARGE), (2**18, Reason.TRUNCATED)])
def test_a_volume_that_claims_more_slices_than_there_are_costs_no_other_file_its_place(
    frames: str, claimed: int, reason: Reason, plan_for: Plans, secret: PatientSecret, tmp_path: Path
) -> None:
    """A million millions, in a file of a kilobyte: what came after it would lie beyond the end of any disk."""
    root = tmp_path / "root"
    root.mkdir()
    lying = bytearray(packed(volume(), kind=nibabel.Nifti2Image))
    lying[40:48] = claimed.to_bytes(8, "little")
    for name, content in (("a", bytes(lying)), ("b", packed(volume())), ("c", packed(volume()[::-1]))):
        (root / f"{name}.nii").write_bytes(content)
    (root / "index.csv").write_text("file,label,patient_id\na.nii,0,P1\nb.nii,1,P2\nc.nii,0,P3\n")
    plan = plan_for(modality="any", frames=frames, window=Window(centre=500, width=1000))
    _, report = open_dataset(DataSource(root=root), plan, cache=tmp_path / "cache", key=secret, workers=1)
    assert (report.seen, report.used, report.rejected) == (3, 2, {reason: 1})
    assert inventory.take(root, plan, workers=1).report.rejected == report.rejected


def test_slices_that_show_nothing_are_counted_and_a_volume_of_nothing_else_is_a_reason(
    plan_for: Plans, secret: PatientSecret, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    air = volume()
    air[..., 2:] = -900  # below the window
    nothing = np.full((16, 16, 3), -900, dtype=np.int16)
    nothing[..., 1] = -800  # two values, both shown as black
    for name, values in (("a", volume()), ("b", air), ("c", nothing)):
        (root / f"{name}.nii").write_bytes(packed(values))
    (root / "index.csv").write_text("file,label,patient_id\na.nii,0,P1\nb.nii,1,P2\nc.nii,1,P3\n")
    plan = plan_for(modality="any", frames="each", window=Window(centre=500, width=1000))
    data, report = open_dataset(DataSource(root=root), plan, cache=tmp_path / "cache", key=secret, workers=1)
    assert (report.seen, report.used, report.images, report.skipped, report.rejected) == (3, 2, 6, 2, {Reason.CONSTANT: 1})
    assert len(data) == 6
    taken = inventory.take(root, plan, workers=1).report
    assert (taken.used, taken.images, taken.skipped, taken.rejected) == (2, 6, 2, {Reason.CONSTANT: 1})
