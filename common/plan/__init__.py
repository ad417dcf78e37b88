# SPDX-License-Identifier: Apache-2.0
"""The plan: what is trained, on which input, under which privacy budget and aggregation rules.

One TOML file, agreed by every hospital before anyone trains. `spec` holds the frozen types, `parse` turns a file into them and refuses
with line and fix, `consistency` refuses what is well-typed but impossible. The digest of the canonical bytes stands in every artefact.
"""

from common.plan.families import (
    BackboneSpec,
    CentreSpec,
    CnnSpec,
    FcnSpec,
    FusionSpec,
    MlpSpec,
    ModelSpec,
    ResNetSpec,
    ScatteringSpec,
    SequenceSpec,
    SrcnnSpec,
    TextNetSpec,
    UNetSpec,
)
from common.plan.inputs import (
    InputSpec,
    RecordField,
    SecondImage,
    TextSpec,
    Window,
)
from common.plan.parse import digest_of, dump, load, parse, to_toml
from common.plan.schedule import at_round
from common.plan.spec import (
    AggregationSpec,
    AugmentationSpec,
    EvaluationSpec,
    Identity,
    Plan,
    PrivacySpec,
    StatisticsSpec,
    TrainingSpec,
)
from common.plan.tasks import (
    ClassificationSpec,
    DetectionSpec,
    MultiLabelSpec,
    RestorationSpec,
    SegmentationSpec,
    TaskSpec,
)

__all__ = [
    "AggregationSpec",
    "AugmentationSpec",
    "BackboneSpec",
    "CentreSpec",
    "ClassificationSpec",
    "CnnSpec",
    "DetectionSpec",
    "EvaluationSpec",
    "FcnSpec",
    "FusionSpec",
    "Identity",
    "InputSpec",
    "MlpSpec",
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
    "SequenceSpec",
    "SrcnnSpec",
    "StatisticsSpec",
    "TaskSpec",
    "TextNetSpec",
    "TextSpec",
    "TrainingSpec",
    "UNetSpec",
    "Window",
    "at_round",
    "digest_of",
    "dump",
    "load",
    "parse",
    "to_toml",
]
