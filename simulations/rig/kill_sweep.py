# SPDX-License-Identifier: Apache-2.0
"""The kill sweep: SIGKILL at every failpoint, many times, on the in-process engine, and what is left is looked at.

    python -m simulations.rig.kill_sweep --times 20

A trial is a federation of four sites and a few rounds, in a folder of its own. One process dies: a site's worker, at a failpoint in a
random round, or the whole coordinator. A coordinator is started again on the same folder, once, by nobody's hand; a dead site answers
when it is next asked. Then `simulations.rig.evidence` looks for what is lost, torn or unpaid, and the final model is compared, bit for
bit, with that of a run in which nobody was killed and whose rounds were summed over the same sites. (Noise is seeded for that, unsafely:
this is a simulation.)

A coordinator's process is a fork of this one, made before this one has a thread, so that a trial costs a second and not ten.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

from common import failpoints
from common.errors import EngineError, FedwardError
from common.models import initial_weights
from common.plan import Plan
from common.update import Weights
from server.aggregation import Silent
from server.checkpoint import CheckpointFolder
from server.journal import CommittedRound
from simulations import scenario
from simulations.engine.nursery import Nursery
from simulations.faults import Fault
from simulations.federation import CHECKPOINTS, Federation, federation_on
from simulations.rig import evidence, toy
from simulations.rig.struck import APP, ORDER_FILE, OUTLIVED_FILE, WARM_VARIABLE, Order
from simulations.stage import PLAN_FILE, Stage, Workshop, find_stage, set_stage

NUM_SITES: Final = 4
ROUNDS: Final = 3
NOISE_SEED: Final = 7
PATIENTS: Final = 44
"""Eight for training at each site, so that all of them need the same noise, which is worked out once."""
RESUME_WITHIN_S: Final = 60.0
_FAILED: Final = 3
_PATIENCE: Final = 5
_LONG_S: Final = 900
"""A deadline that no living site misses on however busy a machine: who is missing from a round died."""
_STEP_OF: Final = {
    "after_ledger_line": "KEYS",
    "after_reserve": "KEYS",
    "after_training": "KEYS",
    "after_update_stored": "KEYS",
    "after_keys_stored_before_reply": "KEYS",
    "after_share_stored": "SHARE",
    "after_mask_stored": "MASK",
    "after_confirm_stored": "CONFIRM",
    "after_unmask_stored": "UNMASK",
}
"""In which step a site comes to a failpoint."""
_STEPS: Final = ("KEYS", "SHARE", "MASK", "CONFIRM", "UNMASK")
UNREACHED: Final = frozenset({"after_abandon_stored", "coordinator_after_abandon"})
"""Only a round whose threshold is lost comes there; one death does not lose it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Who dies where: a site by `order`, or the coordinator at `point`."""

    name: str
    order: Order | None = None
    point: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one trial showed. `resumed_s` is from the second start to the end of the run; 0 where only a site died."""

    trial: Trial
    complaints: tuple[str, ...]
    resumed_s: float = 0.0
    rounds_before: int = 0
    survivors: tuple[tuple[str, ...], ...] = ()
    returned: bool = True


@dataclass(slots=True)
class References:
    """Final models of runs in which nobody was killed, by the sites in each round's sum."""

    template: Path
    folder: Path
    nursery: Nursery
    _known: dict[tuple[tuple[str, ...], ...], bytes] = field(default_factory=dict)

    def model(self, survivors: tuple[tuple[str, ...], ...]) -> bytes:
        """Raises: FedwardError, if no run with just these sums can be had."""
        if survivors not in self._known:
            shutil.rmtree(self.folder / f"reference-{len(self._known)}", ignore_errors=True)
            stage = copied(self.template, self.folder / f"reference-{len(self._known)}")
            absent = tuple(
                Fault(site=site, kind="raise", round=number)
                for number, present in enumerate(survivors, 1)
                for site in sorted(set(stage.sites) - set(present))
            )
            if run(stage, self.nursery, faults=absent) != 0:
                raise EngineError(f"no run with the sums {survivors} can be had: {_failure(stage)}", fix=f"See '{stage.folder}'.")
            done = evidence.committed(stage.folder, stage.scenario.plan)
            if (summed := tuple(each.sites for each in done)) != survivors:
                raise EngineError(f"the run to compare with summed {summed}, wanted {survivors}.", fix="Is this machine too busy?")
            self._known[survivors] = final_model(stage, done[-1])
            shutil.rmtree(stage.folder)
        return self._known[survivors]


