# SPDX-License-Identifier: Apache-2.0
"""What was run, in words: the images, the network, the rounds, and what became of those who were missing.

Plain description; what the run showed, and what it promises, is said in `wording`.
"""

from collections.abc import Mapping, Sequence

from common.plan import (
    BackboneSpec,
    CentreSpec,
    CnnSpec,
    FcnSpec,
    FusionSpec,
    MlpSpec,
    Plan,
    ScatteringSpec,
    SequenceSpec,
    SrcnnSpec,
    TextNetSpec,
    TrainingSpec,
    UNetSpec,
)
from simulations.report import numbers
from simulations.report.folder import Intake, Round

REASONS: Mapping[str, str] = {
    "E_SILENT": "did not answer in time",
    "E_SITE_FAILED": "failed while answering",
    "E_TRAIN_FAILED": "local training raised an error",
    "E_PRIVACY_BUDGET": "privacy budget used up; training refused",
    "E_EPSILON_IMPOSSIBLE": "no noise reaches the plan's epsilon with this site's data",
    "E_TOO_FEW_PATIENTS": "too few patients for the plan",
    "E_PLAN_MISMATCH": "approved another plan",
    "E_MSG_FORMAT": "its answer was malformed and was left out",
    "E_UPDATE_NONFINITE": "its update held no finite numbers and was left out",
    "E_UPDATE_NORM": "its update was longer than agreed and was left out",
    "E_MODEL_LAYOUT": "its update was for another model and was left out",
    "E_MODEL_HASH": "did not hold the announced weights",
    "E_REPLAY": "answered a round that was over",
    "E_EQUIVOCATION": "was asked two different things in one round",
    "E_ENGINE": "the simulation's worker died",
    "E_GPU_MISSING": "did not find the GPU that it is told to train on",
    "E_GPU_MEMORY": "had too little memory on its GPU",
    "E_DISK_FULL": "had no disk space",
}


_TOGETHER: Mapping[str, str] = {
    "gru": "a recurrent network that reads them in their order",
    "attention": "attention of each to all",
    "mil": "attention to those that matter",
}


def reason(code: str) -> str:
    """A code in words; a code that this version does not know is shown as it is."""
    return REASONS.get(code, code or "no reason was recorded")


def model(plan: Plan) -> str:
    """The network in words."""
    spec = plan.model
    if isinstance(spec, ScatteringSpec):
        return f"Linear layer on scattering features: fixed wavelets of {spec.scales} scales and {spec.angles} angles, nothing else learnt"
    if isinstance(spec, TextNetSpec):
        return f"Text network: {spec.features} values for each hashed word, attention over them, a dense layer of {spec.hidden}"
    if isinstance(spec, BackboneSpec):
        learns = f"the last {spec.trained_stages} of its stages and a new head learn" if spec.trained_stages else "a new head learns"
        return f"Backbone {spec.architecture}, trained elsewhere ({spec.weights}, SHA-256 {spec.weights_digest[:12]}); {learns}"
    widths = ", ".join(map(str, spec.widths))
    if isinstance(spec, MlpSpec):
        return f"Dense layers on the record: {widths}"
    if isinstance(spec, SequenceSpec):
        return f"{len(spec.widths)} convolutions ({widths} channels) for each image of a case, and {_TOGETHER[spec.how]}"
    if isinstance(spec, FusionSpec):
        meet = "side by side" if spec.how == "late" else "each looking at the others' places"
        return f"Fusion: {len(spec.widths)} convolutions ({widths} channels) an image; all sources {meet}, a dense layer of {spec.hidden}"
    if isinstance(spec, CnnSpec):
        norm = "group normalisation" if spec.norm == "group" else "no normalisation"
        return f"Convolutional network: {len(spec.widths)} convolutions ({widths} channels), {norm}, a dense layer of {spec.hidden}"
    if isinstance(spec, UNetSpec):
        return f"U-Net: {len(spec.widths)} stages ({widths} channels), group normalisation, an answer for each pixel"
    if isinstance(spec, FcnSpec):
        answer = "an answer for each pixel" if spec.answer == "pixel" else "the mean of all places' answers"
        return f"Fully convolutional network: {len(spec.widths)} convolutions ({widths} channels), group normalisation, {answer}"
    if isinstance(spec, CentreSpec):
        return f"Centre detector: {len(spec.widths)} stages ({widths} channels), one answer for {spec.stride} × {spec.stride} pixels"
    if isinstance(spec, SrcnnSpec):
        sides = ", ".join(f"{side} × {side}" for side in spec.kernels)
        return f"SRCNN: {len(spec.kernels)} convolutions of {sides} pixels ({widths} channels)"
    blocks = f"{spec.blocks} residual {_plural('block', spec.blocks)}"
    return f"Residual network: {len(spec.widths)} stages ({widths} channels) of {blocks} each, group normalisation"


