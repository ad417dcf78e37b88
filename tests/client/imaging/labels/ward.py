# SPDX-License-Identifier: Apache-2.0
"""A folder with made images of which reports, segmentations and exports speak: written by highdicom, as other people's software would."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from highdicom import seg, sr
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

NODULE, NORMAL, LIVER = Code("27925004", "SCT", "Nodule"), Code("17621005", "SCT", "Normal"), Code("10200004", "SCT", "Liver")
SHAPE = (16, 12)


@dataclass(slots=True)
class Ward:
    """A folder that a test fills: images first, then what is said of them."""

    folder: Path
    images: list[Dataset] = field(default_factory=list)

    def image(self, patient: str = "MRN-0001", study: str | None = None, **attributes: Any) -> Dataset:
        """One CT slice on disk."""
        number = len(self.images)
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
        dataset.StudyInstanceUID = study or self._study_of(patient)
        dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[dataset.StudyInstanceUID, "series"])
        dataset.FrameOfReferenceUID = generate_uid(entropy_srcs=[dataset.StudyInstanceUID, "frame"])
        dataset.Modality, dataset.PatientID, dataset.IssuerOfPatientID = "CT", patient, "NORTH"
        dataset.PatientName, dataset.PatientBirthDate, dataset.PatientSex = "Doe^Jane", "19600229", "F"
        dataset.StudyDate, dataset.StudyTime, dataset.StudyID, dataset.AccessionNumber = "20240229", "101500", "S1", "A1"
        dataset.SeriesNumber, dataset.InstanceNumber, dataset.ReferringPhysicianName = 1, number + 1, "Ref^Erring"
        dataset.Manufacturer, dataset.ManufacturerModelName, dataset.ProtocolName = "Acme", "Scan 3", "Thorax"
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0.0, 0.0, 2.0 * number], [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        dataset.PixelSpacing, dataset.SliceThickness = [1.0, 1.0], 2.0
        dataset.Rows, dataset.Columns = SHAPE
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
        dataset.PixelData = np.random.default_rng(number).integers(0, 4096, SHAPE, dtype=np.uint16).tobytes()
        dataset["PixelData"].VR = "OW"
        for name, value in attributes.items():
            setattr(dataset, name, value)
        self.images.append(dataset)
        self.keep(dataset, f"image_{number:02}.dcm")
        return dataset

    def _study_of(self, patient: str) -> str:
        return next((each.StudyInstanceUID for each in self.images if each.PatientID == patient), str(generate_uid()))

    def keep(self, dataset: Dataset, name: str) -> Path:
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        stream = BytesIO()
        dataset.save_as(stream, enforce_file_format=True)
        (self.folder / name).write_bytes(stream.getvalue())
        return self.folder / name

    def report(
        self,
        said: Sequence[tuple[Dataset, Code]],
        *,
        name: str = "report.dcm",
        on: str = "20240301",
        by_region: bool = True,
        segment: sr.ReferencedSegment | None = None,
        evaluations: Sequence[sr.QualitativeEvaluation] | None = None,
        evidence: Sequence[Dataset] | None = None,
        **tags: Any,
    ) -> Dataset:
        """A TID 1500 report: of each of these images, that finding; drawn as a region or a segment, or of the image as a whole."""
        groups = [self._group(image, finding, by_region, segment, evaluations) for image, finding in said]
        observer = sr.ObserverContext(
            observer_type=codes.DCM.Person, observer_identifying_attributes=sr.PersonObserverIdentifyingAttributes(name="Ra^Diologist")
        )
        content = sr.MeasurementReport(
            observation_context=sr.ObservationContext(observer_person_context=observer),
            procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
            imaging_measurements=groups,
            title=codes.DCM.ImagingMeasurementReport,
        )
        document = sr.Comprehensive3DSR(
            evidence=evidence or [image for image in self.images if image.PatientID == said[0][0].PatientID],
            content=content[0],
            series_number=9,
            series_instance_uid=generate_uid(),
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer="Acme",
            is_complete=True,
            is_final=True,
        )
        document.ContentDate, document.ContentTime = on, "120000"
        for keyword, value in tags.items():
            setattr(document, keyword, value)
        self.keep(document, name)
        return document

    def _group(
        self,
        image: Dataset,
        finding: Code,
        by_region: bool,
        segment: sr.ReferencedSegment | None,
        evaluations: Sequence[sr.QualitativeEvaluation] | None,
    ) -> Any:
        common: dict[str, Any] = {
            "tracking_identifier": sr.TrackingIdentifier(uid=generate_uid(), identifier="lesion"),
            "finding_type": finding,
            "qualitative_evaluations": evaluations,
        }
        if segment is not None:
            return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_segment=segment, **common)
        if not by_region:
            source = sr.SourceImageForMeasurementGroup(image.SOPClassUID, image.SOPInstanceUID)
            return sr.MeasurementsAndQualitativeEvaluations(source_images=[source], **common)
        region = sr.ImageRegion(
            graphic_type=sr.GraphicTypeValues.CIRCLE,
            graphic_data=np.array([[5.0, 5.0], [7.0, 5.0]]),
            source_image=sr.SourceImageForRegion(image.SOPClassUID, image.SOPInstanceUID),
        )
        return sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=region, **common)

    def segmentation(
        self,
        masks: Sequence[np.ndarray[Any, Any]],
        *,
        code: Code = NODULE,
        others: Sequence[tuple[Code, Sequence[np.ndarray[Any, Any]]]] = (),
        kind: str = "BINARY",
        of: Sequence[Dataset] | None = None,
        name: str = "seg.dcm",
    ) -> Dataset:
        """A SEG: a mask (Y, X) for each image, of one segment, and of `others`."""
        descriptions = [
            seg.SegmentDescription(
                segment_number=number,
                segment_label="lesion",
                segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
                segmented_property_type=each,
                algorithm_type=seg.SegmentAlgorithmTypeValues.MANUAL,
            )
            for number, each in enumerate([code, *(other for other, _ in others)], start=1)
        ]
        stored = np.float32 if kind == "FRACTIONAL" else np.uint8
        pixels = np.stack([np.stack(masks), *(np.stack(each) for _, each in others)], axis=-1).astype(stored)
        document = seg.Segmentation(
            source_images=list(of or self.images),
            pixel_array=pixels if others else pixels[..., 0],
            segmentation_type=kind,
            segment_descriptions=descriptions,
            series_instance_uid=generate_uid(),
            series_number=8,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer="Acme",
            manufacturer_model_name="Draw",
            software_versions="1",
            device_serial_number="1",
            omit_empty_frames=True,
        )
        self.keep(document, name)
        return document

    def export(self, *resources: dict[str, Any], name: str = "export.json") -> None:
        bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": each} for each in resources]}
        (self.folder / name).write_text(json.dumps(bundle))

    def rules(self, text: str) -> None:
        (self.folder / "labels.toml").write_text(text)


def condition(code: tuple[str, str], patient: str = "MRN-0001", **fields: Any) -> dict[str, Any]:
    """A Condition whose subject carries the identifier itself."""
    return {
        "resourceType": "Condition",
        "code": {"coding": [{"system": code[0], "code": code[1]}]},
        "subject": {"identifier": {"system": "urn:oid:1.2.3", "value": patient}},
        **fields,
    }
