# SPDX-License-Identifier: Apache-2.0
"""One simulation, from a scenario to a run folder with a model and a report.

    set the stage -> federation -> each site alone and all in one place -> the same without privacy -> scores -> model, card, report

Every step leaves its result in the run folder, so that `--resume` does only what is missing: a run killed in its hundredth round goes on
with the hundredth.
"""

import json
import platform
import shutil
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from client.home import LEDGER_FILE
from common.durable import write_atomically
from common.plan import ClassificationSpec, Plan, digest_of
from common.privacy import own_share_epsilon
from common.tasks.scores import RESAMPLES
from common.update import Weights
from server.aggregation import Given, Several
from server.counts import as_facts
from server.export import export
from simulations import report
from simulations.audits import exhibits
from simulations.comparison import NOT_PRIVATE, POOLED, train_apart, twin_without_privacy
from simulations.engine.nursery import Nursery
from simulations.faults import Fault
from simulations.federation import EngineName, Federation, federation_on
from simulations.judging import judge, judge_by_site
from simulations.observer import HoldOut, RoundFigures, predictions
from simulations.scenario import to_toml
from simulations.show import Show, describe
from simulations.stage import Stage, aggregation_of, device_of, unsafe_seed

COMPARISON_FILE = "comparison.json"
JUDGEMENT_FILE = "judgement.json"
"""The same of a task that is not classification, in its own figures."""
PREDICTIONS_FILE = "predictions.json"
MEMBERSHIP_FILE = "membership.json"
INVERSION_FILE = "inversion.json"
RUN_FILE = "run.json"
_LIBRARIES = ("torch", "flwr", "opacus", "pydicom", "dp-accounting", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How, not what: none of this changes a bit of the model."""

    engine: EngineName = "local"
    workers: int | None = None
    compare: bool = True
    faults: tuple[Fault, ...] = ()


def simulate(stage: Stage, options: Options, show: Show, nursery: Nursery, *, command: tuple[str, ...] = ()) -> dict[str, Any]:
    """Run, or finish, a staged simulation; returns what `--json` prints. Raises: FedwardError."""
    started = _note_start(stage, options, command)
    federation = _federation(stage, options)
    observer = _watch(stage, "federation", show, record=True)
    given = Given()
    weights, _ = federation.train(Several(observer, given), engine=options.engine, workers=options.workers, nursery=nursery)
    models = {"federated": weights, **(_compare(stage, options, show, nursery) if options.compare else {})}
    comparison = _judge(stage, models, show)
    classes = isinstance(stage.scenario.plan.task, ClassificationSpec)
    write_atomically(stage.folder / (COMPARISON_FILE if classes else JUDGEMENT_FILE), json.dumps(comparison).encode(), fsync=False)
    if classes:  # curves, and attacks on what a model says of a class
        write_atomically(stage.folder / PREDICTIONS_FILE, json.dumps(predictions(weights, stage)).encode(), fsync=False)
        _exhibit(stage, models, show)
    _collect_ledgers(stage)
    _export(stage, weights, federation, {**given.as_facts(), "metrics": comparison["federated"]})
    _note_finish(stage, started, federation.session())
    report.write(stage.folder)
    return {"run": str(stage.folder), "plan": digest_of(stage.scenario.plan), "model": weights.digest.hex(), **comparison}


def _federation(stage: Stage, options: Options) -> Federation:
    return replace(federation_on(stage), unsafe_noise_seed=unsafe_seed(stage), faults=options.faults)


def _compare(stage: Stage, options: Options, show: Show, nursery: Nursery) -> dict[str, Weights]:
    """The models to set beside the federated one. A local engine always: they are about the data, not about the transport."""
    models = train_apart(
        stage, workers=options.workers, nursery=nursery, progress=lambda done, total: show.step("alone and pooled", done, total)
    )
    if stage.scenario.plan.is_private:
        models[NOT_PRIVATE] = _without_privacy(stage, options, show, nursery)
    return models


def _without_privacy(stage: Stage, options: Options, show: Show, nursery: Nursery) -> Weights:
    twin, federation = twin_without_privacy(stage)
    observer = _watch(replace(stage, scenario=twin.scenario), "the same, not private", show, record=False)
    weights, _ = federation.train(observer, engine="local", workers=options.workers, nursery=nursery)
    shutil.rmtree(twin.folder)
    return weights


def _watch(stage: Stage, what: str, show: Show, *, record: bool) -> HoldOut:
    rounds, num_sites = stage.scenario.plan.training.rounds, len(stage.sites)

    def tell(figures: RoundFigures) -> None:
        show.step(what, figures.round, rounds, describe(figures, num_sites=num_sites))

    return HoldOut(stage, record=record, tell=tell)


def _judge(stage: Stage, models: dict[str, Weights], show: Show) -> dict[str, Any]:
    """Score every model on the same held-out patients, with intervals."""
    plan, data = stage.scenario.plan, stage.holdout()
    scores: dict[str, Any] = {}
    for number, (name, weights) in enumerate(models.items(), start=1):
        found = judge(weights, data, plan, resamples=RESAMPLES)
        headline = {} if isinstance(plan.task, ClassificationSpec) else {"headline": asdict(found.headline)}
        scores[name] = {**found.as_dict(), **headline}
        show.step("scoring with intervals", number, len(models))
    named = {name: scores.pop(name) for name in ("federated", POOLED, NOT_PRIVATE) if name in scores}
    by_site = judge_by_site(models["federated"], data, plan, resamples=RESAMPLES)
    return {**named, "local": scores, **({} if by_site is None else {"by_site": asdict(by_site)})}


def _exhibit(stage: Stage, models: dict[str, Weights], show: Show) -> None:
    """Attack the models and an update, for the report."""
    membership = exhibits.membership_of(stage, models, lambda done, total: show.step("membership attack", done, total))
    write_atomically(stage.folder / MEMBERSHIP_FILE, json.dumps(membership).encode(), fsync=False)
    write_atomically(stage.folder / INVERSION_FILE, json.dumps(exhibits.inversion_of(stage)).encode(), fsync=False)


def _collect_ledgers(stage: Stage) -> None:
    """What each site spent, side by side. Only a simulator can do this: a ledger stays at its site."""
    folder = stage.folder / "ledgers"
    folder.mkdir(exist_ok=True)
    for site in stage.sites:
        if (ledger := stage.home(site) / LEDGER_FILE).exists():
            shutil.copy(ledger, folder / f"{site}.jsonl")


def _export(stage: Stage, weights: Weights, federation: Federation, found: dict[str, Any]) -> None:
    facts = {
        "sites": list(stage.sites),
        "privacy": _promise(stage.scenario.plan),
        "trained_on": stage.counts["data"],
        "counted": [as_facts(stage.scenario.plan, done) for done in federation.counted()],
        "fedward": version("fedward"),
    }
    export(stage.folder, weights=weights, plan=stage.scenario.plan, facts={**facts, **found})


def _note_start(stage: Stage, options: Options, command: tuple[str, ...]) -> dict[str, Any]:
    """run.json, written at once so that a report of an unfinished run can be made; a resumed run keeps its first start and command."""
    path = stage.folder / RUN_FILE
    earlier = json.loads(path.read_text()) if path.exists() else {}
    plan = stage.scenario.plan
    run = {
        "fedward": version("fedward"),
        "plan": {"name": plan.name, "purpose": plan.plan.purpose, "digest": digest_of(plan), "toml": to_toml(stage.scenario)},
        "command": earlier.get("command", command),
        "started": earlier.get("started", _now()),
        "finished": None,
        "seed": plan.training.seed,
        "engine": options.engine,
        "workers": options.workers,
        "device": device_of(stage),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
        "privacy": _promise(plan),
        "unsafe_noise_seed": unsafe_seed(stage),
        "aggregation": aggregation_of(stage),
        "secure_aggregation": aggregation_of(stage) == "fsa1",
        **{key: stage.counts[key] for key in ("sites", "holdout", "unit_source", "intake", "data")},
    }
    write_atomically(path, json.dumps(run, indent=1).encode(), fsync=False)
    return run


def _promise(plan: Plan) -> dict[str, Any]:
    """What the plan promises its units; with distributed noise also what is left beyond the colluders that it assumes."""
    privacy = plan.privacy
    said: dict[str, Any] = {"unit": privacy.unit, "epsilon": privacy.epsilon, "delta": privacy.delta}
    if not plan.is_private:
        return said
    shared = {"noise_quorum": plan.noise_quorum, "colluders": privacy.colluders, "own_share_epsilon": own_share_epsilon(plan)}
    return {**said, "noise": privacy.noise, **(shared if plan.shares_noise else {})}


def _note_finish(stage: Stage, run: dict[str, Any], session: bytes) -> None:
    finished = {**run, "session": session.hex(), "finished": _now()}
    write_atomically(stage.folder / RUN_FILE, json.dumps(finished, indent=1).encode(), fsync=False)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
