# SPDX-License-Identifier: Apache-2.0
"""Writes tests/vectors/fsa1/v1 anew: `python -m tests.vectors.fsa1.generate`.

Vectors are made once, by the implementation in `common`, and committed; from then on they are the protocol. A change that alters them
is a new protocol version, and writes a new folder. Randomness is in the file as the stream that each site drew from, in the order in
which it drew.
"""

import json
import random
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common import canonical, roster
from common.errors import FedwardError
from common.secagg import field as gf
from common.secagg import keys, messages, shamir
from common.secagg.coordinator import Inviting
from common.secagg.groups import partition
from common.secagg.masks import Body, Mask, apply
from common.secagg.messages import Step
from common.secagg.model import Offer
from common.secagg.quantise import Grid, QuantisedUpdate, quantise
from common.secagg.site import Outcome, Record, handle, join
from common.secagg.stages import Invited
from common.secagg.terms import VERSION, Kind, Seat, Terms, threshold
from tests.attacks import lies_about_kinds, lies_about_survivors, lies_about_the_cohort, lies_in_headers
from tests.attacks.lies import ATTACKS, Lie
from tests.common.secagg.federation import NOW, Federation, federation

FOLDER = Path(__file__).parent / "v1"
LIES = (lies_in_headers, lies_about_kinds, lies_about_the_cohort, lies_about_survivors)


@dataclass(kw_only=True)
class Recorded(Federation):
    """A federation that notes what every site was told, and what randomness it drew."""

    draws: dict[str, list[bytes]] = field(default_factory=dict)
    events: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def tell(self, site_id: str, control: bytes, *, now: int = NOW, offer: Offer | None = None) -> Outcome:
        self.events.setdefault(site_id, []).append({"down": control.hex()})
        return super().tell(site_id, control, now=now, offer=offer)

    def train(self, site_id: str) -> QuantisedUpdate:
        update = super().train(site_id)
        self.events[site_id].append({"join": update.body.view(self.terms.grid.signed_word).tolist()})
        return update


def recorded(**table: Any) -> Recorded:
    f = federation(**table)
    r = Recorded(**{name: getattr(f, name) for name in f.__dataclass_fields__})
    for site_id, seat in f.seats.items():
        r.draws[site_id] = []
        r.seats[site_id] = replace(seat, entropy=_noting(seat.entropy, r.draws[site_id]))
    return r


def _noting(entropy: shamir.Entropy, drawn: list[bytes]) -> shamir.Entropy:
    def noted(size: int) -> bytes:
        drawn.append(entropy(size))
        return drawn[-1]

    return noted


def terms_of(seat: Seat) -> dict[str, Any]:
    terms = seat.terms
    return {
        "plan": terms.plan.hex(),
        "model_layout": terms.model_layout.hex(),
        "model_size": terms.model_size,
        "initial_model": terms.initial_model.hex(),
        "members": sorted(terms.members),
        "step_norm": terms.step_norm,
        "max_cohort": terms.max_cohort,
        "min_cohort": terms.min_cohort,
        "noise_quorum": terms.noise_quorum,
        "versions": sorted(terms.versions),
        **_summed(terms),
        "beside": [_summed(each) for each in seat.beside],
    }


def _summed(terms: Terms) -> dict[str, Any]:
    """What is each kind's own."""
    return {
        "kind": int(terms.kind),
        "layout": terms.layout.hex(),
        "num_values": terms.num_values,
        "ring_bits": terms.grid.ring_bits,
        "bits": terms.grid.bits,
        "coordinate_range": terms.grid.coordinate_range,
        "max_weight": terms.grid.max_weight,
        "max_norm": terms.max_norm,
        "rounds": [terms.rounds.start, terms.rounds.stop, terms.rounds.step],
    }


