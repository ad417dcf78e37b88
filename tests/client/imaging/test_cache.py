# SPDX-License-Identifier: Apache-2.0
"""A cache is whole or not there, built once, and says nothing about anyone."""

import json
import multiprocessing
import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.imaging import cache, slots
from client.imaging.cache import Contents
from client.imaging.rejection import Reason
from common.errors import DiskFull, LabelsMismatch

SHAPE = (1, 8, 8)
KEY = "k" * 40


def image(slot: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
    return np.full(SHAPE, slot + 1, dtype=np.uint16)


def fill(output: int, *, used: tuple[int, ...] = (1, 2, 5), seen: int = 7) -> Contents:
    for slot in reversed(used):
        slots.write(output, slot, image(slot))
    names = tuple(f"item{slot}" for slot in used)
    patients = tuple(f"patient{slot % 2}" for slot in used)
    return Contents(slots=used, items=names, patients=patients, seen=seen, rejected=Counter({Reason.CONSTANT: seen - len(used)}))


def refuse(output: int) -> Contents:
    raise AssertionError("built again")


def opened(folder: Path, build: Callable[[int], Contents] = fill) -> cache.Cached:
    return cache.open_or_build(folder, KEY, SHAPE, build, capacity=7)


@given(st.sets(st.integers(0, 30), min_size=1))
@settings(max_examples=25)
def test_gaps_close_and_every_image_keeps_its_place(tmp_path_factory: pytest.TempPathFactory, used: set[int]) -> None:
    order = tuple(sorted(used))
    folder = tmp_path_factory.mktemp("cache")
    cached = opened(folder, lambda output: fill(output, used=order, seen=40))
    np.testing.assert_array_equal(cached.images, [image(slot) for slot in order])
    assert cached.items == tuple(f"item{slot}" for slot in order)
    assert cached.seen == 40


def test_what_was_built_is_opened_and_not_built_again(tmp_path: Path) -> None:
    built = opened(tmp_path)
    again = opened(tmp_path, refuse)
    np.testing.assert_array_equal(built.images, again.images)
    assert (again.items, again.patients, again.seen, again.rejected) == (built.items, built.patients, built.seen, built.rejected)
    assert np.load(tmp_path / KEY / cache.IMAGES).dtype == np.uint16


def test_images_are_mapped_and_cannot_be_written(tmp_path: Path) -> None:
    cached = opened(tmp_path)
    assert isinstance(cached.images.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        cached.images[0] = 0


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    match how:
        case "gone":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(content[: len(content) // 2])
        case "longer":
            path.write_bytes(content + b"x")
        case "bit":
            path.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
        case "pickle":
            np.save(path.with_suffix(".npy"), np.array([{}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize("how", ["gone", "empty", "cut", "longer", "pickle"])
def test_a_cache_too_large_to_hash_is_still_checked_for_size_and_shape(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "HASHED_UP_TO", 0)
    opened(tmp_path)
    damage(tmp_path / KEY / cache.IMAGES, how)
    np.testing.assert_array_equal(opened(tmp_path).images, [image(1), image(2), image(5)])


@pytest.mark.parametrize("file", [cache.IMAGES, cache.INDEX])
@pytest.mark.parametrize("how", ["gone", "empty", "cut", "longer", "bit", "pickle"])
def test_a_damaged_cache_is_built_anew(tmp_path: Path, file: str, how: str) -> None:
    opened(tmp_path)
    damage(tmp_path / KEY / file, how)
    rebuilt = opened(tmp_path)
    np.testing.assert_array_equal(rebuilt.images, [image(1), image(2), image(5)])
    opened(tmp_path, refuse)


def test_an_index_of_another_cache_is_not_believed(tmp_path: Path) -> None:
    opened(tmp_path)
    cache.open_or_build(tmp_path, "o" * 40, SHAPE, lambda output: fill(output, used=(0,)), capacity=7)
    (tmp_path / KEY / cache.INDEX).write_bytes((tmp_path / ("o" * 40) / cache.INDEX).read_bytes())
    assert len(opened(tmp_path).items) == 3


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail(output: int) -> Contents:
        slots.write(output, 0, image(0))
        raise LabelsMismatch("none")

    with pytest.raises(LabelsMismatch):
        opened(tmp_path / "cache", fail)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [f"{KEY}.lock"]
    opened(tmp_path / "cache")


def test_what_a_killed_builder_left_is_removed(tmp_path: Path) -> None:
    leftover = tmp_path / f".{KEY}-abandoned"
    leftover.mkdir()
    (leftover / cache.IMAGES).write_bytes(b"half")
    opened(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [KEY, f"{KEY}.lock"]


def _die_while_building(folder: str) -> None:
    def die(output: int) -> Contents:
        slots.write(output, 0, image(0))
        os._exit(9)

    opened(Path(folder), die)


def test_a_builder_that_dies_lets_the_next_one_build(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_die_while_building, args=(str(tmp_path),))
    process.start()
    process.join()
    assert process.exitcode == 9
    assert len(list(tmp_path.glob(".k*"))) == 1
    assert len(opened(tmp_path).items) == 3
    assert not list(tmp_path.glob(".k*"))


def test_of_two_builders_one_waits_and_finds_it_done(tmp_path: Path) -> None:
    started, may_finish, builds = threading.Event(), threading.Event(), []

    def slow(output: int) -> Contents:
        builds.append(1)
        started.set()
        assert may_finish.wait(10)
        return fill(output)

    results: list[cache.Cached] = []
    threads = [threading.Thread(target=lambda: results.append(opened(tmp_path, slow))) for _ in range(2)]
    threads[0].start()
    assert started.wait(10)
    threads[1].start()
    may_finish.set()
    for thread in threads:
        thread.join()
    assert len(builds) == 1
    np.testing.assert_array_equal(results[0].images, results[1].images)


def test_a_cache_that_cannot_fit_is_refused_before_anything_is_decoded(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match=r"MiB free, up to .* MiB needed.*smaller"):
        cache.open_or_build(tmp_path, KEY, (3, 2048, 2048), refuse, capacity=10**9)


def test_a_cache_is_for_its_owner_only(tmp_path: Path) -> None:
    opened(tmp_path / "cache")
    assert (tmp_path / "cache" / KEY).stat().st_mode & 0o077 == 0


def test_the_index_is_plain_json_after_its_hash(tmp_path: Path) -> None:
    opened(tmp_path)
    _, body = (tmp_path / KEY / cache.INDEX).read_bytes().split(b"\n")
    assert json.loads(body)["rejected"] == {"E_CONSTANT": 4}
