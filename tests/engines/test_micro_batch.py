"""Images per forward pass: measured once, halved where memory is insufficient, remembered."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import featcache
from conftest import photo
from featcache import extract
from featcache._io.atomic import read_memo
from featcache.engines import select as engines
from featcache.engines.engine import Engine
from featcache.engines.keras import KerasRunner
from featcache.engines.micro_batch import (
    MicroBatchSize,
    find_fastest,
    is_out_of_memory,
    read_size,
    write_size,
)
from featcache.engines.openvino import OpenVINORunner
from featcache.errors import InvalidRequest, OutOfMemory

pytest.importorskip("openvino", reason="the extra featcache[openvino] is not installed")


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Enough photos for a conversion to be worth it."""
    for i in range(110):
        photo(tmp_path / "many" / ("cat" if i % 2 else "dog") / f"{i:03d}.png", i)
    return tmp_path / "many"


class Runner:
    """Computes row = first pixel; fails as told."""

    name, candidates, trial, most = "keras", (2, 4, 8), 8, 8
    width = parallel = 1

    def __init__(self, most_that_fits: int, error: Exception) -> None:
        self.most_that_fits, self.error = most_that_fits, error
        self.sizes: list[int] = []

    def run(self, pixels: Any, size: int) -> Any:
        self.sizes.append(size)
        if size > self.most_that_fits:
            raise self.error
        return pixels.reshape(len(pixels), -1)[:, :1].astype(np.float32)

    def provenance(self) -> dict[str, str]:
        return {}

    def size_within(self, batch_size: int) -> int:
        return batch_size


class FakeXlaError(RuntimeError):
    pass


@pytest.mark.parametrize(
    "error",
    [MemoryError(), FakeXlaError("RESOURCE_EXHAUSTED: 9 GiB"), RuntimeError("CUDA out of memory")],
)
def test_a_pass_that_does_not_fit_is_halved_and_that_is_remembered(
    tmp_path: Path, error: Exception
) -> None:
    runner = Runner(3, error)
    memo = tmp_path / "engines" / "batch.json"
    engine = Engine(runner, MicroBatchSize(16, memo), 16)
    pixels = np.arange(16, dtype=np.uint8).reshape(16, 1, 1, 1)
    assert engine.embed(pixels).ravel().tolist() == list(range(16))
    assert runner.sizes == [16, 8, 4, 2]
    assert read_memo(memo) == {"images": 2}
    assert read_size(memo) == 2


def hand_over(engine: Engine, batches: int, side: int) -> list[int]:
    """Return the sizes of batches that an engine asks for, one after the other."""
    sizes = []
    for _ in range(batches):
        sizes.append(engine.batch_size)
        engine.embed(np.zeros((engine.batch_size, side, side, 3), np.uint8))
    return sizes


def test_quick_batches_grow_until_their_pixels_take_too_much() -> None:
    quick = Engine(Runner(999, MemoryError()), MicroBatchSize(8), 32, grows=True)
    assert hand_over(quick, 5, 224) == [32, 64, 128, 128, 128]
    as_said = Engine(Runner(999, MemoryError()), MicroBatchSize(8), 32)
    assert hand_over(as_said, 3, 224) == [32, 32, 32]


def test_slow_batches_do_not_grow() -> None:
    class Slow(Runner):
        def run(self, pixels: Any, size: int) -> Any:
            time.sleep(0.16)
            return super().run(pixels, size)

    slow = Engine(Slow(999, MemoryError()), MicroBatchSize(8), 4, grows=True)
    assert hand_over(slow, 3, 8) == [4, 4, 4]


def test_an_image_that_does_not_fit_at_all_is_told() -> None:
    engine = Engine(Runner(0, MemoryError()), MicroBatchSize(4), 4)
    with pytest.raises(OutOfMemory, match="even with one image at a time"):
        engine.embed(np.zeros((4, 1, 1, 1), np.uint8))


def test_another_error_is_not_taken_for_want_of_memory() -> None:
    engine = Engine(Runner(0, ValueError("wrong shape")), MicroBatchSize(4), 4)
    with pytest.raises(ValueError, match="wrong shape"):
        engine.embed(np.zeros((4, 1, 1, 1), np.uint8))
    assert not is_out_of_memory(ValueError("wrong shape"))


