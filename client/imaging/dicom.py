# SPDX-License-Identifier: Apache-2.0
"""One DICOM file (PS3.10) as `Instance`s, one for each frame: whose it is, and its values in the modality's output units.

    bytes -> parse -> identify -> admit -> read -> Instance, Instance, ..

Only the attributes named in TAGS are read: identity, kind, pixels, geometry and what values mean. Names, dates, free text and private
attributes are skipped by the parser. A file without preamble is read if it begins with a file meta group, and otherwise refused rather
than guessed at.

What becomes of a file with several frames is the plan's to say. Unless it does they are refused: silently training on frame one, or
counting a cine loop as fifty images, would both be wrong for somebody.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from client.imaging import frame_groups, geometry, pixels, units
from client.imaging.geometry import Geometry, geometry_of
from client.imaging.identity import LONGEST_ID, names_nobody
from client.imaging.intensity import Voi, VoiTable
from client.imaging.pixels import Claims, Stored
from client.imaging.rejection import Reason, Rejected
from common.plan import InputSpec

IDENTITY_TAGS = ["SOPClassUID", "SOPInstanceUID", "Modality", "PatientID", "IssuerOfPatientID"]
KIND_TAGS = ["ImageType", "BurnedInAnnotation", "Laterality", "ImageLaterality", "ViewPosition"]
TAGS = [*IDENTITY_TAGS, *KIND_TAGS, *pixels.TAGS, *units.TAGS, *geometry.TAGS, *frame_groups.TAGS]

PIXEL_DATA = 0x7FE00010
UNDEFINED = 0xFFFFFFFF  # a length that the value itself says the end of
MAMMOGRAPHY = "MG"
SLIDES = "SM"
NO_IMAGES_OF_A_SLIDE = ("LABEL", "OVERVIEW", "THUMBNAIL", "LOCALIZER")

# Storage classes (PS3.4 B.5) that are images: neither segmentations nor dose, nor what is computed to be measured. Those of video are among
# them, since some hold JPEG; what does not is refused by its transfer syntax.
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
        uid.EnhancedCTImageStorage,
        uid.LegacyConvertedEnhancedCTImageStorage,
        uid.EnhancedMRImageStorage,
        uid.EnhancedMRColorImageStorage,
        uid.LegacyConvertedEnhancedMRImageStorage,
        uid.EnhancedXAImageStorage,
        uid.EnhancedXRFImageStorage,
        uid.EnhancedPETImageStorage,
        uid.LegacyConvertedEnhancedPETImageStorage,
        uid.EnhancedUSVolumeStorage,
        uid.BreastTomosynthesisImageStorage,
        uid.BreastProjectionXRayImageStorageForPresentation,
        uid.BreastProjectionXRayImageStorageForProcessing,
        uid.XRay3DAngiographicImageStorage,
        uid.XRay3DCraniofacialImageStorage,
        uid.DigitalIntraOralXRayImageStorageForPresentation,
        uid.DigitalIntraOralXRayImageStorageForProcessing,
        uid.MultiFrameSingleBitSecondaryCaptureImageStorage,
        uid.OphthalmicTomographyImageStorage,
        uid.WideFieldOphthalmicPhotographyStereographicProjectionImageStorage,
        uid.WideFieldOphthalmicPhotography3DCoordinatesImageStorage,
        uid.IntravascularOpticalCoherenceTomographyImageStorageForPresentation,
        uid.VLSlideCoordinatesMicroscopicImageStorage,
        uid.VLWholeSlideMicroscopyImageStorage,
        uid.ConfocalMicroscopyImageStorage,
        uid.DermoscopicPhotographyImageStorage,
        uid.PhotoacousticImageStorage,
        uid.IntravascularOpticalCoherenceTomographyImageStorageForProcessing,
        uid.OphthalmicOpticalCoherenceTomographyEnFaceImageStorage,
        uid.RTImageStorage,
        uid.EnhancedRTImageStorage,
        uid.EnhancedContinuousRTImageStorage,
        uid.VideoEndoscopicImageStorage,
        uid.VideoMicroscopicImageStorage,
        uid.VideoPhotographicImageStorage,
        uid.UID("1.2.840.10008.5.1.4.1.1.3"),  # Ultrasound Multi-frame, retired
        uid.UID("1.2.840.10008.5.1.4.1.1.5"),  # Nuclear Medicine, retired
        uid.UID("1.2.840.10008.5.1.4.1.1.6"),  # Ultrasound, retired
    }
)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Identity:
    """Whose image this is, in plain text: it lives between reader and keyed hash, and is never written or shown anywhere."""

    issuer: str
    patient_id: str
    sop_instance_uid: str
    series_uid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One image. `values`: (Y, X) in output units, or (Y, X, 3) for colour; `full_range` is what the stored type could hold in them.

    `voi` is the window or table that the file asks for, if any; `inverted` says that the lowest value is meant to be white (MONOCHROME1);
    `padding` is where nothing was measured. `frame` counts from 0 within the file.
    """

    identity: Identity
    values: NDArray[np.float32] | NDArray[np.float64]
    full_range: tuple[float, float]
    voi: Voi | VoiTable | None
    inverted: bool
    padding: NDArray[np.bool_] | None = None
    geometry: Geometry = field(default_factory=Geometry)
    modality: str = ""
    frame: int = 0

    @property
    def is_colour(self) -> bool:
        return self.values.ndim == 3