def trials(names: Sequence[str], times: int, seed: int) -> Iterator[Trial]:
    """Each failpoint so many times, in rounds and at sites drawn at random; all in turn, so that a sweep broken off has seen all."""
    rng = random.Random(seed)  # noqa: S311 - which round to kill in is no secret
    for _ in range(times):
        yield from (_trial(name, rng) for name in names)


def _trial(name: str, rng: random.Random) -> Trial:
    number = rng.randint(1, ROUNDS)
    site = f"site_{rng.randrange(NUM_SITES):02d}"
    if name in _STEP_OF:
        return Trial(name=name, order=Order(site=site, round=number, step=_STEP_OF[name], failpoint=name))
    if name in failpoints.COORDINATOR:
        nth = rng.randint(1, ROUNDS * NUM_SITES) if name == "coordinator_after_vector" else number
        return Trial(name=name, point=f"{name}:{nth}")
    if rng.random() < 0.5:
        return Trial(name=name, order=Order(site=site, round=number, step=rng.choice(_STEPS), failpoint=name))
    return Trial(name=name, point=f"{name}:{rng.randint(1, ROUNDS * (NUM_SITES + 2))}")


def federation(stage: Stage, *, faults: tuple[Fault, ...]) -> Federation:
    return replace(federation_on(stage), unsafe_noise_seed=NOISE_SEED, faults=faults)


def made(folder: Path) -> Stage:
    """The federation that every trial starts from."""
    played = scenario.parse(toy.plan_text(rounds=ROUNDS, minimum_cohort=2, deadline_s=_LONG_S) + toy.SIMULATED.format(sites=NUM_SITES))
    shop = Workshop(cache=folder.parent / "cache", workers=1, progress=lambda *_: None, unsafe_noise_seed=NOISE_SEED)
    return set_stage(played, toy.write_pictures(folder.parent / "pictures", patients=PATIENTS), folder, shop)


def copied(template: Path, folder: Path) -> Stage:
    shutil.copytree(template, folder)
    return find_stage(folder)


def run(stage: Stage, nursery: Nursery, *, point: str = "", faults: tuple[Fault, ...] = ()) -> int:
    """Coordinate in a process of its own, to the end or to a failpoint; how it ended, as `os.waitstatus_to_exitcode` says it."""
    child = os.fork()
    if child == 0:
        status = _FAILED
        try:
            if point:
                os.environ[failpoints.VARIABLE] = point
            federation(stage, faults=faults).train(Silent(), engine="local", workers=1, nursery=nursery)
            status = 0
        except FedwardError as error:
            (stage.folder / "failure").write_text(f"{error.code} {error}")
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def play(trial: Trial, stage: Stage, nursery: Nursery, references: References) -> Found:
    """Kill, go on, look."""
    plan = stage.scenario.plan
    if trial.order:
        trial.order.give(stage.folder)
    status = run(stage, nursery, point=trial.point)
    before = evidence.committed(stage.folder, plan)
    wrong, resumed_s = list(undead(trial, stage, status)), 0.0
    if trial.point and status == -signal.SIGKILL:
        started = time.monotonic()
        status = run(stage, nursery)
        resumed_s = time.monotonic() - started
    if status != 0:
        wrong.append(f"the run ended with {status}: {_failure(stage)}")
    if resumed_s > RESUME_WITHIN_S:
        wrong.append(f"going on took {resumed_s:.0f} s")
    wrong += evidence.complaints(stage, before)
    done = evidence.committed(stage.folder, plan)
    survivors = tuple(each.sites for each in done)
    wrong += _differences(stage, plan, done, references)
    return Found(
        trial=trial,
        complaints=tuple(wrong),
        resumed_s=resumed_s,
        rounds_before=len(before),
        survivors=survivors,
        returned=not trial.order or trial.order.round == ROUNDS or (bool(survivors) and trial.order.site in survivors[-1]),
    )


def undead(trial: Trial, stage: Stage, status: int) -> Iterator[str]:
    """A failpoint that killed nobody has shown nothing."""
    if trial.point and status != -signal.SIGKILL:
        yield f"the coordinator did not die at {trial.point}: {status}"
    if (stage.folder / ORDER_FILE).exists() or (stage.folder / OUTLIVED_FILE).exists():
        yield f"{trial.order} was not carried out"


def _failure(stage: Stage) -> str:
    file = stage.folder / "failure"
    return file.read_text() if file.exists() else "no named error"