@pytest.mark.parametrize("best", [4, 2, 8])
def test_the_quickest_size_is_found(best: int) -> None:
    assert find_fastest((4, 2, 8), lambda size: 1.0 + abs(size - best)) == best


def test_a_size_that_does_not_fit_is_passed_over() -> None:
    def seconds(size: int) -> float:
        if size > 4:
            raise MemoryError
        return 1 / size

    assert find_fastest((2, 4, 8), seconds) == 4
    assert find_fastest((8, 16), seconds) == 8  # the work itself will halve it
    with pytest.raises(KeyError):
        find_fastest((8,), {}.__getitem__)


def test_the_size_is_measured_once_and_only_for_much_work(
    many: Path, tmp_path: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def measure(runner: Any, size: int, spec: Any) -> float:
        tried.append(size)
        return float(size)

    run = KerasRunner.run
    used: list[int] = []

    def noted(runner: Any, pixels: Any, size: int) -> Any:
        used.append(size)
        return run(runner, pixels, size)

    monkeypatch.setattr(KerasRunner, "run", noted)
    monkeypatch.setattr(engines, "_measure_seconds", measure)
    options: dict[str, Any] = {"preprocessing": "unit", "engine": "keras"}
    featcache.extract(tiny_model, many, cache_dir=tmp_path / "a", **options)
    assert (tried, {*used}) == ([], {32})
    used.clear()
    monkeypatch.setattr(engines, "_WORTH_MEASURING", 10)
    for _ in range(2):
        featcache.extract(tiny_model, many, cache_dir=tmp_path / "b", **options)
        shutil.rmtree(tmp_path / "b" / "stores")
    assert (tried, {*used}) == ([32, 16], {16})
    (memo,) = (tmp_path / "b" / "engines").glob("pass-*.json")
    assert read_size(memo) == 16


def test_the_first_pass_of_a_size_is_not_counted() -> None:
    class SlowAtFirst(Runner):
        def run(self, pixels: Any, size: int) -> Any:
            time.sleep(0.16 if self.sizes else 0.35)  # compiling
            return super().run(pixels, size)

    runner = SlowAtFirst(999, MemoryError())
    assert engines._measure_seconds(runner, 4, SimpleNamespace(image_size=(2, 2))) < 0.3  # type: ignore[arg-type]


def test_the_users_batch_size_is_compiled_once(
    many: Path, tmp_path: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(tiny_model, many, cache_dir=tmp_path)
    compiled: list[int] = []
    compile_ = OpenVINORunner._compile

    def noted(runner: Any, size: int) -> None:
        compiled.append(size)
        compile_(runner, size)

    monkeypatch.setattr(OpenVINORunner, "_compile", noted)
    photo(many / "cat" / "new.png", 999)
    extract(tiny_model, many, batch_size=5, cache_dir=tmp_path)
    assert compiled == [2]


@pytest.mark.parametrize("text", ["", "[", "{}", '{"images": "8"}', '{"images": 0}', "[[[[" * 9999])
def test_a_memory_that_is_damaged_is_measured_anew(tmp_path: Path, text: str) -> None:
    memo = tmp_path / "pass.json"
    memo.write_text(text)
    assert read_size(memo) is None
    write_size(memo, 8)
    assert read_size(memo) == 8


def test_the_stages_are_told(photos: Path, tiny_model: Any) -> None:
    features = extract(tiny_model, photos)
    stages = features.summary.stages
    assert stages is not None
    assert all(seconds > 0 for seconds in vars(stages).values())
    assert "keras: read 0." in str(features.summary)
    assert extract(tiny_model, photos).summary.stages is None


@pytest.mark.parametrize("part", [(slice(1, None), slice(None)), (slice(None), slice(0, 0))])
def test_a_model_without_one_row_per_image_is_refused(part: Any) -> None:
    class Fewer(Runner):
        def run(self, pixels: Any, size: int) -> Any:
            return super().run(pixels, size)[part]

    engine = Engine(Fewer(999, MemoryError()), MicroBatchSize(4), 4)
    with pytest.raises(InvalidRequest, match="for 5 images, not one row of 1 values per image"):
        engine.embed(np.zeros((5, 2, 2, 3), np.uint8))
