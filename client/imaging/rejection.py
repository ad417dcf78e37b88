# SPDX-License-Identifier: Apache-2.0
"""Why a file was not used: one code for each reason, and no words about the file.

A bad file costs a reason code, not the run. Codes and counts are all that is ever shown of it: neither its name nor what a parser said
about it, because both may hold a patient's data.
"""

from enum import StrEnum


class Reason(StrEnum):
    """The code is for machines and documentation; `REMEDY[reason]` is for people."""

    LINK = "E_LINK"
    OUTSIDE = "E_OUTSIDE"
    NO_FILE = "E_NO_FILE"
    NOT_REGULAR = "E_NOT_REGULAR"
    NOT_DICOM = "E_NOT_DICOM"
    NOT_A_PICTURE = "E_NOT_A_PICTURE"
    DICOMDIR = "E_DICOMDIR"
    NOT_AN_IMAGE = "E_NOT_AN_IMAGE"
    HEADER = "E_HEADER"
    TRUNCATED = "E_TRUNCATED"
    MODALITY = "E_MODALITY"
    VIEW = "E_VIEW"
    LATERALITY = "E_LATERALITY"
    LOCALIZER = "E_LOCALIZER"
    BURNED_IN = "E_BURNED_IN"
    NO_PATIENT_ID = "E_NO_PATIENT_ID"
    NO_LABEL = "E_NO_LABEL"
    LABEL_SOURCE = "E_LABEL_SOURCE"
    NO_MASK = "E_NO_MASK"
    MASK_VALUES = "E_MASK_VALUES"
    MASK_SHAPE = "E_MASK_SHAPE"
    TURNED = "E_TURNED"
    SIZE = "E_SIZE"
    BOXES = "E_BOXES"
    NOT_LISTED = "E_NOT_LISTED"
    NOT_SHOWN = "E_NOT_SHOWN"
    DUPLICATE = "E_DUPLICATE"
    NO_PIXELS = "E_NO_PIXELS"
    TRANSFER_SYNTAX = "E_TRANSFER_SYNTAX"
    MULTIFRAME = "E_MULTIFRAME"
    VOLUMES = "E_VOLUMES"
    PIXEL_FORMAT = "E_PIXEL_FORMAT"
    PIXEL_LENGTH = "E_PIXEL_LENGTH"
    FRAME_GROUPS = "E_FRAME_GROUPS"
    GEOMETRY = "E_GEOMETRY"
    SPACING = "E_SPACING"
    LEVEL = "E_LEVEL"
    TISSUE = "E_TISSUE"
    RESCALE = "E_RESCALE"
    WINDOW = "E_WINDOW"
    CONSTANT = "E_CONSTANT"
    UNDECODABLE = "E_UNDECODABLE"
    TOO_LARGE = "E_TOO_LARGE"
    TIMEOUT = "E_TIMEOUT"
    CRASHED = "E_CRASHED"


REMEDY: dict[Reason, str] = {
    Reason.LINK: "A symbolic link: never followed. Copy the file into the folder instead.",
    Reason.OUTSIDE: "The index names a path outside the folder.",
    Reason.NO_FILE: "The index names a file or row that is not there, or that may not be read.",
    Reason.NOT_REGULAR: "A pipe, a socket or a device: never opened.",
    Reason.NOT_DICOM: "Not a DICOM file (PS3.10): no preamble and 'DICM'.",
    Reason.NOT_A_PICTURE: "Neither PNG nor JPEG nor NIfTI.",
    Reason.DICOMDIR: "A DICOMDIR: never opened. The files it lists are found by themselves.",
    Reason.NOT_AN_IMAGE: "A DICOM object that is no image (report, segmentation, dose, waveform), or of a maker's own kind.",
    Reason.HEADER: "The header does not parse, or holds impossible values.",
    Reason.TRUNCATED: "The file ends in the middle of its header or of its compressed pixels, or lengths in it are wrong. Export it again.",
    Reason.MODALITY: "Another modality than the plan's [input] modality, or none stated.",
    Reason.VIEW: "Another view (0018,5101) than the plan's [input] views, or none.",
    Reason.LATERALITY: "The other side than the plan's [input] laterality, or none stated (0020,0060, 0020,0062).",
    Reason.LOCALIZER: "A scout, or a slide's label, overview or thumbnail: no image to diagnose from, and a label shows a name.",
    Reason.BURNED_IN: "Says itself that a patient's data are written into the picture (0028,0301). The site's policy.toml may accept it.",
    Reason.NO_PATIENT_ID: "PatientID is missing, blank or a placeholder. Restore it, or export with a pseudonym per patient.",
    Reason.NO_LABEL: "No label for this file.",
    Reason.LABEL_SOURCE: "A report, segmentation, table or export that labels were taken from: no image, and not lost either.",
    Reason.NO_MASK: "The mask that the index names is not there, or cannot be read. It is a PNG of classes, or NIfTI beside NIfTI.",
    Reason.MASK_VALUES: "The mask has values beyond the plan's classes. With two classes any value but 0 is the second.",
    Reason.MASK_SHAPE: "The mask has other proportions than its picture, or does not lie where its volume does.",
    Reason.TURNED: "To be turned before it is looked at (EXIF); its mask or boxes may be older or newer than that. Save both upright.",
    Reason.SIZE: "The picture has another width and height, as it is looked at, than its row in the index says.",
    Reason.BOXES: "A box lies outside the picture, or there are more than the plan's [task] most_boxes; volumes (NIfTI) have none.",
    Reason.NOT_LISTED: "A file that no row of the index names.",
    Reason.NOT_SHOWN: "Sound, but of its case the plan's [input] sequence shows so many images, evenly spread, and none of this file.",
    Reason.DUPLICATE: "The same image a second time.",
    Reason.NO_PIXELS: "No pixel data.",
    Reason.TRANSFER_SYNTAX: "A compression that is not read here (video, JPEG XL, retired ones). Export uncompressed or as JPEG 2000.",
    Reason.MULTIFRAME: "More than one frame. The plan's [input] frames says what becomes of them, and refuses them.",
    Reason.VOLUMES: "Several volumes in one file (over time, or of several kinds). Save each as a file of its own.",
    Reason.PIXEL_FORMAT: "Bit depth, samples or photometric interpretation that are missing, unknown or at odds; or infinite values.",
    Reason.PIXEL_LENGTH: "Less pixel data than rows and columns say.",
    Reason.FRAME_GROUPS: "The functional groups of an enhanced object do not fit its frames.",
    Reason.GEOMETRY: 'What is stated as orientation is none. [input] orientation = "stored" avoids it.',
    Reason.SPACING: "No usable pixel spacing, and the plan's [input] asks for spacing_mm.",
    Reason.LEVEL: "Another level of a whole slide than the plan's [input] spacing_mm.",
    Reason.TISSUE: "No tile of this slide has as much tissue as the plan's [input] asks for.",
    Reason.RESCALE: "Rescale slope or intercept is no usable number.",
    Reason.WINDOW: "The file's own window is unusable. A window in the plan's [input] avoids it.",
    Reason.CONSTANT: "Every pixel has the same value inside the window.",
    Reason.UNDECODABLE: "The pixel data does not decode.",
    Reason.TOO_LARGE: "Larger than one image may be (memory or pixels).",
    Reason.TIMEOUT: "Reading took longer than one file may take.",
    Reason.CRASHED: "The reader died on this file.",
}


class Rejected(Exception):
    """Raised inside a reader to give one file up. Carries the reason and nothing else."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason
