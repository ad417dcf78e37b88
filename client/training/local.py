# SPDX-License-Identifier: Apache-2.0
"""One round at one site: global weights and local images in, a `RawDelta` out.

What the round costs was decided, and paid for on the ledger, before this is called; this module does the work and nothing else. How far
the weights moved is the only thing it returns: no loss, no accuracy, no count.
"""

from client.imaging.dataset import Dataset
from client.training import dpsgd, sgd
from client.training.bench import bench_for
from client.training.work import LocalWork
from common.errors import PrivacyError
from common.plan import Plan
from common.update import RawDelta, Weights


def train_locally(weights: Weights, data: Dataset, plan: Plan, work: LocalWork) -> RawDelta:
    """Train for one round from `weights` on all of `data`.

    Shapes: weights (P,), result (P,), float32. Values may be infinite or NaN if training diverged: `release` refuses those.
    Guarantees: same weights, data and work with a seeded noise source give the same bits; the process-wide random state is not touched.
    Raises: ModelLayout; TooFewPatients; PrivacyError, if the plan is private and the work is not, or the other way round.
    """
    _require_agreement(plan, work)
    with bench_for(plan, weights) as bench:
        bench.model.module.train()
        train = dpsgd.train if plan.is_private else sgd.train
        train(bench, data, plan, work)
        return RawDelta(values=bench.model.values.numpy() - weights.values)


def _require_agreement(plan: Plan, work: LocalWork) -> None:
    if plan.privacy.unit == "patient" or plan.shares_noise or plan.training.strategy == "fedsgd":
        raise PrivacyError(f"plan '{plan.name}' asks for training that this version does not do.", fix='Use unit = "record" and fedavgm.')
    if plan.is_private != (work.noise_multiplier is not None):
        promised = f'unit = "{plan.privacy.unit}"'
        raise PrivacyError(
            f"plan '{plan.name}' says {promised}, the work says noise multiplier {work.noise_multiplier}: nothing was trained.",
            fix="A private plan needs a noise multiplier from its ledger; a plan without privacy takes none.",
        )
