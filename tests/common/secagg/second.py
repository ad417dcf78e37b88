# SPDX-License-Identifier: Apache-2.0
"""FSA1 a second time, slow and obvious, from the protocol's text: pycryptodome and Python integers, not one line of `common`.

It exists to disagree. If both implementations make the same bytes from the same randomness, and refuse the same lies by the same
names, then the bytes are the protocol and not an accident of one codec. Curve25519 is written out by hand (RFC 7748, section 5).
"""

import hashlib
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from Crypto.Cipher import AES
from Crypto.Hash import SHA256
from Crypto.Protocol.KDF import HKDF
from Crypto.PublicKey import ECC
from Crypto.Signature import eddsa

P = 2**256 + 297
UPDATE, STAT, EVAL = 1, 2, 3
TURNS = (STAT, EVAL, UPDATE)
KEYS, SHARE, MASK, CONFIRM, UNMASK, ABANDON = 1, 2, 3, 4, 5, 6
STEPS = {KEYS: "KEYS", SHARE: "SHARE", MASK: "MASK", CONFIRM: "CONFIRM", UNMASK: "UNMASK", ABANDON: "ABANDON"}
GRACE = 86400


class Refused(Exception):
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def refuse_if(condition: object, code: str) -> None:
    if condition:
        raise Refused(code)


def u32(n: int) -> bytes:
    return n.to_bytes(4, "big")


def u64(n: int) -> bytes:
    return n.to_bytes(8, "big")


def lp(*parts: bytes) -> bytes:
    return b"".join(u32(len(p)) + p for p in parts)


def H(*parts: bytes) -> bytes:  # noqa: N802 # the protocol's own name for it
    return hashlib.sha256(lp(*parts)).digest()


def texts(ids: Iterable[str]) -> bytes:
    ids = list(ids)
    return u32(len(ids)) + lp(*(i.encode() for i in ids))


def ladder(k: bytes, u: bytes) -> bytes:
    """X25519, RFC 7748 section 5."""
    p, a24 = 2**255 - 19, 121665
    n = int.from_bytes(k, "little") & ~7 & (2**255 - 1) | 2**254
    x1 = int.from_bytes(u, "little") & (2**255 - 1)
    x2, z2, x3, z3, swap = 1, 0, x1, 1, 0
    for t in reversed(range(255)):
        bit = n >> t & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a % p, b * b % p, d * a % p, c * b % p
        x3, z3 = pow(da + cb, 2, p), x1 * pow(da - cb, 2, p) % p
        e = aa - bb
        x2, z2 = aa * bb % p, e * (aa + a24 * e) % p
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, p - 2, p) % p).to_bytes(32, "little")


def public(k: bytes) -> bytes:
    return ladder(k, (9).to_bytes(32, "little"))


def hkdf(secret: bytes, salt: bytes, label: bytes, *ids: str) -> bytes:
    out = HKDF(secret, 32, salt, SHA256, 1, lp(label, *(i.encode() for i in ids)))
    assert isinstance(out, bytes)
    return out


def keystream(key: bytes, size: int) -> bytes:
    return AES.new(key, AES.MODE_CTR, nonce=b"", initial_value=0).encrypt(bytes(size))


def mask_words(key: bytes, count: int, ring_bits: int) -> tuple[list[int], list[int]]:
    """(tail of three, body): the first 16 bytes are the tail's, the rest the body's."""
    size = ring_bits // 8
    raw = keystream(key, 16 + count * size)
    body = [int.from_bytes(raw[16 + size * i : 16 + size * (i + 1)], "little") for i in range(count)]
    return list(struct.unpack("<3I", raw[:12])), body


def deal(secret: bytes, t: int, n: int, draw: Any) -> list[int]:
    random = draw(48 * (t - 1))
    coefficients = [int.from_bytes(secret, "big")] + [int.from_bytes(random[48 * i : 48 * i + 48], "big") % P for i in range(t - 1)]
    return [sum(c * pow(x, e, P) for e, c in enumerate(coefficients)) % P for x in range(1, n + 1)]


def interpolate(shares: dict[int, int]) -> bytes:
    total = 0
    for i, y in shares.items():
        num = den = 1
        for j in shares:
            if j != i:
                num, den = num * -j % P, den * (i - j) % P
        total += y * num * pow(den, P - 2, P)
    return (total % P).to_bytes(33, "big")[1:]


