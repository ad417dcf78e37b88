# SPDX-License-Identifier: Apache-2.0
"""Local training: global weights and a site's images in, a `RawDelta` out.

`local` is the way in; `sgd` trains plainly, `dpsgd` with differential privacy (and is the only place that knows Opacus); `sampler` and
`clipping` are the two things that a privacy unit defines; `noise` says where randomness comes from; `evaluation` predicts.
"""

from client.training.evaluation import predict
from client.training.local import train_locally
from client.training.noise import NoiseSource, SystemNoise, UnsafeSeededNoise
from client.training.work import LocalWork

__all__ = ["LocalWork", "NoiseSource", "SystemNoise", "UnsafeSeededNoise", "predict", "train_locally"]
