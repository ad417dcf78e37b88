# SPDX-License-Identifier: Apache-2.0
"""What a plan will cost its patients, and what it can be worth, said before anyone trains.

    a plan, patients of each hospital  ->  forecast  ->  tables, a page

`forecast` computes what each hospital's ledger will record, by the function by which it will record it (`common.privacy.round_charge`),
with local and with distributed noise; `alternatives` what other rounds, batches and noise would cost; `needed` how many patients it takes,
by a rule of thumb; `sweep` trains small made federations under the plan's noise and measures what it does to them; the rest shows it.

Patient counts come from whoever asks, never from data, and nothing here is charged: it is arithmetic, and training on made people.
"""

from simulations.planner.forecast import Hospitals
from simulations.planner.outlook import Outlook, outlook

__all__ = ["Hospitals", "Outlook", "outlook"]
