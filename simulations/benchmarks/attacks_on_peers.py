# SPDX-License-Identifier: Apache-2.0
"""Two attacks by a coordinator, run against the installed Flower's SecAgg+ and against FSA1: who falls?

    python -m simulations.benchmarks.attacks_on_peers [--secret-bits 18] [--json FILE]

**The 32-bit mask.** Flower's mask generator folds a 256-bit seed to 32 bits and seeds a Mersenne twister with them
(https://github.com/adap/flower/issues/7522). Whoever guesses the start of an update (a frozen layer's delta is zero) tries all 2^32
seeds and takes the mask off. The search here is reduced: all but `--secret-bits` of the folded seed are given away, and the measured
rate says how long the whole takes. That the rest of the 256 bits do not matter is shown too: another key with the same fold makes
the same mask. Against FSA1 the same search, with the same bits given away, looks for an AES-256 key and meets 256 - 32 further bits.
One mask is attacked here. A vector carries its own, which an honest unmasking tells the coordinator, and one for each neighbour, of which
those that help it (or that it plays itself: Flower's keys are unsigned) tell theirs. With one neighbour left, this search is all there is
to do; with two, the masks are met in the middle; with many left it is no longer cheap.

**Both shares.** Flower's client hands out a share of b for every site that the coordinator calls alive, and of the mask key for every
site that it calls dead, and does not mind a site being both. From a threshold of such answers the coordinator opens every single
update. An FSA1 site takes no list: it knows who survived because a quorum signed it, and it gives one half of each pair of shares.
"""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import flwr
import numpy as np
import typer
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.app.message_type import MessageType
from flwr.client.mod.secure_aggregation.secaggplus_mod import secaggplus_mod
from flwr.common import Code, FitRes, Status, bytes_to_ndarray, ndarrays_to_parameters
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.quantization import quantize
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.compat.common.recorddict_compat import fitres_to_recorddict
from flwr.supercore.primitives.asymmetric import bytes_to_private_key, bytes_to_public_key
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from common.errors import FedwardError
from common.secagg import masks, messages
from common.secagg.coordinator import Inviting
from common.secagg.messages import Step, Survivors
from common.secagg.model import Offer, digest
from common.secagg.quantise import Grid, quantise
from common.secagg.site import Record, handle, join
from common.secagg.terms import VERSION, Chair, Seat, Terms
from simulations.consortium import found

_MODULUS: Final = 1 << 32
_KNOWN: Final = 4
_YEAR_S: Final = 365.25 * 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One attack on one protocol: did it open the update, and what was seen?"""

    attack: str
    target: str
    falls: bool
    evidence: str
    seconds: float


def fold(seed: bytes) -> int:
    """The 32 bits that are left of a seed in Flower's generator."""
    folded = 0
    for i in range(0, len(seed), 4):
        folded ^= int.from_bytes(seed[i : i + 4], "little")
    return folded


def mask_of_flower(secret_bits: int) -> Verdict:
    """Recover one client's update from its masked vector alone, but for the bits given away."""
    seed, update = os.urandom(32), np.random.default_rng().integers(0, 2**22, 64)
    update[:_KNOWN] = 2**21
    masked = (update + pseudo_rand_gen(seed, _MODULUS, [(64,)])[0]) % _MODULUS
    given_away = fold(seed) >> secret_bits << secret_bits
    started = time.perf_counter()
    tried, recovered = 0, None
    for guess in range(given_away, given_away + (1 << secret_bits)):
        tried += 1
        if all((masked[:_KNOWN] - np.random.RandomState(guess).randint(0, _MODULUS - 1, _KNOWN, dtype=np.int64)) % _MODULUS == 2**21):
            mask = np.random.RandomState(guess).randint(0, _MODULUS - 1, 64, dtype=np.int64)
            recovered = (masked - mask) % _MODULUS
            break
    seconds = time.perf_counter() - started
    opened = recovered is not None and np.array_equal(recovered, update)
    twin = bytes(28) + fold(seed).to_bytes(4, "little")
    same = np.array_equal(pseudo_rand_gen(twin, _MODULUS, [(64,)])[0], pseudo_rand_gen(seed, _MODULUS, [(64,)])[0])
    whole = seconds / tried * 2**32 / 3600
    evidence = f"{tried} guesses, all 64 values exact: {opened}; a key of 224 zero bits makes the same mask: {same}; "
    evidence += f"all 2^32: {whole:.0f} core hours"
    return Verdict(attack="32-bit mask", target="Flower SecAgg+", falls=opened and same, evidence=evidence, seconds=seconds)