def images(plan: Plan) -> str:
    """The input in words."""
    spec, said = plan.input, []
    if spec.has_image:
        kind = "any modality" if spec.modality == "any" else spec.modality
        said.append(f"{kind}, {spec.width} × {spec.height} pixels, {spec.channels} {_plural('channel', spec.channels)}")
    if spec.window is not None:
        said.append(f"window centre {_short(spec.window.centre)}, width {_short(spec.window.width)}")
    if spec.sequence > 1:
        said.append(f"{spec.sequence} of a case together")
    if spec.second is not None:
        said.append(f"a second image ({spec.second.modality}) where there is one")
    if spec.record:
        said.append(f"of the record {', '.join(field.column for field in spec.record)}")
    if spec.text is not None:
        said.append(f"a text of up to {spec.text.length} hashed words and pairs of words")
    return ", ".join(said)


def intake(found: Intake) -> str:
    """Files looked at, used and turned away: '3,000 files seen, 2,990 used, 10 rejected (E_DATA_UNREADABLE: 10)'."""
    said = f"{numbers.count(found.seen)} files seen, {numbers.count(found.used)} used"
    if not found.rejected:
        return f"{said}, none rejected"
    reasons = ", ".join(f"{code}: {numbers.count(number)}" for code, number in sorted(found.rejected.items()))
    return f"{said}, {numbers.count(sum(found.rejected.values()))} rejected ({reasons})"


def _changing(spec: TrainingSpec) -> str:
    """How the learning rate changes over the rounds; nothing, if it does not."""
    warm = f" after {spec.warmup_rounds} rounds of warm-up" if spec.warmup_rounds else ""
    return f"{warm}, falling along a cosine" if spec.schedule == "cosine" else warm


def training(plan: Plan) -> str:
    """One round in words."""
    spec = plan.training
    optimiser = f"{spec.optimiser.upper()}, learning rate {spec.learning_rate:g}{_changing(spec)}"
    if spec.strategy == "fedsgd":
        return (
            f"{spec.rounds} {_plural('round', spec.rounds)}, each one global step of the coordinator's optimiser ({optimiser}) on the mean "
            f"gradient of one batch of {spec.batch} at every site"
        )
    passes = spec.local_epochs or 1
    work = f"{spec.local_steps} {_plural('step', spec.local_steps)}" if spec.local_steps else f"{passes} × all its images"
    strategy = {"fedavg": "federated averaging", "fedavgm": "federated averaging with server momentum"}[spec.strategy]
    rounds = f"{spec.rounds} {_plural('round', spec.rounds)} of {strategy}"
    return f"{rounds}; in each a site takes {work}, batches of {spec.batch} ({optimiser})"


def survived(rounds: Sequence[Round]) -> str:
    """What became of the rounds that somebody missed; there is at least one."""
    hit = [line for line in rounds if line.missing]
    fewest = min(len(line.sites) for line in hit)
    which = f"{len(hit)} of {len(rounds)} rounds" if len(rounds) > 1 else "The one round on record"
    smallest = f"{numbers.count(fewest)} {_plural('site', fewest)}"
    return f"{which} went on without at least one site that had been asked, the smallest with {smallest}."


def _plural(word: str, number: int) -> str:
    return word if number == 1 else f"{word}s"


def _short(value: float) -> str:
    return f"{value:g}".replace("-", "−")
