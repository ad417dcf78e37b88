# SPDX-License-Identifier: Apache-2.0
"""One DICOM file (PS3.10) as an `Instance`: whose it is, and its values in the modality's output units.

Only the attributes named below are read: identity, kind, pixels and what their values mean. Names, dates, free text and private
attributes are skipped by the parser. A file without preamble and file meta group is refused rather than guessed at.

Read here: single-frame images of the classic storage classes. Enhanced multi-frame objects keep rescale and geometry per frame in
functional groups and are refused with a reason, as is any file with more than one frame: silently training on frame one, or counting a
cine loop as fifty patients' worth of images, would both be wrong.
"""

import math
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut

from client.imaging import pixels
from client.imaging.identity import LONGEST_ID, is_placeholder
from client.imaging.intensity import Voi
from client.imaging.pixels import Stored
from client.imaging.rejection import Reason, Rejected

IDENTITY_TAGS = ["SOPClassUID", "SOPInstanceUID", "Modality", "PatientID", "IssuerOfPatientID"]
VALUE_TAGS = [
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction",
]  # fmt: skip
TAGS = [*IDENTITY_TAGS, *pixels.TAGS, *VALUE_TAGS]

# Storage classes (PS3.4 B.5) whose rescale and window stand at the top level of the file.
IMAGES = frozenset(
    {
        uid.CTImageStorage,
        uid.MRImageStorage,
        uid.ComputedRadiographyImageStorage,
        uid.DigitalXRayImageStorageForPresentation,
        uid.DigitalXRayImageStorageForProcessing,
        uid.DigitalMammographyXRayImageStorageForPresentation,
        uid.DigitalMammographyXRayImageStorageForProcessing,
        uid.UltrasoundImageStorage,
        uid.UltrasoundMultiFrameImageStorage,
        uid.XRayAngiographicImageStorage,
        uid.XRayRadiofluoroscopicImageStorage,
        uid.NuclearMedicineImageStorage,
        uid.PositronEmissionTomographyImageStorage,
        uid.SecondaryCaptureImageStorage,
        uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
        uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
        uid.VLEndoscopicImageStorage,
        uid.VLMicroscopicImageStorage,
        uid.VLPhotographicImageStorage,
        uid.OphthalmicPhotography8BitImageStorage,
        uid.OphthalmicPhotography16BitImageStorage,
    }
)
ENHANCED = frozenset(
    {
        uid.EnhancedCTImageStorage,
        uid.LegacyConvertedEnhancedCTImageStorage,
        uid.EnhancedMRImageStorage,
        uid.EnhancedMRColorImageStorage,
        uid.LegacyConvertedEnhancedMRImageStorage,
        uid.EnhancedXAImageStorage,
        uid.EnhancedXRFImageStorage,
        uid.EnhancedPETImageStorage,
        uid.EnhancedUSVolumeStorage,
        uid.VLWholeSlideMicroscopyImageStorage,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Identity:
    """Whose image this is, in plain text: it lives between reader and keyed hash, and is never written or shown anywhere."""

    issuer: str
    patient_id: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One image. `values`: (Y, X) in output units, or (Y, X, 3) for colour; `full_range` is what the stored type could hold in them.

    `voi` is the window that the file asks for, if any; `inverted` says that the lowest value is meant to be white (MONOCHROME1).
    """

    identity: Identity
    values: NDArray[np.float32] | NDArray[np.float64]
    full_range: tuple[float, float]
    voi: Voi | None
    inverted: bool

    @property
    def is_colour(self) -> bool:
        return self.values.ndim == 3


def parse(content: bytes) -> Dataset:
    """The allow-listed attributes of a file. Raises: Rejected with NOT_DICOM, DICOMDIR, HEADER or TOO_LARGE."""
    if content[128:132] != b"DICM":
        raise Rejected(Reason.NOT_DICOM)
    try:
        dataset = pydicom.dcmread(BytesIO(content), specific_tags=list(TAGS))
        media = str(dataset.file_meta.get("MediaStorageSOPClassUID", ""))
        sop_class = str(dataset.get("SOPClassUID", media))
    except MemoryError as error:
        raise Rejected(Reason.TOO_LARGE) from error
    except Exception as error:  # whatever a parser raises on hostile bytes, RecursionError included
        raise Rejected(Reason.HEADER) from error
    if uid.MediaStorageDirectoryStorage in (media, sop_class):
        raise Rejected(Reason.DICOMDIR)
    if sop_class in ENHANCED:
        raise Rejected(Reason.MULTIFRAME)
    if sop_class not in IMAGES:
        raise Rejected(Reason.NOT_AN_IMAGE if sop_class else Reason.HEADER)
    return dataset


def identify(dataset: Dataset, *, modality: str) -> Identity:
    """Whose image it is. Raises: Rejected with MODALITY, NO_PATIENT_ID or HEADER."""
    if modality != "any" and _text(dataset, "Modality") != modality:
        raise Rejected(Reason.MODALITY)
    identity = Identity(
        issuer=_text(dataset, "IssuerOfPatientID"),
        patient_id=_text(dataset, "PatientID"),
        sop_instance_uid=_text(dataset, "SOPInstanceUID"),
    )
    if is_placeholder(identity.patient_id) or not identity.patient_id.strip("0"):  # consoles fill an unknown id with zeros
        raise Rejected(Reason.NO_PATIENT_ID)
    if not identity.sop_instance_uid:
        raise Rejected(Reason.HEADER)
    return identity


def read(dataset: Dataset, identity: Identity) -> Instance:
    """Decode the pixels and give them their meaning: stored values -> modality LUT or rescale -> output units (PS3.3 C.11.1).

    Raises: Rejected with a reason about pixels, RESCALE or WINDOW.
    """
    stored = pixels.decode(dataset)
    if stored.is_colour:
        return Instance(identity=identity, values=stored.values.astype(np.float32), full_range=(0, stored.high), voi=None, inverted=False)
    values, full_range = _to_output_units(dataset, stored)
    return Instance(
        identity=identity,
        values=values,
        full_range=full_range,
        voi=_voi(dataset),
        inverted=dataset.PhotometricInterpretation == "MONOCHROME1",
    )


def _to_output_units(dataset: Dataset, stored: Stored) -> tuple[NDArray[Any], tuple[float, float]]:
    wide = np.float64 if stored.values.dtype.itemsize > 2 else np.float32  # 32-bit values would lose digits in float32
    if dataset.get("ModalityLUTSequence"):
        try:
            values = apply_modality_lut(stored.values, dataset)
            bits = int(dataset.ModalityLUTSequence[0].LUTDescriptor[2])
        except Exception as error:
            raise Rejected(Reason.RESCALE) from error
        return values.astype(wide), (0.0, float(2**bits - 1))
    slope, intercept = _number(dataset, "RescaleSlope", 1.0), _number(dataset, "RescaleIntercept", 0.0)
    if slope == 0:
        raise Rejected(Reason.RESCALE)
    values = stored.values.astype(wide)
    values *= slope
    values += intercept
    ends = (stored.low * slope + intercept, stored.high * slope + intercept)
    return values, (min(ends), max(ends))


def _number(dataset: Dataset, name: str, default: float) -> float:
    try:
        value = dataset.get(name)
        number = default if value is None or value == "" else float(value)
    except Exception as error:
        raise Rejected(Reason.RESCALE) from error
    if not math.isfinite(number) or abs(number) > 1e30:
        raise Rejected(Reason.RESCALE)
    return number


def _voi(dataset: Dataset) -> Voi | None:
    """The first window of the file (PS3.3 C.11.2.1.2); None where it has none."""
    try:
        centre, width = (_first(dataset.get(name)) for name in ("WindowCenter", "WindowWidth"))
        if centre is None or width is None:
            return None
        function = _text(dataset, "VOILUTFunction") or "LINEAR"
        return Voi(centre=float(centre), width=float(width), function=function)
    except Rejected:
        raise
    except Exception as error:
        raise Rejected(Reason.WINDOW) from error


def _first(value: Any) -> Any:
    if isinstance(value, (list, pydicom.multival.MultiValue)):
        value = value[0] if len(value) else None
    return None if value == "" else value


def _text(dataset: Dataset, name: str) -> str:
    """An attribute as text, without padding; several values are joined as they stand in the file."""
    try:
        value = dataset.get(name)
        parts = value if isinstance(value, (list, pydicom.multival.MultiValue)) else [value]
        text = "\\".join("" if part is None else str(part) for part in parts).strip(" \0")
    except Exception as error:
        raise Rejected(Reason.HEADER) from error
    if len(text) > LONGEST_ID:
        raise Rejected(Reason.HEADER)
    return text
