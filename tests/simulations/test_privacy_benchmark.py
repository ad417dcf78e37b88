# SPDX-License-Identifier: Apache-2.0
"""The benchmark of private steps: its contenders do the work that their names say, and its ratios are what they say."""

import os
import sys

import pytest
import torch
from rich.console import Console

from client.training import dpsgd
from client.training.bench import _bench
from client.training.device import chosen
from simulations.benchmarks import privacy, private_steps
from simulations.benchmarks.privacy import Result
from simulations.benchmarks.private_steps import PLAIN, step_of


def result(name: str, *, seconds: float, megabytes: float, images_each: int = 4) -> Result:
    return Result(name=name, case="tiny", images_each=images_each, steps_s=[9.0, seconds, seconds], cpu_s=2 * seconds, grown_mb=megabytes)


def test_a_step_is_compared_with_the_best_plain_one_and_memory_with_the_one_pass() -> None:
    ours, slow = result("fedward", seconds=0.3, megabytes=60), result("whole", seconds=0.5, megabytes=120)
    quick, elsewhere = result("chunks-16", seconds=0.2, megabytes=30), result("chunks-64", seconds=0.1, megabytes=30, images_each=1)
    everything = [slow, quick, ours, elsewhere]
    assert privacy.over_plain(everything, ours) == pytest.approx(1.5)
    assert privacy.over_plain(everything, ours, processor=True) == pytest.approx(1.5)
    assert privacy.of_whole(everything, ours) == pytest.approx(0.5)
    assert privacy.over_plain([ours], ours) is None
    assert privacy.of_whole([ours], ours) is None


@pytest.mark.parametrize("name", [*PLAIN, "fedward", "alone", "hooks", "ghost"])
@pytest.mark.parametrize("images_each", [1, 4])
@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
def test_every_contender_takes_its_step(name: str, images_each: int) -> None:
    for step in step_of(name, "tiny", images_each):
        step()
        step()


def test_fedward_works_together_and_alone_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []
    for way in ("_together", "_alone"):

        def spied(*arguments: object, way: str = way, real: object = getattr(dpsgd, way)) -> object:
            seen.append((way, len(arguments[3])))  # type: ignore[arg-type]  # a draw
            return real(*arguments)  # type: ignore[operator]  # the function itself

        monkeypatch.setattr(dpsgd, way, spied)
    _bench.cache_clear()
    for name in ("fedward", "alone"):
        for step in step_of(name, "tiny", 4):
            step()
    tried = [("_together", 8)]
    assert seen == tried + [("_together", 8)] * 8 + [("_alone", 1)] * 64


def test_plain_steps_are_the_same_step_in_chunks_or_whole() -> None:
    plan, gradients = private_steps.plan_of("tiny", 4, private=False), []
    for name in PLAIN:
        for step in step_of(name, "tiny", 4):
            step()
        gradients.append(_bench(plan, chosen()).model.gradient.clone())
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0])
    assert gradients[0].abs().max() > 1e-4


@pytest.mark.slow
def test_the_contenders_are_measured_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    results = privacy.measure(["whole", "fedward"], "tiny", 4, 2, Console(quiet=True))
    assert [each.name for each in results] == ["whole", "fedward"]
    for each in results:
        assert len(each.steps_s) == 2
        assert each.cpu_s >= 0
    ratio = privacy.over_plain(results, results[1])
    assert ratio is not None
    assert ratio > 0
