# SPDX-License-Identifier: Apache-2.0
"""One round at one site: global weights and local images in; a `RawDelta` out, or, where sites share the noise, a `NoisedSum`.

What the round costs was decided, and paid for on the ledger, before this is called; this module does the work and nothing else. What it
returns is the only thing that training leaves: no loss, no accuracy, no count.

Under fedavg and fedavgm a delta is how far the weights moved. Under fedsgd it is minus the mean gradient of one batch, and nothing moves
here: the optimiser is the coordinator's.
"""

from client.imaging.dataset import Dataset
from client.training import dpsgd, sgd
from client.training.bench import bench_for
from client.training.work import LocalWork
from common.errors import PrivacyError
from common.plan import Plan
from common.update import NoisedSum, RawDelta, Weights


def train_locally(weights: Weights, data: Dataset, plan: Plan, work: LocalWork) -> RawDelta:
    """Train for one round from `weights` on all of `data`.

    Shapes: weights (P,), result (P,), float32. Values may be infinite or NaN if training diverged: `release` refuses those.
    Guarantees: on a processor, with as many threads, same weights, data and work with a seeded noise source give the same bits; the
    process-wide random state is not touched.
    Raises: ModelLayout; TooFewPatients; NoPatientId; GpuMemory; PrivacyError, if the plan is private and the work is not, or the other way
    round, or if a share of noise is all that this site adds.
    """
    _require_agreement(plan, work)
    if plan.shares_noise:
        raise PrivacyError(
            f"plan '{plan.name}' shares its noise, so what this site trains is private only inside a sum: nothing was trained.",
            fix="Ask for its noised sum, which leaves masked or not at all.",
        )
    trainer = dpsgd if plan.is_private else sgd
    with bench_for(plan, weights) as bench:
        bench.model.module.train()
        if plan.training.strategy == "fedsgd":
            return RawDelta(values=-trainer.gradient(bench, data, plan, work).cpu().numpy())
        trainer.train(bench, data, plan, work)
        return RawDelta(values=bench.model.values.cpu().numpy() - weights.values)


def noised_sum(weights: Weights, data: Dataset, plan: Plan, work: LocalWork) -> NoisedSum:
    """This site's part of one global step: minus the sum of its clipped gradients, plus its share of the noise, in steps of the lattice.

    Shapes: weights (P,) float32, result (P,) int64. `work.noise_multiplier` is the share's own.
    Guarantees: as `train_locally`; the sum over at least a noise quorum of sites costs what the plan's ledger entry says.
    Raises: ModelLayout; TooFewPatients; NoPatientId; GpuMemory; PrivacyError, if the plan shares no noise or the work has none.
    """
    _require_agreement(plan, work)
    if not plan.shares_noise:
        raise PrivacyError(
            f"plan '{plan.name}' shares no noise among sites: nothing was trained.", fix="Train locally, and release a delta."
        )
    with bench_for(plan, weights) as bench:
        bench.model.module.train()
        return NoisedSum(values=-dpsgd.noised_sums(bench, data, plan, work)().cpu().numpy())


def _require_agreement(plan: Plan, work: LocalWork) -> None:
    if plan.is_private != (work.noise_multiplier is not None):
        promised = f'unit = "{plan.privacy.unit}"'
        raise PrivacyError(
            f"plan '{plan.name}' says {promised}, the work says noise multiplier {work.noise_multiplier}: nothing was trained.",
            fix="A private plan needs a noise multiplier from its ledger; a plan without privacy takes none.",
        )
