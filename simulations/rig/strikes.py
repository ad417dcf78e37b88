# SPDX-License-Identifier: Apache-2.0
"""SIGKILL at every named moment, in the federation as it is deployed.

    python -m simulations.rig.strikes --times 2

Four hospitals, a minimum cohort of three, and rounds without end. For each failpoint (`common.failpoints`), so many times, a site process
or the coordinator is started again with the failpoint in its environment. It goes on with its round, comes to that moment, and is dead.
A site process is started again as systemd would; the coordinator's supervisor sees to its ServerApp itself. Then the next round has to
be committed, and every round that was committed before has to be what it was. In the end every site in a sum has paid for it, and the
weights are those of a run of the same sites in which nobody died, bit for bit.

`simulations.rig.kill_sweep` does the same on the in-process engine, many more times in as many minutes.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from common import failpoints
from common.errors import EngineError
from server.home import LOG_FILE
from simulations.rig import evidence, reference, toy
from simulations.rig.kill_sweep import UNREACHED
from simulations.rig.network import missing
from simulations.rig.rig import Rig, Setting

SITES: Final = 4
COHORT: Final = 3
ROUNDS: Final = 1000
SEED: Final = 7
GOES_ON_WITHIN_S: Final = 60.0
_DIES_WITHIN_S: Final = 180.0
_LOOK_S: Final = 0.05
POINTS: Final = tuple(sorted(failpoints.NAMES - UNREACHED))


@dataclass(frozen=True, slots=True, kw_only=True)
class Struck:
    """One death. `goes_on_s`: from then to the commit of a round; `complaints`: what was not as it should be."""

    point: str
    party: str
    goes_on_s: float
    rounds_before: int
    complaints: tuple[str, ...] = ()


@dataclass(slots=True)
class Told:
    """All deaths, and what is wrong in the end."""

    strikes: list[Struck] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    rounds: int = 0
    seconds: float = 0.0

    @property
    def is_clean(self) -> bool:
        return not self.complaints and not any(strike.complaints for strike in self.strikes)


def play(points: Sequence[str], folder: Path, *, namespaces: bool, tell: Callable[[str], None]) -> Told:
    """One death after the other. Raises: EngineError, if one is not reached, or the federation does not go on."""
    told, started = Told(), time.monotonic()
    plan = toy.plan_text(rounds=ROUNDS, minimum_cohort=COHORT, deadline_s=120)
    with Rig(folder, Setting(sites=SITES, plan=plan, namespaces=namespaces, noise_seed=SEED), tell=tell) as rig:
        rig.begin()
        rig.enrol()
        rig.start()
        rig.wait_for_round(1, within_s=_DIES_WITHIN_S)
        for number, point in enumerate(points):
            told.strikes.append(_strike(rig, point, number, tell))
        rig.pause()
        rig.wait_for("a pause", lambda: not rig.open_phase(), within_s=_DIES_WITHIN_S)
        done, homes = rig.committed(), {hospital.name: hospital.home for hospital in rig.hospitals}
        told.complaints, told.rounds = reference.compare(rig.places.run, rig.plan, done, homes, seed=SEED)[1], len(done)
    told.seconds = time.monotonic() - started
    return told


def _strike(rig: Rig, point: str, number: int, tell: Callable[[str], None]) -> Struck:
    before = rig.committed()
    party, died_at = _at_coordinator(rig, point) if point in failpoints.COORDINATOR else _at_site(rig, point, number)
    rounds = len(rig.committed())
    rig.wait_for_round(rounds + 1, within_s=_DIES_WITHIN_S)
    goes_on_s = time.monotonic() - died_at
    complaints = [*evidence.lost(before, rig.committed())]
    if goes_on_s > GOES_ON_WITHIN_S:
        complaints.append(f"{point}: the next round came after {goes_on_s:.0f} s")
    tell(f"{point}: {party} died, a round is committed {goes_on_s:.1f} s later")
    return Struck(point=point, party=party, goes_on_s=round(goes_on_s, 1), rounds_before=len(before), complaints=tuple(complaints))


def _at_site(rig: Rig, point: str, number: int) -> tuple[str, float]:
    """One of the hospitals in turn. Its process, dead, is started again without the failpoint."""
    hospital = rig.hospitals[number % len(rig.hospitals)]
    name = f"site {hospital.name}"
    rig.crew.stop(name)
    rig.start_site(hospital, **{failpoints.VARIABLE: point})
    rig.wait_for(f"{point} at {hospital.name}", lambda: rig.crew.pid(name) is None, within_s=_DIES_WITHIN_S, look_s=_LOOK_S)
    died_at = time.monotonic()
    rig.start_site(hospital)
    return name, died_at


def _at_coordinator(rig: Rig, point: str) -> tuple[str, float]:
    """The ServerApp. Its supervisor starts the next one, which has no failpoint any more."""
    rig.crew.stop("coordinator")
    deaths = _deaths(rig)
    rig.start_coordinator(**{failpoints.VARIABLE: point})
    rig.wait_for(f"{point} at the coordinator", lambda: _deaths(rig) > deaths, within_s=_DIES_WITHIN_S, look_s=_LOOK_S)
    return "serverapp", time.monotonic()


def _deaths(rig: Rig) -> int:
    """How often the ServerApp died so far, by the coordinator's own log."""
    lines = (rig.places.run / LOG_FILE).read_text().splitlines()
    return sum(json.loads(line)["event"] == "run_died" for line in lines)


def table(told: Told) -> str:
    """For docs/figures."""
    rows = ["| failpoint | deaths | goes on after, s | complaints |", "|---|---:|---:|---:|"]
    for point in dict.fromkeys(strike.point for strike in told.strikes):
        those = [strike for strike in told.strikes if strike.point == point]
        longest = max(strike.goes_on_s for strike in those)
        rows.append(f"| `{point}` | {len(those)} | {longest:.1f} | {sum(len(strike.complaints) for strike in those)} |")
    return "\n".join(rows)


def main() -> int:
    """Exit code 0: nothing to complain about."""
    parser = argparse.ArgumentParser(description="SIGKILL at every named moment, in the federation as it is deployed.")
    parser.add_argument("--times", type=int, default=2, help="deaths at each failpoint")
    parser.add_argument("--only", nargs="*", choices=POINTS, default=list(POINTS), metavar="FAILPOINT", help="these alone")
    parser.add_argument("--folder", type=Path, help="where the rig lies afterwards; a temporary folder, if not given")
    parser.add_argument("--loopback", action="store_true", help="without namespaces, even where they are allowed")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="fedward-strikes-"))
    started = time.monotonic()

    def tell(what: str) -> None:
        sys.stderr.write(f"{time.monotonic() - started:8.1f}  {what}\n")

    try:
        told = play(asked.only * asked.times, folder, namespaces=not asked.loopback and not missing(), tell=tell)
    except EngineError as error:
        sys.stderr.write(f"{error.message} {error.fix}\n")
        return 1
    said: dict[str, Any] = asdict(told)
    sys.stdout.write(json.dumps(said) if asked.json else table(told))
    sys.stdout.write("\n" if asked.json else f"\n\n{len(told.strikes)} deaths, {told.rounds} rounds, {told.seconds:.0f} s.\n")
    for complaint in (*told.complaints, *(each for strike in told.strikes for each in strike.complaints)):
        sys.stderr.write(f"{complaint}\n")
    return 0 if told.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
