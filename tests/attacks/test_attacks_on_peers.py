# SPDX-License-Identifier: Apache-2.0
"""The two attacks that Flower's SecAgg+ falls to are run here too: if Flower mends them, the page that says so must change."""

from simulations.benchmarks import attacks_on_peers as attacks


def test_the_32_bit_mask_opens_flower_and_not_fsa1() -> None:
    assert attacks.mask_of_flower(8).falls
    assert not attacks.mask_of_fsa1(8).falls


def test_asking_for_both_shares_opens_flower_and_not_fsa1() -> None:
    attacks.pose_as_a_task()
    assert attacks.shares_of_flower().falls
    assert not attacks.shares_of_fsa1().falls