def mask_of_fsa1(secret_bits: int) -> Verdict:
    """The same search, over the key's low 32 bits with the same share of them given away: the other 224 bits are in the way."""
    key = os.urandom(32)
    body: masks.Body = np.zeros(64, dtype=np.uint32)
    masks.apply([masks.Mask(key)], body=body, tail=np.zeros(3, np.uint32))
    folded = fold(key)
    given_away = folded >> secret_bits << secret_bits
    started = time.perf_counter()
    hits = 0
    for guess in range(given_away, given_away + (1 << secret_bits)):
        tried: masks.Body = np.zeros(_KNOWN, dtype=np.uint32)
        masks.apply([masks.Mask(bytes(28) + guess.to_bytes(4, "little"))], body=tried, tail=np.zeros(3, np.uint32))
        hits += bool(np.array_equal(tried, body[:_KNOWN]))
    seconds = time.perf_counter() - started
    years = seconds / 2**secret_bits * 2.0**256 / _YEAR_S
    evidence = f"{2**secret_bits} guesses, {hits} hits; no shorter seed exists, all 2^256: {years:.0e} core years"
    return Verdict(attack="32-bit mask", target="FSA1", falls=bool(hits), evidence=evidence, seconds=seconds)


class _FlowerClient:
    """One SecAgg+ client: the installed mod, its state, and an update."""

    def __init__(self, node_id: int, update: NDArray[np.float64]) -> None:
        self.node_id, self.update = node_id, update
        self.context = Context(run_id=1, node_id=node_id, node_config={}, state=RecordDict(), run_config={})

    def ask(self, stage: str, **configs: Any) -> dict[str, Any]:
        content = RecordDict({RECORD_KEY_CONFIGS: ConfigRecord({Key.STAGE: stage, **configs})})
        message = Message(content, dst_node_id=self.node_id, message_type=MessageType.TRAIN)
        reply = secaggplus_mod(message, self.context, self._train)
        return dict(reply.content.config_records[RECORD_KEY_CONFIGS])

    def _train(self, message: Message, _context: Context) -> Message:
        result = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([self.update]), num_examples=1, metrics={})
        return Message(fitres_to_recorddict(result, keep_input=False), reply_to=message)


def pose_as_a_task() -> None:
    """Flower makes messages only inside one of its tasks, and asks these three numbers."""
    TaskIdentity.node_id, TaskIdentity.task_id, TaskIdentity.run_id = 1, 1, 1


def shares_of_flower(num_clients: int = 5, threshold: int = 3) -> Verdict:
    """An honest round, but for the last request: everybody is alive, and everybody is dead. Then every update is opened."""
    started = time.perf_counter()
    rng = np.random.default_rng()
    clients = {i: _FlowerClient(i, rng.choice([-1.0, 1.0], 32) * 4.0) for i in range(1, num_clients + 1)}
    setup = {
        Key.SAMPLE_NUMBER: num_clients,
        Key.SHARE_NUMBER: num_clients,
        Key.THRESHOLD: threshold,
        Key.CLIPPING_RANGE: 8.0,
        Key.TARGET_RANGE: 1 << 22,
        Key.MOD_RANGE: _MODULUS,
        Key.MAX_WEIGHT: 1.0,
    }
    keys = {i: client.ask(Stage.SETUP, **setup) for i, client in clients.items()}
    public = {str(i): [said[Key.PUBLIC_KEY_1], said[Key.PUBLIC_KEY_2]] for i, said in keys.items()}
    shared = {i: client.ask(Stage.SHARE_KEYS, **public) for i, client in clients.items()}
    masked = {}
    for i, client in clients.items():
        sealed = {j: dict(zip(said[Key.DESTINATION_LIST], said[Key.CIPHERTEXT_LIST], strict=True)).get(i) for j, said in shared.items()}
        mine = {j: cipher for j, cipher in sealed.items() if cipher is not None}
        said = client.ask(Stage.COLLECT_MASKED_VECTORS, **{Key.CIPHERTEXT_LIST: list(mine.values()), Key.SOURCE_LIST: list(mine)})
        masked[i] = [bytes_to_ndarray(raw) for raw in said[Key.MASKED_PARAMETERS]]
    everybody = list(clients)
    request = {Key.ACTIVE_NODE_ID_LIST: everybody, Key.DEAD_NODE_ID_LIST: everybody}
    answers = [clients[i].ask(Stage.UNMASK, **request)[Key.SHARE_LIST] for i in everybody[:threshold]]
    opened = sum(_opens(i, position, answers, masked[i], keys, clients[i].update) for position, i in enumerate(everybody))
    evidence = f"every client answered the contradictory request; {opened} of {num_clients} updates opened one by one"
    return Verdict(
        attack="both shares", target="Flower SecAgg+", falls=opened > 0, evidence=evidence, seconds=time.perf_counter() - started
    )


