# SPDX-License-Identifier: Apache-2.0
"""Files of many frames: refused, or read as the plan says, each frame with the meaning that its own functional group gives it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from client.imaging import dicom, pixels, sample
from client.imaging.identity import PatientSecret
from client.imaging.intake import DataSource, open_dataset
from client.imaging.intensity import Voi
from client.imaging.rejection import Reason, Rejected
from client.imaging.worker import Brief, Limits, read_dicom
from common.plan import InputSpec, Plan
from tests.client.imaging.conftest import encode, make_dataset

Ct = Callable[..., bytes]


def item(**attributes: Any) -> Dataset:
    dataset = Dataset()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


def macro(**attributes: Any) -> Sequence:
    return Sequence([item(**attributes)])


def loop(frames: int = 5, shape: tuple[int, int] = (12, 10)) -> NDArray[np.uint16]:
    return np.random.default_rng(frames).integers(0, 4096, (frames, *shape), dtype=np.uint16)


def many(ct: Ct, values: NDArray[Any], **attributes: Any) -> bytes:
    """A file of these frames."""
    frames, rows, columns = values.shape
    return ct(values.reshape(frames * rows, columns), bits=12, Rows=rows, NumberOfFrames=frames, **attributes)


def enhanced(ct: Ct, values: NDArray[np.uint16], **attributes: Any) -> bytes:
    """An enhanced CT, whose frames differ in rescale, window and position; the orientation is shared."""
    shared = item(PlaneOrientationSequence=macro(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]))
    own = [
        item(
            PixelValueTransformationSequence=macro(RescaleSlope=frame + 1, RescaleIntercept=-frame),
            FrameVOILUTSequence=macro(WindowCenter=100 * frame, WindowWidth=200),
            PlanePositionSequence=macro(ImagePositionPatient=[0, 0, 2.5 * frame]),
        )
        for frame in range(len(values))
    ]
    groups = {"SharedFunctionalGroupsSequence": Sequence([shared]), "PerFrameFunctionalGroupsSequence": Sequence(own)}
    return many(ct, values, SOPClassUID=uid.EnhancedCTImageStorage, **{**groups, **attributes})


def instances(content: bytes, wanted: str) -> Iterator[dicom.Instance]:
    dataset = dicom.parse(content)
    return dicom.read_frames(dataset, dicom.identify(dataset, modality="CT"), wanted)


def test_frames_are_refused_unless_the_plan_says_otherwise(ct: Ct) -> None:
    with pytest.raises(Rejected) as refused:
        next(instances(many(ct, loop()), "single"))
    assert refused.value.reason is Reason.MULTIFRAME


@pytest.mark.parametrize(("wanted", "chosen"), [("first", [0]), ("middle", [2]), ("each", [0, 1, 2, 3, 4])])
@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless, uid.JPEGLSLossless], ids=lambda syntax: syntax.name)
def test_the_wanted_frames_come_as_they_were_stored(wanted: str, chosen: list[int], syntax: uid.UID, ct: Ct) -> None:
    values = loop()
    content = many(ct, values)
    if syntax.is_encapsulated:
        content = packed(values, syntax)
    found = list(instances(content, wanted))
    assert [each.frame for each in found] == chosen
    np.testing.assert_array_equal([each.values for each in found], values[chosen])


def packed(values: NDArray[np.uint16], syntax: uid.UID) -> bytes:
    frames, rows, columns = values.shape
    dataset = make_dataset(values.reshape(frames * rows, columns), bits=12, Rows=rows, NumberOfFrames=frames)
    dataset.compress(syntax, encoding_plugin={uid.RLELossless: "pydicom"}.get(syntax, "pyjpegls"), generate_instance_uid=False)
    return encode(dataset)


def test_an_enhanced_frame_has_its_own_rescale_window_and_place(ct: Ct) -> None:
    values = loop(3)
    found = list(instances(enhanced(ct, values), "each"))
    for frame, instance in enumerate(found):
        np.testing.assert_array_equal(instance.values, values[frame] * (frame + 1.0) - frame)
        assert instance.voi == Voi(centre=100 * frame, width=200)
        assert instance.geometry.place_mm == pytest.approx(2.5 * frame)


def test_groups_that_do_not_fit_the_frames_are_a_reason(ct: Ct) -> None:
    content = enhanced(ct, loop(3), PerFrameFunctionalGroupsSequence=Sequence([item(), item()]))
    with pytest.raises(Rejected) as refused:
        list(instances(content, "each"))
    assert refused.value.reason is Reason.FRAME_GROUPS


@pytest.mark.parametrize("claimed", [6, 999, 2**20])
def test_more_frames_than_there_are_is_a_reason(claimed: int, ct: Ct) -> None:
    for content in (many(ct, loop()), packed(loop(), uid.RLELossless)):
        dataset = dicom.parse(content)
        dataset.NumberOfFrames = claimed
        with pytest.raises(Rejected) as refused:
            pixels.claims_of(dataset)
        assert refused.value.reason in (Reason.PIXEL_LENGTH, Reason.TOO_LARGE)


@pytest.mark.parametrize(("bits", "is_signed"), [(1, False), *((bits, is_signed) for bits in (8, 16, 32) for is_signed in (False, True))])
def test_every_width_keeps_its_values(bits: int, is_signed: bool, ct: Ct) -> None:
    if bits == 1:
        values = (np.indices((16, 16)).sum(axis=0) % 2).astype(np.uint8)
        content = ct(
            values, BitsAllocated=1, BitsStored=1, HighBit=0, PixelData=np.packbits(values, bitorder="little").tobytes(),
            SOPClassUID=uid.MultiFrameSingleBitSecondaryCaptureImageStorage,
        )  # fmt: skip
    else:
        dtype = np.dtype(f"{'i' if is_signed else 'u'}{bits // 8}")
        ends = np.iinfo(dtype)
        values = np.array([[ends.min, ends.max], [ends.max - 1, ends.max // 2]], dtype=dtype)
        content = ct(values)
    np.testing.assert_array_equal(pixels.decode(dicom.parse(content)).values, values)


def test_a_frame_that_shows_nothing_costs_itself_and_is_counted(ct: Ct, plan_for: Callable[..., Plan]) -> None:
    values = loop()
    values[1] = values[3] = 7
    brief = Brief(kind="dicom", input=plan_for(frames="each").input, limits=Limits(), wanted=None)
    placed = read_dicom(many(ct, values), brief).placed
    assert [place for place, _ in placed] == [0, 2, 4]
    values[:] = 7
    with pytest.raises(Rejected) as refused:
        list(read_dicom(many(ct, values), brief).placed)
    assert refused.value.reason is Reason.CONSTANT


def test_a_folder_of_loops_becomes_their_frames_and_files_still_add_up(
    ct: Ct, plan_for: Callable[..., Plan], secret: PatientSecret, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    values = loop(4)
    blank = values.copy()
    blank[2] = 0
    (root / "a.dcm").write_bytes(enhanced(ct, values, PatientID="MRN-1", SOPInstanceUID="1.1"))
    (root / "b.dcm").write_bytes(many(ct, blank, PatientID="MRN-2", SOPInstanceUID="1.2"))
    (root / "c.dcm").write_bytes(ct(PatientID="MRN-3", SOPInstanceUID="1.3"))
    (root / "d.dcm").write_bytes(b"no DICOM")
    (root / "labels.csv").write_text("path,label\na.dcm,0\nb.dcm,1\nc.dcm,1\nd.dcm,1\n")
    plan = plan_for(frames="each", height=12, width=10)
    data, report = open_dataset(DataSource(root=root), plan, cache=tmp_path / "cache", key=secret, workers=1)
    assert (report.seen, report.used, report.images, report.skipped) == (4, 3, 8, 1)
    assert report.rejected == {Reason.NOT_DICOM: 1}
    assert len(data) == 8
    assert data.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert data.num_patients == 3
    shown = sample.of_instance(next(instances(many(ct, blank[3:]), "each")), plan.input)
    np.testing.assert_array_equal(data.images[6], shown)
    again, same = open_dataset(DataSource(root=root), plan, cache=tmp_path / "cache", key=secret, workers=1)
    assert same == report
    np.testing.assert_array_equal(again.images[:], data.images[:])


def test_a_plan_that_wants_single_frames_gives_one_image_a_file(
    ct: Ct, plan_for: Callable[..., Plan], secret: PatientSecret, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.dcm").write_bytes(ct(PatientID="MRN-1", SOPInstanceUID="1.1"))
    (root / "b.dcm").write_bytes(many(ct, loop(), PatientID="MRN-2", SOPInstanceUID="1.2"))
    (root / "c.dcm").write_bytes(ct(PatientID="MRN-3", SOPInstanceUID="1.3"))
    (root / "labels.csv").write_text("path,label\na.dcm,0\nb.dcm,1\nc.dcm,1\n")
    _, report = open_dataset(DataSource(root=root), plan_for(), cache=tmp_path / "cache", key=secret, workers=1)
    assert (report.used, report.images, report.rejected) == (2, None, {Reason.MULTIFRAME: 1})


SLIDE: dict[str, Any] = {"Modality": "SM", "SOPClassUID": uid.VLWholeSlideMicroscopyImageStorage}


def slide(ct: Ct, *, spacing_mm: float = 0.0005, **attributes: Any) -> bytes:
    """Four tiles: glass, glass, half tissue, tissue."""
    glass = np.full((4, 8, 8, 3), 240, dtype=np.uint8)
    glass[2, :4] = glass[3] = (170, 60, 140)
    glass[3, 0, 0] = (120, 40, 100)
    shared = item(PixelMeasuresSequence=macro(PixelSpacing=[spacing_mm, spacing_mm]))
    pixels_of_all = glass.reshape(32, 8, 3)
    return ct(
        pixels_of_all, Rows=8, NumberOfFrames=4, SharedFunctionalGroupsSequence=Sequence([shared]), **{**SLIDE, **attributes}
    )  # fmt: skip


def tiles(content: bytes, **fields: Any) -> list[tuple[float | None, NDArray[np.uint16]]]:
    spec = InputSpec(**{"modality": "SM", "height": 8, "width": 8, "channels": 3, "frames": "each", **fields})
    placed = read_dicom(content, Brief(kind="dicom", input=spec, limits=Limits(), wanted=None)).placed
    return list(placed)


@pytest.mark.parametrize(("tissue", "kept"), [(0.1, [2, 3]), (0.6, [3])])
def test_tiles_with_enough_tissue_are_kept(tissue: float, kept: list[int], ct: Ct) -> None:
    assert [place for place, _ in tiles(slide(ct), tissue=tissue)] == kept


def test_the_plans_spacing_chooses_the_level(ct: Ct) -> None:
    assert len(tiles(slide(ct, spacing_mm=0.0005), spacing_mm=0.0006)) == 2
    for other in (0.001, 0.00025):
        with pytest.raises(Rejected) as refused:
            tiles(slide(ct, spacing_mm=other), spacing_mm=0.0005)
        assert refused.value.reason is Reason.LEVEL


@pytest.mark.parametrize("kind", ["LABEL", "OVERVIEW", "THUMBNAIL"])
def test_a_slides_label_is_never_an_image(kind: str, ct: Ct) -> None:
    with pytest.raises(Rejected) as refused:
        tiles(slide(ct, ImageType=["ORIGINAL", "PRIMARY", kind, "NONE"]))
    assert refused.value.reason is Reason.LOCALIZER
