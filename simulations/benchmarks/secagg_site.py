# SPDX-License-Identifier: Apache-2.0
"""What a round of secure aggregation costs a site as it is deployed: from a request's bytes to a reply's, with its state on disk.

    python -m simulations.benchmarks.secagg_site [--sites 10] [--hidden 960] [--rounds 6]

`simulations.benchmarks.secagg` times the protocol, which is pure; here real sites answer a real coordinator in one process, and beside the
protocol stand decoding, the site's record and update on disk (without fsync, as in every simulation), and encoding. Milliseconds are the
processor's, median and least over sites and rounds. KEYS includes the training of one step, whose own time is shown beside it.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from flwr.app import Message
from flwr.supercore.task_identity import TaskIdentity
from rich.console import Console
from rich.table import Table

from client import site as site_module
from client.site import Site
from common import wire
from common.plan import CnnSpec, Plan, digest_of, to_toml
from server.aggregation import Silent
from server.journal import CommittedRound, Journal
from simulations.benchmarks.workload import COORDINATOR, PLAN_FILE, SITES, Workload, prepare
from simulations.federation import Federation

TRAINING = "training"


class Seconds:
    """Processor seconds by what they were spent on."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = {}

    def of(self, what: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same work, timed."""

        def timed(*args: Any) -> Any:
            started = time.process_time()
            result = work(*args)
            self.spent.setdefault(what, []).append(time.process_time() - started)
            return result

        return timed


class Room:
    """A grid whose sites answer in this process, one after another, as soon as they are asked."""

    def __init__(self, sites: list[Site], seconds: Seconds) -> None:
        self._sites, self._seconds = sites, seconds
        self._replies: dict[str, Message] = {}
        self._pushed = 0

    def get_node_ids(self) -> list[int]:
        return list(range(len(self._sites)))

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            self._pushed += 1
            message.metadata.__dict__["_message_id"] = str(self._pushed)
            ids.append(str(self._pushed))
            self._replies[ids[-1]] = self._answer(message)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [self._replies.pop(each) for each in list(message_ids) if each in self._replies]

    def _answer(self, message: Message) -> Message:
        site, kind = self._sites[message.metadata.dst_node_id], message.metadata.message_type
        if kind == wire.HELLO:
            return Message(wire.encode_hello_reply(site.hello(wire.decode_hello(message.content))), reply_to=message)

        def answer() -> Message:
            reply = site.secure(wire.decode_secure_request(message.content, site.layout.size))
            return Message(wire.encode_secure_reply(reply), reply_to=message)

        reply: Message = self._seconds.of(kind, answer)()
        return reply


class _Nobody(Silent):
    """An observer that refuses to measure a round that a site missed."""

    def round_committed(self, done: CommittedRound, weights: Any) -> None:
        if done.missing or done.fallen:
            raise RuntimeError(f"round {done.round} went on without a site")


def measure(num_sites: int, hidden: int, rounds: int, folder: Path) -> tuple[int, dict[str, list[float]]]:
    """Number of values, and processor seconds by message type."""
    work = prepare(folder, num_sites, rounds)
    plan = _sized(work, hidden)
    (folder / PLAN_FILE).write_text(to_toml(plan))
    sites = [Site.open(home, plan) for home in sorted((folder / f"{SITES}-fsa1").iterdir())]
    federation = Federation(
        plan=plan,
        plan_file=folder / PLAN_FILE,
        sites=folder / f"{SITES}-fsa1",
        num_sites=num_sites,
        folder=folder,
        coordinator=folder / f"{COORDINATOR}-fsa1",
    )
    seconds, journal = Seconds(), Journal(folder / "journal.sqlite", plan=digest_of(plan), session=bytes(16), power_cut_safe=False)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 0
    names = vars(site_module)
    train, names["train_locally"] = names["train_locally"], seconds.of(TRAINING, names["train_locally"])
    try:
        room: Any = Room(sites, seconds)
        federation.coordinate(room, journal, _Nobody()).run()
    finally:
        names["train_locally"] = train
        journal.close()
    return sites[0].layout.size, seconds.spent


def _sized(work: Workload, hidden: int) -> Plan:
    """The engine benchmark's plan with one step a round, and a last layer of another width."""
    plan = work.plan
    assert isinstance(plan.model, CnnSpec)
    return replace(plan, model=replace(plan.model, hidden=hidden), training=replace(plan.training, local_epochs=None, local_steps=1))


def main(
    sites: Annotated[int, typer.Option(min=3, help="Sites in the cohort.")] = 10,
    hidden: Annotated[int, typer.Option(min=1, help="Width of the network's last layer: 960 makes a million values.")] = 960,
    rounds: Annotated[int, typer.Option(min=1)] = 6,
) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="fedward-site-") as scratch:
        num_values, spent = measure(sites, hidden, rounds, Path(scratch))
    table = Table(title=f"{sites} sites, {num_values} values: processor ms at one site")
    for name in ("answer to", "median", "least"):
        table.add_column(name, justify="right")
    later = [seconds for kind, seconds in spent.items() if kind not in (wire.SECURE["KEYS"], TRAINING)]
    for kind, seconds in spent.items():
        table.add_row(kind, _ms(statistics.median(seconds)), _ms(min(seconds)))
    table.add_section()
    table.add_row("steps 2 to 5", _ms(sum(statistics.median(seconds) for seconds in later)), _ms(sum(min(seconds) for seconds in later)))
    Console().print(table)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.2f}"


if __name__ == "__main__":
    typer.run(main)
