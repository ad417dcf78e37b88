# SPDX-License-Identifier: Apache-2.0
"""`fedward simulate` and `fedward evaluate`.

Arguments become typed values here and nowhere deeper. Results go to standard output (with `--json` as one JSON object), progress and
warnings to standard error, so that a pipe sees nothing but the result.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer
from rich.console import Console

from common.errors import DataNotFound
from simulations.apps import CLIENT_APP, FAULTY_APP
from simulations.options import DeviceOption

if TYPE_CHECKING:
    from common.tasks.scoring.operating import Rule

_AGGREGATIONS: Final[Mapping[str | None, Literal["fsa1", "ideal", "plain"]]] = {
    None: "fsa1",
    "fsa1": "fsa1",
    "ideal": "ideal",
    "plain": "plain",
}
_PATHS: Final = ("--data", "--cache")
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]


def simulate(
    plan_name: Annotated[
        str, typer.Argument(metavar="[PLAN]", help="A plan file, or the name of one that ships with fedward (default: ten made hospitals).")
    ] = "default",
    data: Annotated[Path | None, typer.Option(help="Folder of images: DICOM with labels.csv, or an image folder with index.csv.")] = None,
    sites: Annotated[int | None, typer.Option(min=1, help="Number of virtual hospitals.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds to train; privacy is calibrated to them.")] = None,
    engine: Annotated[str, typer.Option(help="local: worker processes here. ray: Flower's own runtime, past one machine.")] = "local",
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes (default: one a core).")] = None,
    device: DeviceOption = "cpu",
    seed: Annotated[
        int | None, typer.Option(min=0, help="Fixes partition, first weights and order of work; never the privacy noise.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder (default: runs/PLAN-NAME).")] = None,
    aggregation: Annotated[
        str | None,
        typer.Option(help="fsa1 (default): masked, as deployed. ideal: the same sums without masks. plain: floats, to compare with."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, after a crash or an interruption.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Replace an earlier run in --out.")] = False,
    compare: Annotated[bool, typer.Option(help="Also train each site alone, all pooled, and the plan without privacy.")] = True,
    cache: Annotated[Path | None, typer.Option(help="Where made and decoded images are kept between runs.")] = None,
    unsafe_noise_seed: Annotated[
        int | None, typer.Option(help="Draw the privacy noise from a seed, to compare two runs bit by bit. Such a run protects nobody.")
    ] = None,
    fault: Annotated[
        list[str] | None, typer.Option(help="Let a site fail: SITE:KIND:ROUND[:STEP]; kinds raise, crash, silent, poison; round * is each.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a plan across virtual hospitals on this machine, and write model and report.

    The code that trains is the deployed client and server; only the network is missing. Nothing but masked updates crosses between
    them; the figures shown are measured on patients that no hospital was given.
    """
    if engine not in ("local", "ray"):
        raise typer.BadParameter(f"'{engine}' is not an engine; choose local or ray.", param_hint="--engine")
    if aggregation not in _AGGREGATIONS:
        raise typer.BadParameter(f"'{aggregation}' is not an aggregation; choose fsa1, ideal or plain.", param_hint="--aggregation")
    if resume and aggregation is not None:
        raise typer.BadParameter("a run that is resumed keeps its aggregation.", param_hint="--aggregation")
    if resume and out is None:
        raise DataNotFound("--resume needs to know which run.", fix="Give its folder with --out.")
    from simulations.engine.nursery import Nursery

    console = Console(stderr=True, quiet=as_json)
    # The nursery imports torch while this process does, and while data are made: workers are then a fork away.
    with Nursery(FAULTY_APP if fault else CLIENT_APP) as nursery:
        import torch

        from simulations import scenario
        from simulations.faults import parse_faults
        from simulations.run import Options, simulate
        from simulations.show import Show
        from simulations.stage import Workshop, find_stage, set_stage

        # The workers have every core; a second thread here would only spin beside them.
        torch.set_num_threads(1)
        options = Options(engine="ray" if engine == "ray" else "local", workers=workers, compare=compare, faults=parse_faults(fault or ()))
        with Show(console) as show:
            if resume and out is not None:
                stage = find_stage(out)
            else:
                asked = scenario.load(scenario.find(plan_name)).with_changes(sites=sites, rounds=rounds, seed=seed)
                folder = out or Path("runs") / asked.plan.name
                if fresh:
                    _remove_run(folder)
                kept = cache or default_cache()
                shop = Workshop(
                    cache=kept,
                    workers=workers or cores(),
                    progress=show.step,
                    unsafe_noise_seed=unsafe_noise_seed,
                    aggregation=_AGGREGATIONS[aggregation],
                    device=device,
                )
                stage = set_stage(asked, data, folder, shop)
            show.announce(stage)
            result = simulate(stage, options, show, nursery, command=tuple(without_paths(sys.argv[1:])))
    if as_json:
        print_json(result)
    else:
        show.conclude(stage, result)


