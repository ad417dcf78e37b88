# SPDX-License-Identifier: Apache-2.0
"""Pruning: exactly the smallest weights go, biases stay, and the commands do what they say."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from common.errors import ModelLayout, RunFolderTaken
from common.models import initial_weights
from common.update import Layout, Weights
from server.export import export
from simulations.evaluation import load_model
from simulations.model_cli import model
from simulations.pruning import prune
from tests.common.models.pretrained_files import torchvision_weights
from tests.journeys.made import made_scenario, pictures

LAYOUT = Layout(names=("a.weight", "a.bias", "b.weight"), shapes=((4, 3), (4,), (2, 4, 1, 1)))


@given(seed=st.integers(0, 1000), keep=st.floats(0, 1))
def test_the_smallest_weights_of_all_layers_together_go_and_biases_stay(seed, keep):
    values = np.random.default_rng(seed).integers(1, 9, 24).astype(np.float32)  # many are equal
    smaller = prune(Weights(layout=LAYOUT, values=values), keep).values
    is_weight = np.r_[np.ones(12), np.zeros(4), np.ones(8)].astype(bool)
    np.testing.assert_array_equal(smaller[~is_weight], values[~is_weight])
    left = smaller[is_weight] != 0
    assert left.sum() == round(keep * 20)
    np.testing.assert_array_equal(smaller[is_weight][left], values[is_weight][left])
    if 0 < left.sum() < 20:
        assert values[is_weight][left].min() >= values[is_weight][~left].max()


@pytest.fixture
def run(tmp_path):
    plan = made_scenario(private=False).plan
    (tmp_path / "run").mkdir()
    export(tmp_path / "run", weights=initial_weights(plan), plan=plan, facts={})
    return tmp_path / "run"


def test_the_command_scores_every_level_and_writes_a_model_of_its_own(run, tmp_path):
    data = pictures(tmp_path / "pictures", patients=12)
    ran = CliRunner().invoke(
        model, ["prune", str(run), "--data", str(data), "--keep", "0.3", "--out", str(tmp_path / "small"), "--resamples", "20", "--json"]
    )
    assert ran.exit_code == 0, ran.output
    said = json.loads(ran.stdout)
    assert [level["keep"] for level in said["levels"]] == [1.0, 0.8, 0.6, 0.4, 0.3, 0.2, 0.1]
    assert [level["values"] for level in said["levels"]] == sorted((level["values"] for level in said["levels"]), reverse=True)
    assert all(0 <= level["score"]["value"] <= 1 for level in said["levels"])
    weights, plan = load_model(tmp_path / "small")
    assert weights.digest.hex() == said["model"]
    assert np.count_nonzero(weights.values) == said["levels"][4]["values"]
    assert json.loads((tmp_path / "small" / "model.json").read_text())["pruned"]["from"] == initial_weights(plan).digest.hex()
    again = CliRunner().invoke(model, ["prune", str(run), "--data", str(data), "--out", str(tmp_path / "small")])
    assert isinstance(again.exception, RunFolderTaken)


def test_people_get_a_table(run, tmp_path):
    data = pictures(tmp_path / "pictures", patients=12)
    ran = CliRunner().invoke(model, ["prune", str(run), "--data", str(data), "--resamples", "0"])
    assert ran.exit_code == 0, ran.output
    assert "30%" in ran.stdout
    assert "AUC" in ran.stdout


def test_a_converted_file_is_named_as_a_plan_names_it(tmp_path: Path):
    save_file(torchvision_weights("resnet50", width=4), tmp_path / "theirs.safetensors")
    ran = CliRunner().invoke(model, ["convert", str(tmp_path / "theirs.safetensors"), str(tmp_path / "ours.safetensors"), "--json"])
    assert ran.exit_code == 0, ran.output
    said = json.loads(ran.stdout)["model"]
    assert said["weights_digest"] == hashlib.sha256((tmp_path / "ours.safetensors").read_bytes()).hexdigest()
    assert (said["architecture"], said["width"], said["norm"]) == ("resnet50", 4, "frozen")
    assert not any("running" in name or name.startswith("fc") for name in load_file(tmp_path / "ours.safetensors"))
    twice = CliRunner().invoke(model, ["convert", str(tmp_path / "theirs.safetensors"), str(tmp_path / "ours.safetensors")])
    assert isinstance(twice.exception, RunFolderTaken)


def test_people_get_a_section_to_copy(tmp_path: Path):
    save_file(torchvision_weights("resnet18", width=4), tmp_path / "theirs.safetensors")
    ran = CliRunner().invoke(
        model, ["convert", "--from", "torchvision-resnet18", str(tmp_path / "theirs.safetensors"), str(tmp_path / "ours.safetensors")]
    )
    assert ran.exit_code == 0, ran.output
    assert ran.stdout.startswith('[model]\nfamily = "backbone"\narchitecture = "resnet18"\n')


@pytest.mark.parametrize("what", ["another architecture", "no safetensors"])
def test_a_file_that_does_not_fit_is_not_written(tmp_path: Path, what: str):
    theirs = tmp_path / "theirs.safetensors"
    theirs.write_bytes(b"\x80\x04}.")
    if what == "another architecture":
        save_file(torchvision_weights("resnet18", width=4), theirs)
    ran = CliRunner().invoke(model, ["convert", str(theirs), str(tmp_path / "ours.safetensors")])
    assert isinstance(ran.exception, ModelLayout)
    assert not (tmp_path / "ours.safetensors").exists()
