# SPDX-License-Identifier: Apache-2.0
"""Other people's reports and segmentations land on the images that they were made from."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom

from client.imaging.labels.gather import gather
from client.imaging.labels.gather_masks import gather_masks
from client.imaging.labels.survey import Surveyor
from client.imaging.listing import walk
from common.plan import ClassificationSpec, InputSpec, SegmentationSpec
from tests.client.imaging.labels.ward import Ward

SLICES = [f"dcmqi__segmentations__ct-3slice__0{number}.dcm" for number in (1, 2, 3)]
LIVER = "dcmqi__data__segmentations__liver.dcm"
REPORT = "highdicom__data__test_files__sr_document_with_multiple_groups.dcm"
THORAX = "pydicom__data__test_files__CT_small.dcm"


def take(real: Path, ward: Ward, *names: str) -> None:
    for name in names:
        shutil.copy(real / "real" / name, ward.folder)


def test_a_real_segmentation_lies_on_the_liver(
    real_data: Callable[[str], Path], ward: Ward, surveyor: Callable[[Ward, InputSpec], Surveyor]
) -> None:
    """dcmqi's file does not say that it lies on the images' pixels: their geometry does."""
    take(real_data("dicom"), ward, *SLICES, LIVER)
    ward.rules('[segmentation.classes]\nliver = ["SCT:10200004"]\n')
    spec = InputSpec(modality="CT", height=512, width=512)
    task = SegmentationSpec(kind="segmentation", classes=("background", "liver"))
    rules_file = ward.folder / "labels.toml"
    found = gather_masks(surveyor(ward, spec), walk(ward.folder, skip=rules_file), rules_file, task, spec)
    assert sorted(found.masks) == SLICES
    for name in SLICES:
        values, inside = hounsfield(ward.folder / name), found.masks[name] == 1
        assert 20_000 < inside.sum() < 60_000
        assert 20 < np.median(values[inside]) < 180  # what liver measures, with or without contrast
        elsewhere = np.roll(inside, 90, axis=1)
        assert values[inside].std() < 0.5 * values[elsewhere].std()


def test_a_real_report_labels_the_image_that_it_was_made_from(
    real_data: Callable[[str], Path], ward: Ward, surveyor: Callable[[Ward, InputSpec], Surveyor]
) -> None:
    take(real_data("dicom"), ward, *SLICES, THORAX, REPORT)
    ward.rules('[structured_report]\npreliminary = true\n[structured_report.classes]\nnodule = ["SCT:27925004"]\n')
    spec = InputSpec(modality="CT", height=16, width=16)
    task = ClassificationSpec(kind="classification", classes=("normal", "nodule"))
    rules_file = ward.folder / "labels.toml"
    labels = gather(surveyor(ward, spec), walk(ward.folder, skip=rules_file), rules_file, task).labels
    assert labels.by_item == {THORAX: 1}


def hounsfield(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    dataset = pydicom.dcmread(path)
    return np.asarray(dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept))
