"""Extractions side by side, interrupted, or refused a write: committed rows stay."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from extraction_checks import assert_right

import featcache
from conftest import make_tiny_model, photo
from featcache import extract
from featcache.backbones.model import Backbone
from featcache.errors import StoreWriteError


def test_two_extractions_into_one_store_at_once_are_both_right(photos: Path) -> None:
    for i in range(40):
        photo(photos / "owl" / f"{i}.png", 300 + i)
    models = [make_tiny_model(), make_tiny_model()]
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda m: extract(m, photos, batch_size=2), models))
    for features in both:
        assert_right(features, models[0])
    assert len(featcache.open_store(both[0].summary.folder)) == 52
    assert featcache.verify(both[0].summary.folder) == []


def test_ctrl_c_keeps_what_was_computed_and_the_next_call_goes_on(
    photos: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(40):
        photo(photos / "owl" / f"{i}.png", 300 + i)
    embed, passes = Backbone.embed, []

    def interrupted(self: Backbone, pixels: Any) -> Any:
        passes.append(len(pixels))
        if len(passes) == 3:
            signal.raise_signal(signal.SIGINT)  # Python gives it to the main thread
            time.sleep(0.2)
        return embed(self, pixels)

    monkeypatch.setattr(Backbone, "embed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(tiny_model, photos, batch_size=2)
    # Also the batch that was in the backbone when the signal came.
    assert 3 <= len(passes) < 26
    features = extract(tiny_model, photos, batch_size=2)
    assert features.summary.stored == sum(passes[: features.summary.stored // 2]) >= 6
    assert features.summary.stored + features.summary.computed == 52
    assert_right(features, tiny_model)


@pytest.mark.parametrize(("seconds", "shards"), [(0.0, 4), (1e9, 1)])
def test_quick_batches_share_a_commit(
    photos: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch, seconds: float, shards: int
) -> None:
    for i in range(100):
        photo(photos / "owl" / f"{i}.png", 300 + i)
    monkeypatch.setattr("featcache.extraction.runner._COMMIT_INTERVAL_SECONDS", seconds)
    monkeypatch.setattr("featcache.engines.engine._MAX_BYTES", 0)  # batches do not grow
    features = extract(tiny_model, photos)
    assert len(list(features.summary.folder.glob("*.h5"))) == shards
    assert features.summary.computed == len(features) == 112
    assert_right(features, tiny_model)


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), RuntimeError("broken")])
def test_what_waits_for_a_commit_is_committed_when_an_extraction_is_stopped(
    photos: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    for i in range(100):
        photo(photos / "owl" / f"{i}.png", 300 + i)
    monkeypatch.setattr("featcache.extraction.runner._COMMIT_INTERVAL_SECONDS", 1e9)
    monkeypatch.setattr("featcache.engines.engine._MAX_BYTES", 0)
    embed, passes = Backbone.embed, []

    def stopped(self: Backbone, pixels: Any) -> Any:
        passes.append(len(pixels))
        if len(passes) == 3:
            raise stop
        return embed(self, pixels)

    monkeypatch.setattr(Backbone, "embed", stopped)
    with pytest.raises(type(stop)):
        extract(tiny_model, photos, engine="keras")
    came_out = sum(passes) - passes[2]  # one more may have been on its way in
    features = extract(tiny_model, photos)
    assert features.summary.stored == came_out >= 64
    assert_right(features, tiny_model)


def test_a_write_that_fails_is_told_and_loses_nothing(
    photos: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featcache.store.store import Store

    append, calls = Store.append, []

    def failing(self: Store, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise StoreWriteError("the disk is full")
        return append(self, *arguments)

    monkeypatch.setattr(Store, "append", failing)
    with pytest.raises(StoreWriteError):
        extract(tiny_model, photos, batch_size=2)
    assert extract(tiny_model, photos, batch_size=2).summary.stored >= 4
