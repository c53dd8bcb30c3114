"""Engines: equal rows whichever ran, conversion once, and a way out when it fails."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import featcache
from conftest import make_tiny_model, photo
from featcache import Features, extract
from featcache.backbones import preprocessing
from featcache.engines import openvino as openvino_runner
from featcache.engines.openvino import NotConvertible, OpenVINORunner
from featcache.engines.openvino_graph import split_dense_end
from featcache.errors import EngineUnavailable, InvalidRequest
from featcache.extraction.recheck import verify_sample
from featcache.gc.collect import collect

pytest.importorskip("openvino", reason="the extra featcache[openvino] is not installed")

needs_bfloat16 = pytest.mark.skipif(
    not openvino_runner.supports("bfloat16"), reason="this processor has no bfloat16"
)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Enough photos for a conversion to be worth it."""
    for i in range(110):
        photo(tmp_path / "many" / ("cat" if i % 2 else "dog") / f"{i:03d}.png", i)
    return tmp_path / "many"


def conversions(cache: Path) -> list[Path]:
    return [path for path in (cache / "engines").glob("*") if path.is_dir()]


def relative_error(features: Features, expected: Features) -> float:
    ours, theirs = np.asarray(features.X), np.asarray(expected.X)
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize("backbone", ["pocket", "mobilenet_v2"])
def test_openvino_gives_the_rows_that_keras_gives(
    photos: Path, tmp_path: Path, backbone: str
) -> None:
    size = None if backbone == "pocket" else 64
    options: dict[str, Any] = {"image_size": size, "weights": "auto" if size is None else "random"}
    one = extract(backbone, photos, engine="openvino", cache_dir=tmp_path / "a", **options)
    other = extract(backbone, photos, engine="keras", cache_dir=tmp_path / "b", **options)
    assert (one.summary.engine, other.summary.engine) == ("openvino", "keras")
    assert one.spec == other.spec
    assert relative_error(one, other) < 1e-5


@pytest.mark.parametrize("rule", [*preprocessing.RULES, "own"])
@pytest.mark.parametrize("batch_size", [None, 1, 5])
def test_every_rule_and_every_batch_size_give_the_same_rows(
    photos: Path, tmp_path: Path, tiny_model: Any, rule: str, batch_size: int | None
) -> None:
    how = (lambda x: x[..., ::-1] / 9 - 4) if rule == "own" else rule
    options: dict[str, Any] = {"preprocessing": how, "batch_size": batch_size}
    one = extract(tiny_model, photos, engine="openvino", cache_dir=tmp_path / "a", **options)
    other = extract(tiny_model, photos, engine="keras", cache_dir=tmp_path / "b", **options)
    assert relative_error(one, other) < 1e-5


@pytest.mark.parametrize("rule", preprocessing.RULES)
def test_a_rule_in_the_graph_is_the_rule(rule: str) -> None:
    pixels = preprocessing.synthetic_images()
    affine = preprocessing.AFFINE[rule]
    ordered = pixels[..., ::-1] if affine.reverse else pixels
    prepared = (ordered - np.float32(affine.mean)) / np.float32(affine.scale)
    assert np.allclose(prepared, preprocessing.apply(rule, pixels), atol=1e-5)


