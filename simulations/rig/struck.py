# SPDX-License-Identifier: Apache-2.0
"""The honest ClientApp, which one order may kill at a failpoint, and which keeps its own count of what it trained.

The order is a file: which site, in which round and step, at which failpoint. Whoever matches it takes it away first, so that it is
carried out once; a site that outlives it says so, because a failpoint that was not reached has shown nothing. Another file may set the
clocks of sites wrong (`set_clocks`), and another repeat every message to them (`repeat_messages`).

The count is the second half of an argument about the ledger: each training writes a line to a file of its own before it begins, from
what it was really given (patients, steps, noise), and never looks at the ledger. The file is written by the worker, not by the site.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client import app as honest
from client import site
from client.imaging.dataset import Dataset
from client.process import embedded
from client.training import LocalWork
from client.training.units import units_of
from common import failpoints, wire
from common.plan import Plan, load
from common.privacy import round_charge
from common.update import Weights

APP: Final = "simulations.rig.struck:app"
ORDER_FILE: Final = "order.json"
OUTLIVED_FILE: Final = "outlived"
CLOCKS_FILE: Final = "clocks.json"
REPEATS_FILE: Final = "repeats"
TRAININGS_FILE: Final = "trainings.jsonl"
WARM_VARIABLE: Final = "FEDWARD_RIG_WARM"
WARM_UNITS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Kill `site` in `round` when it comes to `failpoint` for the `nth` time while it answers `step`."""

    site: str
    round: int
    step: str
    failpoint: str
    nth: int = 1

    def give(self, folder: Path) -> None:
        (folder / ORDER_FILE).write_text(json.dumps(asdict(self)))


def _warm() -> None:
    """Work a plan's noise out before workers are forked: each of them would do it again, and a sweep has thousands."""
    if plan := os.environ.get(WARM_VARIABLE):
        round_charge(load(Path(plan)), WARM_UNITS)


_warm()


def set_clocks(folder: Path, ahead_s: Mapping[str, float]) -> None:
    """Sites whose clocks go wrong, by so many seconds, in a run folder's federation."""
    (folder / CLOCKS_FILE).write_text(json.dumps(dict(ahead_s)))


def repeat_messages(folder: Path, times: int) -> None:
    """From now on every site hears every message so often, and answers the last of them."""
    (folder / REPEATS_FILE).write_text(str(times))


app = ClientApp()


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """As an honest site."""
    return honest.hello(message, context)


def secure(message: Message, context: Context) -> Message:
    """Die as ordered, else answer honestly; what is trained meanwhile is counted."""
    home = embedded.home_of(context.node_config)
    folder = home.parent.parent
    with (
        _counted(folder / TRAININGS_FILE, home.name, message),
        _clock_of(folder / CLOCKS_FILE, home.name),
        _armed(folder, home.name, message),
    ):
        for _ in range(_repeats(folder / REPEATS_FILE)):
            honest.secure(message, context)
        return honest.secure(message, context)


_STEP_OF: Final = {message_type: step for step, message_type in wire.SECURE.items()}
for message_type in _STEP_OF:
    category, _, action = message_type.partition(".")
    (app.train if category == "train" else app.query)(action)(secure)


@contextmanager
def _armed(folder: Path, name: str, message: Message) -> Iterator[None]:
    file = folder / ORDER_FILE
    order = _read(file)
    if order is None or (order.site, order.round, order.step) != (
        name,
        message.content["fedward"]["round"],
        _STEP_OF[message.metadata.message_type],
    ):
        yield
        return
    file.unlink()
    os.environ[failpoints.VARIABLE] = f"{order.failpoint}:{failpoints.so_far(order.failpoint) + order.nth}"
    try:
        yield
    finally:
        del os.environ[failpoints.VARIABLE]
        (folder / OUTLIVED_FILE).touch()


@contextmanager
def _clock_of(file: Path, name: str) -> Iterator[None]:
    """What this process takes for the time, while it is that site."""
    ahead_s = json.loads(file.read_text()).get(name, 0.0) if file.exists() else 0.0
    rightly = time.time
    vars(time)["time"] = lambda: rightly() + ahead_s
    try:
        yield
    finally:
        vars(time)["time"] = rightly


def _repeats(file: Path) -> int:
    return int(file.read_text()) - 1 if file.exists() else 0


def _read(file: Path) -> Order | None:
    try:
        return Order(**json.loads(file.read_text()))
    except FileNotFoundError:
        return None


@contextmanager
def _counted(file: Path, name: str, message: Message) -> Iterator[None]:
    """Whatever is trained within this is written down before it begins."""
    names = vars(site)
    honestly = {kind: names[kind] for kind in ("train_locally", "noised_sum")}

    def counting(train: Callable[..., Any]) -> Callable[..., Any]:
        def counted(weights: Weights, data: Dataset, plan: Plan, work: LocalWork) -> object:
            line = {
                "site": name,
                "round": message.content["fedward"]["round"],
                "units": len(units_of(data, plan)),
                "steps": work.steps,
                "noise_multiplier": work.noise_multiplier,
            }
            with file.open("a") as out:
                out.write(json.dumps(line) + "\n")
            return train(weights, data, plan, work)

        return counted

    names.update({kind: counting(train) for kind, train in honestly.items()})
    try:
        yield
    finally:
        names.update(honestly)
