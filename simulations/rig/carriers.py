# SPDX-License-Identifier: Apache-2.0
"""What a hospital's stock SuperNode costs, beside the mailbox whose place it has: seconds a round, processes, memory, processor.

    python -m simulations.rig.carriers              three hospitals, eight rounds, all with mailboxes; then the same, one with a SuperNode

The round is everybody's: nobody is left behind, so the slowest carrier decides. Processes and memory (PSS) are the most that were seen of
the last hospital's carrier with all that it starts, and what it has at rest; its processor seconds are a round's, those of ended children
among them.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from simulations.benchmarks.footprint import PeakWatch, pss_bytes, tree
from simulations.rig import toy
from simulations.rig.network import missing
from simulations.rig.rig import Rig, Setting

SITES: Final = 3
_WITHIN_S: Final = 1800.0
_LOOK_S: Final = 0.5
_TIMES: Final = slice(11, 15)  # of a process and of its children that have ended, in user's and in system's mode


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One run; a first round, in which everybody connects, is not counted."""

    carrier: str
    rounds: int
    median_s: float
    least_s: float
    most_s: float
    processes: int
    processes_at_rest: int
    megabytes: float
    megabytes_at_rest: float
    processor_s: float


def measure(folder: Path, *, stock: bool, rounds: int, namespaces: bool) -> Cost:
    """A rig of its own, to the end of its run."""
    plan = toy.plan_text(rounds=rounds, minimum_cohort=SITES)
    setting = Setting(sites=SITES, plan=plan, namespaces=namespaces, stock=frozenset({SITES} if stock else ()))
    with Rig(folder, setting) as rig:
        rig.begin()
        rig.enrol()
        rig.start()
        rig.wait_for_round(1, within_s=_WITHIN_S)
        carrier = rig.hospitals[-1].carrier
        root = rig.crew.pid(carrier)
        assert root is not None
        before = _processor_s(root)
        with PeakWatch(root, every_s=_LOOK_S) as most:
            rig.wait_for_end(within_s=_WITHIN_S)
        spent = _processor_s(root) - before
        seconds = [done.seconds for done in rig.committed()[1:]]
        rest = tree(root)
        return Cost(
            carrier=carrier.split()[0],
            rounds=len(seconds),
            median_s=round(statistics.median(seconds), 1),
            least_s=round(min(seconds), 1),
            most_s=round(max(seconds), 1),
            processes=most.most_processes,
            processes_at_rest=len(rest),
            megabytes=round(most.peak_bytes / 1e6),
            megabytes_at_rest=round(pss_bytes(rest) / 1e6),
            processor_s=round(spent / len(seconds), 2),
        )


def _processor_s(root: int) -> float:
    ticks = 0
    for pid in tree(root):
        with suppress(OSError):
            ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[_TIMES]))
    return ticks / os.sysconf("SC_CLK_TCK")


def table(costs: Sequence[Cost]) -> str:
    """For docs/figures."""
    lines = ["| carrier | s a round: median | least | most | processes, at rest | MB (PSS), at rest | processor s a round |"]
    lines.append("|---|" + "---:|" * 6)
    for cost in costs:
        many, most = f"{cost.processes}, {cost.processes_at_rest}", f"{cost.megabytes:.0f}, {cost.megabytes_at_rest:.0f}"
        lines.append(f"| {cost.carrier} | {cost.median_s} | {cost.least_s} | {cost.most_s} | {many} | {most} | {cost.processor_s} |")
    return "\n".join(lines)


def main() -> int:
    """Both, one after the other."""
    parser = argparse.ArgumentParser(description="What a stock SuperNode costs beside a mailbox.")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--loopback", action="store_true", help="without namespaces")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args()
    load, costs = [os.getloadavg()[0]], []
    for stock in (False, True):
        folder = Path(tempfile.mkdtemp(prefix="fedward-carriers-"))
        costs.append(measure(folder, stock=stock, rounds=asked.rounds, namespaces=not asked.loopback and not missing()))
        load.append(os.getloadavg()[0])
        shutil.rmtree(folder)
    whole = json.dumps({"load": load, "costs": [asdict(cost) for cost in costs]})
    sys.stdout.write((whole if asked.json else f"{table(costs)}\n\nload {', '.join(f'{each:.1f}' for each in load)}") + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