def evaluate(
    model: Annotated[Path, typer.Option(help="Folder with model.safetensors and model.json, such as a run folder.")],
    data: Annotated[Path, typer.Option(help="Folder of images with labels: DICOM with labels.csv, or an image folder with index.csv.")],
    by: Annotated[str | None, typer.Option(metavar="COLUMN", help="Score each group of this column too, such as site or sex.")] = None,
    threshold: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="Choose it on validation patients: youden, f1, sensitivity=0.95, specificity=0.95. One for each of several findings. "
            "Default: the plan's.",
        ),
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(help="Folder of other patients to choose it on. Default: those that a column 'split' sets apart.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write a page with curves and tables here, readable by you alone.")] = None,
    resamples: Annotated[int, typer.Option(min=0, help="Patient resamples behind the 95 % intervals.")] = 1000,
    device: DeviceOption = "cpu",
    as_json: Json = False,
) -> None:
    """Score a saved model on any labelled data folder: per class, per patient with intervals, by site or subgroup.

    Nothing but --out is stored, and nothing leaves. Groups of fewer than ten patients are not shown.
    """
    rule = None if threshold is None else _rule(threshold)
    if validation is not None and rule is None:
        raise typer.BadParameter("a validation folder is for choosing a threshold; say how with --threshold.", param_hint="--validation")
    from client.training import choose
    from simulations.evaluation import Question, evaluate_folder
    from simulations.show import Show
    from simulations.show_scores import score_tables

    choose(device)
    question = Question(data=data, by=by, rule=rule, validation=validation, resamples=resamples)
    with Show(Console(stderr=True, quiet=as_json)) as show:
        answer = evaluate_folder(model, question, workers=cores(), progress=show.step)
    if out is not None:
        from simulations.report import judged

        judged.write(answer, out)
    if as_json:
        print_json(answer.as_dict())
    else:
        Console().print(*score_tables(answer), sep="\n")


def _rule(text: str) -> "Rule":
    """'sensitivity=0.95' as a rule. Raises: BadParameter."""
    from common.tasks.scoring.operating import Rule

    aim, equals, least = text.partition("=")
    if text in ("youden", "f1"):
        return Rule(aim="youden" if text == "youden" else "f1")
    if equals and aim in ("sensitivity", "specificity"):
        with suppress(ValueError):
            if 0 < float(least) <= 1:
                return Rule(aim="sensitivity" if aim == "sensitivity" else "specificity", least=float(least))
    raise typer.BadParameter(f"'{text}' is no rule; write youden, f1, sensitivity=0.95 or specificity=0.95.", param_hint="--threshold")


def print_json(value: dict[str, Any]) -> None:
    """The one JSON object of a `--json` command."""
    sys.stdout.write(json.dumps(value, indent=1) + "\n")


def default_cache() -> Path:
    """Where made and decoded images are kept: FEDWARD_CACHE, else the user's cache folder."""
    if chosen := os.environ.get("FEDWARD_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedward"


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def without_paths(arguments: Sequence[str], *, paths: Sequence[str] = _PATHS) -> Iterator[str]:
    """A command as it may stand in a report that is handed on: where the images lie, and what people call their folders, is left out."""
    hidden = False
    for argument in arguments:
        option, equals, _ = argument.partition("=")
        yield "..." if hidden else f"{option}=..." if equals and option in paths else argument
        hidden = argument in paths


def _remove_run(folder: Path) -> None:
    """Remove an earlier run, and nothing that is not one."""
    if not folder.exists():
        return
    if not (folder / "stage.json").exists() and any(folder.iterdir()):
        raise DataNotFound(f"'{folder}' is not a run folder, so --fresh leaves it alone.", fix="Choose another --out.")
    shutil.rmtree(folder)
