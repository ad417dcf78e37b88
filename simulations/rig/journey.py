# SPDX-License-Identifier: Apache-2.0
"""The whole way, with a death in every round: enrol, approve, train, revoke one, add one, and end where nothing had gone wrong.

    make e2e                   seven hospitals and five rounds; simulations/rig/journey.py --help

    round 1   kill -9 the SuperLink
    round 2   kill -9 the ServerApp
    round 3   kill -9 a mailbox              then one hospital is revoked
    round 4   kill -9 a site process         then one hospital is added, which restarts nothing
    round 5   kill -9 the coordinator's supervisor, and with it all that it runs

Who is in changes between rounds: the coordinator is told to pause meanwhile, since these rounds take seconds and a custodian's work does
too. But for that nobody helps: what stands in for systemd starts the dead again. One hospital has a stock SuperNode in its mailbox's place,
and has to be in every round all the same. In the end the weights are compared, bit for bit, with
those of a run in one process over the same sites in which nobody died (simulations.rig.reference), the ledgers with what was trained,
and the hospitals' hosts are looked at (simulations.rig.hosts): who listens, whom they reached, whether images changed.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from client.mailbox.tally import STATS_FILE
from common.agreement import grid_of
from common.credentials import load_roster
from server.journal import CommittedRound
from simulations.rig import capture, hosts, reference, toy
from simulations.rig.network import missing
from simulations.rig.places import Hospital
from simulations.rig.proxy import Line
from simulations.rig.rig import Rig, Setting

SEED: Final = 7
_ROUND_WITHIN_S: Final = 600.0
_DEADLINE_S: Final = 120
_DEADLINE_BY_STOCK_S: Final = 300
"""A step waits a tenth of it for the last, and a stock SuperNode's trip takes seconds where a mailbox's takes a fraction of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blow:
    """In which round whom to kill, and how long after the round's beginning."""

    round: int
    party: str
    after_s: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """In which round, and as soon as which step is asked, to cut a hospital off, by its number."""

    round: int
    phase: str
    hospital: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What happens. After which round the last hospital is revoked, and after which one is added; 0 is never. A cut lasts `cut_s`.

    `stock` are the hospitals, by number, with a stock SuperNode in their mailbox's place: in every round all the same.
    """

    sites: int
    minimum_cohort: int
    rounds: int
    blows: Sequence[Blow] = ()
    cuts: Sequence[Cut] = ()
    cut_s: float = 20.0
    revoke_after: int = 0
    add_after: int = 0
    stock: frozenset[int] = frozenset()


FULL: Final = Script(
    sites=7,
    minimum_cohort=5,
    rounds=5,
    blows=[
        Blow(round=1, party="superlink"),
        Blow(round=2, party="serverapp"),
        Blow(round=3, party="mailbox h2"),
        Blow(round=4, party="site h3"),
        Blow(round=5, party="coordinator"),
    ],
    revoke_after=3,
    add_after=4,
    stock=frozenset({4}),
)
SHORT: Final = Script(
    sites=3,
    minimum_cohort=3,
    rounds=2,
    blows=[Blow(round=1, party="superlink"), Blow(round=2, party="site h2")],
    stock=frozenset({3}),
)

PARTITIONS: Final = Script(
    sites=4,
    minimum_cohort=3,
    rounds=10,
    cuts=[
        Cut(round=1 + 2 * number, phase=phase, hospital=2) for number, phase in enumerate(("KEYS", "SHARE", "MASK", "CONFIRM", "UNMASK"))
    ],
)
"""Between two cuts is a round of which nothing is known but that whoever was cut off is in it again."""


@dataclass(slots=True)
class Told:
    """What came of it, for a page of figures. `complaints` are sentences; there should be none."""

    seconds: dict[str, float] = field(default_factory=dict)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    hosts: list[dict[str, Any]] = field(default_factory=list)
    lines: dict[str, dict[str, int]] = field(default_factory=dict)
    disk_copies: int = 0
    searched: dict[str, int] = field(default_factory=dict)


def play(script: Script, folder: Path, *, namespaces: bool, line: Line, tell: Callable[[str], None]) -> Told:
    """The journey. Raises: EngineError, if it does not come to its end."""
    told, started = Told(), time.monotonic()
    deadline_s = _DEADLINE_BY_STOCK_S if script.stock else _DEADLINE_S
    plan = toy.plan_text(rounds=script.rounds, minimum_cohort=script.minimum_cohort, deadline_s=deadline_s)
    setting = Setting(sites=script.sites, plan=plan, namespaces=namespaces, line=line, noise_seed=SEED, stock=script.stock)
    with Rig(folder, setting, tell=tell) as rig:
        rig.begin()
        rig.enrol()
        told.seconds["enrolled"] = time.monotonic() - started
        watch, disk = hosts.Watch(rig), capture.DiskWatch(rig.places, folder / "captured")
        rig.start()
        for number in range(1, script.rounds + 1):
            _round(rig, script, number, told, tell)
        told.seconds["end"] = rig.wait_for_end(within_s=_ROUND_WITHIN_S)
        told.hosts, complaints = watch.findings()
        told.complaints += complaints
        told.lines = {hospital.name: rig.line_counts(hospital) for hospital in rig.hospitals}
        told.disk_copies = disk.close()
        told.complaints += rig.stop_captures()
        _compare(rig, script, told)
    told.seconds["whole"] = time.monotonic() - started
    return told


def _round(rig: Rig, script: Script, number: int, told: Told, tell: Callable[[str], None]) -> None:
    """One round with its death, and what is done after it."""
    rig.wait_for(f"round {number} to begin", lambda: rig.is_open(number), within_s=_ROUND_WITHIN_S)
    cuts = [cut for cut in script.cuts if cut.round == number]
    waits = bool(cuts) or number in (script.revoke_after, script.add_after)
    if waits:
        rig.pause()
    for blow in script.blows:
        if blow.round == number:
            time.sleep(blow.after_s)
            tell(f"round {number}: kill -9 {blow.party} (process {rig.kill(blow.party)})")
    for cut in cuts:
        told.seconds[f"round {number}: back after"] = _cut_off(rig, cut, script.cut_s, tell)
    told.seconds[f"round {number}"] = rig.wait_for_round(number, within_s=_ROUND_WITHIN_S)
    tell(f"round {number} is committed")
    if number == script.revoke_after:
        rig.revoke(rig.hospitals[script.sites - 1])
    if number == script.add_after:
        newcomer = rig.add(script.sites + 1)
        rig.wait_for(f"{newcomer.name} to connect", lambda: _is_connected(newcomer), within_s=_ROUND_WITHIN_S)
    if waits:
        rig.resume()


def _is_connected(hospital: Hospital) -> bool:
    file = hospital.mailbox / STATS_FILE
    return file.exists() and bool(json.loads(file.read_text())["connected"])


def _cut_off(rig: Rig, cut: Cut, seconds: float, tell: Callable[[str], None]) -> float:
    """Nothing passes on a hospital's line from a step on; then everything does again, and nobody is told of either.

    How long after that the hospital's mailbox is connected, by itself.
    """
    hospital = rig.hospitals[cut.hospital - 1]
    reached = rig.wait_for(
        f"{cut.phase} of round {cut.round}",
        lambda: rig.open_phase() == cut.phase and rig.open_round() == cut.round,
        within_s=_ROUND_WITHIN_S,
        look_s=0.02,
    )
    rig.partition(hospital, cut=True)
    tell(f"round {cut.round}: {hospital.name} is cut off in {rig.open_phase() or 'between steps'}, {reached:.1f} s after it began")
    time.sleep(seconds)
    rig.partition(hospital, cut=False)
    return rig.wait_for(f"{hospital.name} to connect again", lambda: _is_connected(hospital), within_s=_ROUND_WITHIN_S)


def _compare(rig: Rig, script: Script, told: Told) -> None:
    plan, done = rig.plan, rig.committed()
    told.rounds = [{"round": each.round, "attempt": each.attempt, "sites": each.sites, "seconds": each.seconds} for each in done]
    if [each.round for each in done] != list(range(1, plan.training.rounds + 1)):
        told.complaints.append(f"rounds {[each.round for each in done]} are committed, of {plan.training.rounds}")
        return
    told.complaints += [
        f"round {each.round} is not that of those who were in by then" for each in done if not _is_as_enrolled(script, each)
    ]
    homes = {hospital.name: hospital.home for hospital in rig.hospitals}
    expected, complaints = reference.compare(rig.places.run, plan, done, homes, seed=SEED)
    told.complaints += complaints
    _search(rig, told, expected)


def _is_as_enrolled(script: Script, done: CommittedRound) -> bool:
    """Whether who is revoked is out of the rounds after; and in are who is added, who was cut off before, who has a stock SuperNode."""
    gone, new = f"h{script.sites}", f"h{script.sites + 1}"
    revoked, added = (0 < after < done.round for after in (script.revoke_after, script.add_after))
    here = {f"h{cut.hospital}" for cut in script.cuts if cut.round == done.round - 1} | {f"h{number}" for number in script.stock}
    return not (revoked and gone in done.sites) and (new in done.sites) == added and here <= set(done.sites)


def _search(rig: Rig, told: Told, expected: reference.Expected) -> None:
    """What must not be at the coordinator, neither on its disk nor on its wire."""
    needles: dict[str, bytes] = {}
    for hospital in rig.hospitals:
        needles |= dict(capture.secrets_of(hospital))
        needles |= dict(capture.patients_of(hospital))
        told.complaints += capture.control(hospital)
    step = grid_of(rig.plan, load_roster(rig.places.coordinator)).step
    for (site, number), words in expected.updates.items():
        needles |= dict(capture.update_windows(f"{site}: update of round {number}", words))
        floats = (words.view(np.int32) * step).astype(np.float32)
        needles |= dict(capture.update_windows(f"{site}: update of round {number} as floats", floats))
    files = [path for path in (*rig.places.coordinator.rglob("*"), *(rig.places.folder / "captured").rglob("*")) if path.is_file()]
    told.searched = {"needles": len(needles), "files": len(files), "bytes": sum(path.stat().st_size for path in files)}
    told.complaints += capture.found_in(files, needles)


def main() -> int:
    """Exit code 0: nothing to complain about."""
    parser = argparse.ArgumentParser(description="The whole way, with a death in every round.")
    parser.add_argument("--short", action="store_true", help="three hospitals, two rounds, two deaths")
    parser.add_argument("--partitions", action="store_true", help="nobody dies: one of four hospitals is cut off in every step")
    parser.add_argument("--cut", type=float, default=20.0, help="seconds for which it is, each time")
    parser.add_argument("--folder", type=Path, help="where the rig lies afterwards; a temporary folder, if not given")
    parser.add_argument("--loopback", action="store_true", help="without namespaces, even where they are allowed")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args()
    if why := "asked for" if asked.loopback else missing():
        sys.stderr.write(f"over loopback: {why}\n")
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="fedward-rig-"))
    began = time.monotonic()
    told = play(
        replace(PARTITIONS, cut_s=asked.cut) if asked.partitions else SHORT if asked.short else FULL,
        folder,
        namespaces=not why,
        line=Line(),
        tell=lambda words: print(f"{time.monotonic() - began:7.1f}  {words}", file=sys.stderr, flush=True),  # noqa: T201 - progress
    )
    if asked.json:
        sys.stdout.write(json.dumps(asdict(told)) + "\n")
    else:
        sys.stdout.write("\n".join(_lines(told)) + "\n")
    return 1 if told.complaints else 0


def _lines(told: Told) -> list[str]:
    rounds = [
        f"round {each['round']}: {len(each['sites'])} sites, attempt {each['attempt']}, {each['seconds']:.1f} s" for each in told.rounds
    ]
    seconds = [f"{what}: {seconds:.0f} s" for what, seconds in told.seconds.items()]
    verdict = told.complaints or ["the final weights equal those of a run in which nobody died, bit for bit; nothing to complain about"]
    return [*seconds, *rounds, *(json.dumps(each) for each in told.hosts), *verdict]


if __name__ == "__main__":
    sys.exit(main())
