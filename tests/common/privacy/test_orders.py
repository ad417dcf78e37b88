# SPDX-License-Identifier: Apache-2.0
"""The accountant's table of orders is dp-accounting's, written down so that reading a ledger need not import it."""

from dp_accounting import rdp

from common.privacy.accountant import ORDERS


def test_the_orders_are_those_of_dp_accounting() -> None:
    assert list(ORDERS) == list(rdp.rdp_privacy_accountant.DEFAULT_RDP_ORDERS)
