# SPDX-License-Identifier: Apache-2.0
"""What a site trains on: its own choice, never silently another; and memory that runs out costs speed, not the step."""

import numpy as np
import pytest
import torch

from client.home import TrainingSection, read_site_file
from client.site import Site
from client.training import LocalWork, UnsafeSeededNoise, device, predict, train_locally
from client.training import bench as bench_module
from client.training.device import PROCESSOR, Device, Room
from common.errors import GpuMemory, GpuMissing, PlanValue
from common.models import initial_weights
from common.plan import PrivacySpec
from common.privacy import lattice_of

PATIENTS = PrivacySpec(unit="patient", epsilon=8.0, delta=1e-5, clip_norm=1.0)


@pytest.fixture(autouse=True)
def afresh(monkeypatch):
    """No test leaves its device, or its idea of what this machine has, to the next."""
    monkeypatch.setattr(device, "_chosen", PROCESSOR)
    device.found.cache_clear()
    yield
    device.found.cache_clear()
    bench_module._bench.cache_clear()


def test_without_a_gpu_auto_is_the_processor_and_a_gpu_that_was_asked_for_is_missed_by_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.found("auto") is device.found("cpu") is PROCESSOR
    with pytest.raises(GpuMissing, match=r"device = 'cuda' in site.toml"):
        device.choose("cuda")
    assert device.chosen() is PROCESSOR


def test_a_second_gpu_that_is_not_there_is_missed_by_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(GpuMissing, match="sees 1 GPUs"):
        device.found("cuda:1")


def test_with_a_gpu_auto_takes_it_and_float32_stays_float32(monkeypatch):
    """What the library would answer is put in its mouth; tests/client/training/test_gpu.py asks a real one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (8 * 2**30, 16 * 2**30))
    seen = device.found("auto")
    assert (seen.where, seen.free_bytes, seen.kept_values) == (torch.device("cuda", 0), 8 * 2**30, 2**28)
    assert device.found("auto") is seen, "a worker that serves a thousand sites looks once"
    assert torch.backends.cudnn.conv.fp32_precision == torch.backends.cuda.matmul.fp32_precision == "ieee"


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:100", "CUDA", "mps"])
def test_a_device_that_is_none_is_refused_in_site_toml(tmp_path, name):
    (tmp_path / "site.toml").write_text(f'[site]\nname = "north"\n\n[training]\ndevice = "{name}"\n')
    with pytest.raises(PlanValue, match="device"):
        read_site_file(tmp_path)


def test_a_site_without_a_word_about_it_takes_what_there_is(tmp_path):
    (tmp_path / "site.toml").write_text('[site]\nname = "north"\n')
    assert read_site_file(tmp_path).training == TrainingSection(device="auto")


def test_a_site_that_is_to_train_on_a_gpu_does_not_open_without(tmp_path, make_plan, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "site.toml").write_text('[site]\nname = "north"\n\n[training]\ndevice = "cuda"\n')
    with pytest.raises(GpuMissing):
        Site.open(tmp_path, make_plan())


@pytest.mark.parametrize(
    ("free_bytes", "pixels", "values", "room"),
    [
        (80 * 2**30, 64 * 64, 10**5, Room(images=1024, units=1024)),
        (80 * 2**30, 512 * 512, 10**7, Room(images=20, units=268)),
        (8 * 2**30, 2048 * 2048, 10**9, Room(images=1, units=1)),
        (80 * 2**30, 0, 100, Room(images=1024, units=1024)),
        (None, 64 * 64, 10**5, Room(images=64, units=16)),
        (None, 64 * 64, 2**25, Room(images=64, units=2)),
    ],
)
def test_what_is_taken_at_once_follows_from_memory_picture_and_model(free_bytes, pixels, values, room):
    kept = 2**26 if free_bytes is None else free_bytes // 32
    assert Device(where=torch.device("cpu"), free_bytes=free_bytes, kept_values=kept).room_for(pixels=pixels, values=values) == room


class Narrow(torch.nn.Module):
    """A network on a device with memory for so many images at once."""

    def __init__(self, inner, fits):
        super().__init__()
        self.inner, self.fits, self.asked = inner, fits, []

    def forward(self, x):
        self.asked.append(len(x))
        if len(x) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.inner(x)


@pytest.fixture
def narrow(monkeypatch):
    """Makes every network that is built from now on a narrow one."""

    def make(fits):
        built = []
        whole = bench_module.build
        monkeypatch.setattr(bench_module, "build", lambda *given: built.append(Narrow(whole(*given), fits)) or built[-1])
        monkeypatch.setattr(bench_module, "load", lambda model, weights: model.values.copy_(torch.tensor(weights.values)))
        bench_module._bench.cache_clear()
        return built

    return make


def test_when_memory_runs_out_half_is_taken_and_the_private_sum_is_the_same(make_plan, make_dataset, narrow):
    plan = make_plan(private=True, privacy=PATIENTS, batch=8, strategy="fedsgd", local_steps=1)
    start, data = initial_weights(plan), make_dataset(images_of=[4] * 24)
    work = LocalWork(steps=1, noise_multiplier=1.0, order_seed=b"", noise=UnsafeSeededNoise(b"one"))
    whole = train_locally(start, data, plan, work).values
    built = narrow(fits=5)
    halved = train_locally(start, data, plan, work).values
    assert max(built[0].asked) > 5 >= built[0].asked[-1]
    assert np.abs(whole - halved).max() <= 24 * lattice_of(plan).step / plan.training.batch
    tried = len(built[0].asked)
    train_locally(start, data, plan, work)
    assert max(built[0].asked[tried:]) <= 5, "what did not fit is not tried again"


def test_when_memory_runs_out_plain_training_and_prediction_take_half_as_well(make_plan, make_dataset, narrow):
    plan, data = make_plan(batch=40), make_dataset(images_of=[1] * 40)
    start, work = initial_weights(plan), LocalWork(steps=2, noise_multiplier=None, order_seed=b"")
    trained, said = train_locally(start, data, plan, work).values, predict(start, data, plan)
    narrow(fits=7)
    np.testing.assert_allclose(train_locally(start, data, plan, work).values, trained, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(predict(start, data, plan), said, rtol=1e-5)


@pytest.mark.parametrize("private", [True, False])
def test_when_not_one_image_fits_the_error_says_so(make_plan, make_dataset, narrow, private):
    plan, data = make_plan(private=private, privacy=PATIENTS), make_dataset(images_of=[2] * 20)
    narrow(fits=0)
    work = LocalWork(steps=1, noise_multiplier=1.0 if private else None, order_seed=b"")
    with pytest.raises(GpuMemory, match="too small for one image"):
        train_locally(initial_weights(plan), data, plan, work)
