# SPDX-License-Identifier: Apache-2.0
"""One file: every transfer syntax gives the same values, the values mean what the header says, and the rest is a reason."""

import logging
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from client.imaging import codecs, dicom
from client.imaging.intensity import Voi
from client.imaging.rejection import Reason, Rejected

LOSSLESS = [
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.RLELossless,
    uid.JPEG2000Lossless,
]
Ct = Callable[..., bytes]


def read(content: bytes, *, modality: str = "CT") -> dicom.Instance:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in a worker: what a parser says about a file is nobody's to read
        dataset = dicom.parse(content)
        return dicom.read(dataset, dicom.identify(dataset, modality=modality))


@contextmanager
def silence() -> Iterator[None]:
    """As in a worker: what a decoder says of a file is nobody's to read."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        yield
    finally:
        logging.disable(before)


def reason_for(content: bytes, *, modality: str = "CT") -> Reason:
    with pytest.raises(Rejected) as refused:
        read(content, modality=modality)
    return refused.value.reason


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize(("dtype", "bits"), [(np.uint8, 8), (np.uint16, 12), (np.uint16, 16), (np.int16, 12), (np.int16, 16)])
def test_every_lossless_syntax_gives_the_stored_values(syntax: uid.UID, dtype: Any, bits: int, ct: Ct, ramp: Any) -> None:
    half = 2 ** (bits - 1)
    low, high = (-half, half - 1) if dtype is np.int16 else (0, 2 * half - 1)
    pixels = ramp(low=low, high=high, dtype=dtype)
    instance = read(ct(pixels, syntax=syntax, bits=bits))
    np.testing.assert_array_equal(instance.values, pixels)
    assert instance.full_range == (low, high)
    assert not instance.inverted


@pytest.mark.parametrize("syntax", [*LOSSLESS[:2], *LOSSLESS[3:]], ids=lambda syntax: syntax.name)
def test_colour_is_read_in_every_syntax(syntax: uid.UID, ct: Ct) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 36, 3), dtype=np.uint8)
    instance = read(ct(pixels, syntax=syntax))
    assert instance.is_colour
    np.testing.assert_array_equal(instance.values, pixels)
    assert instance.full_range == (0, 255)


def test_baseline_jpeg_is_read_to_within_its_own_loss(ct: Ct, ramp: Any) -> None:
    pixels = ramp((32, 32), high=255, dtype=np.uint8)
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95)
    instance = read(ct(pixels, syntax=uid.JPEGBaseline8Bit, PixelData=encapsulate([stream.getvalue()])))
    np.testing.assert_allclose(instance.values, pixels, atol=4)


@pytest.mark.parametrize("syntax", [uid.MPEG2MPML, uid.HEVCMP51, uid.MPEG4HP41, uid.JPEG2000MCLossless])
def test_a_compression_without_a_decoder_is_a_reason(syntax: str, ct: Ct) -> None:
    content = ct(syntax=uid.UID(syntax), PixelData=encapsulate([b"\xff\xd8\xff\xd9"]))
    assert reason_for(content) is Reason.TRANSFER_SYNTAX


@pytest.mark.parametrize("syntax", [syntax for syntax in codecs.DECODERS if syntax.is_encapsulated], ids=lambda syntax: syntax.name)
def test_a_stream_with_nothing_in_it_is_a_reason_for_every_decoder(syntax: uid.UID, ct: Ct) -> None:
    with silence():
        assert reason_for(ct(syntax=syntax, PixelData=encapsulate([b"\xff\xd8\xff\xd9"]))) is Reason.UNDECODABLE


def test_unused_high_bits_do_not_count(ct: Ct, ramp: Any) -> None:
    pixels = ramp(high=4095)
    with_overlay = pixels | np.uint16(0x8000)  # overlays once lived in the bits above BitsStored (PS3.5 8.1.2)
    np.testing.assert_array_equal(read(ct(with_overlay, bits=12)).values, pixels)


def test_rescale_gives_output_units(ct: Ct, ramp: Any) -> None:
    pixels = ramp(high=4095)
    instance = read(ct(pixels, bits=12, RescaleSlope=2, RescaleIntercept=-1024))
    np.testing.assert_array_equal(instance.values, pixels * 2.0 - 1024)
    assert instance.full_range == (-1024, 4095 * 2 - 1024)


def test_a_negative_slope_keeps_the_ends_in_order(ct: Ct, ramp: Any) -> None:
    instance = read(ct(ramp(high=255, dtype=np.uint8), RescaleSlope=-1, RescaleIntercept=0))
    assert instance.full_range == (-255, 0)


def test_wide_integers_keep_their_digits(ct: Ct) -> None:
    pixels = np.array([[2**31, 2**31 + 1], [2**32 - 2, 2**32 - 1]], dtype=np.uint32)
    np.testing.assert_array_equal(read(ct(pixels)).values, pixels.astype(np.float64))


def test_a_modality_table_gives_output_units(ct: Ct) -> None:
    item = Dataset()
    item.LUTDescriptor = [4, 10, 16]
    item.ModalityLUTType = "HU"
    item.LUTData = [7, 70, 700, 7000]
    item["LUTData"].VR = "US"
    pixels = np.array([[9, 10], [12, 99]], dtype=np.uint16)
    instance = read(ct(pixels, ModalityLUTSequence=Sequence([item])))
    np.testing.assert_array_equal(instance.values, [[7, 7], [700, 7000]])
    assert instance.full_range == (0, 65535)


@pytest.mark.parametrize(("slope", "intercept"), [("0", "0"), ("nan", "0"), ("1", "inf"), ("1e300", "0")])
def test_a_rescale_that_is_no_number_is_a_reason(slope: str, intercept: str, ct: Ct) -> None:
    content = ct(RescaleSlope="1234567", RescaleIntercept="7654321")
    planted = content.replace(b"1234567", slope.ljust(7).encode()).replace(b"7654321", intercept.ljust(7).encode())
    assert reason_for(planted) is Reason.RESCALE


def test_the_first_window_of_several_is_the_files_own(ct: Ct) -> None:
    voi = read(ct(WindowCenter=[40, -600], WindowWidth=[400, 1500])).voi
    assert voi == Voi(centre=40, width=400, function="LINEAR")
    assert read(ct()).voi is None


def test_monochrome1_is_marked(ct: Ct) -> None:
    assert read(ct(PhotometricInterpretation="MONOCHROME1")).inverted


def test_a_palette_becomes_colour(ct: Ct) -> None:
    table: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour, value in (("Red", 10), ("Green", 20), ("Blue", 30)):
        table[f"{colour}PaletteColorLookupTableDescriptor"] = [4, 0, 8]
        table[f"{colour}PaletteColorLookupTableData"] = bytes([0, value, value + 1, value + 2])
    instance = read(ct(np.array([[1, 2], [3, 0]], dtype=np.uint8), **table))
    np.testing.assert_array_equal(instance.values[0], [[10, 20, 30], [11, 21, 31]])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Rows": None}, Reason.PIXEL_FORMAT),
        ({"Rows": 0}, Reason.PIXEL_FORMAT),
        ({"BitsAllocated": None}, Reason.PIXEL_FORMAT),
        ({"BitsAllocated": 17}, Reason.PIXEL_FORMAT),
        ({"BitsStored": 20}, Reason.PIXEL_FORMAT),
        ({"BitsStored": 12, "HighBit": 15}, Reason.PIXEL_FORMAT),
        ({"PixelRepresentation": None}, Reason.PIXEL_FORMAT),
        ({"PixelRepresentation": 2}, Reason.PIXEL_FORMAT),
        ({"PhotometricInterpretation": None}, Reason.PIXEL_FORMAT),
        ({"PhotometricInterpretation": "GREYISH"}, Reason.PIXEL_FORMAT),
        ({"SamplesPerPixel": 3}, Reason.PIXEL_FORMAT),
        ({"Rows": 41}, Reason.PIXEL_LENGTH),
        ({"Rows": 65535, "Columns": 65535}, Reason.TOO_LARGE),
        ({"PixelData": None}, Reason.NO_PIXELS),
        ({"NumberOfFrames": 2}, Reason.PIXEL_LENGTH),
        ({"NumberOfFrames": 0}, Reason.PIXEL_FORMAT),
        ({"SOPClassUID": uid.SegmentationStorage}, Reason.NOT_AN_IMAGE),
        ({"SOPClassUID": uid.MediaStorageDirectoryStorage}, Reason.DICOMDIR),
        ({"SOPInstanceUID": None}, Reason.HEADER),
        ({"Modality": "MR"}, Reason.MODALITY),
        ({"Modality": None}, Reason.MODALITY),
        ({"PatientID": None}, Reason.NO_PATIENT_ID),
        ({"PatientID": ""}, Reason.NO_PATIENT_ID),
        ({"PatientID": "ANON"}, Reason.NO_PATIENT_ID),
        ({"PatientID": "000000"}, Reason.NO_PATIENT_ID),
    ],
    ids=str,
)
def test_a_header_that_cannot_be_right_is_a_reason(change: dict[str, Any], reason: Reason, ct: Ct) -> None:
    assert reason_for(ct(**change)) is reason


def test_a_window_that_is_no_number_is_a_reason(ct: Ct) -> None:
    content = ct(WindowCenter=40, WindowWidth="123456").replace(b"123456", b"12x456")
    assert reason_for(content) is Reason.WINDOW


def test_one_frame_said_aloud_is_one_frame(ct: Ct) -> None:
    assert read(ct(NumberOfFrames=1)).values.shape == (40, 36)


def test_any_modality_is_any(ct: Ct) -> None:
    assert read(ct(Modality="MR"), modality="any").values.shape == (40, 36)


def test_issuer_and_id_are_read_apart(ct: Ct) -> None:
    identity = read(ct(PatientID=" 17 ", IssuerOfPatientID="SOUTH")).identity
    assert (identity.issuer, identity.patient_id) == ("SOUTH", "17")
    assert "17" not in repr(identity)


@pytest.mark.parametrize("vr", ["OB", "OW", "US", "AT", "FL", "SQ"])
@pytest.mark.parametrize(("keyword", "value"), [("PatientID", "MRN-4711"), ("IssuerOfPatientID", "SOUTHERN")])
def test_letters_that_are_said_to_be_no_letters_are_a_reason(keyword: str, value: str, vr: str, ct: Ct) -> None:
    """Or else the patient would be another than in other files, and charged once more."""
    content, tag = ct(**{keyword: value}), struct.pack("<HH", *divmod(tag_for_keyword(keyword) or 0, 1 << 16))
    start = content.index(tag + b"LO")
    size = b"\0\0" + struct.pack("<I", 8) if vr in ("OB", "OW", "SQ") else struct.pack("<H", 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert reason_for(content[: start + 4] + vr.encode() + size + content[start + 8 :]) is Reason.HEADER


@pytest.mark.parametrize("vr", ["LO", "SH", "UT", "UN", "PN", "IS"])
def test_another_kind_of_letters_is_the_same_patient(vr: str, ct: Ct) -> None:
    content = ct(PatientID="00004711")
    start = content.index(b"\x10\x00\x20\x00LO")
    size = b"\0\0" + struct.pack("<I", 8) if vr in ("UT", "UN") else struct.pack("<H", 8)
    assert read(content[: start + 4] + vr.encode() + size + content[start + 8 :]).identity.patient_id == "00004711"


def test_an_identifier_without_end_is_a_reason(ct: Ct) -> None:
    with pytest.warns(UserWarning, match="exceeds the maximum length"):
        content = ct(IssuerOfPatientID="x" * 300)
    assert reason_for(content) is Reason.HEADER


def test_only_allow_listed_attributes_are_kept(ct: Ct) -> None:
    content = ct(PatientName="Doe^Jane", PatientBirthDate="19700101", ReferringPhysicianName="Roe^Richard")
    dataset = dicom.parse(content)
    assert {element.keyword for element in dataset} <= set(dicom.TAGS) | {"SpecificCharacterSet"}
    assert "PatientName" not in dataset


@pytest.mark.parametrize("content", [b"", b"DICM", bytes(128), bytes(128) + b"DICX" + bytes(50), b"\x89PNG" + bytes(500)])
def test_what_is_not_dicom_is_a_reason(content: bytes) -> None:
    assert reason_for(content) is Reason.NOT_DICOM


def nested(depth: int) -> bytes:
    """A data set of sequences in sequences, each of undefined length."""
    opening = struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    closing = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return opening * depth + closing * depth


@pytest.mark.parametrize("depth", [10, 400, 5000])
def test_sequences_nested_without_end_are_survived(depth: int, ct: Ct) -> None:
    content = ct()
    start = content.index(struct.pack("<HH", 0x7FE0, 0x0010))
    with suppress(Rejected):
        read(content[:start] + nested(depth) + content[start:])


@given(st.data())
def test_a_damaged_file_is_read_or_gives_a_reason(data: st.DataObject) -> None:
    """Flip, cut and splice anywhere: nothing but `Rejected` may come out."""
    content = bytearray(SEEDS[data.draw(st.integers(0, len(SEEDS) - 1))])
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(132, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(132, len(content)))
    with suppress(Rejected):
        read(bytes(content[:cut]), modality="any")


def test_a_decoder_that_panics_costs_a_reason(ct: Ct, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Rust plug-in's panic is no `Exception`; it must not take the worker with it."""

    class PanicException(BaseException): ...

    def panic(*_: object) -> None:
        raise PanicException

    monkeypatch.setattr("client.imaging.codecs.get_decoder", panic)
    with pytest.raises(Rejected) as rejected:
        read(ct())
    assert rejected.value.reason is Reason.UNDECODABLE


