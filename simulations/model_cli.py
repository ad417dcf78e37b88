# SPDX-License-Identifier: Apache-2.0
"""`fedward model`: what is done to a model before a federation trains it, and after."""

import hashlib
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from common.errors import DataNotFound, ModelLayout, RunFolderTaken
from simulations.cli import cores, print_json

model = typer.Typer(no_args_is_help=True, help="Bring a network that was trained elsewhere; make a trained one smaller.")
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


class Source(StrEnum):
    """Layouts that are understood."""

    RESNET_18 = "torchvision-resnet18"
    RESNET_50 = "torchvision-resnet50"


@model.command()
def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE.safetensors", help="The weights, as torchvision (or timm's *_gn) names them.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="The file to write; it must not exist yet.")],
    source: Annotated[Source, typer.Option("--from", help="Whose network it is.")] = Source.RESNET_50,
    as_json: Json = False,
) -> None:
    """Turn a ResNet's weights into a file that a plan may start from, and print the [model] section that names it.

    BatchNorm's statistics become constants of the convolutions before it; the classifier is left out. Nothing is fetched.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load, save

    from common.durable import write_atomically
    from common.models.backbone import Backbone
    from common.models.conversion import Architecture, from_torchvision
    from common.plan import BackboneSpec, InputSpec

    if not file.is_file():
        raise DataNotFound(f"there is no file '{file}'.", fix="Give the weights as a .safetensors file.")
    if out.exists():
        raise RunFolderTaken(f"'{out}' exists already.", fix="Choose another name; a plan may rest on that file.")
    try:
        tensors = load(file.read_bytes())
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise ModelLayout(
            f"'{file.name}' is no safetensors file of 16- or 32-bit floats ({type(error).__name__}).",
            fix="Save the weights with safetensors; a .pth file can run code when it is opened, and is not.",
        ) from error
    converted = from_torchvision(tensors)
    raw = save(converted.tensors)
    architecture: Architecture = "resnet18" if source is Source.RESNET_18 else "resnet50"
    spec = BackboneSpec(
        family="backbone",
        architecture=architecture,
        weights=out.name,
        weights_digest=hashlib.sha256(raw).hexdigest(),
        norm=converted.norm,
        width=converted.width,
    )
    Backbone(spec, InputSpec(modality="any", height=64, width=64), 1).furnish(converted.tensors)  # does the file fit?
    write_atomically(out, raw, fsync=True)
    said = {
        "family": "backbone",
        "architecture": architecture,
        "norm": spec.norm,
        "width": spec.width,
        "weights": spec.weights,
        "weights_digest": spec.weights_digest,
    }
    if as_json:
        print_json({"model": said})
        return
    lines = "\n".join(f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}" for key, value in said.items())
    Console().print(f"[model]\n{lines}".replace("[", r"\["), highlight=False, soft_wrap=True)
    Console(stderr=True).print(f"wrote {out}. Every site and the coordinator need it in their folder 'weights'.", highlight=False)


@model.command()
def prune(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder with model.safetensors and model.json, such as a run folder.")],
    data: Annotated[Path, typer.Option(help="Folder of labelled images to measure the cost on; patients whom nobody trained on.")],
    keep: Annotated[float, typer.Option(min=0.01, max=1.0, help="The share of weights that stays.")] = 0.3,
    out: Annotated[Path | None, typer.Option(help="Write the smaller model here, with a card of its own.")] = None,
    resamples: Annotated[int, typer.Option(min=0, help="Patient resamples behind the 95 % intervals.")] = 1000,
    as_json: Json = False,
) -> None:
    """Set a model's smallest weights to zero, and show what that costs at several levels. Costs no privacy: the model is all it looks at.

    The data stay here; the scores are shown and, with --out, written into the smaller model's card.
    """
    from simulations.pruning import prune_folder, rows
    from simulations.show import Show

    if out is not None and out.exists():
        raise RunFolderTaken(f"'{out}' exists already.", fix="Choose another folder; models are not overwritten.")
    with Show(Console(stderr=True, quiet=as_json)) as show:
        found = prune_folder(run, data, keep, resamples=resamples, workers=cores(), progress=show.step)
    if out is not None:
        out.mkdir(parents=True)
        found.write(out)
    if as_json:
        print_json(found.as_dict())
        return
    table = Table(title=f"pruned, on {found.cases} cases")
    for heading in ("kept", "numbers left", f"{found.levels[0].score.name} (95 %)", "change"):
        table.add_column(heading, justify="right")
    for row, level in zip(rows(found.levels), found.levels, strict=True):
        table.add_row(*row, style="bold" if level.keep == keep else "")
    Console().print(table)
    if out is not None:
        Console().print(f"model    {out / 'model.safetensors'}", highlight=False)
