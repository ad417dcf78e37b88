# SPDX-License-Identifier: Apache-2.0
"""Lines as hospitals have them: does a model of so many parameters arrive, how long does it take, what is sent again?

    python -m simulations.rig.lines                                          every kind of line, models that a test machine can afford
    python -m simulations.rig.lines --only slow --parameters 10000000        the full size of one (at 1 Mbit/s half an hour of line)

One round of the toy plan with a hidden layer as wide as it takes, three hospitals, every line alike. A site's model goes down and its
masked update comes up, 4 bytes a parameter each. What the mailboxes counted says how many bytes were sent again; what the lines counted,
how many went over them with TLS and everything.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from client.mailbox.tally import STATS_FILE
from common.errors import EngineError
from common.models import layout_of_plan
from simulations.rig import toy
from simulations.rig.network import missing
from simulations.rig.proxy import Line
from simulations.rig.rig import Rig, Setting

SITES: Final = 3
LINES: Final[Mapping[str, Line]] = {
    "good": Line(),
    "slow": Line(rate_kbit=1000),
    "cut": Line(rate_kbit=8000, drop_every_s=60),
    "lossy": Line(loss=0.2),
    "late": Line(delay_s=5),
    "all": Line(rate_kbit=1000, drop_every_s=60, loss=0.2, delay_s=5),
}
_AFFORDABLE: Final = {"good": 1_000_000, "slow": 1_000_000, "cut": 1_000_000, "lossy": 1_000_000, "late": 1_000_000, "all": 10_000}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """One round over one kind of line; bytes of all hospitals together. `failure`: it did not arrive, and what was said."""

    line: str
    parameters: int
    seconds: float = 0.0
    sites: int = 0
    sent: int = 0
    again: int = 0
    received: int = 0
    on_the_line: int = 0
    resets: int = 0
    lost_packets: int = 0
    failure: str = ""


def measure(name: str, parameters: int, folder: Path, *, within_s: float, namespaces: bool) -> Arrived:
    """One round; a rig of its own."""
    plan = toy.plan_text(rounds=1, minimum_cohort=SITES, deadline_s=int(within_s), hidden=toy.hidden_for(parameters))
    with Rig(folder, Setting(sites=SITES, plan=plan, namespaces=namespaces, line=LINES[name])) as rig:
        rig.begin()
        rig.enrol()
        rig.start()
        size = layout_of_plan(rig.plan).size
        try:
            rig.wait_for_end(within_s=within_s)
        except EngineError as error:
            return Arrived(line=name, parameters=size, failure=error.message)
        [done] = rig.committed()
        mailboxes = [json.loads((hospital.mailbox / STATS_FILE).read_text()) for hospital in rig.hospitals]
        lines = [rig.line_counts(hospital) for hospital in rig.hospitals]
        return Arrived(
            line=name,
            parameters=size,
            seconds=round(done.seconds, 1),
            sites=len(done.sites),
            sent=sum(each["sent"] for each in mailboxes),
            again=sum(each["again"] for each in mailboxes),
            received=sum(each["received"] for each in mailboxes),
            on_the_line=sum(each["up_bytes"] + each["down_bytes"] for each in lines),
            resets=sum(each["resets"] for each in lines),
            lost_packets=sum(each["lost_packets"] for each in lines),
        )


def table(rows: Sequence[Arrived]) -> str:
    """For docs/figures."""
    lines = ["| line | parameters | seconds | sent up | of it again | received | on the line | resets | packets lost |"]
    lines.append("|---|" + "---:|" * 8)
    for row in rows:
        if row.failure:
            lines.append(f"| {row.line} | {row.parameters:,} | **{row.failure}** | | | | | | |")
            continue
        figures = (row.sent, row.again, row.received, row.on_the_line)
        megabytes = " | ".join(f"{count / 1e6:.2f} MB" for count in figures)
        lines.append(f"| {row.line} | {row.parameters:,} | {row.seconds} | {megabytes} | {row.resets} | {row.lost_packets} |")
    return "\n".join(lines)


def main() -> int:
    """Exit code 0: every model arrived."""
    parser = argparse.ArgumentParser(description="Does a model arrive over a bad line, and at what cost?")
    parser.add_argument("--only", nargs="*", choices=list(LINES), default=list(LINES), help="these kinds of line", metavar="LINE")
    parser.add_argument("--parameters", type=int, help="about so many; what a test machine can afford, if not given")
    parser.add_argument("--within", type=float, default=3600.0, help="seconds after which a model counts as lost")
    parser.add_argument("--loopback", action="store_true", help="without namespaces")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args()
    rows = []
    for name in asked.only:
        folder = Path(tempfile.mkdtemp(prefix="fedward-lines-"))
        parameters = asked.parameters or _AFFORDABLE[name]
        rows.append(measure(name, parameters, folder, within_s=asked.within, namespaces=not asked.loopback and not missing()))
        sys.stderr.write(f"{rows[-1]}\n")
        shutil.rmtree(folder)
    sys.stdout.write((json.dumps([asdict(row) for row in rows]) if asked.json else table(rows)) + "\n")
    return 1 if any(row.failure for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
