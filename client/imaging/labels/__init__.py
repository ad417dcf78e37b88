# SPDX-License-Identifier: Apache-2.0
"""What people wrote about the images, wherever they wrote it.

    labels.csv                        one row an image (table.py)
    labels.toml                       or: which code of which source means which class of the plan (rules.py)
        DICOM SR, TID 1500            findings and evaluations of a measurement report (structured_report.py)
        DICOM SEG                     segments: there or not, or as a mask (segmentation.py)
        FHIR R4                       Conditions and DiagnosticReports of an export (fhir.py)

    survey -> statements -> agreement -> Labels

Whoever wrote something made a *statement*: this code, of this image (or study, or patient), on this date. The survey reads them in the
limited child process, like everything hostile; identifiers become keyed names as soon as they come out of it. Agreement makes of all
statements about one image a class, or a named reason why there is none: two sources that contradict each other are never settled in
silence.
"""

from client.imaging.labels.rules import RULES
from client.imaging.labels.table import KEYS, LABELS, Key, Labels, check_classes, class_of, need_column, plain_path, read, read_csv

__all__ = ["KEYS", "LABELS", "RULES", "Key", "Labels", "check_classes", "class_of", "need_column", "plain_path", "read", "read_csv"]
