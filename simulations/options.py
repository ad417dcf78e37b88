# SPDX-License-Identifier: Apache-2.0
"""Options that several commands have. Nothing heavy is imported here: a command's help has to come at once."""

import re
from typing import Annotated

import typer

from client.home import DEVICE_PATTERN


def _device(name: str) -> str:
    if not re.fullmatch(DEVICE_PATTERN, name):
        raise typer.BadParameter(f"'{name}' is no device; choose cpu, cuda, cuda:1 or auto.")
    return name


DeviceOption = Annotated[
    str,
    typer.Option(
        callback=_device, help="What to train and predict on: cpu, cuda (the GPU), cuda:1 (the second), auto (one if there is one)."
    ),
]
