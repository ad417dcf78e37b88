# SPDX-License-Identifier: Apache-2.0
"""What code that a coordinator ships would try at a hospital whose SuperNode has nothing but the site's socket.

It is told where everything lies, which a real attacker would have to guess. Each attempt gives what it got: "refused ..." with the code or
the system's word for it, or "GOT ..." with what should never have been had.
"""

import contextlib
import os
import pickle
import signal
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
from flwr.app import RecordDict

from client.process import door
from common import wire
from common.errors import FedwardError
from common.news import News
from common.records import FIELDS, to_content, to_envelope
from common.update import Layout, Weights

Attempt = Callable[["Target"], str]


class Target:
    """Where a hospital keeps what it has."""

    def __init__(self, *, home: Path, socket: Path, process: int) -> None:
        self.home, self.socket, self.process = home, socket, process


def images(target: Target) -> str:
    return _first_bytes(target.home / "data")


def prepared_images(target: Target) -> str:
    return ", ".join(os.listdir(target.home / "data"))


def identity_key(target: Target) -> str:
    return _first_bytes(target.home / "identity.key")


def patient_key(target: Target) -> str:
    return _first_bytes(target.home / "patient.key")


def ledger(target: Target) -> str:
    return _first_bytes(target.home / "ledger.jsonl")


def state_of_secure_aggregation(target: Target) -> str:
    return ", ".join(os.listdir(target.home / "fsa1"))


def another_ledger(target: Target) -> str:
    (target.home / "ledger.jsonl").write_bytes(b"")
    return "an empty ledger"


def a_looser_policy(target: Target) -> str:
    (target.home / "policy.toml").write_text("[budget]\neps_total = 1000.0\n")
    return "a policy of its own"


def a_simulated_site(target: Target) -> str:
    with (target.home / "site.toml").open("a") as file:
        file.write('[simulation]\naggregation = "plain"\n')
    return "a site that sends plain updates"


def memory_of_the_site(target: Target) -> str:
    return _first_bytes(Path(f"/proc/{target.process}/mem"))


def environment_of_the_site(target: Target) -> str:
    return _first_bytes(Path(f"/proc/{target.process}/environ"))


def end_of_the_site(target: Target) -> str:
    os.kill(target.process, signal.SIGKILL)
    return "the site process's end"


def a_socket_of_its_own(target: Target) -> str:
    target.socket.unlink()
    return "the socket's place"


def a_raw_delta(target: Target) -> str:
    return _asked(target, wire.TRAIN, wire.encode_train_request(_request()))


def an_unmasked_update(target: Target) -> str:
    return _asked(target, wire.TRAIN_IDEAL, wire.encode_train_request(_request()))


def a_raw_delta_dressed_as_a_step(target: Target) -> str:
    return _asked(target, wire.SECURE["KEYS"], wire.encode_train_request(_request()))


def a_step_that_no_coordinator_signed(target: Target) -> str:
    return _asked(target, wire.SECURE["KEYS"], wire.encode_secure_request(wire.SecureRequest(round=1, control=bytes(700))))


def a_plan_with_a_larger_epsilon(target: Target) -> str:
    return _asked(target, wire.HELLO, wire.encode_hello(wire.Hello(plan="e" * 64)))


def a_plan_that_nobody_signed(target: Target) -> str:
    told = News(roster=b"", plan=b'[plan]\nname = "mine"\n[privacy]\nepsilon = 1000\n', endorsement=b"", signature=bytes(64))
    return _asked(target, wire.NEWS, wire.encode_news(told))


def a_pickle(target: Target) -> str:
    """The socket takes bytes: these would make a file if anything unpickled them."""
    witness = target.socket.parent / "unpickled"

    class Gadget:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, (f"touch '{witness}'",)

    with grpc.insecure_channel(f"unix:{target.socket}") as channel:
        replies = b"".join(channel.stream_stream(door.METHOD)(iter([pickle.dumps(Gadget())]), timeout=20))
    return "a run of its own code" if witness.exists() else _code_in(replies)


ATTEMPTS: tuple[Attempt, ...] = (
    images,
    prepared_images,
    identity_key,
    patient_key,
    ledger,
    state_of_secure_aggregation,
    another_ledger,
    a_looser_policy,
    a_simulated_site,
    memory_of_the_site,
    environment_of_the_site,
    end_of_the_site,
    a_socket_of_its_own,
    a_raw_delta,
    an_unmasked_update,
    a_raw_delta_dressed_as_a_step,
    a_step_that_no_coordinator_signed,
    a_plan_with_a_larger_epsilon,
    a_plan_that_nobody_signed,
    a_pickle,
)


def run_all(target: Target, *, only: tuple[str, ...] = ()) -> dict[str, str]:
    """Every attempt's booty, or that of some."""
    return {attempt.__name__: _tried(attempt, target) for attempt in ATTEMPTS if not only or attempt.__name__ in only}


def _tried(attempt: Attempt, target: Target) -> str:
    try:
        got = attempt(target)
    except (OSError, FedwardError) as error:
        return f"refused {error.code if isinstance(error, FedwardError) else type(error).__name__}"
    return got if got.startswith("refused") else f"GOT {got}"


def _first_bytes(path: Path) -> str:
    if path.is_dir():
        path = next(each for each in path.rglob("*") if each.is_file())
    with path.open("rb") as file:
        return file.read(8).hex()


def _request() -> wire.TrainRequest:
    step = wire.Step(session=bytes(16), round=1, attempt=0, plan="e" * 64)
    return wire.TrainRequest(step=step, weights=Weights(layout=Layout(names=("w",), shapes=((4,),)), values=np.zeros(4, np.float32)))


def _asked(target: Target, message_type: str, content: RecordDict) -> str:
    answer = to_content(door.ask(target.socket, to_envelope(message_type, content), patience_s=60))[FIELDS]
    return f"refused {answer['code']}" if answer["type"] == "refusal" else f"{answer['type']}"


def _code_in(raw: bytes) -> str:
    with contextlib.suppress(FedwardError):
        from common.envelope import open_head

        return f"refused {open_head(raw).fields['code']}"
    return f"{len(raw)} bytes"
