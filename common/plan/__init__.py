# SPDX-License-Identifier: Apache-2.0
"""The plan: what is trained, on which input, under which privacy budget and aggregation rules.

One TOML file, agreed by every hospital before anyone trains. `spec` holds the frozen types, `parse` turns a file into them and refuses
with line and fix, `consistency` refuses what is well-typed but impossible. The digest of the canonical bytes stands in every artefact.
"""

from common.plan.parse import digest_of, dump, load, parse, to_toml
from common.plan.spec import (
    AggregationSpec,
    ClassificationSpec,
    CnnSpec,
    DetectionSpec,
    EvaluationSpec,
    Identity,
    InputSpec,
    ModelSpec,
    MultiLabelSpec,
    Plan,
    PrivacySpec,
    RecordField,
    ResNetSpec,
    RestorationSpec,
    ScatteringSpec,
    SecondImage,
    SegmentationSpec,
    StatisticsSpec,
    TaskSpec,
    TextSpec,
    TrainingSpec,
    UNetSpec,
    Window,
)

__all__ = [
    "AggregationSpec",
    "ClassificationSpec",
    "CnnSpec",
    "DetectionSpec",
    "EvaluationSpec",
    "Identity",
    "InputSpec",
    "ModelSpec",
    "MultiLabelSpec",
    "Plan",
    "PrivacySpec",
    "RecordField",
    "ResNetSpec",
    "RestorationSpec",
    "ScatteringSpec",
    "SecondImage",
    "SegmentationSpec",
    "StatisticsSpec",
    "TaskSpec",
    "TextSpec",
    "TrainingSpec",
    "UNetSpec",
    "Window",
    "digest_of",
    "dump",
    "load",
    "parse",
    "to_toml",
]
