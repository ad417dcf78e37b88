# SPDX-License-Identifier: Apache-2.0
"""What privacy costs: events, the accountant that adds them up, and the noise that a budget needs. Pure arithmetic, no torch.

An `Event` says what was done to the data; only the accountant knows what that is worth, so a better theorem changes one file and no record.
"""

from common.privacy.accountant import deltas_pld, epsilon, epsilon_at_most, epsilon_pld
from common.privacy.budget import own_share_epsilon, plan_charge, round_charge
from common.privacy.calibration import calibrate
from common.privacy.counts import charges_beside_training, evaluation_charge, statistic_charge
from common.privacy.discrete import charged_as, noise_of
from common.privacy.events import Charge, Event, public_count, sampling_rate
from common.privacy.groups import group_privacy
from common.privacy.lattice import Lattice, lattice_of

__all__ = [
    "Charge",
    "Event",
    "Lattice",
    "calibrate",
    "charged_as",
    "charges_beside_training",
    "deltas_pld",
    "epsilon",
    "epsilon_at_most",
    "epsilon_pld",
    "evaluation_charge",
    "group_privacy",
    "lattice_of",
    "noise_of",
    "own_share_epsilon",
    "plan_charge",
    "public_count",
    "round_charge",
    "sampling_rate",
    "statistic_charge",
]