@pytest.mark.parametrize("vr", [b"RW", b"DB"])
def test_pixels_of_an_unknown_representation_cost_a_reason(ct: Ct, vr: bytes) -> None:
    content = bytearray(ct())
    place = content.index(struct.pack("<HH", 0x7FE0, 0x0010)) + 4
    content[place : place + 2] = vr
    with pytest.raises(Rejected):
        read(bytes(content))


def test_a_deflated_bomb_is_bounded_by_memory_not_by_trust(ct: Ct) -> None:
    """The data set inflates to far more than the file; what it claims to hold is not there, so it is refused."""
    content = ct(syntax=uid.DeflatedExplicitVRLittleEndian)
    meta_end = 132 + 12 + int.from_bytes(content[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = content[:meta_end] + packer.compress(bytes(50 << 20)) + packer.flush()
    assert len(bomb) < 100_000
    assert isinstance(reason_for(bomb), Reason)


def _seeds() -> list[bytes]:
    """Small files of several syntaxes for damage."""
    pixels = np.arange(1024, dtype=np.uint16).reshape(32, 32)
    seeds = []
    for syntax, plugin in ((uid.ExplicitVRLittleEndian, ""), (uid.RLELossless, "pydicom"), (uid.JPEG2000Lossless, "pylibjpeg")):
        dataset = _minimal(pixels)
        if plugin:
            dataset.compress(syntax, encoding_plugin=plugin)
        stream = BytesIO()
        dataset.save_as(stream, enforce_file_format=True)
        seeds.append(stream.getvalue())
    return seeds


def _minimal(pixels: NDArray[np.uint16]) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = uid.CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = uid.UID("1.2.3")
    dataset.Modality, dataset.PatientID = "CT", "17"
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.WindowCenter, dataset.WindowWidth = 1, 0, 30, 60
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelData = pixels.tobytes()
    return dataset


SEEDS = _seeds()


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.RLELossless, uid.JPEG2000Lossless])
def test_a_file_that_was_cut_short_is_not_said_to_be_of_another_kind(ct: Ct, syntax: uid.UID) -> None:
    """Half a transfer must not look like another modality, or like a patient without a number."""
    content = ct(syntax=syntax)
    begins = content.index(b"MRN-0017") + 4
    reasons = [reason_for(content[:end]) for end in range(begins, len(content) - 40, 37)]
    assert set(reasons) <= {Reason.TRUNCATED, Reason.PIXEL_LENGTH, Reason.NO_PIXELS, Reason.HEADER}
    assert reasons[0] is Reason.TRUNCATED
    assert reasons[-1] is (Reason.TRUNCATED if syntax.is_encapsulated else Reason.PIXEL_LENGTH)


def test_a_byte_or_two_behind_the_pixels_does_no_harm(ct: Ct) -> None:
    np.testing.assert_array_equal(read(ct() + b"\0\0").values, read(ct()).values)


def test_a_portal_image_is_an_image_and_a_film_without_frames_is_refused_for_its_compression(ct: Ct) -> None:
    assert read(ct(SOPClassUID=uid.RTImageStorage)).values.shape == (40, 36)
    content = ct(SOPClassUID=uid.VideoEndoscopicImageStorage).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.4.")
    assert reason_for(content) is Reason.TRANSFER_SYNTAX
