"""Files of models and weights that are replaced while they are loaded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import make_tiny_model
from featcache import extract
from featcache._io import file_state
from featcache.backbones import pocket, resolve, weights
from featcache.backbones.request import BackboneOptions, make_request

SETTLED = pytest.mark.parametrize("racy_ns", [-(10**15), 10**15], ids=["settled", "fresh"])
WHEN = pytest.mark.parametrize("before", [True, False], ids=["before", "after"])


@pytest.fixture
def replace_while_loading(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make the next load meet a replacement of the file, before or after it is read."""
    load = resolve.Backbone

    def arrange(path: Path, other: Path, before: bool) -> None:
        def replacing(request: Any) -> Any:
            monkeypatch.setattr(resolve, "Backbone", load)
            if before:
                os.replace(other, path)
            backbone = load(request)
            if not before:
                os.replace(other, path)
            return backbone

        monkeypatch.setattr(resolve, "Backbone", replacing)

    return arrange


@SETTLED
@WHEN
def test_a_model_file_replaced_while_it_loads_gives_its_own_rows(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch,
    replace_while_loading: Callable[..., None], racy_ns: int, before: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(file_state, "_RACY_NS", racy_ns)
    path, other, copy = (tmp_path / f"{name}.keras" for name in ("model", "next", "copy"))
    make_tiny_model(0).save(path)
    make_tiny_model(1).save(other)
    first, second = path.read_bytes(), other.read_bytes()
    copy.write_bytes(second)
    replace_while_loading(path, other, before)
    extract(path, photos, cache_dir=tmp_path / "c")
    for content in (second, first):  # the first is what was hashed before
        if path.read_bytes() != content:
            path.write_bytes(content)
        copy.write_bytes(content)
        got = extract(path, photos, cache_dir=tmp_path / "c")
        expected = extract(copy, photos, cache_dir=tmp_path / "another")
        assert got.spec == expected.spec
        assert np.array_equal(got.X, expected.X)


@SETTLED
@WHEN
def test_a_weights_file_replaced_while_it_loads_gives_its_own_rows(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch,
    replace_while_loading: Callable[..., None], racy_ns: int, before: bool,
) -> None:  # fmt: skip
    import keras

    monkeypatch.setattr(file_state, "_RACY_NS", racy_ns)
    path, other = (tmp_path / f"{name}.weights.h5" for name in ("weights", "next"))
    model = pocket.build(keras, (32, 32))
    for file in (path, other):
        model.set_weights([w + np.float32(0.01) for w in model.get_weights()])
        model.save_weights(file)
    contents = other.read_bytes(), path.read_bytes()
    replace_while_loading(path, other, before)
    options: dict[str, Any] = {"image_size": 32, "weights": path}
    extract("pocket", photos, cache_dir=tmp_path / "c", **options)
    for content in contents:
        if path.read_bytes() != content:
            path.write_bytes(content)
        got = extract("pocket", photos, cache_dir=tmp_path / "c", **options)
        expected = extract("pocket", photos, cache_dir=tmp_path / "another", **options)
        assert got.spec == expected.spec
        assert np.array_equal(got.X, expected.X)
        shutil.rmtree(tmp_path / "another")


def test_a_checked_file_replaced_before_it_loads_is_not_taken_for_the_published_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace_while_loading: Callable[..., None]
) -> None:
    path, other = tmp_path / "published.npz", tmp_path / "other.npz"
    shutil.copy(pocket.FILE, path)
    with np.load(path) as kept:
        np.savez(other, **{name: kept[name] * np.float32(1.5) for name in kept.files})
    monkeypatch.setattr(weights, "POCKET_FILE", path)
    request = make_request("pocket", BackboneOptions(image_size=32))
    folder = tmp_path / "remembered"
    expected = resolve.build(request, folder).spec
    shutil.rmtree(folder)
    replace_while_loading(path, other, before=True)
    assert resolve.build(request, folder).spec != expected
    shutil.copy(pocket.FILE, path)
    assert resolve.resolve(request, folder).spec == expected


@SETTLED
def test_an_unchanged_file_is_loaded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, racy_ns: int
) -> None:
    monkeypatch.setattr(file_state, "_RACY_NS", racy_ns)
    path = tmp_path / "model.keras"
    make_tiny_model().save(path)
    request = make_request(path)
    first = resolve.resolve(request, tmp_path / "r")
    monkeypatch.setattr(resolve, "Backbone", lambda request: pytest.fail("loaded again"))
    assert resolve.resolve(request, tmp_path / "r").spec == first.spec
    monkeypatch.setattr(file_state, "_RACY_NS", -(10**15))
    assert resolve.resolve(request, tmp_path / "r").spec == first.spec
    monkeypatch.setattr(weights, "file_hash", lambda path: pytest.fail("read again"))
    assert resolve.resolve(request, tmp_path / "r").spec == first.spec