def header(content: bytes) -> Dataset:
    """The allow-listed attributes of a file of any kind. Raises: Rejected with NOT_DICOM, DICOMDIR, HEADER, TRUNCATED or TOO_LARGE."""
    if content[128:132] != b"DICM" and not begins_with_meta(content):
        raise Rejected(Reason.NOT_DICOM)
    try:
        stream = _Stream(content)
        dataset = pydicom.dcmread(stream, specific_tags=list(TAGS), force=True)
        is_cut = _is_cut(dataset, content, stream)
        classes = (str(dataset.file_meta.get("MediaStorageSOPClassUID", "")), str(dataset.get("SOPClassUID", "")))
    except MemoryError as error:
        raise Rejected(Reason.TOO_LARGE) from error
    except Exception as error:  # whatever a parser raises on hostile bytes, RecursionError included
        raise Rejected(Reason.HEADER) from error
    if uid.MediaStorageDirectoryStorage in classes:
        raise Rejected(Reason.DICOMDIR)
    if is_cut:
        raise Rejected(Reason.TRUNCATED)
    return dataset


class _Stream(BytesIO):
    """Bytes that know whether the last time more was asked for than there was left."""

    is_short = False

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        self.is_short = size is not None and 0 < len(content) < size
        return content


def _is_cut(dataset: Dataset, content: bytes, stream: _Stream) -> bool:
    """Whether a file ends inside an element: what would have followed is missing, and nothing that is missing may be believed.

    pydicom takes what there is of a value, skips over the end, or, inside a sequence or compressed pixels, drops all that it had read.
    Uncompressed pixels that are too few are another reason; and what lies behind the pixels, a byte or two among it, may end as it likes.
    """
    if PIXEL_DATA not in dataset and (stream.tell() > len(content) or stream.is_short):
        return True
    raw = [element for element in dataset._dict.values() if isinstance(element, RawDataElement) and element.tag != PIXEL_DATA]
    if any(UNDEFINED > element.length > len(element.value or b"") for element in raw):
        return True
    return not len(dataset) and _ends_early(content)


def _ends_early(content: bytes) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            pydicom.dcmread(BytesIO(content), specific_tags=list(TAGS), force=True)
        except UserWarning:  # what pydicom makes of the end of a file
            return True
    return False


def parse(content: bytes) -> Dataset:
    """The allow-listed attributes of an image. Raises: Rejected with what `header` gives, or NOT_AN_IMAGE."""
    dataset = header(content)
    require_image(dataset)
    return dataset


def require_image(dataset: Dataset) -> None:
    """Whether what a file says of itself is an image. Raises: Rejected with NOT_AN_IMAGE, or HEADER where it does not say."""
    sop_class = str(dataset.get("SOPClassUID", "") or dataset.file_meta.get("MediaStorageSOPClassUID", ""))
    if sop_class not in IMAGES:
        raise Rejected(Reason.NOT_AN_IMAGE if sop_class else Reason.HEADER)


def begins_with_meta(content: bytes) -> bool:
    """Group 0002 in explicit VR, as in a file whose preamble was stripped (PS3.10 7.1)."""
    return content[:2] == b"\x02\x00" and content[4:6] in (b"UL", b"OB", b"UI")


def identify(dataset: Dataset, *, modality: str) -> Identity:
    """Whose image it is. Raises: Rejected with MODALITY, NO_PATIENT_ID or HEADER."""
    if modality != "any" and _text(dataset, "Modality") != modality:
        raise Rejected(Reason.MODALITY)
    identity = Identity(
        issuer=_text(dataset, "IssuerOfPatientID"),
        patient_id=_text(dataset, "PatientID"),
        sop_instance_uid=_text(dataset, "SOPInstanceUID"),
        series_uid=_text(dataset, "SeriesInstanceUID"),
    )
    if names_nobody(identity.patient_id):
        raise Rejected(Reason.NO_PATIENT_ID)
    if not identity.sop_instance_uid:
        raise Rejected(Reason.HEADER)
    return identity


