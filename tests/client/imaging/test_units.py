# SPDX-License-Identifier: Apache-2.0
"""What a file says about its values beside rescale and window: tables, padding, kinds of image that a plan or a site does not want."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from client.imaging import dicom, sample
from client.imaging.intensity import Voi, VoiTable
from client.imaging.rejection import Reason, Rejected
from common.plan import InputSpec

Ct = Callable[..., bytes]


def read(content: bytes) -> dicom.Instance:
    dataset = dicom.parse(content)
    return dicom.read(dataset, dicom.identify(dataset, modality="any"))


def shown(content: bytes) -> NDArray[np.float64]:
    instance = read(content)
    height, width = instance.values.shape
    return sample.of_instance(instance, InputSpec(modality="any", height=height, width=width))[0] / 65535


def table(first: int, entries: Any, bits: int, vr: str = "US") -> Sequence:
    item = Dataset()
    item.LUTDescriptor = [len(entries) if vr == "US" else len(entries) // 2, first, bits]
    item.LUTData = entries
    item["LUTData"].VR = vr
    return Sequence([item])


VALUES = np.arange(0, 256, dtype=np.uint16).reshape(16, 16)


@pytest.mark.parametrize("vr", ["US", "OW"])
def test_a_table_gives_every_value_its_entry_and_the_ends_to_what_lies_outside(vr: str, ct: Ct) -> None:
    entries = [3, 2, 1, 0, 1023]
    content = ct(VALUES, VOILUTSequence=table(10, entries if vr == "US" else np.array(entries, "<u2").tobytes(), 10, vr))
    instance = read(content)
    assert isinstance(instance.voi, VoiTable)
    image = shown(content).ravel()
    np.testing.assert_allclose(image[10:15], np.array(entries) / 1023, atol=1e-4)
    np.testing.assert_allclose(image[:10], 3 / 1023, atol=1e-4)
    np.testing.assert_allclose(image[15:], 1, atol=1e-4)


def test_a_table_comes_before_a_window(ct: Ct) -> None:
    both = ct(VALUES, WindowCenter=9, WindowWidth=9, VOILUTSequence=table(0, [0, 255], 8))
    assert isinstance(read(both).voi, VoiTable)
    assert isinstance(read(ct(VALUES, WindowCenter=9, WindowWidth=9)).voi, Voi)


@pytest.mark.parametrize(
    "sequence", [table(0, [0, 256], 8), table(0, [0, 1], 9), table(0, [0, 1], 17)], ids=["too large", "9 bits", "17 bits"]
)
def test_a_table_that_cannot_be_is_a_reason(sequence: Sequence, ct: Ct) -> None:
    with pytest.raises(Rejected) as refused:
        read(ct(VALUES, VOILUTSequence=sequence))
    assert refused.value.reason is Reason.WINDOW


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_whatever_is_white(photometric: str, ct: Ct) -> None:
    image = shown(ct(VALUES, PixelPaddingValue=200, PhotometricInterpretation=photometric, WindowCenter=128, WindowWidth=256)).ravel()
    assert image[200] == 0
    assert image[199] > 0.2
    assert np.count_nonzero(image == 0) <= 2


def test_padding_may_be_a_range_in_either_direction(ct: Ct) -> None:
    for ends in ((250, 240), (240, 250)):
        content = ct(VALUES, PixelPaddingValue=ends[0], PixelPaddingRangeLimit=ends[1])
        padding = read(content).padding
        assert padding is not None
        assert np.flatnonzero(padding).tolist() == [*range(240, 251)]


def test_padding_written_without_its_sign_is_understood(ct: Ct) -> None:
    values = VALUES.astype(np.int16) - 128
    values[0, 0] = -2000
    content = ct(values, PixelPaddingValue=-2000)
    dataset = dicom.parse(content)
    dataset["PixelPaddingValue"] = DataElement("PixelPaddingValue", "US", 65536 - 2000)
    padding = dicom.read(dataset, dicom.identify(dataset, modality="any")).padding
    assert padding is not None
    assert np.flatnonzero(padding).tolist() == [0]


def test_padding_that_no_pixel_has_is_no_padding(ct: Ct) -> None:
    assert read(ct(VALUES, PixelPaddingValue=999)).padding is None


def admit(content: bytes, *, accept_burned_in: bool = False, **fields: Any) -> None:
    dicom.admit(
        dicom.parse(content), InputSpec(**{"modality": "any", "height": 16, "width": 16, **fields}), accept_burned_in=accept_burned_in
    )


@pytest.mark.parametrize(
    ("attributes", "fields", "reason"),
    [
        ({"BurnedInAnnotation": "YES"}, {}, Reason.BURNED_IN),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, {}, Reason.LOCALIZER),
        ({"ViewPosition": "LL"}, {"views": ("PA", "AP")}, Reason.VIEW),
        ({}, {"views": ("PA", "AP")}, Reason.VIEW),
        ({"ImageLaterality": "R"}, {"laterality": "L"}, Reason.LATERALITY),
        ({"Laterality": "R"}, {"laterality": "L"}, Reason.LATERALITY),
        ({}, {"laterality": "L"}, Reason.LATERALITY),
    ],
    ids=str,
)
def test_an_image_of_another_kind_is_a_reason(attributes: dict[str, Any], fields: dict[str, Any], reason: Reason, ct: Ct) -> None:
    with pytest.raises(Rejected) as refused:
        admit(ct(**attributes), **fields)
    assert refused.value.reason is reason


def test_an_image_of_the_wanted_kind_is_admitted(ct: Ct) -> None:
    admit(ct(ViewPosition="PA", ImageLaterality="L", BurnedInAnnotation="NO"), views=("PA",), laterality="L")
    admit(ct(BurnedInAnnotation="YES"), accept_burned_in=True)
    admit(ct(ImageType=["ORIGINAL", "PRIMARY", "AXIAL"]))
