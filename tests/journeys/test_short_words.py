# SPDX-License-Identifier: Apache-2.0
"""Words of 16 bits: half of what travels, the same bits with masks as without, through a kill too; and what it costs the model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.common.serde import recorddict_to_proto

from client.app import PLAN_VARIABLE, SITES_VARIABLE
from client.imaging.prepared import load_prepared
from client.site import Site
from common import wire
from common.errors import MessageFormat
from common.models import initial_weights
from common.plan import digest_of
from common.update import MaskedUpdate
from common.wire import SECURE, Step, TrainRequest
from server.journal import Journal
from server.phases import Heard, Phase, Phases
from simulations.engine import LocalEngine
from simulations.engine.nursery import Nursery
from simulations.faults import FAULTS_VARIABLE
from simulations.observer import score
from simulations.scenario import Scenario
from simulations.stage import SITES, Stage
from tests.journeys.made import Quiet, made_federation, made_scenario, made_stage, pictures, train

SHORT = "word_bits = 16\ncoordinate_range = 0.3\n"


def short(*, private: bool, words: str = SHORT) -> Scenario:
    return made_scenario(private=private, change=("[simulation]", f"{words}[simulation]"))


@pytest.mark.parametrize("private", [False, True], ids=["plain", "private"])
def test_masks_do_not_change_a_bit_of_a_model_of_short_words(tmp_path: Path, nursery: Nursery, private: bool) -> None:
    masked, ideal = (train(made_stage(tmp_path / way, short(private=private), aggregation=way), nursery)[0] for way in ("fsa1", "ideal"))
    assert masked.digest == ideal.digest
    long, _ = train(made_stage(tmp_path / "long", made_scenario(private=private)), nursery)
    assert masked.digest != long.digest


@pytest.mark.parametrize("step", ["KEYS", "MASK", "UNMASK"])
def test_a_run_of_short_words_that_was_killed_ends_with_the_same_bits(
    tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Rounding is random: sites must answer the words that they stored, not round anew."""
    whole, _ = train(made_stage(tmp_path / "whole", short(private=False)), nursery)
    stage = made_stage(tmp_path / "cut", short(private=False))
    hear = Phases.hear

    def die(self: Phases, phase: Phase, heard: Heard) -> None:
        if (phase.round, phase.step) == (2, step):
            raise KeyboardInterrupt
        hear(self, phase, heard)

    monkeypatch.setattr(Phases, "hear", die)
    with pytest.raises(KeyboardInterrupt):
        train(stage, nursery)
    monkeypatch.undo()
    assert train(stage, nursery)[0].digest == whole.digest


def ask_ideal(site: Site, request: TrainRequest) -> bytes:
    reply = site.train_ideal(request)
    assert reply.update.weight == 1
    return reply.update.words.tobytes()


def ask_plain(site: Site, request: TrainRequest) -> bytes:
    return site.train(request).update.values.tobytes()


@pytest.mark.parametrize(("way", "ask"), [("ideal", ask_ideal), ("plain", ask_plain)])
def test_a_site_that_was_killed_answers_without_masks_what_it_answered(
    tmp_path: Path, way: Any, ask: Callable[[Site, TrainRequest], bytes]
) -> None:
    """Its noise is the system's own: trained, or rounded, once more, nothing would come out the same."""
    stage = made_stage(tmp_path / "run", short(private=True), aggregation=way, noise_seed=None)
    home, plan = stage.home(stage.sites[0]), stage.scenario.plan
    step = Step(session=bytes(16), round=1, attempt=0, plan=digest_of(plan))
    request = TrainRequest(step=step, weights=initial_weights(plan))
    said = ask(Site.open(home, plan), request)
    assert ask(Site.open(home, plan), request) == said
    next((home / "answers").iterdir()).unlink()
    assert ask(Site.open(home, plan), request) != said, "nothing was random, so nothing was shown"


class Scale:
    """A grid that weighs every reply as Flower would send it; the heaviest of each type is kept."""

    def __init__(self, grid: LocalEngine) -> None:
        self._grid = grid
        self.heaviest: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._grid, name)

    def pull_messages(self, message_ids: list[str]) -> Any:
        for reply in self._grid.pull_messages(message_ids):
            kind = reply.metadata.message_type
            self.heaviest[kind] = max(self.heaviest.get(kind, 0), recorddict_to_proto(reply.content).ByteSize())
            yield reply


def weigh(stage: Stage, nursery: Nursery) -> int:
    """Bytes of the reply that carries the masked update."""
    federation = made_federation(stage)
    environment = {PLAN_VARIABLE: str(stage.plan_file), SITES_VARIABLE: str(stage.folder / SITES), FAULTS_VARIABLE: ""}
    with LocalEngine(nursery.client_app, len(stage.sites), workers=2, env=environment, nursery=nursery) as engine:
        scale: Any = Scale(engine)
        journal = Journal(stage.folder / "journal.sqlite", plan=digest_of(federation.plan), session=bytes(16), power_cut_safe=False)
        federation.coordinate(scale, journal, Quiet()).run()
        journal.close()
    heaviest: int = scale.heaviest[SECURE["MASK"]]
    return heaviest


def test_short_words_are_half_of_what_travels(tmp_path: Path, nursery: Nursery) -> None:
    bytes_of = {}
    for name, played in (("long", made_scenario(private=False)), ("short", short(private=False))):
        bytes_of[name] = weigh(made_stage(tmp_path / name, played.with_changes(rounds=1)), nursery)
    num_values = initial_weights(made_scenario(private=False).plan).layout.size
    assert abs(bytes_of["long"] - bytes_of["short"] - 2 * num_values) <= 8  # lengths are spelt in as few bytes as they need
    assert bytes_of["short"] <= 2 * num_values + 600


def test_what_short_words_cost_the_model(tmp_path: Path, nursery: Nursery) -> None:
    """On pictures that are hard to tell apart. With a range as wide as the whole update's norm, as the control, a model ends far off."""
    pictures(tmp_path / "pictures", patients=400, images_each=1, contrast=14)
    auc, trained = {}, {}
    for name, words in (("long", ""), ("short", SHORT), ("too wide", "word_bits = 16\n")):
        stage = made_stage(tmp_path / name, short(private=False, words=words).with_changes(rounds=10), aggregation="ideal")
        weights, _ = train(stage, nursery)
        scores = score(weights, load_prepared(stage.folder / "holdout"), stage.scenario.plan, resamples=0)
        assert scores.patients is not None
        assert scores.patients.auc is not None
        auc[name], trained[name] = scores.patients.auc, weights.values
    assert 0.8 < auc["long"] < 0.99, "nothing was learnt, or nothing could be lost"
    assert auc["long"] - auc["short"] <= 0.005
    off = {name: float(np.linalg.norm(trained[name] - trained["long"])) for name in ("short", "too wide")}
    assert off["too wide"] > 5 * off["short"], "the control: words that are spent on a range nobody needs"


def test_nobody_sends_long_words_into_a_round_of_short_ones(tmp_path: Path) -> None:
    size = 12
    update = MaskedUpdate(words=np.zeros(size, np.uint32))
    content = wire.encode_secure_reply(wire.SecureReply(site="a", control=b"", update=update))
    with pytest.raises(MessageFormat, match=r"fedward\.u4"):
        wire.decode_secure_reply(content, size, np.dtype(np.uint16))
