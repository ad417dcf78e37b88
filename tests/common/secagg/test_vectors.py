# SPDX-License-Identifier: Apache-2.0
"""The recorded protocol, byte for byte, against two implementations: the one in `common` and the slow one in `second`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Crypto.Cipher import AES

from common import canonical, roster
from common.errors import FedwardError
from common.roster import Roots
from common.secagg import field, groups, keys, masks, messages, quantise, shamir, terms
from common.secagg.coordinator import Inviting
from common.secagg.masks import Body
from common.secagg.messages import RoundTag, Step
from common.secagg.model import Offer, Reference
from common.secagg.quantise import Grid, QuantisedUpdate
from common.secagg.site import Outcome, Record, handle, join
from common.secagg.stages import Invited
from common.secagg.terms import Chair, Kind, Seat, Terms
from common.secagg.unmask import open_sum
from tests.common.secagg import second

FOLDER = Path(__file__).parents[2] / "vectors" / "fsa1" / "v1"
PRIMITIVES: list[dict[str, Any]] = json.loads((FOLDER / "primitives.json").read_text())
ROUNDS = sorted(path.stem for path in FOLDER.glob("round_*.json"))
REFUSALS = sorted(path.stem for path in FOLDER.glob("bad_*.json"))


def load(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


# `common` against the vectors.


def terms_from(v: dict[str, Any]) -> Terms:
    """The terms of updates; with those of a kind beside them put over, the terms of that."""
    grid = Grid(ring_bits=v["ring_bits"], bits=v["bits"], coordinate_range=v["coordinate_range"], max_weight=v["max_weight"])
    return Terms(
        kind=Kind(v["kind"]),
        plan=unhex(v["plan"]),
        layout=unhex(v["layout"]),
        num_values=v["num_values"],
        model_layout=unhex(v["model_layout"]),
        model_size=v["model_size"],
        initial_model=unhex(v["initial_model"]),
        members=frozenset(v["members"]),
        grid=grid,
        max_norm=v["max_norm"],
        step_norm=v["step_norm"],
        max_cohort=v["max_cohort"],
        rounds=range(*v["rounds"]),
        min_cohort=v["min_cohort"],
        noise_quorum=v["noise_quorum"],
        versions=frozenset(v["versions"]),
    )


def stream(draws: str) -> shamir.Entropy:
    data = bytearray(unhex(draws))

    def entropy(size: int) -> bytes:
        drawn = bytes(data[:size])
        del data[:size]
        assert len(drawn) == size, "a site drew more than was recorded"
        return drawn

    return entropy


def seat_from(name: str, site: dict[str, Any], vector: dict[str, Any]) -> Seat:
    parsed, _ = roster.parse(vector["roster"].encode())
    return Seat(
        site_id=name,
        signer=keys.SigningKey(unhex(site["seed"])),
        terms=terms_from(vector["terms"]),
        roster=parsed,
        entropy=stream(site["draws"]),
        beside=tuple(terms_from(vector["terms"] | beside) for beside in vector["terms"]["beside"]),
    )


def update_from(record: Record, words: list[int], weight: int, seat: Seat) -> QuantisedUpdate:
    assert isinstance(record.stage, Invited)
    grid = seat.turned_to(record.stage.kind).terms.grid
    body: Body = np.array(words, dtype=grid.signed_word).view(grid.word)
    return QuantisedUpdate(body=body, weight=weight)


def offer_from(v: dict[str, Any]) -> Offer:
    known = v["reference"] is not None
    reference = Reference(values=np.frombuffer(unhex(v["reference"]), "<f4"), round=v["reference_round"]) if known else None
    values, initial = (np.frombuffer(unhex(v[name]), "<f4") for name in ("values", "initial"))
    return Offer(values=values, initial=initial, reference=reference)


@pytest.mark.parametrize("name", ROUNDS)
def test_sites_of_common_say_the_recorded_bytes(name: str) -> None:
    v = load(name)
    for site_id, told in v["down"].items():
        seat, record = seat_from(site_id, v["sites"][site_id], v), Record()
        for step in Step:
            if step.name not in told:
                continue
            outcome: Outcome = handle(seat, record, unhex(told[step.name]), now=v["now"], offer=offer_from(v["offer"]))
            if outcome.reply is None:
                site = v["sites"][site_id]
                outcome = join(seat, outcome.record, update_from(outcome.record, site["update"], site["weight"], seat))
            assert (outcome.reply or b"").hex() == v["up"][site_id][step.name]
            if outcome.vector is not None:
                assert outcome.vector.tobytes().hex() == v["vectors"][site_id]
            record = outcome.record


@pytest.mark.parametrize("name", ROUNDS)
def test_the_coordinator_of_common_says_the_recorded_bytes_and_opens_the_sum(name: str) -> None:
    v = load(name)
    verified = roster.verify(v["roster"].encode(), roots=Roots(keys=frozenset({keys.SigningKey(unhex(v["root"])).public})))
    beside = next((each for each in v["terms"]["beside"] if each["kind"] == v["kind"]), {})
    chair = Chair(signer=keys.SigningKey(unhex(v["coordinator_seed"])), terms=terms_from(v["terms"] | beside), roster=verified)
    tag = RoundTag(
        version=1,
        ring_bits=chair.terms.grid.ring_bits,
        plan=chair.terms.plan,
        roster=verified.digest,
        session=unhex(v["session"]),
        round=v["round"],
        attempt=0,
        model=chair.terms.initial_model,
        layout=chair.terms.layout,
    )
    said = {step: {s: unhex(up[step.name]) for s, up in v["up"].items() if step.name in up} for step in Step}
    inviting = Inviting(chair=chair, tag=tag)
    sharing, cohort = inviting.agree(said[Step.KEYS], now=v["now"])
    masking, deliveries = sharing.route(said[Step.SHARE])
    confirming, survivors = masking.survive(said[Step.MASK])
    unmasking, quorum = confirming.quorum(said[Step.CONFIRM])
    vectors = {s: np.frombuffer(unhex(raw), chair.terms.grid.word) for s, raw in v["vectors"].items()}
    result = open_sum(unmasking, said[Step.UNMASK], vectors.__getitem__)
    mine = {"KEYS": inviting.header, "SHARE": cohort, "CONFIRM": survivors, "UNMASK": quorum}
    for site_id, told in v["down"].items():
        for step, control in told.items():
            assert (deliveries[site_id] if step == "MASK" else mine[step]).hex() == control
    assert result.body.view(chair.terms.grid.signed_word).tolist() == v["sum"]
    assert (result.total_weight, list(result.survivors)) == (v["total_weight"], v["survivors"])


@pytest.mark.parametrize("name", REFUSALS)
def test_common_refuses_by_the_recorded_name(name: str) -> None:
    v = load(name)
    seat, record = seat_from(v["site"], v, v), Record()
    for event in v["history"]:
        if "join" in event:
            record = join(seat, record, update_from(record, event["join"], v["weight"], seat)).record
        else:
            record = handle(seat, record, unhex(event["down"]), now=1_800_000_000, offer=offer_from(v["offer"])).record
    with pytest.raises(FedwardError) as refusal:
        handle(seat, record, unhex(v["message"]), now=v["now"], offer=offer_from(v["message_offer"]))
    assert refusal.value.code == v["error"]


# `second` against the same vectors.


def second_site(name: str, site: dict[str, Any], v: dict[str, Any]) -> second.Site:
    return second.Site(
        name=name,
        seed=unhex(site["seed"]),
        draws=unhex(site["draws"]),
        roster=v["roster"],
        terms=v["terms"],
        update=site["update"],
        weight=site["weight"],
    )


@pytest.mark.parametrize("name", ROUNDS)
def test_the_second_implementation_says_the_same_bytes(name: str) -> None:
    v = load(name)
    for site_id, told in v["down"].items():
        site = second_site(site_id, v["sites"][site_id], v)
        for step in second.STEPS.values():
            if step not in told:
                continue
            reply, vector = site.handle(unhex(told[step]), v["now"], v["offer"])
            reply = reply or site.join()
            assert reply.hex() == v["up"][site_id][step]
            assert not vector or vector.hex() == v["vectors"][site_id]


@pytest.mark.parametrize("name", ROUNDS)
def test_the_second_coordinator_says_the_same_bytes_and_opens_the_same_sum(name: str) -> None:
    v = load(name)
    header = unhex(v["header"])
    r = second.Reader(header)
    r.take(60)
    tag = second.Tag.read(second.Reader(r.blob()))
    chair = second.Coordinator(seed=unhex(v["coordinator_seed"]), tag=tag, kind=v["kind"], terms=v["terms"])
    said = {step: {s: unhex(up[step]) for s, up in v["up"].items() if step in up} for step in second.STEPS.values()}
    deliveries = chair.deliveries(sorted(said["KEYS"]), said["SHARE"])
    mine = {
        "KEYS": chair.header(),
        "SHARE": chair.cohort(said["KEYS"]),
        "CONFIRM": chair.survivors(said["MASK"]),
        "UNMASK": chair.quorum(said["CONFIRM"]),
    }
    for site_id, told in v["down"].items():
        for step, control in told.items():
            assert (deliveries[site_id] if step == "MASK" else mine[step]).hex() == control
    vectors = {s: unhex(raw) for s, raw in v["vectors"].items()}
    assert chair.open_sum(said["KEYS"], said["SHARE"], said["MASK"], vectors, said["UNMASK"]) == (v["sum"], v["total_weight"])


@pytest.mark.parametrize("name", REFUSALS)
def test_the_second_implementation_refuses_by_the_same_name(name: str) -> None:
    v = load(name)
    site = second_site(v["site"], v, v)
    for event in v["history"]:
        if "join" in event:
            site.join(event["join"])
        else:
            site.handle(unhex(event["down"]), 1_800_000_000, v["offer"])
    with pytest.raises(second.Refused) as refusal:
        site.handle(unhex(v["message"]), v["now"], v["message_offer"])
    assert refusal.value.code == v["error"]


# Primitives: both at once.


@pytest.mark.parametrize("v", PRIMITIVES, ids=[v["id"] for v in PRIMITIVES])
def test_primitive(v: dict[str, Any]) -> None:
    COMPARE[v["kind"]](v)


def compare_mask(v: dict[str, Any]) -> None:
    body: Body = np.zeros(v["count"], np.uint32) if v["ring_bits"] == 32 else np.zeros(v["count"], np.uint16)
    tail = np.zeros(3, np.uint32)
    masks.apply([masks.Mask(unhex(v["key"]))], body=body, tail=tail, workers=2)
    other_tail, other_body = second.mask_words(unhex(v["key"]), v["count"], v["ring_bits"])
    assert tail.tolist() == other_tail == v["tail"]
    assert body[:4].tolist() == other_body[:4] == v["head"]
    assert body.tolist() == other_body
    assert canonical.digest(tail.tobytes(), body.tobytes()).hex() == v["digest"]


def compare_shamir(v: dict[str, Any]) -> None:
    secret, t, n = unhex(v["secret"]), v["threshold"], v["count"]
    mine = shamir.share(secret, threshold=t, count=n, entropy=stream(v["draws"]))
    assert [field.to_bytes(s).hex() for s in mine] == v["shares"]
    assert second.deal(secret, t, n, stream(v["draws"])) == list(mine)
    last = {x: mine[x - 1] for x in range(n - t + 1, n + 1)}
    assert shamir.reconstruct(last) == second.interpolate(last) == secret


def compare_derive(v: dict[str, Any]) -> None:
    secret, salt, label = unhex(v["secret"]), unhex(v["transcript"]), v["label"].encode()
    assert keys.derive(secret, transcript=salt, label=label, ids=tuple(v["ids"])).hex() == v["key"]
    assert second.hkdf(secret, salt, label, *v["ids"]).hex() == v["key"]


def compare_quantise(v: dict[str, Any]) -> None:
    grid = Grid.for_cohort(v["cohort"], coordinate_range=v["coordinate_range"], max_weight=v["max_weight"])
    values = np.frombuffer(unhex(v["values"]), "<f4")
    assert grid.bits == v["bits"]
    assert quantise.quantise(values, grid, weight=v["weight"]).body.view(np.int32).tolist() == v["words"]
    other = [second.quantise(float(x), v["bits"], v["coordinate_range"], v["weight"], v["max_weight"]) for x in values]
    assert other == v["words"]


def compare_agree(v: dict[str, Any]) -> None:
    assert keys.agreement_public(unhex(v["peer_private"])).hex() == second.public(unhex(v["peer_private"])).hex() == v["peer_public"]
    assert (keys.AgreementKey.load(unhex(v["private"])).agree(unhex(v["peer_public"])) or b"").hex() == v["shared"]
    assert second.ladder(unhex(v["private"]), unhex(v["peer_public"])).hex() == v["shared"]


def compare_seal(v: dict[str, Any]) -> None:
    sealed = keys.seal(unhex(v["key"]), unhex(v["plaintext"]), nonce=unhex(v["nonce"]), transcript=unhex(v["transcript"]))
    assert sealed.hex() == v["sealed"]
    cipher = AES.new(unhex(v["key"]), AES.MODE_GCM, nonce=unhex(v["nonce"]))
    cipher.update(unhex(v["transcript"]))
    assert cipher.decrypt_and_verify(sealed[12:-16], sealed[-16:]).hex() == v["plaintext"]


def compare_canary(v: dict[str, Any]) -> None:
    assert messages.canary(unhex(v["transcript"])) == v["word"]
    assert int.from_bytes(second.H(b"FSA1 canary", unhex(v["transcript"]))[-4:], "big") == v["word"]


def compare_seed_commitment(v: dict[str, Any]) -> None:
    assert messages.seed_commitment(unhex(v["transcript"]), unhex(v["seed"])).hex() == v["commitment"]
    assert second.H(b"FSA1 b", unhex(v["transcript"]), unhex(v["seed"])).hex() == v["commitment"]


def compare_commitment(v: dict[str, Any]) -> None:
    update = QuantisedUpdate(body=np.array(v["words"], dtype=np.uint32), weight=v["weight"])
    assert update.commitment(unhex(v["salt"])).hex() == v["commitment"]
    words = b"".join(word.to_bytes(4, "little") for word in v["words"])
    assert second.H(b"FSA1 update", unhex(v["salt"]), second.u64(v["weight"]), words).hex() == v["commitment"]


def compare_thresholds(v: dict[str, Any]) -> None:
    for n, t in v["table"].items():
        assert terms.threshold(int(n)) == second.threshold(int(n), {"min_cohort": 3, "noise_quorum": 0}) == t


def compare_groups(v: dict[str, Any]) -> None:
    mine = groups.partition(v["names"], epoch=v["epoch"], max_group=v["max_group"])
    assert [sorted(group) for group in mine] == v["groups"]
    ordered = sorted(v["names"], key=lambda name: second.H(b"FSA1 group", second.u64(v["epoch"]), name.encode()))
    count = -(-len(ordered) // v["max_group"])
    cuts = [len(ordered) * i // count for i in range(count + 1)]
    assert [sorted(ordered[a:b]) for a, b in zip(cuts[-2::-1], cuts[:0:-1], strict=True)] == v["groups"]


def compare_sign(v: dict[str, Any]) -> None:
    message = unhex(v["message"])
    assert keys.SigningKey(unhex(v["seed"])).sign(message).hex() == second.sign(unhex(v["seed"]), message).hex() == v["signature"]
    assert second.verify_key(unhex(v["seed"])).hex() == v["public"]
    assert keys.signature_holds(unhex(v["public"]), unhex(v["signature"]), message)
    assert second.signed(unhex(v["public"]), unhex(v["signature"]), message)


COMPARE = {name.removeprefix("compare_"): function for name, function in list(globals().items()) if name.startswith("compare_")}


def test_there_are_enough_vectors() -> None:
    assert len(PRIMITIVES) + len(ROUNDS) >= 20
    assert len(ROUNDS) >= 6
    assert len(REFUSALS) >= 30
