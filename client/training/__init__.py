# SPDX-License-Identifier: Apache-2.0
"""Local training: global weights and a site's images in, a `RawDelta` out; or a `NoisedSum`, where sites share the noise.

`local` is the way in; `sgd` trains plainly, `dpsgd` with differential privacy. `units` says whom the promise is about, `sampler`,
`clipping` and `company` are what it rests on; `by_unit` finds each unit's gradient (and is the only place that knows Opacus); `noise`
says where randomness comes from; `augmentation` alters what is trained on; `evaluation` predicts. `device` says on what: a GPU or the
processor.
"""

from client.training.device import choose
from client.training.evaluation import predict, predict_apart
from client.training.local import noised_sum, train_locally
from client.training.noise import NoiseSource, SystemNoise, UnsafeSeededNoise
from client.training.units import Units, units_of
from client.training.work import LocalWork

__all__ = [
    "LocalWork",
    "NoiseSource",
    "SystemNoise",
    "Units",
    "UnsafeSeededNoise",
    "choose",
    "noised_sum",
    "predict",
    "predict_apart",
    "train_locally",
    "units_of",
]