def _differences(stage: Stage, plan: Plan, done: Sequence[CommittedRound], references: References) -> Iterator[str]:
    if [each.round for each in done] != list(range(1, plan.training.rounds + 1)):
        yield f"rounds {[each.round for each in done]} are committed, of {plan.training.rounds}"
        return
    if any(each.attempt for each in done):
        yield f"attempts {[each.attempt for each in done]}: one death is no reason for a second attempt"
        return
    try:
        expected = references.model(tuple(each.sites for each in done))
    except EngineError as error:
        yield str(error)
        return
    if final_model(stage, done[-1]) != expected:
        yield "the final model is not the one of a run without the kill"


def final_model(stage: Stage, last: CommittedRound) -> bytes:
    state = CheckpointFolder(stage.folder / CHECKPOINTS, power_cut_safe=False).load(last).state
    return Weights(layout=initial_weights(stage.scenario.plan).layout, values=state.weights).digest


def _wake(nursery: Nursery, template: Path, folder: Path) -> None:
    """Let a nursery import what it needs: on a busy machine that takes longer than sites are greeted for."""
    for _ in range(_PATIENCE):
        stage = copied(template, folder)
        status = run(stage, nursery)
        failure = _failure(stage)
        shutil.rmtree(folder)
        if status == 0:
            return
    raise EngineError(f"no run comes to its end here: {failure}", fix="See what else this machine does.")


def sweep(names: Sequence[str], times: int, seed: int, folder: Path) -> Iterator[Found]:
    """Every trial in turn. A trial without complaint leaves nothing; one with a complaint keeps its folder."""
    with ExitStack() as closing:
        template = made(folder / "template").folder
        os.environ[WARM_VARIABLE] = str(template / PLAN_FILE)
        nursery = closing.enter_context(Nursery(APP))
        reference_nursery = closing.enter_context(Nursery("simulations.faults:app"))
        references = References(template=template, folder=folder, nursery=reference_nursery)
        for name, each in {"struck": nursery, "honest": reference_nursery}.items():
            _wake(each, template, folder / f"wake-{name}")
        for number, trial in enumerate(trials(names, times, seed)):
            stage = copied(template, folder / f"trial-{number}")
            found = play(trial, stage, nursery, references)
            if not found.complaints:
                shutil.rmtree(stage.folder)
            yield found


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """All trials of one failpoint."""

    failpoint: str
    trials: int
    complaints: int
    missed_a_round: int
    slowest_resume_s: float

    @classmethod
    def of(cls, name: str, found: Sequence[Found]) -> "Row":
        mine = [each for each in found if each.trial.name == name]
        return cls(
            failpoint=name,
            trials=len(mine),
            complaints=sum(bool(each.complaints) for each in mine),
            missed_a_round=sum(any(len(sites) < NUM_SITES for sites in each.survivors) for each in mine),
            slowest_resume_s=round(max((each.resumed_s for each in mine), default=0.0), 1),
        )


def table(rows: Sequence[Row]) -> str:
    """For docs/figures."""
    lines = ["| failpoint | kills | complaints | a site missed a round | slowest resume |", "|---|---|---|---|---|"]
    lines += [
        f"| `{row.failpoint}` | {row.trials} | {row.complaints} | {row.missed_a_round} | "
        f"{f'{row.slowest_resume_s:.1f} s' if row.slowest_resume_s else 'a site: no restart'} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> int:
    """Exit code 0: nobody complained."""
    names = [*_STEP_OF, *(name for name in failpoints.COORDINATOR if name not in UNREACHED), *failpoints.ANYWHERE]
    parser = argparse.ArgumentParser(description="SIGKILL at every failpoint, on the in-process engine.")
    parser.add_argument("--times", type=int, default=20, help="kills at each failpoint")
    parser.add_argument("--seed", type=int, default=1, help="which rounds and sites are drawn")
    parser.add_argument("--only", nargs="*", choices=names, default=names, help="these failpoints", metavar="NAME")
    parser.add_argument("--folder", type=Path, help="where trials with complaints are kept; a temporary folder, if not given")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="kill-sweep-"))
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    with suppress(KeyboardInterrupt):  # then what was seen so far is told
        for each in sweep(asked.only, asked.times, asked.seed, folder):
            found.append(each)
            if each.complaints or not asked.json:
                sys.stderr.write(f"{len(found):4d} {each.trial.name}: {'; '.join(each.complaints) or 'whole'}\n")
    rows = [Row.of(name, found) for name in asked.only]
    if asked.json:
        complaints = [[each.trial.name, complaint] for each in found for complaint in each.complaints]
        sys.stdout.write(json.dumps({"rows": [asdict(row) for row in rows], "complaints": complaints}) + "\n")
    else:
        sys.stdout.write(table(rows) + "\n")
    if any(row.complaints for row in rows):
        sys.stderr.write(f"kept: {folder}\n")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