def _opens(
    node_id: int, position: int, answers: list[Any], masked: list[NDArray[Any]], keys: dict[int, dict[str, Any]], truth: NDArray[np.float64]
) -> bool:
    """Take one client's masks off with what a threshold of peers handed out, and compare with its update."""
    seed = combine_shares([answer[position] for answer in answers])
    private = combine_shares([answer[len(keys) + position] for answer in answers])
    factor, vector = masked
    shapes = [factor.shape, vector.shape]
    total = [factor - pseudo_rand_gen(seed, _MODULUS, shapes)[0], vector - pseudo_rand_gen(seed, _MODULUS, shapes)[1]]
    for peer, said in keys.items():
        if peer == node_id:
            continue
        key = generate_shared_key(bytes_to_private_key(private), bytes_to_public_key(said[Key.PUBLIC_KEY_1]))
        sign = 1 if node_id > peer else -1
        total = [part - sign * mask for part, mask in zip(total, pseudo_rand_gen(key, _MODULUS, shapes), strict=True)]
    expected = quantize([truth], 8.0, 1 << 22)[0].astype(np.int64)
    return bool(np.array_equal(total[1] % _MODULUS, expected % _MODULUS))


def shares_of_fsa1(num_sites: int = 5) -> Verdict:
    """The same coordinator: a round up to the confirmed survivors, then other survivors, to get the other half of the shares."""
    started = time.perf_counter()
    chair, seats, tag = _table(num_sites)
    records = {name: Record() for name in seats}

    first = np.zeros(32, np.float32)

    def tell(name: str, control: bytes) -> bytes:
        outcome = handle(seats[name], records[name], control, now=0, offer=Offer(values=first, initial=first, reference=None))
        if outcome.reply is None:
            delta = np.full(32, 0.1, np.float32)
            outcome = join(seats[name], outcome.record, quantise(delta, seats[name].terms.grid, weight=1))
        records[name] = outcome.record
        assert outcome.reply is not None
        return outcome.reply

    inviting = Inviting(chair=chair, tag=tag)
    sharing, cohort = inviting.agree({s: tell(s, inviting.header) for s in seats}, now=0)
    masking, deliveries = sharing.route({s: tell(s, cohort) for s in seats})
    confirming, survivors = masking.survive({s: tell(s, deliveries[s]) for s in seats})
    _, quorum = confirming.quorum({s: tell(s, survivors) for s in seats})
    names = sorted(seats)
    lies = [messages.down(chair.signer, tag, Step.CONFIRM, Survivors(site_ids=tuple(s for s in names if s != dead))) for dead in names]
    second_halves, codes = 0, set()
    for order in (lies, [quorum], lies):
        for control in order:
            for name in names:
                try:
                    tell(name, control)
                    second_halves += control != quorum
                except FedwardError as refusal:
                    codes.add(refusal.code)
    evidence = f"the release says no list; {2 * len(lies) * num_sites} requests for other survivors, "
    evidence += f"{second_halves} answered: {', '.join(sorted(codes))}"
    return Verdict(attack="both shares", target="FSA1", falls=second_halves > 0, evidence=evidence, seconds=time.perf_counter() - started)


def _table(num_sites: int) -> tuple[Chair, dict[str, Seat], messages.RoundTag]:
    names, layout = [f"site-{i}" for i in range(num_sites)], bytes(32)
    consortium = found(names, entropy=os.urandom, now=0)
    initial = digest(np.zeros(32, np.float32), layout)
    terms = Terms(
        plan=bytes(32),
        layout=layout,
        num_values=32,
        model_layout=layout,
        model_size=32,
        initial_model=initial,
        members=frozenset(names),
        grid=Grid.for_cohort(num_sites, coordinate_range=1.0),
        max_norm=1.0,
        step_norm=1.0,
        max_cohort=num_sites,
        rounds=range(1, 2),
    )
    seats = {s: Seat(site_id=s, signer=consortium.sites[s], terms=terms, roster=consortium.roster, entropy=os.urandom) for s in names}
    tag = messages.RoundTag(
        version=VERSION,
        ring_bits=32,
        plan=bytes(32),
        roster=consortium.roster.digest,
        session=os.urandom(16),
        round=1,
        attempt=0,
        model=initial,
        layout=layout,
    )
    return Chair(signer=consortium.coordinator, terms=terms, roster=consortium.roster), seats, tag


def main(
    secret_bits: Annotated[int, typer.Option(min=8, max=32, help="Bits of the folded seed that the search must find.")] = 18,
    file: Annotated[Path | None, typer.Option("--json", help="Also write the verdicts here.")] = None,
) -> None:
    """Attack both, and print who falls."""
    pose_as_a_task()
    verdicts = [mask_of_flower(secret_bits), mask_of_fsa1(min(secret_bits, 16)), shares_of_flower(), shares_of_fsa1()]
    table = Table(title=f"A malicious coordinator against Flower {flwr.__version__} and FSA1", show_lines=True)
    for column in ("attack", "target", "verdict", "what was seen", "s"):
        table.add_column(column)
    for each in verdicts:
        verdict = "[red]falls[/red]" if each.falls else "[green]holds[/green]"
        table.add_row(each.attack, each.target, verdict, each.evidence, f"{each.seconds:.1f}")
    Console(width=max(Console().width, 120)).print(table)
    if file:
        file.write_text(json.dumps([asdict(each) for each in verdicts], indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
