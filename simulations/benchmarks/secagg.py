# SPDX-License-Identifier: Apache-2.0
"""What secure aggregation costs: FSA1 beside Flower's SecAgg+ helpers, CKKS, and the hardware's limit, in one run.

    python -m simulations.benchmarks.secagg [--sites 10,50,200] [--values 100000,1000000,10000000] [--json FILE]

Seconds are processor seconds, the best of several repeats, so that what else runs on the machine is in nobody's figure (with --workers
above 1 they are the wall's for FSA1); ratios carry over to other machines. "masking" is keystream and ring additions of all a site's
masks; the limit is the same without anything around it. "mask step" is the whole answer to step 3: key agreement, opening shares, masks,
digest and signature. A site's total is steps 2 to 5.

Aims: 7 ms to mask 10^6 parameters for ten sites, within 1.3 times the limit; up at most 4 bytes a parameter and 50 kB.
"""

import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from common.secagg.quantise import Grid, mean, quantise
from common.secagg.terms import threshold
from simulations.benchmarks.secagg_peers import Ckks, Flower, Limit, ckks, flower, limit
from simulations.benchmarks.secagg_round import Costs, play

_WIDTH = 150
_LARGEST_FLOWER_RUN = 1_000_000_000
_MANY_VALUES = 5_000_000


def measure(num_sites: int, num_values: int, ring_bits: Any, workers: int) -> dict[str, Any]:
    """One line of the table. Flower is left out where one client alone would take a minute."""
    repeats = 3 if num_values >= _MANY_VALUES or num_sites >= 200 else 9
    costs = play(num_sites, num_values, ring_bits=ring_bits, workers=workers, repeats=repeats)
    floor = limit(costs.num_masks, num_values, bytes_per_word=ring_bits // 8, repeats=repeats)
    peer = None
    if ring_bits == 32 and num_sites * num_values <= _LARGEST_FLOWER_RUN:
        peer = flower(num_sites, num_values, threshold=threshold(num_sites), repeats=1 if num_sites * num_values > 2e7 else 3)
    encrypted = ckks(num_values) if num_values <= _MANY_VALUES and ring_bits == 32 else None
    return {"costs": costs, "limit": floor, "flower": peer, "ckks": encrypted}


def bandwidth_error(num_sites: int, num_values: int) -> dict[str, float]:
    """How far the mean is from plain averaging, as a share of the mean's own size, in both modes; r is the largest coordinate."""
    rng = np.random.default_rng(1)
    deltas = [(rng.standard_normal(num_values) / num_values**0.5).astype(np.float32) for _ in range(num_sites)]
    largest = float(max(np.abs(delta).max() for delta in deltas))
    plain = np.mean(deltas, axis=0, dtype=np.float64)
    errors = {}
    for ring_bits in (32, 16):
        grid = Grid.for_cohort(num_sites, coordinate_range=largest, ring_bits=ring_bits)
        total = np.zeros(num_values, dtype=grid.word)
        for delta in deltas:
            total += quantise(delta, grid, weight=1, entropy=os.urandom).body
        found = mean(total, grid, total_weight=num_sites)
        errors[f"{ring_bits} bit"] = float(np.linalg.norm(found - plain) / np.linalg.norm(plain))
    return errors


def table(lines: list[dict[str, Any]]) -> Table:
    out = Table(title="Secure aggregation, one site and the coordinator (processor ms, best of several)", width=_WIDTH)
    for name in ("sites", "values", "word", "masking", "limit", "ratio", "mask step", "share", "site total"):
        out.add_column(name, justify="right")
    for name in ("coord. sum", "drops", "up B/value", "control kB", "Flower mask", "Flower share", "CKKS"):
        out.add_column(name, justify="right")
    for line in lines:
        out.add_row(*_row(line["costs"], line["limit"], line["flower"], line["ckks"]))
    return out


def _row(costs: Costs, floor: Limit, peer: Flower | None, encrypted: Ckks | None) -> list[str]:
    vector = costs.num_values * costs.ring_bits // 8
    control = (costs.bytes_up - vector + costs.bytes_down - 4 * costs.num_values) / 1000
    return [
        str(costs.num_sites),
        f"{costs.num_values:.0e}",
        f"{costs.ring_bits}",
        _ms(costs.masking_s),
        _ms(floor.total_s),
        f"{costs.masking_s / floor.total_s:.2f}",
        _ms(costs.mask_step_s),
        _ms(costs.share_s),
        _ms(costs.site_s),
        _ms(costs.coordinator_sum_s),
        str(costs.num_dropped),
        f"{costs.bytes_up / costs.num_values:.3f}",
        f"{control:.1f}",
        _ms(peer.masking_s if peer else None),
        _ms(peer.share_s if peer else None),
        f"{_ms(encrypted.encrypt_s)}, {encrypted.bytes_a_value:.0f} B" if encrypted else "not run",
    ]


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.3g}" if seconds < 1 else f"{seconds * 1000:.0f}"


def main(
    sites: Annotated[str, typer.Option(help="Cohort sizes, with commas.")] = "10,50,200",
    values: Annotated[str, typer.Option(help="Numbers of parameters, with commas.")] = "100000,1000000,10000000",
    workers: Annotated[int, typer.Option(min=1, help="Threads for masks.")] = 1,
    file: Annotated[Path | None, typer.Option("--json", help="Also write the figures here.")] = None,
) -> None:
    """Measure, print, and write down."""
    console = Console(width=max(Console().width, _WIDTH))
    lines = []
    for num_values in map(int, values.split(",")):
        for num_sites in map(int, sites.split(",")):
            for ring_bits in (32, 16) if num_sites == 10 else (32,):
                console.print(f"{num_sites} sites, {num_values} values, {ring_bits}-bit words", style="dim")
                lines.append(measure(num_sites, num_values, ring_bits, workers))
    errors = bandwidth_error(10, 100_000)
    console.print(table(lines))
    console.print("Relative error of the mean, ten sites, 10^5 Gaussian values: " + ", ".join(f"{k} {v:.2e}" for k, v in errors.items()))
    if ckks(8) is None:
        console.print("CKKS: TenSEAL is not installed.")
    if file:
        figures = [{key: asdict(value) if value else None for key, value in line.items()} for line in lines]
        machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), "workers": workers}
        file.write_text(json.dumps({"machine": machine, "lines": figures, "bandwidth_error": errors}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
