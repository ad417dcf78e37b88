# SPDX-License-Identifier: Apache-2.0
"""Networks, one family per file, and their weights as one flat vector.

`build` turns the plan's [model] section into a module with no norm that mixes patients and no buffer that remembers them; `initial`
draws its weights from a seed; `flat` moves them in and out of a vector in layout order. A new family is a new file (legend, module), a
spec in `common/plan/families.py` and one line below.
"""

from functools import lru_cache

import torch
from torch import nn

from common.models.backbone import Backbone
from common.models.centre import Centre
from common.models.cnn import Cnn
from common.models.fcn import Fcn
from common.models.flat import FlatModel, flatten, layout_of, load, parts_of, read_weights, write_weights
from common.models.fusion import Fusion
from common.models.initial import initialise
from common.models.layers import Dropout, seed_dropout
from common.models.mlp import Mlp
from common.models.pretrained import WEIGHTS_FOLDER, find, look_in, tensors_of
from common.models.resnet import ResNet
from common.models.scattering import Scattering
from common.models.sequence import Sequence
from common.models.srcnn import Srcnn
from common.models.text import TextNet
from common.models.unet import UNet
from common.plan import (
    BackboneSpec,
    CentreSpec,
    ClassificationSpec,
    CnnSpec,
    DetectionSpec,
    FcnSpec,
    FusionSpec,
    InputSpec,
    MlpSpec,
    ModelSpec,
    Plan,
    ResNetSpec,
    RestorationSpec,
    ScatteringSpec,
    SequenceSpec,
    SrcnnSpec,
    TextNetSpec,
    UNetSpec,
)
from common.update import Layout, Weights

__all__ = [
    "WEIGHTS_FOLDER",
    "Dropout",
    "FlatModel",
    "build",
    "find",
    "flatten",
    "initial_weights",
    "initialise",
    "layout_of",
    "layout_of_plan",
    "load",
    "look_in",
    "outputs_for",
    "parts_of",
    "read_weights",
    "seed_dropout",
    "write_weights",
]


def build(spec: ModelSpec, image: InputSpec, outputs: int, *, seed: int = 0) -> nn.Module:
    """A network whose inputs are those of `image`, in the order of `client.training.batches.inputs`, and whose head gives `outputs` values.

    One input is what most have: images (B, C, H, W) float32, with T before C for sequences. What comes out is (B, outputs), or
    (B, outputs, H, W) of a family that answers for each pixel.

    Raises: DataNotFound, ModelHash, ModelLayout, if it starts from weights that are not here, or are others.
    Guarantees: no buffers; no image looks at another; same seed, same weights; the process-wide random state is not touched.
    """
    model = _unseeded(spec, image, outputs)
    initialise(model, seed)
    if isinstance(spec, BackboneSpec) and isinstance(model, Backbone):
        model.furnish(tensors_of(spec))
    return model


def outputs_for(plan: Plan) -> int:
    """How many values a task needs of the model's head.

    One for two classes to tell apart, else one for each class; a detector also says where in its cell a box has its centre, and how large
    it is; a restored image has as many channels as it had.
    """
    match plan.task:
        case ClassificationSpec(classes=classes) if len(classes) == 2:
            return 1
        case DetectionSpec(classes=classes):
            return len(classes) + 4
        case RestorationSpec():
            return plan.input.channels
    return len(plan.task.classes)


def initial_weights(plan: Plan) -> Weights:
    """The global model before the first round: a pure function of the plan."""
    return read_weights(build(plan.model, plan.input, outputs_for(plan), seed=plan.training.seed))


@lru_cache(maxsize=16)
def layout_of_plan(plan: Plan) -> Layout:
    """The layout that a plan implies."""
    return layout_of(_unseeded(plan.model, plan.input, outputs_for(plan)))


def _unseeded(spec: ModelSpec, image: InputSpec, outputs: int) -> nn.Module:
    """The network as torch makes it; its weights are overwritten by the caller.

    (The meta device would draw none, but its first random fill imports a symbolic algebra system: a third of a second in every process.)
    """
    with torch.random.fork_rng(devices=[]):
        match spec:
            case BackboneSpec():
                return Backbone(spec, image, outputs)
            case CnnSpec():
                return Cnn(spec, image, outputs)
            case ResNetSpec():
                return ResNet(spec, image, outputs)
            case ScatteringSpec():
                return Scattering(spec, image, outputs)
            case UNetSpec():
                return UNet(spec, image, outputs)
            case FcnSpec():
                return Fcn(spec, image, outputs)
            case CentreSpec():
                return Centre(spec, image, outputs)
            case SrcnnSpec():
                return Srcnn(spec, image, outputs)
            case SequenceSpec():
                return Sequence(spec, image, outputs)
            case MlpSpec():
                return Mlp(spec, image, outputs)
            case TextNetSpec():
                return TextNet(spec, image, outputs)
            case FusionSpec():
                return Fusion(spec, image, outputs)
