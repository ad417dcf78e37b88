# SPDX-License-Identifier: Apache-2.0
"""`fedward tune`: arguments become a search, and a search becomes a table, a page, a plan, or one JSON object."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from common.errors import DataNotFound
from simulations.options import DeviceOption

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.console import Console

    from client.home import AggregationName
    from simulations.planner.tables import Grid
    from simulations.tuning.search import Search
    from simulations.tuning.space import Space

TUNING_APP: Final = "simulations.tuning.app:app"
_AGGREGATIONS: "Mapping[str, Literal['fsa1', 'ideal']]" = {"fsa1": "fsa1", "ideal": "ideal"}


def tune(
    plan_name: Annotated[
        str, typer.Argument(metavar="[PLAN]", help="A plan file, or the name of one that ships with fedward.")
    ] = "default",
    space_file: Annotated[Path | None, typer.Option("--space", help="Which keys may vary: a TOML file; docs/tuning.md has one.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of images: DICOM with labels.csv, or an image folder with index.csv.")] = None,
    sites: Annotated[int | None, typer.Option(min=1, help="Number of virtual hospitals.")] = None,
    folds: Annotated[int | None, typer.Option(min=1, max=20, help="Folds of each site's patients; 1 keeps one part for judging.")] = None,
    trials: Annotated[int | None, typer.Option(min=2, max=1000, help="Plans to try, the plan itself among them.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes (default: one a core).")] = None,
    device: DeviceOption = "cpu",
    out: Annotated[Path | None, typer.Option(help="Folder of the search (default: runs/PLAN-NAME-tune).")] = None,
    aggregation: Annotated[
        str, typer.Option(help="ideal: the sums of secure aggregation without its masks, quicker. fsa1: masked, as deployed.")
    ] = "ideal",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done and what it costs; train and charge nothing.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the search in --out.")] = False,
    cache: Annotated[Path | None, typer.Option(help="Where made and decoded images are kept between runs.")] = None,
    unsafe_noise_seed: Annotated[
        int | None, typer.Option(help="Draw the privacy noise from a seed, to compare two searches bit by bit. Protects nobody.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Find out which values of a plan's keys train best: many trials for a few rounds, the best of them for more.

    Every trial is a federation of its own, judged on patients of the sites whom it does not train on. Trials of a private plan are paid for
    out of its epsilon, on one ledger at each site; what is left is the winner's, whose plan is written ready for `fedward simulate`.
    """
    if aggregation not in _AGGREGATIONS:
        raise typer.BadParameter(f"'{aggregation}' is not an aggregation; choose ideal or fsa1.", param_hint="--aggregation")
    if resume and out is None:
        raise DataNotFound("--resume needs to know which search.", fix="Give its folder with --out.")
    if not resume and space_file is None:
        raise DataNotFound("there is no space to search.", fix="Give a file with --space; docs/tuning.md has one to begin with.")
    from rich.console import Console

    from simulations.engine.nursery import Nursery

    console = Console(stderr=True, quiet=as_json)
    # As in `fedward simulate`: the nursery imports what trains while data are prepared here.
    with Nursery(TUNING_APP) as nursery:
        import torch

        from simulations.show import Show
        from simulations.tuning import outcome as outcomes
        from simulations.tuning import page, search, space, wording
        from simulations.tuning.race import race

        torch.set_num_threads(1)
        with Show(console) as show:
            if resume and out is not None:
                found = search.find(out)
            else:
                assert space_file is not None
                wanted = _changed(space.load(space_file), folds=folds, trials=trials)
                kept = _Kept(cache, workers, device, _AGGREGATIONS[aggregation], unsafe_noise_seed)
                found = _prepared(plan_name, wanted, data, sites, out, kept, show.step)
            for sentence in wording.before(found):
                console.print(sentence, highlight=False, markup=False)
            if dry_run:
                return _tell_plan(found, as_json=as_json)
            result = outcomes.conclude(found, race(found, nursery, workers=workers, tell=show.step))
        outcomes.write(result)
        written = page.write(result)
    if as_json:
        sys.stdout.write(json.dumps(outcomes.as_dict(result), indent=1) + "\n")
        return None
    plain = Console(highlight=False)
    _print(plain, wording.trials(result))
    for sentence in wording.after(result):
        plain.print(sentence, markup=False)
    plain.print(
        f"page     {written}\nwinner   {outcomes.winner_file(result)}\nnext     fedward simulate {outcomes.winner_file(result)}",
        markup=False,
    )
    return None


class _Kept:
    """What a search needs beside what it is about."""

    def __init__(
        self, cache: Path | None, workers: int | None, device: str, aggregation: "AggregationName", unsafe_noise_seed: int | None
    ) -> None:
        self.cache, self.workers, self.device = cache, workers, device
        self.aggregation, self.unsafe_noise_seed = aggregation, unsafe_noise_seed


def _prepared(
    plan_name: str,
    wanted: "Space",
    data: Path | None,
    sites: int | None,
    out: Path | None,
    kept: _Kept,
    tell: "Callable[[str, int, int], None]",
) -> "Search":
    from simulations import scenario
    from simulations.cli import cores, default_cache
    from simulations.stage import Workshop
    from simulations.tuning import search

    asked = scenario.load(scenario.find(plan_name)).with_changes(sites=sites)
    shop = Workshop(
        cache=kept.cache or default_cache(),
        workers=kept.workers or cores(),
        progress=tell,
        unsafe_noise_seed=kept.unsafe_noise_seed,
        aggregation=kept.aggregation,
        device=kept.device,
    )
    return search.prepare(asked, wanted, data, out or Path("runs") / f"{asked.plan.name}-tune", shop)


def _changed(wanted: "Space", *, folds: int | None, trials: int | None) -> "Space":
    """The command line's numbers instead of the file's; the text that is kept says the same."""
    from simulations.tuning import space

    tuning = wanted.tuning
    changed = replace(tuning, folds=tuning.folds if folds is None else folds, trials=tuning.trials if trials is None else trials)
    return wanted if changed == tuning else space.with_tuning(wanted, changed)


def _tell_plan(found: "Search", *, as_json: bool) -> None:
    from rich.console import Console

    from simulations.tuning import outcome, wording

    if as_json:
        sys.stdout.write(json.dumps(outcome.before_as_dict(found), indent=1) + "\n")
        return
    plain = Console(highlight=False)
    _print(plain, wording.schedule(found))
    _print(plain, wording.asked(found))
    plain.print(f"Nothing was trained. Go on with: fedward tune --resume --out {found.folder}", markup=False)


def _print(console: "Console", grid: "Grid") -> None:
    from simulations.planner.command import table_of

    console.print(table_of(grid))
    console.print(grid.note, style="dim", markup=False)