def sign(seed: bytes, message: bytes) -> bytes:
    signature: bytes = eddsa.new(eddsa.import_private_key(seed), "rfc8032").sign(message)
    return signature


def signed(pk: bytes, signature: bytes, message: bytes) -> bool:
    try:
        eddsa.new(eddsa.import_public_key(pk), "rfc8032").verify(message, signature)
    except (ValueError, ECC.UnsupportedEccFeature):
        return False
    return True


def verify_key(seed: bytes) -> bytes:
    key: bytes = eddsa.import_private_key(seed).public_key().export_key(format="raw")
    return key


def quantise(x: float, bits: int, r: float, weight: int, max_weight: int) -> int:
    top = (1 << (bits - 1)) - 1
    rounded: int = round(max(-r, min(r, x * (weight / max_weight))) * (top / r))
    return max(-top, min(top, rounded))


def threshold(n: int, terms: dict[str, Any]) -> int:
    return int(max(2 * n // 3 + 1, smallest(terms)))


def smallest(terms: dict[str, Any]) -> int:
    return int(max(3, terms["min_cohort"], terms["noise_quorum"]))


class Reader:
    """Takes a message apart, or refuses it as E_MSG_FORMAT."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, n: int) -> bytes:
        refuse_if(self.at + n > len(self.data), "E_MSG_FORMAT")
        self.at += n
        return self.data[self.at - n : self.at]

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "big")

    def count(self) -> int:
        n = int.from_bytes(self.take(4), "big")
        refuse_if(n > len(self.data) - self.at, "E_MSG_FORMAT")
        return n

    def blob(self) -> bytes:
        return self.take(self.count())

    def text(self) -> str:
        try:
            return self.blob().decode()
        except UnicodeDecodeError:
            raise Refused("E_MSG_FORMAT") from None

    def one_of(self, *known: int) -> int:
        n = self.u64()
        refuse_if(n not in known, "E_MSG_FORMAT")
        return n

    def signed_list(self) -> list[tuple[str, bytes, bytes]]:
        return [(self.text(), self.blob(), self.take(64)) for _ in range(self.count())]

    def end(self) -> None:
        refuse_if(self.at != len(self.data), "E_MSG_FORMAT")


@dataclass
class Tag:
    version: int
    ring_bits: int
    plan: bytes
    roster: bytes
    session: bytes
    round: int
    attempt: int
    model: bytes
    layout: bytes

    @classmethod
    def read(cls, r: Reader) -> "Tag":
        return cls(r.u64(), r.u64(), r.take(32), r.take(32), r.take(16), r.u64(), r.u64(), r.take(32), r.take(32))

    def raw(self) -> bytes:
        head = u64(self.version) + u64(self.ring_bits) + self.plan + self.roster + self.session
        return head + u64(self.round) + u64(self.attempt) + self.model + self.layout

    @property
    def rt(self) -> bytes:
        return H(b"FSA1", self.raw())


def up_message(tag: Tag, step: int, site: str, body: bytes) -> bytes:
    return H(b"FSA1 up", u64(tag.version), u64(tag.ring_bits), tag.rt, u64(step), site.encode(), H(body))


def down_message(version: int, ring_bits: int, rt: bytes, step: int, body: bytes) -> bytes:
    return H(b"FSA1 down", u64(version), u64(ring_bits), rt, u64(step), H(body))


def envelope(tag: Tag, step: int, site: str | None, body: bytes, seed: bytes) -> bytes:
    head = b"FSA1" + u64(tag.version) + u64(tag.ring_bits) + u64(step) + tag.rt
    if site is None:
        return head + lp(body) + sign(seed, down_message(tag.version, tag.ring_bits, tag.rt, step, body))
    return head + lp(site.encode(), body) + sign(seed, up_message(tag, step, site, body))


def open_up(control: bytes) -> tuple[str, bytes, bytes]:
    """(site, body, signature) of a site's message."""
    r = Reader(control)
    r.take(4 + 8 + 8 + 8 + 32)
    return r.text(), r.blob(), r.take(64)


def parse_roster(text: str) -> tuple[dict[str, dict[str, Any]], bytes, bytes, int, tuple[int, int]]:
    """(members, coordinator key, digest, epoch, validity)."""

    def seconds(word: str) -> int:
        return int(datetime.strptime(word, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())

    lines = [line.split(" ") for line in text.splitlines()]
    members = {
        w[1]: {"pk": bytes.fromhex(w[2]), "from": seconds(w[3]), "to": seconds(w[4]), "revoked": w[5] == "revoked", "weight": int(w[6])}
        for w in lines
        if w[0] == "site"
    }
    body = "".join(f"{line}\n" for line in text.splitlines() if not line.startswith("signature "))
    validity = (seconds(lines[2][1]), seconds(lines[2][2]))
    return members, bytes.fromhex(lines[3][1]), H(b"fedward roster 1", body.encode()), int(lines[1][1]), validity


@dataclass
class Site:
    """A site with a fixed stream of randomness and a fixed update, and what it would add of other kinds."""

    name: str
    seed: bytes
    draws: bytes
    roster: str
    terms: dict[str, Any]
    update: list[int]
    weight: int
    stage: str = "Listening"
    tag: Tag | None = None
    kind: int = 0
    answers: dict[int, tuple[bytes, bytes, bytes]] = field(default_factory=dict)
    marks: dict[bytes, tuple[tuple[int, int, int], bytes]] = field(default_factory=dict)
    models: set[bytes] = field(default_factory=set)
    over: list[bytes] = field(default_factory=list)
    s: dict[str, Any] = field(default_factory=dict)

    def draw(self, n: int) -> bytes:
        out, self.draws = self.draws[:n], self.draws[n:]
        assert len(out) == n
        return out

    def of(self, kind: int) -> dict[str, Any]:
        """The terms of one kind of sum."""
        return next((self.terms | beside for beside in self.terms["beside"] if beside["kind"] == kind), self.terms)

    @property
    def ring_bits(self) -> int:
        return int(self.of(self.kind)["ring_bits"])

    def handle(self, control: bytes, now: int, offer: dict[str, Any]) -> tuple[bytes, bytes]:
        """(reply, vector); both empty while it trains."""
        refuse_if(len(control) > 65536 + 4096 * self.terms["max_cohort"], "E_MSG_TOO_LARGE")
        refuse_if(control[:4] != b"FSA1" or len(control) < 20, "E_MSG_FORMAT")
        r = Reader(control)
        r.take(4)
        version, ring_bits = r.u64(), r.u64()
        spoken = {terms["ring_bits"] for terms in (self.terms, *self.terms["beside"])}
        refuse_if(version not in self.terms["versions"] or ring_bits not in spoken, "E_VERSION")
        step, rt, body, signature = r.one_of(*STEPS), r.take(32), r.blob(), r.take(64)
        r.end()
        coordinator = parse_roster(self.roster)[1]
        refuse_if(not signed(coordinator, signature, down_message(version, ring_bits, rt, step, body)), "E_COORDINATOR_SIGNATURE")
        request = hashlib.sha256(control).digest()
        if step == KEYS:
            return self.begin(Reader(body), (version, ring_bits, rt), request, now, offer)
        refuse_if(rt in self.over, "E_EXPIRED")
        refuse_if(self.tag is None or self.stage == "Listening", "E_ROUND_TAG")
        assert self.tag is not None
        refuse_if((version, ring_bits, rt) != (self.tag.version, self.tag.ring_bits, self.tag.rt), "E_ROUND_TAG")
        if step in self.answers:
            refuse_if(self.answers[step][0] != request, "E_EQUIVOCATION")
            refuse_if(step == MASK and self.stage not in ("Masked", "Confirmed"), "E_STATE")
            return self.answers[step][1:]
        due = {"Keyed": SHARE, "Shared": MASK, "Masked": CONFIRM, "Confirmed": UNMASK}
        if step == ABANDON:
            refuse_if(self.stage == "Released", "E_ALREADY_RELEASED")
            refuse_if(self.stage == "GivenUp", "E_EXPIRED")
            refuse_if(self.stage not in due, "E_STATE")
        elif due.get(self.stage) != step:
            raise Refused("E_EXPIRED" if self.stage == "GivenUp" else "E_STATE")
        act = {SHARE: self.share, MASK: self.mask, CONFIRM: self.confirm, UNMASK: self.unmask, ABANDON: self.abandon}
        out, vector, stage = act[step](Reader(body), now)
        assert self.tag is not None
        reply = envelope(self.tag, step, self.name, out, self.seed)
        self.stage, self.answers[step] = stage, (request, reply, vector)
        return reply, vector

    def begin(self, r: Reader, outer: tuple[int, int, bytes], request: bytes, now: int, offer: dict[str, Any]) -> tuple[bytes, bytes]:
        known = KEYS in self.answers and self.answers[KEYS][0] == request
        if known and self.answers[KEYS][1]:
            return self.answers[KEYS][1:]
        tag, kind, abandons = Tag.read(r), r.one_of(1, 2, 3), r.signed_list()
        r.end()
        _, _, roster, epoch, validity = parse_roster(self.roster)
        refuse_if((tag.version, tag.ring_bits, tag.rt) != outer, "E_ROUND_TAG")
        refuse_if(tag.plan.hex() != self.terms["plan"], "E_PLAN_MISMATCH")
        terms = self.of(kind)
        refuse_if(terms["kind"] != kind, "E_PLAN_MISMATCH")
        refuse_if(tag.ring_bits != terms["ring_bits"], "E_VERSION")
        refuse_if(tag.round not in range(*terms["rounds"]), "E_PLAN_MISMATCH")
        refuse_if(tag.layout.hex() != terms["layout"], "E_MODEL_LAYOUT")
        refuse_if(tag.roster != roster, "E_ROSTER_CHANGED")
        refuse_if(not validity[0] - GRACE <= now <= validity[1] + GRACE, "E_ROSTER_EXPIRED")
        if known:  # it stopped before it had trained
            if kind != STAT:
                self.check_model(tag, offer)
            return b"", b""
        here, mark = (tag.round, TURNS.index(kind), tag.attempt), self.marks.get(tag.session)
        if mark:
            refuse_if(here < mark[0], "E_REPLAY")
            refuse_if(here == mark[0], "E_EQUIVOCATION")
            refuse_if(tag.round == mark[0][0] and tag.model != mark[1], "E_EQUIVOCATION")
        if kind != STAT:
            self.check_model(tag, offer)
        again = self.tag is not None and self.stage != "Listening"
        if again and self.tag and (self.tag.session, self.tag.round, self.kind) == (tag.session, tag.round, kind):
            refuse_if(self.stage == "Released", "E_ALREADY_RELEASED")
            if self.stage != "Invited":
                self.check_retry(tag, abandons)
                again = False
        assert epoch
        if self.tag is not None and self.stage != "Listening":
            self.over.append(self.tag.rt)
        self.marks[tag.session] = here, tag.model
        if kind != STAT:
            self.models.add(tag.model)
        living = self.tag is not None and self.stage not in ("Listening", "Invited", "Released") and not again
        self.tag, self.kind, self.stage = tag, kind, "Invited"
        self.answers = {KEYS: (request, b"", b"")}
        return (self.join(), b"") if living else (b"", b"")

    def check_model(self, tag: Tag, offer: dict[str, Any]) -> None:
        raw, reference = bytes.fromhex(offer["values"]), offer["reference"]
        refuse_if(len(raw) != 4 * self.terms["model_size"], "E_MODEL_LAYOUT")
        refuse_if(H(b"fedward model 1", bytes.fromhex(self.terms["model_layout"]), raw) != tag.model, "E_MODEL_HASH")
        values = struct.unpack(f"<{len(raw) // 4}f", raw)
        refuse_if(not all(map(math.isfinite, values)), "E_MODEL_NONFINITE")

        def led_from(origin: str, rounds: int) -> bool:
            old = struct.unpack(f"<{len(raw) // 4}f", bytes.fromhex(origin))
            return math.dist(values, old) <= rounds * self.terms["step_norm"] * (1 + 2**-10)

        if tag.model.hex() != self.terms["initial_model"] and tag.model not in self.models:
            refuse_if(reference is None or offer["reference_round"] >= tag.round, "E_MODEL_CHAIN")
            refuse_if(not led_from(reference, tag.round - offer["reference_round"]), "E_MODEL_JUMP")
        refuse_if(not led_from(offer["initial"], tag.round - 1), "E_MODEL_JUMP")

    def check_retry(self, tag: Tag, abandons: list[tuple[str, bytes, bytes]]) -> None:
        assert self.tag is not None
        if not self.s.get("sent"):
            return
        refuse_if(not abandons, "E_ALREADY_MASKED")
        cohort = self.s["cohort"]
        valid = {i for i, _, sig in abandons if i in cohort and signed(cohort[i][0], sig, up_message(self.tag, ABANDON, i, b""))}
        refuse_if(len(valid) < threshold(len(cohort), self.terms), "E_ABANDON_QUORUM")

    def join(self, update: list[int] | None = None) -> bytes:
        """`update`, if it is not the fixed one."""
        assert self.tag is not None
        self.update = update or self.update
        refuse_if(self.stage != "Invited", "E_STATE")
        mask_private, share_private, b, salt = (self.draw(32) for _ in range(4))
        commitment = H(b"FSA1 update", salt, u64(self.weight), self.words(self.update))
        body = u64(self.kind) + public(mask_private) + public(share_private) + commitment + bytes(64) + u32(0)
        reply = envelope(self.tag, KEYS, self.name, body, self.seed)
        self.s = {"m": mask_private, "e": share_private, "b": b, "said": open_up(reply)}
        self.stage, self.answers[KEYS] = "Keyed", (self.answers[KEYS][0], reply, b"")
        return reply

    def words(self, values: list[int]) -> bytes:
        size = self.ring_bits // 8
        return b"".join((v % 2**self.ring_bits).to_bytes(size, "little") for v in values)

    def share(self, r: Reader, now: int) -> tuple[bytes, bytes, str]:
        assert self.tag is not None
        raw, cohort = r.data, r.signed_list()
        r.end()
        parsed = {}
        kinds = []
        for i, body, _ in cohort:
            k = Reader(body)
            kinds.append(k.one_of(1, 2, 3))
            parsed[i] = (k.take(32), k.take(32))
            k.take(32 * 3)
            [(k.text(), k.take(64)) for _ in range(k.count())]
            k.end()
        ids, members = [i for i, _, _ in cohort], parse_roster(self.roster)[0]
        refuse_if(ids != sorted(set(ids)), "E_COHORT_ORDER")
        refuse_if(len(ids) < smallest(self.terms), "E_COHORT_TOO_SMALL")
        refuse_if(len(ids) > self.terms["max_cohort"], "E_PLAN_MISMATCH")
        for i in ids:
            refuse_if(i not in members or members[i]["revoked"], "E_UNKNOWN_PEER")
            refuse_if(not members[i]["from"] - GRACE <= now <= members[i]["to"] + GRACE, "E_ROSTER_EXPIRED")
        refuse_if(set(ids) - set(self.terms["members"]), "E_UNKNOWN_PEER")
        for i, body, sig in cohort:
            refuse_if(not signed(members[i]["pk"], sig, up_message(self.tag, KEYS, i, body)), "E_PEER_SIGNATURE")
        every = [key for pair in parsed.values() for key in pair]
        refuse_if(len(set(every)) < len(every), "E_DUP_KEY")
        refuse_if(any(ladder(self.s["e"], key) == bytes(32) for key in every), "E_MSG_FORMAT")
        refuse_if(self.s["said"] not in cohort, "E_OWN_KEY")
        refuse_if(any(k != self.kind for k in kinds), "E_PLAN_MISMATCH")
        t1, n, t = H(b"FSA1 T1", self.tag.rt, raw), len(ids), threshold(len(ids), self.terms)
        seeds, scalars = deal(self.s["b"], t, n, self.draw), deal(self.s["m"], t, n, self.draw)
        out = []
        for i, seed_share, key_share in zip(ids, seeds, scalars, strict=True):
            plain = seed_share.to_bytes(33, "big") + key_share.to_bytes(33, "big")
            if i == self.name:
                self.s["held"] = {i: plain}
                continue
            key = self.channel(parsed[i][1], t1, self.name, i)
            nonce = self.draw(12)
            cipher = AES.new(key, AES.MODE_GCM, nonce=nonce)
            cipher.update(t1)
            out.append(nonce + b"".join(cipher.encrypt_and_digest(plain)))
        self.s |= {"t1": t1, "t": t, "cohort": {i: (members[i]["pk"], *parsed[i]) for i in ids}}
        return H(b"FSA1 b", t1, self.s["b"]) + u32(len(out)) + lp(*out), b"", "Shared"

    def channel(self, key: bytes, t1: bytes, sender: str, receiver: str) -> bytes:
        secret = ladder(self.s["e"], key)
        refuse_if(secret == bytes(32), "E_MSG_FORMAT")
        return hkdf(secret, t1, b"FSA1 share", sender, receiver)

    def mask(self, r: Reader, now: int) -> tuple[bytes, bytes, str]:
        items = [(r.text(), r.blob()) for _ in range(r.count())]
        r.end()
        ids, cohort = [i for i, _ in items], self.s["cohort"]
        refuse_if(ids != sorted(set(ids)) or self.name in ids, "E_COHORT_ORDER")
        refuse_if(set(ids) - set(cohort), "E_UNKNOWN_PEER")
        refuse_if(len(ids) + 1 < self.s["t"], "E_COHORT_TOO_SMALL")
        opened = {}
        for i, sealed in items:
            key = self.channel(cohort[i][2], self.s["t1"], i, self.name)
            try:
                cipher = AES.new(key, AES.MODE_GCM, nonce=sealed[:12])
                cipher.update(self.s["t1"])
                opened[i] = cipher.decrypt_and_verify(sealed[12:-16], sealed[-16:])
            except ValueError:
                raise Refused("E_SHARE_DECRYPT") from None
        for plain in opened.values():
            halves = plain[:33], plain[33:]
            refuse_if(any(len(h) != 33 or int.from_bytes(h, "big") >= P for h in halves), "E_SHARE_FORMAT")
        self.s["held"] |= opened
        sharers = sorted(self.s["held"])
        t2 = H(b"FSA1 T2", self.s["t1"], texts(sharers))
        canary = int.from_bytes(H(b"FSA1 canary", t2)[-4:], "big")
        tail, body = [self.weight, 1, canary], list(self.update)
        keys = [(hkdf(self.s["b"], t2, b"FSA1 self mask", self.name), 1)]
        for i in sharers:
            if i != self.name:
                low, high = sorted((i, self.name))
                keys.append((hkdf(ladder(self.s["m"], cohort[i][1]), t2, b"FSA1 pair mask", low, high), 1 if self.name == low else -1))
        for key, sign_of in keys:
            more_tail, more_body = mask_words(key, len(body), self.ring_bits)
            tail = [(a + sign_of * b) % 2**32 for a, b in zip(tail, more_tail, strict=True)]
            body = [a + sign_of * b for a, b in zip(body, more_body, strict=True)]
        vector = self.words(body)
        self.s |= {"t2": t2, "sharers": sharers, "sent": True}
        return t2 + struct.pack("<3I", *tail) + H(b"FSA1 vector", vector), vector, "Masked"

    def confirm(self, r: Reader, now: int) -> tuple[bytes, bytes, str]:
        ids = [r.text() for _ in range(r.count())]
        r.end()
        refuse_if(ids != sorted(set(ids)), "E_COHORT_ORDER")
        refuse_if(self.name not in ids or set(ids) - set(self.s["sharers"]) or len(ids) < self.s["t"], "E_SURVIVOR_SET")
        self.s |= {"alive": ids, "t3": H(b"FSA1 T3", self.s["t2"], texts(ids))}
        return self.s["t3"], b"", "Confirmed"

    def unmask(self, r: Reader, now: int) -> tuple[bytes, bytes, str]:
        assert self.tag is not None
        said = r.signed_list()
        r.end()
        cohort, valid = self.s["cohort"], set()
        for i, body, sig in said:
            if i in cohort and signed(cohort[i][0], sig, up_message(self.tag, CONFIRM, i, body)):
                refuse_if(body != self.s["t3"], "E_SPLIT_VIEW")
                valid |= {i} & set(self.s["alive"])
        refuse_if(len(valid) < self.s["t"], "E_CONFIRM_QUORUM")
        shares = [self.s["held"][i][:33] if i in self.s["alive"] else self.s["held"][i][33:] for i in self.s["sharers"]]
        return u32(len(shares)) + lp(*shares), b"", "Released"

    def abandon(self, r: Reader, now: int) -> tuple[bytes, bytes, str]:
        r.end()
        return b"", b"", "GivenUp"


@dataclass
class Coordinator:
    """Says the coordinator's part from what the sites said."""

    seed: bytes
    tag: Tag
    kind: int
    terms: dict[str, Any]

    def say(self, step: int, body: bytes) -> bytes:
        return envelope(self.tag, step, None, body, self.seed)

    def header(self) -> bytes:
        return self.say(KEYS, self.tag.raw() + u64(self.kind) + u32(0))

    @staticmethod
    def signed_list(replies: dict[str, bytes]) -> bytes:
        entries = [open_up(replies[i]) for i in sorted(replies)]
        return u32(len(entries)) + b"".join(lp(i.encode(), body) + sig for i, body, sig in entries)

    def cohort(self, keys: dict[str, bytes]) -> bytes:
        return self.say(SHARE, self.signed_list(keys))

    def deliveries(self, cohort: list[str], shares: dict[str, bytes]) -> dict[str, bytes]:
        sealed: dict[tuple[str, str], bytes] = {}
        for sender, control in shares.items():
            r = Reader(open_up(control)[1])
            r.take(32)
            for receiver, _ in zip([i for i in cohort if i != sender], range(r.count()), strict=True):
                sealed[sender, receiver] = r.blob()
        out = {}
        for receiver in shares:
            senders = [i for i in sorted(shares) if i != receiver]
            out[receiver] = self.say(MASK, u32(len(senders)) + b"".join(lp(i.encode(), sealed[i, receiver]) for i in senders))
        return out

    def survivors(self, masked: dict[str, bytes]) -> bytes:
        return self.say(CONFIRM, texts(sorted(masked)))

    def quorum(self, confirmed: dict[str, bytes]) -> bytes:
        return self.say(UNMASK, self.signed_list(confirmed))

    def open_sum(
        self,
        keys: dict[str, bytes],
        shares: dict[str, bytes],
        masked: dict[str, bytes],
        vectors: dict[str, bytes],
        opened: dict[str, bytes],
    ) -> tuple[list[int], int]:
        """(sum as signed integers, total weight)."""
        bits = self.tag.ring_bits
        cohort, sharers, alive = sorted(keys), sorted(shares), sorted(masked)
        x = {i: cohort.index(i) + 1 for i in cohort}
        t = threshold(len(cohort), self.terms)
        t2 = H(b"FSA1 T2", H(b"FSA1 T1", self.tag.rt, self.signed_list(keys)), texts(sharers))
        tail, body = [0, 0, 0], [0] * (len(vectors[alive[0]]) * 8 // bits)
        for i in alive:
            raw, size = vectors[i], bits // 8
            body = [a + int.from_bytes(raw[size * j : size * (j + 1)], "little") for j, a in enumerate(body)]
            tail = [a + b for a, b in zip(tail, struct.unpack("<3I", open_up(masked[i])[1][32:44]), strict=True)]
        given = {}
        for holder in sorted(opened)[:t]:
            r = Reader(open_up(opened[holder])[1])
            given[x[holder]] = [int.from_bytes(r.blob(), "big") for _ in range(r.count())]
        removed = []
        for position, owner in enumerate(sharers):
            secret = interpolate({h: values[position] for h, values in given.items()})
            if owner in alive:
                removed.append((hkdf(secret, t2, b"FSA1 self mask", owner), 1))
                continue
            for i in alive:
                key = ladder(secret, open_up(keys[i])[1][8:40])
                removed.append((hkdf(key, t2, b"FSA1 pair mask", *sorted((i, owner))), 1 if i < owner else -1))
        for key, sign_of in removed:
            more_tail, more_body = mask_words(key, len(body), bits)
            tail = [a - sign_of * b for a, b in zip(tail, more_tail, strict=True)]
            body = [a - sign_of * b for a, b in zip(body, more_body, strict=True)]
        canary = int.from_bytes(H(b"FSA1 canary", t2)[-4:], "big")
        assert (tail[1] % 2**32, tail[2] % 2**32) == (len(alive), len(alive) * canary % 2**32)
        half = 2 ** (bits - 1)
        return [(v + half) % 2**bits - half for v in body], tail[0] % 2**32
