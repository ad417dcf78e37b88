# SPDX-License-Identifier: Apache-2.0
"""One slice as a DICOM file: CT Image Storage, explicit VR little endian, as a scanner would send it to the archive.

All attributes that PS3.3 A.3 (CT Image IOD) demands are there, so that a file passes a validator and not just our own reader. Unique
identifiers are name-based UUIDs under 2.25 (PS3.5 B.2), so the same spec writes the same bytes. Manufacturers, people and dates are
made up, and every file says that it is a phantom.
"""

import uuid
from dataclasses import dataclass
from datetime import date, timedelta
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from simulations.phantoms.hospital import Hospital
from simulations.phantoms.thorax import Chest

UID_NAMES = uuid.UUID("5a9c0a6e-0b4f-5c58-9a3e-6b1b6f0d7c11")
IMPLEMENTATION = uuid.uuid5(UID_NAMES, "fedward phantoms")
FIRST_PATIENT_NUMBER = 1000
FIRST_STUDY_DAY = date(2023, 1, 1)
STUDY_DAYS = 700


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One made patient's one study: what all of its files share."""

    hospital: Hospital
    seed: int
    patient: int
    spacing_mm: float
    centre_mm: tuple[float, float]
    sex: str
    age_years: int
    day: date

    def uid(self, *path: str | int) -> UID:
        """An identifier for something in this study, the same in every run."""
        name = "/".join(str(part) for part in (self.seed, self.hospital.index, self.patient, *path))
        return UID(f"2.25.{uuid.uuid5(UID_NAMES, name).int}")


def draw_study(rng: np.random.Generator, hospital: Hospital, seed: int, patient: int, chest: Chest) -> Study:
    """A patient's paperwork."""
    return Study(
        hospital=hospital,
        seed=seed,
        patient=patient,
        spacing_mm=round(chest.spacing_mm, 6),
        centre_mm=chest.centre_mm,
        sex=str(rng.choice(["F", "M"])),
        age_years=int(rng.integers(40, 85)),
        day=FIRST_STUDY_DAY + timedelta(days=int(rng.integers(STUDY_DAYS))),
    )


def encode(study: Study, stored_YX: NDArray[np.uint16] | NDArray[np.int16], slice_index: int, z_mm: float) -> tuple[str, bytes]:
    """The SOPInstanceUID and the bytes of one file."""
    dataset = Dataset()
    dataset.file_meta = _file_meta(study.uid("instance", slice_index))
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    _describe_patient(dataset, study)
    _describe_study(dataset, study)
    _describe_scanner(dataset, study.hospital)
    _place(dataset, study, stored_YX.shape[0], slice_index, z_mm)
    _describe_pixels(dataset, study.hospital, stored_YX)
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return str(dataset.SOPInstanceUID), buffer.getvalue()


def _file_meta(instance: UID) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = instance
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(f"2.25.{IMPLEMENTATION.int}")
    meta.ImplementationVersionName = "FEDWARD_PHANTOM"
    return meta


def _describe_patient(dataset: Dataset, study: Study) -> None:
    number = FIRST_PATIENT_NUMBER + study.patient
    dataset.PatientName = f"Phantom^{study.hospital.issuer}^{number}"
    dataset.PatientID = f"{number:06d}"
    dataset.IssuerOfPatientID = study.hospital.issuer
    dataset.PatientBirthDate = f"{study.day.year - study.age_years}0101"
    dataset.PatientSex = study.sex
    dataset.PatientAge = f"{study.age_years:03d}Y"


def _describe_study(dataset: Dataset, study: Study) -> None:
    dataset.StudyInstanceUID = study.uid("study")
    dataset.SeriesInstanceUID = study.uid("series")
    dataset.FrameOfReferenceUID = study.uid("frame")
    dataset.PositionReferenceIndicator = ""
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = study.day.strftime("%Y%m%d")
    dataset.StudyTime = dataset.SeriesTime = dataset.ContentTime = "120000"
    dataset.StudyID = "1"
    dataset.SeriesNumber = 1
    dataset.AccessionNumber = ""
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "CT CHEST (PHANTOM)"
    dataset.Modality = "CT"
    dataset.PatientPosition = "HFS"
    dataset.BodyPartExamined = "CHEST"


def _describe_scanner(dataset: Dataset, hospital: Hospital) -> None:
    dataset.Manufacturer = hospital.vendor.manufacturer
    dataset.ManufacturerModelName = hospital.vendor.model
    dataset.InstitutionName = hospital.issuer
    dataset.DeviceSerialNumber = f"{hospital.index:06d}"
    dataset.ConvolutionKernel = f"K{round(hospital.sharpness * 60) + 20}"
    dataset.KVP = 120
    dataset.AcquisitionNumber = 1
    if hospital.contrast_hu > 0:
        dataset.ContrastBolusAgent = "PHANTOM"


def _place(dataset: Dataset, study: Study, size_px: int, slice_index: int, z_mm: float) -> None:
    corner_x_mm, corner_y_mm = (middle - 0.5 * (size_px - 1) * study.spacing_mm for middle in study.centre_mm)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.ImageComments = "Synthetic phantom: no patient, not for diagnosis"
    dataset.InstanceNumber = slice_index + 1
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [round(corner_x_mm, 4), round(corner_y_mm, 4), round(z_mm, 4)]
    dataset.PixelSpacing = [study.spacing_mm, study.spacing_mm]
    dataset.ReconstructionDiameter = round(study.spacing_mm * size_px, 4)
    dataset.SliceThickness = study.hospital.slice_spacing_mm


def _describe_pixels(dataset: Dataset, hospital: Hospital, stored_YX: NDArray[np.uint16] | NDArray[np.int16]) -> None:
    vendor = hospital.vendor
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored_YX.shape
    dataset.BitsAllocated = 16
    dataset.BitsStored = vendor.bits_stored
    dataset.HighBit = vendor.bits_stored - 1
    dataset.PixelRepresentation = int(vendor.signed)
    dataset.RescaleIntercept = vendor.intercept
    dataset.RescaleSlope = vendor.slope
    dataset.RescaleType = "HU"
    centres, widths = zip(*vendor.windows, strict=True)
    dataset.WindowCenter = list(centres)
    dataset.WindowWidth = list(widths)
    dataset.PixelData = stored_YX.astype(stored_YX.dtype.newbyteorder("<")).tobytes()
    dataset["PixelData"].VR = "OW"
