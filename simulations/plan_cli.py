# SPDX-License-Identifier: Apache-2.0
"""`fedward plan`: write a plan, check it, read it.

The files that ship with fedward carry a [simulation] table beside the plan; it is checked here too, and never part of the digest.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from common.errors import RunFolderTaken
from common.plan import InputSpec, Plan, PrivacySpec, digest_of
from common.privacy import group_privacy, own_share_epsilon
from server.membership.plan_cli import sign, verify
from simulations import scenario
from simulations.planner.command import privacy

plan = typer.Typer(no_args_is_help=True, help="Write, check and read plans: what is trained, under which promise.")

TEMPLATE = scenario.PLANS / "template.toml"
PlanName = Annotated[str, typer.Argument(metavar="PLAN", help="A plan file, or the name of one that ships with fedward.")]

plan.command()(privacy)
plan.command()(sign)
plan.command()(verify)


@plan.command()
def new(
    path: Annotated[Path, typer.Argument(help="The file to write; it must not exist yet.")] = Path("plan.toml"),
    start_from: Annotated[str | None, typer.Option("--from", help="Begin from a plan that ships with fedward, such as ct-lung.")] = None,
) -> None:
    """Write a complete plan, every key with its meaning, to be edited by hand."""
    if path.exists():
        raise RunFolderTaken(f"'{path}' exists already.", fix="Choose another name; plans are not overwritten.")
    path.write_text((scenario.find(start_from) if start_from else TEMPLATE).read_text(encoding="utf-8"), encoding="utf-8")
    Console().print(f"wrote {path}; edit it, then: fedward plan check {path}", highlight=False)


@plan.command()
def check(name: PlanName, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Check a plan: every key, every value, and whether they go together. Prints its digest, which all sites must see alike."""
    found = scenario.load(scenario.find(name))
    if as_json:
        sys.stdout.write(json.dumps({"ok": True, "name": found.plan.name, "digest": digest_of(found.plan)}) + "\n")
    else:
        Console().print(f"[green]ok[/] {found.plan.name}\ndigest {digest_of(found.plan)}", highlight=False)


@plan.command()
def show(name: PlanName, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Say in plain words what a plan asks of a hospital, then print it in full, defaults included."""
    found = scenario.load(scenario.find(name))
    if as_json:
        sys.stdout.write(json.dumps({"digest": digest_of(found.plan), "toml": scenario.to_toml(found)}) + "\n")
        return
    console = Console()
    console.print("\n".join(in_words(found.plan)), highlight=False, markup=False)
    console.print("\n" + scenario.to_toml(found), highlight=False, markup=False)


def in_words(plan: Plan) -> list[str]:
    """A plan as sentences."""
    training, privacy, group = plan.training, plan.privacy, plan.aggregation
    work = f"{training.local_steps} step(s)" if training.local_steps else f"{training.local_epochs} passes over its images"
    unit = "patient" if privacy.unit == "patient" else "image"
    words = [
        f"{plan.name}: {plan.plan.purpose}",
        f"Input: {plan.input.modality} images, {plan.input.height} x {plan.input.width}, {plan.input.channels} channel(s).",
        *_chosen(plan.input),
        f"Answer: {', '.join(plan.task.classes)}.",
        f"Training: {training.rounds} rounds; in each, a site trains {work} of {training.batch} {unit}s.",
        f"A round needs {group.minimum_cohort} sites and waits for the others up to {group.deadline_s:g} s.",
    ]
    if privacy.unit == "none":
        return [*words, "Privacy: none. What leaves a site is an exact update; it can give away patients."]
    counted = {"record": "counted per image (record)", "patient": "for each patient with all their images at a site"}[privacy.unit]
    words.append(f"Privacy: epsilon {privacy.epsilon:g} at delta {privacy.delta:g} for all rounds together, {counted}.")
    if privacy.unit == "record":
        words.append(f"A patient with several images has less: {_by_images(privacy)}.")
    if plan.shares_noise:
        words.append(
            f"Noise: every site adds a share. The promise holds while {plan.noise_quorum} sites or more are in the sum and at most "
            f"{privacy.colluders} of them collude; beyond that a patient is left with epsilon {own_share_epsilon(plan):.1f}."
        )
    elif plan.is_private:
        words.append("Noise: every site adds all that its own promise needs, and relies on nobody.")
    return [*words, *_counts_in_words(plan)]


def _counts_in_words(plan: Plan) -> list[str]:
    """What a plan has its sites count beside training, and for how much of its epsilon."""
    words = []
    if plan.evaluation is not None:
        times = len(plan.evaluation_rounds)
        words.append(
            f"Evaluation: {times} of the models, the last among them, judged on patients whom no site trains on; noised counts, "
            f"epsilon {plan.evaluation.epsilon:g} of the plan's for all of them."
        )
        if plan.evaluation.keep == "best":
            words.append("Given out is the model that was judged best, by noised counts.")
        if plan.evaluation.patience is not None:
            words.append(f"Training ends after {plan.evaluation.patience} judgement(s) in a row that were no better than the best.")
    if plan.statistics is not None:
        asked = {"classes": plan.statistics.classes, "intensity": plan.statistics.intensity}
        what = " and ".join(name for name, wanted in asked.items() if wanted)
        words.append(f"Statistics: {what} of the training data, once, noised, for epsilon {plan.statistics.epsilon:g} of the plan's.")
    return words


def _by_images(privacy: PrivacySpec) -> str:
    """What a promise per image leaves for patients of two, three and five."""
    assert privacy.epsilon is not None
    assert privacy.delta is not None
    found = []
    for images in (2, 3, 5):
        epsilon, delta = group_privacy(privacy.epsilon, privacy.delta, images)
        found.append(f"with {images} images epsilon {epsilon:g}, {'where delta allows everything' if delta >= 1 else f'delta {delta:.2g}'}")
    return "; ".join(found)


def _chosen(image: InputSpec) -> list[str]:
    """What of a hospital's files the plan takes, where it takes not simply all images; one line or none."""
    frames = {"first": "the first of several frames", "middle": "the middle one of several frames", "each": "each of several frames"}
    words = [
        *([frames[image.frames]] if image.frames != "single" else []),
        *([f"pixels of {image.spacing_mm:g} mm"] if image.spacing_mm is not None else []),
        *(["as they were stored, not turned"] if image.orientation == "stored" else []),
        *([f"side {image.laterality} only"] if image.laterality is not None else []),
        *([f"views {', '.join(image.views)} only"] if image.views else []),
        *([f"tiles with at least {image.tissue:.0%} of tissue"] if image.tissue else []),
    ]
    return [f"Of these: {'; '.join(words)}."] if words else []