def admit(dataset: Dataset, spec: InputSpec, *, accept_burned_in: bool) -> None:
    """Whether plan and site want this kind of image. Raises: Rejected with BURNED_IN, LOCALIZER, VIEW, LATERALITY or LEVEL."""
    if not accept_burned_in and _text(dataset, "BurnedInAnnotation").upper() == "YES":
        raise Rejected(Reason.BURNED_IN)
    modality, kind = _text(dataset, "Modality"), _text(dataset, "ImageType").upper().split("\\")
    if (modality == SLIDES and any(word in kind for word in NO_IMAGES_OF_A_SLIDE)) or (modality == "CT" and kind[2:3] == ["LOCALIZER"]):
        raise Rejected(Reason.LOCALIZER)
    if spec.views and _text(dataset, "ViewPosition").upper() not in spec.views:
        raise Rejected(Reason.VIEW)
    if spec.laterality is not None:
        first = frame_groups.attributes_of(dataset, 0)
        sides = [_text(first, name) for name in ("FrameLaterality", "ImageLaterality", "Laterality")]
        if next((side for side in sides if side), "") != spec.laterality:
            raise Rejected(Reason.LATERALITY)
    if modality == SLIDES and spec.spacing_mm is not None:
        _check_level(dataset, spec.spacing_mm)


def _check_level(dataset: Dataset, spacing_mm: float) -> None:
    """Levels of a slide lie a factor of two or four apart; the one within a factor of the square root of two is meant."""
    found = geometry_of(frame_groups.attributes_of(dataset, 0)).spacing_mm
    if found is None:
        raise Rejected(Reason.SPACING)
    if not 0.5 <= (found[0] / spacing_mm) ** 2 < 2:
        raise Rejected(Reason.LEVEL)


def frames_of(frames: int, wanted: str) -> Sequence[int]:
    """Which of a file's frames become images, by [input] frames. Raises: Rejected(MULTIFRAME)."""
    if frames == 1:
        return range(1)
    match wanted:
        case "first":
            return range(1)
        case "middle":
            return range(frames // 2, frames // 2 + 1)
        case "each":
            return range(frames)
    raise Rejected(Reason.MULTIFRAME)


def count(dataset: Dataset, wanted: str) -> int:
    """How many images a file will give at most, from its header alone. Raises: Rejected."""
    return len(frames_of(pixels.claims_of(dataset).frames, wanted))


def read(dataset: Dataset, identity: Identity) -> Instance:
    """The image of a single-frame file. Raises: Rejected."""
    return next(read_frames(dataset, identity, "single"))


def read_frames(
    dataset: Dataset, identity: Identity, wanted: str, *, tap: Callable[[NDArray[Any]], None] | None = None
) -> Iterator[Instance]:
    """Decode the wanted frames and give them their meaning; `tap` is shown each one's stored values before.

    Raises: Rejected with a reason about pixels, values or geometry.
    """
    claims = pixels.claims_of(dataset)
    if claims.is_real:
        raise Rejected(Reason.PIXEL_FORMAT)
    chosen = frames_of(claims.frames, wanted)
    for frame, stored in zip(chosen, pixels.decode_frames(dataset, claims, chosen), strict=True):
        if tap is not None:
            tap(stored.values)
        yield _instance(dataset, claims, identity, frame, stored)


def _instance(dataset: Dataset, claims: Claims, identity: Identity, frame: int, stored: Stored) -> Instance:
    attributes = frame_groups.attributes_of(dataset, frame)
    shared: dict[str, Any] = {
        "identity": identity,
        "geometry": geometry_of(attributes),
        "modality": _text(dataset, "Modality"),
        "frame": frame,
    }
    stored = pixels.in_colour(stored, claims, dataset)
    if stored.is_colour:
        values = stored.values.astype(np.float32)
        return Instance(values=values, full_range=(0, stored.high), voi=None, inverted=False, **shared)
    values, full_range = units.to_output_units(attributes, stored)
    return Instance(
        values=values,
        full_range=full_range,
        voi=units.voi_of(attributes),
        inverted=claims.photometric == "MONOCHROME1",
        padding=units.padding_of(attributes, stored, claims),
        **shared,
    )


def _text(dataset: Dataset, name: str) -> str:
    """An attribute as text, without padding; several values are joined as they stand in the file.

    A file says itself of which kind a value is. One that says bytes or numbers where letters belong would have a spelling of its own: a
    patient who is somebody else in this file, or a YES that is none.
    """
    try:
        value = dataset.get(name)
        parts = value if isinstance(value, (list, pydicom.multival.MultiValue)) else [value]
        if isinstance(value, pydicom.Sequence) or any(isinstance(part, bytes) or type(part) in (int, float, BaseTag) for part in parts):
            raise Rejected(Reason.HEADER)
        text = "\\".join("" if part is None else str(part) for part in parts).strip(" \0")
    except Exception as error:
        raise Rejected(Reason.HEADER) from error
    if len(text) > LONGEST_ID:
        raise Rejected(Reason.HEADER)
    return text