def site_of(f: Recorded, site_id: str) -> dict[str, Any]:
    update = f.updates.get(site_id)
    return {
        "seed": f.seats[site_id].signer.seed.hex(),
        "draws": b"".join(f.draws[site_id]).hex(),
        "weight": update.weight if update else 1,
        "update": update.body.view(f"i{update.body.itemsize}").tolist() if update else [0] * f.terms.num_values,
    }


def offer_of(offer: Offer) -> dict[str, Any]:
    reference = offer.reference
    return {
        "values": offer.values.tobytes().hex(),
        "initial": offer.initial.tobytes().hex(),
        "reference": reference.values.tobytes().hex() if reference else None,
        "reference_round": reference.round if reference else None,
    }


def transcript(title: str, drops: dict[int, list[str]], *, kind: Kind = Kind.UPDATE, **table: Any) -> dict[str, Any]:
    """A whole round, byte for byte."""
    f = recorded(**table)
    if kind is not Kind.UPDATE:
        f.turn_to(kind)
    result = f.run(drops=drops)
    header = Inviting(chair=f.chair, tag=f.tag).header
    told = {s: {_step(e["down"]): e["down"] for e in f.events[s] if "down" in e} for s in f.events}
    return {
        "title": title,
        "now": NOW,
        "roster": f.consortium.signed_roster.decode(),
        "root": f.consortium.root.seed.hex(),
        "coordinator_seed": f.chair.signer.seed.hex(),
        "terms": terms_of(f.seats[f.site_ids[0]]),
        "kind": int(f.kind),
        "round": f.tag.round,
        "offer": offer_of(f.offer()),
        "session": f.tag.session.hex(),
        "header": header.hex(),
        "sites": {s: site_of(f, s) for s in f.site_ids},
        "down": told,
        "up": {s: {a.step.name: a.reply.hex() for a in f.records[s].answers} for s in told},
        "vectors": {s: v.tobytes().hex() for s, v in f.vectors.items()},
        "sum": result.body.view(f.terms.grid.signed_word).tolist(),
        "total_weight": result.total_weight,
        "survivors": list(result.survivors),
    }


def _step(control: str) -> str:
    return Step(int.from_bytes(bytes.fromhex(control)[20:28], "big")).name


def refusal(name: str) -> dict[str, Any] | None:
    """A lie, with all that its victim heard before; None where the lie needs more than messages (an exchanged file, an update)."""
    attack = ATTACKS[name]
    f = recorded(**attack.table)
    lie = attack.prepare(f)
    events = list(f.events.get(lie.victim, []))
    vector = {
        "title": name,
        "error": attack.code,
        "now": lie.now,
        "roster": _signed_roster(f, f.seats[lie.victim]),
        "terms": terms_of(f.seats[lie.victim]),
        "site": lie.victim,
        **site_of(f, lie.victim),
        "offer": offer_of(f.offer()),
        "history": events,
        "message": lie.control.hex(),
        "message_offer": offer_of(lie.offer or f.offer()),
    }
    return vector if lie.update is None and _replays(f, lie, events, attack.code) else None


def _signed_roster(f: Recorded, seat: Seat) -> str:
    return roster.sign(roster.render(seat.roster), root_seed=f.consortium.root.seed).decode()


def _replays(f: Recorded, lie: Lie, events: list[dict[str, Any]], code: str) -> bool:
    """Whether messages alone bring a fresh site to the refusal."""
    drawn = iter(f.draws[lie.victim])
    seat = replace(f.seats[lie.victim], entropy=lambda _: next(drawn))
    record = federation(num_sites=3).records["site-000"]
    try:
        for event in events:
            step = join(seat, record, _update(record, event["join"], f, lie.victim)) if "join" in event else None
            record = (step or handle(seat, record, bytes.fromhex(event["down"]), now=NOW, offer=f.offer())).record
    except FedwardError:
        return False
    try:
        handle(seat, record, lie.control, now=lie.now, offer=lie.offer or f.offer())
    except FedwardError as error:
        return error.code == code
    return False