def test_auto_converts_once_and_later_runs_need_no_keras(many: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    options = {"weights": "random", "image_size": 32, "cache_dir": cache}
    first = extract("mobilenet", many, **options)
    assert first.summary.engine == "openvino"
    (folder,) = conversions(cache)
    before = (folder / "model.bin").stat().st_mtime_ns
    photo(many / "cat" / "new.png", 999)
    code = (
        "import sys, featcache\n"
        f"f = featcache.extract('mobilenet', {str(many)!r}, weights='random', image_size=32,\n"
        f"                      cache_dir={str(cache)!r})\n"
        "print(f.summary.computed, f.summary.engine, 'keras' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1 openvino False"
    assert (folder / "model.bin").stat().st_mtime_ns == before


def test_few_images_are_not_worth_a_conversion(photos: Path, tmp_path: Path) -> None:
    features = extract(make_tiny_model(), photos, cache_dir=tmp_path / "cache")
    assert features.summary.engine == "keras"
    assert conversions(tmp_path / "cache") == []


def test_keras_can_be_insisted_on(many: Path, tmp_path: Path, tiny_model: Any) -> None:
    for name in ("keras", "tensorflow"):
        features = extract(tiny_model, many, engine=name, cache_dir=tmp_path / name)
        assert features.summary.engine == "keras"
        assert conversions(tmp_path / name) == []


def test_a_damaged_conversion_is_made_anew(many: Path, tmp_path: Path, tiny_model: Any) -> None:
    cache = tmp_path / "cache"
    extract(tiny_model, many, cache_dir=cache)
    (folder,) = conversions(cache)
    weights = bytearray((folder / "model.bin").read_bytes())
    weights[len(weights) // 2] ^= 1
    (folder / "model.bin").write_bytes(weights)
    with pytest.raises(NotConvertible, match="not the one that was written"):
        OpenVINORunner(folder, (16, 16), "none", "float32")
    photo(many / "cat" / "new.png", 999)
    again = extract(tiny_model, many, engine="openvino", cache_dir=cache)
    plain = extract(tiny_model, many, engine="keras", cache_dir=tmp_path / "other")
    assert relative_error(again, plain) < 1e-5
    openvino_runner.check_seal(folder)


def test_a_batch_that_is_refused_spoils_no_later_one(
    many: Path, tmp_path: Path, tiny_model: Any
) -> None:
    extract(tiny_model, many, cache_dir=tmp_path)
    (folder,) = conversions(tmp_path)
    runner = OpenVINORunner(folder, (16, 16), "none", "float32", 2)
    pixels = np.random.default_rng(0).integers(0, 256, (7, 16, 16, 3), np.uint8)
    expected = runner.run(pixels, 2)
    with pytest.raises(Exception, match="shape"):
        runner.run(np.zeros((64, 16, 15, 3), np.uint8), 2)
    assert np.array_equal(runner.run(pixels, 2), expected)
    assert np.allclose(runner.run(pixels, 4), expected, rtol=1e-5)


def test_a_conversion_goes_with_the_last_store_that_needs_it(
    many: Path, tmp_path: Path, tiny_model: Any
) -> None:
    cache = tmp_path / "cache"
    store = extract(tiny_model, many, cache_dir=cache).summary.folder
    (folder,) = conversions(cache)
    for path in [folder, *folder.iterdir(), *store.iterdir()]:
        os.utime(path, (1, 1))
    assert collect(cache, unused_days=1e6) == []
    told = collect(cache, unused_days=1, dry_run=True)
    assert [removal.name for removal in told] == [store.name, folder.name]
    assert folder.is_dir()
    assert collect(cache, unused_days=1) == told
    assert not folder.exists()


def test_a_seal_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotConvertible, match="not converted yet"):
        openvino_runner.check_seal(tmp_path)
    (tmp_path / "seal.json").write_text("[1")
    with pytest.raises(NotConvertible, match="cannot be read"):
        openvino_runner.check_seal(tmp_path)


def unconvertible() -> Any:
    """A model whose layer asks Python for its values, which no exported graph can."""
    import keras

    class Asking(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            import tensorflow

            return tensorflow.ensure_shape(
                tensorflow.numpy_function(lambda v: v * 2, [x], tensorflow.float32), x.shape
            )

    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(Asking()(x)))


def test_what_does_not_convert_runs_with_keras_and_says_so(
    many: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = unconvertible()
    with caplog.at_level(logging.INFO, "featcache"):
        features = extract(model, many, cache_dir=tmp_path / "cache")
    assert features.summary.engine == "keras"
    assert "OpenVINO cannot run it" in caplog.text
    assert conversions(tmp_path / "cache") == []
    with pytest.raises(EngineUnavailable, match="Leave engine= out"):
        extract(model, many, engine="openvino", cache_dir=tmp_path / "other")


def test_a_conversion_that_disagrees_with_keras_is_not_used(
    many: Path, tmp_path: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = OpenVINORunner.run
    monkeypatch.setattr(OpenVINORunner, "run", lambda *a: run(*a) * np.float32(1.001))
    features = extract(tiny_model, many, cache_dir=tmp_path / "cache")
    assert features.summary.engine == "keras"
    assert conversions(tmp_path / "cache") == []
    with pytest.raises(EngineUnavailable, match="differ from Keras' by"):
        extract(tiny_model, many, engine="openvino", cache_dir=tmp_path / "other")


def test_without_openvino_keras_runs_and_an_insistence_is_told(
    many: Path, tmp_path: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_runner, "is_installed", lambda: False)
    assert extract(tiny_model, many, cache_dir=tmp_path / "a").summary.engine == "keras"
    with pytest.raises(EngineUnavailable, match=r"pip install -e '\.\[openvino\]'"):
        extract(tiny_model, many, engine="openvino", cache_dir=tmp_path / "b")


def test_an_unknown_engine_or_precision_is_told(photos: Path, tiny_model: Any) -> None:
    with pytest.raises(InvalidRequest, match="choose one of auto, openvino, keras, tensorflow"):
        extract(tiny_model, photos, engine="onnx")
    with pytest.raises(InvalidRequest, match="choose one of float32, bfloat16"):
        extract(tiny_model, photos, precision="float16")


@pytest.mark.parametrize("batch_size", [None, 1, 5])
def test_rows_that_go_through_a_dense_end_together_are_those_that_keras_gives(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int | None
) -> None:
    import keras

    tiny = make_tiny_model()
    wide = keras.layers.Dense(40, activation="relu")(tiny.output)
    model = keras.Model(tiny.input, keras.layers.Dense(7)(wide))
    taken_off = []

    def whatever_their_size(graph: Any) -> Any:
        parts = split_dense_end(graph, 0)
        taken_off.append(parts[1] is not None)
        return parts

    monkeypatch.setattr(openvino_runner, "split_dense_end", whatever_their_size)
    one, other = (
        extract(model, photos, engine=name, batch_size=batch_size, cache_dir=tmp_path / name)
        for name in ("openvino", "keras")
    )
    assert taken_off
    assert all(taken_off)
    assert relative_error(one, other) < 1e-5


# bfloat16


@pytest.mark.parametrize("engine", ["keras", pytest.param("openvino", marks=needs_bfloat16)])
def test_bfloat16_has_a_store_of_its_own_and_is_near(
    photos: Path, tmp_path: Path, engine: str
) -> None:
    options: dict[str, Any] = {"weights": "random", "image_size": 64, "cache_dir": tmp_path / "c"}
    whole = extract("mobilenet_v2", photos, **options)
    half = extract("mobilenet_v2", photos, precision="bfloat16", engine=engine, **options)
    assert half.summary.folder != whole.summary.folder
    assert half.spec.weights == whole.spec.weights
    assert half.summary.computed == 12
    assert 1e-5 < relative_error(half, whole) < 5e-2
    explanation = featcache.explain("mobilenet_v2", photos, precision="bfloat16", **options)
    assert explanation.to_compute == 0


def test_a_sample_of_a_bfloat16_store_is_verified_by_its_own_measure(
    photos: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    features = extract(
        "pocket", photos, precision="bfloat16", cache_dir=cache, weights="imagenet-or-random"
    )
    check = verify_sample(features.summary.folder, photos, 5, cache_dir=cache)
    assert (check.images, check.differing, check.tolerance) == (5, [], 0.3)