def _update(record: Record, words: list[int], f: Federation, site_id: str) -> QuantisedUpdate:
    assert isinstance(record.stage, Invited)
    grid = f.seats[site_id].turned_to(record.stage.kind).terms.grid
    member = f.consortium.roster.find(site_id)
    assert member is not None
    return QuantisedUpdate(body=np.array(words, dtype=grid.signed_word).view(grid.word), weight=member.weight)


def _interesting(r: float, step: float) -> NDArray[np.float32]:
    ties = [half * step for half in (0.5, 1.5, -2.5)]
    return np.array([0, r, -r, 2 * r, r / 3, -r / 7, 1e-9, r * 2**-24, *ties], dtype=np.float32)


def _always(drawn: bytes, _size: int) -> bytes:
    return drawn


def primitives() -> list[dict[str, Any]]:
    rng = random.Random(1)
    out: list[dict[str, Any]] = []

    def add(kind: str, **values: Any) -> None:
        out.append({"id": f"{kind}-{sum(v['kind'] == kind for v in out)}", "kind": kind, **values})

    for size, ring_bits in ((1, 32), (5, 32), (70000, 32), (1, 16), (7, 16), (140001, 16)):
        key = rng.randbytes(32)
        body: Body = np.zeros(size, np.uint32) if ring_bits == 32 else np.zeros(size, np.uint16)
        tail = np.zeros(3, np.uint32)
        apply([Mask(key)], body=body, tail=tail)
        digest = canonical.digest(tail.tobytes(), body.tobytes()).hex()
        add("mask", key=key.hex(), ring_bits=ring_bits, count=size, tail=tail.tolist(), head=body[:4].tolist(), digest=digest)
    for t, n in ((1, 1), (2, 3), (7, 10), (34, 50)):
        secret, drawn = rng.randbytes(32), rng.randbytes(48 * (t - 1))
        shares = shamir.share(secret, threshold=t, count=n, entropy=partial(_always, drawn))
        add("shamir", secret=secret.hex(), threshold=t, count=n, draws=drawn.hex(), shares=[gf.to_bytes(s).hex() for s in shares])
    add(
        "shamir",
        secret="ff" * 32,
        threshold=2,
        count=3,
        draws="ff" * 48,
        shares=[gf.to_bytes(s).hex() for s in shamir.share(b"\xff" * 32, threshold=2, count=3, entropy=lambda size: b"\xff" * size)],
    )
    for label, ids in ((b"FSA1 self mask", ("a",)), (b"FSA1 pair mask", ("a", "b")), (b"FSA1 share", ("north", "south"))):
        secret, salt = rng.randbytes(32), rng.randbytes(32)
        derived = keys.derive(secret, transcript=salt, label=label, ids=ids)
        add("derive", secret=secret.hex(), transcript=salt.hex(), label=label.decode(), ids=ids, key=derived.hex())
    for cohort, r, w, top in ((10, 1.0, 1, 1), (256, 0.125, 3, 4), (300, 2.0, 1, 1)):
        grid = Grid.for_cohort(cohort, coordinate_range=r, max_weight=top)
        values = np.array(
            [0, r, -r, 2 * r, r / 3, -r / 7, 1e-9, r * 2**-24, 0.5 * grid.step, 1.5 * grid.step, -2.5 * grid.step], dtype=np.float32
        )
        words = quantise(values, grid, weight=w).body.view(np.int32).tolist()
        add(
            "quantise",
            cohort=cohort,
            bits=grid.bits,
            coordinate_range=r,
            weight=w,
            max_weight=top,
            values=values.tobytes().hex(),
            words=words,
        )
    for _ in range(2):
        a, b = rng.randbytes(32), rng.randbytes(32)
        shared = keys.AgreementKey.load(a).agree(keys.agreement_public(b))
        add("agree", private=a.hex(), peer_private=b.hex(), peer_public=keys.agreement_public(b).hex(), shared=(shared or b"").hex())
    key, nonce, transcript_ = rng.randbytes(32), rng.randbytes(12), rng.randbytes(32)
    plain = rng.randbytes(66)
    add(
        "seal",
        key=key.hex(),
        nonce=nonce.hex(),
        transcript=transcript_.hex(),
        plaintext=plain.hex(),
        sealed=keys.seal(key, plain, nonce=nonce, transcript=transcript_).hex(),
    )
    add("canary", transcript=transcript_.hex(), word=messages.canary(transcript_))
    add("seed_commitment", transcript=transcript_.hex(), seed=key.hex(), commitment=messages.seed_commitment(transcript_, key).hex())
    update = QuantisedUpdate(body=np.array([1, 2**32 - 1, 7], dtype=np.uint32), weight=3)
    add("commitment", salt=key.hex(), words=[1, 2**32 - 1, 7], weight=3, commitment=update.commitment(key).hex())
    add("thresholds", table={str(n): threshold(n) for n in (3, 4, 5, 7, 10, 20, 50, 200)})
    names = [f"site-{i}" for i in range(11)]
    add("groups", names=names, epoch=7, max_group=4, groups=[sorted(g) for g in partition(names, epoch=7, max_group=4)])
    seed = rng.randbytes(32)
    add(
        "sign",
        seed=seed.hex(),
        public=keys.SigningKey(seed).public.hex(),
        message="46534131",
        signature=keys.SigningKey(seed).sign(b"FSA1").hex(),
    )
    return out


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.glob("*.json"):
        old.unlink()
    _write("primitives", primitives())
    site = [f"site-{i:03d}" for i in range(10)]
    rounds = {
        "three_sites": transcript("nobody falls out", {}, num_sites=3, num_values=9),
        "five_sites_one_falls_before_masking": transcript("one falls before masking", {3: site[1:2]}, num_sites=5, num_values=6),
        "five_sites_one_falls_after_masking": transcript("one falls after masking", {4: site[4:5]}, num_sites=5, num_values=6),
        "ten_sites_most_drops": transcript(
            "one falls at each of three steps", {2: site[:1], 3: site[3:4], 5: site[9:]}, num_sites=10, num_values=5
        ),
        "ten_sites_three_fall_before_masking": transcript("three fall before masking", {3: site[4:7]}, num_sites=10, num_values=5),
        "five_sites_weighted": transcript(
            "five sites with weights", {3: site[:1]}, num_sites=5, num_values=6, weights={"site-001": 4, "site-002": 2}, max_weight=4
        ),
        "three_sites_evaluation": transcript("three sites judge a model", {}, num_sites=3, num_values=9, kind=Kind.EVAL),
        "five_sites_evaluation_beside_short_words": transcript(
            "five sites judge a model whose updates have 16-bit words",
            {3: site[:1]},
            num_sites=5,
            num_values=9,
            ring_bits=16,
            kind=Kind.EVAL,
        ),
        "five_sites_statistic": transcript("five sites count", {4: site[2:3]}, num_sites=5, num_values=9, kind=Kind.STAT),
        "five_sites_bandwidth_mode": transcript("five sites, 16-bit words", {3: site[2:3]}, num_sites=5, num_values=7, ring_bits=16),
    }
    for name, vector in rounds.items():
        _write(f"round_{name}", vector)
    for name in ATTACKS:
        if bad := refusal(name):
            _write(f"bad_{name}", bad)
    print(f"{len(list(FOLDER.glob('bad_*')))} refusals, {len(rounds)} rounds, {len(primitives())} primitives")  # noqa: T201 # a command


def _write(name: str, value: Any) -> None:
    (FOLDER / f"{name}.json").write_text(json.dumps(value, indent=1) + "\n")


assert VERSION == 1, "a new version writes a new folder"

if __name__ == "__main__":
    main()
