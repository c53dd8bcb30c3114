"""Several layers at once: one pass, and in each store what the layer alone would give."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import heads
from conftest import photo
from featcache import Features, Predictor, concat, extract, make_bundle, open_store
from featcache.backbones.model import Backbone
from featcache.cli import main
from featcache.engines.openvino import is_installed
from featcache.errors import InvalidRequest, NoFiniteRow, StoreWriteError
from onnx_files import cnn, write

LAYERS = ["early", "late", "scores"]


def network(least: float | None = None) -> Any:
    """A network of three layers; with `least`, of a last one that is NaN for lower scores."""
    import keras

    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(5, 3, strides=2, activation="relu", name="early")(x)
    x = keras.layers.Conv2D(7, 3, strides=2, activation="relu", name="late")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dense(3, name="scores")(x)
    model = keras.Model(inputs, x)
    generator = np.random.default_rng(0)
    model.set_weights([generator.normal(size=w.shape).astype("float32") for w in model.weights])
    if least is not None:
        x = keras.ops.sqrt(x[:, :1] - least)
        model = keras.Model(inputs, keras.layers.Identity(name="values")(x))
    return model


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images of each forward pass."""
    counts = list[int]()
    embed = Backbone.embed

    def counted(self: Any, pixels: Any) -> Any:
        counts.append(len(pixels))
        return embed(self, pixels)

    monkeypatch.setattr(Backbone, "embed", counted)
    return counts


def alone(
    model: Any, photos: Any, cache: Path, layers: list[str], **options: Any
) -> list[Features]:
    return [extract(model, photos, layer=one, cache_dir=cache, **options) for one in layers]


def close(found: Any, expected: Any) -> bool:
    found, expected = np.asarray(found), np.asarray(expected)
    return bool(np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("options", [{}, {"views": 2, "augmentation": "flip"}], ids=["", "views"])
def test_one_pass_gives_what_each_layer_alone_gives(
    photos: Path, tmp_path: Path, passes: list[int], options: Any
) -> None:
    model = network()
    found = extract(model, photos, layer=LAYERS, **options)
    views = options.get("views", 1)
    assert sum(passes) == 12 * views
    assert found.summary.computed == 3 * 12 * views
    assert found.summary.seconds > 0
    parts = alone(model, photos, tmp_path / "other", LAYERS, **options)
    assert close(found.X, np.hstack([np.asarray(part.X) for part in parts]))
    assert found.spec == concat(parts).spec
    passes.clear()
    stored = alone(model, photos, tmp_path / "cache", LAYERS, **options)
    assert passes == []
    for mine, theirs in zip(stored, parts, strict=True):
        assert (mine.spec, mine.summary.folder.name) == (theirs.spec, theirs.summary.folder.name)
        assert close(mine.X, theirs.X)


def test_rows_that_are_stored_for_a_layer_are_not_stored_again(
    photos: Path, passes: list[int]
) -> None:
    model = network()
    few = sorted(map(str, photos.rglob("*.png")))[:4]
    early = extract(model, few, layer="early")
    assert extract(model, photos, layer="late").summary.computed == 12
    passes.clear()
    found = extract(model, photos, layer=["early", "late"])
    assert sum(passes) == 8  # for the layer that lacks them
    assert found.summary.computed == 8
    assert found.summary.stored == 4 + 12
    passes.clear()
    found = extract(model, photos, layer=["early", "late", "scores"])
    assert sum(passes) == 12
    assert len(found) == 12
    assert found.summary.stored == 24
    assert np.array_equal(extract(model, few, layer="early").X[:], early.X[:])


def test_images_that_any_of_the_layers_lacks_are_computed_once(
    photos: Path, passes: list[int]
) -> None:
    model, paths = network(), sorted(map(str, photos.rglob("*.png")))
    extract(model, paths[:4], layer="early")
    extract(model, paths[2:8], layer="late")
    passes.clear()
    found = extract(model, paths, layer=["early", "late"], batch_size=1)
    assert sum(passes) == 10
    assert found.summary.computed == 8 + 6
    for part in alone(model, paths, None, ["early", "late"]):  # type: ignore[arg-type]
        assert part.summary.computed == 0
        store = open_store(part.summary.folder)
        assert sum(len(m.views) for m in store._metadata.values()) == 12


def test_views_that_are_stored_for_a_layer_are_not_stored_again(
    photos: Path, tmp_path: Path
) -> None:
    model, views = network(), {"views": 2, "augmentation": "flip"}
    extract(model, photos, layer="early")
    found = extract(model, photos, layer=["early", "late"], **views)  # type: ignore[arg-type]
    assert found.summary.computed == 12 + 24
    parts = alone(model, photos, tmp_path / "other", ["early", "late"], **views)
    assert close(found.X, np.hstack([np.asarray(part.X) for part in parts]))


@pytest.mark.skipif(not is_installed(), reason="OpenVINO is not installed")
def test_openvino_gives_the_same_rows_and_converts_once(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network()
    found = extract(model, photos, layer=LAYERS, engine="openvino")
    assert found.summary.engine == "openvino"
    parts = alone(model, photos, tmp_path / "other", LAYERS)
    assert close(found.X, np.hstack([np.asarray(part.X) for part in parts]))
    monkeypatch.setattr(
        "featcache.extraction.several_layers.build_layers", lambda *_: pytest.fail("it is built")
    )
    more = [str(photo(tmp_path / "more.png", 99))]
    again = extract(model, more, layer=LAYERS, engine="openvino")
    assert close(again.X, np.hstack([
        np.asarray(p.X) for p in alone(model, more, tmp_path / "other", LAYERS)
    ]))  # fmt: skip


def test_an_image_that_one_layer_cannot_use_is_stored_for_the_others(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = network(float(np.median(extract(network(), photos, layer="scores").X[:, 0])))
    (tmp_path / "photos" / "cat" / "bad.png").write_bytes(b"no image")
    with caplog.at_level(logging.WARNING, "featcache"):
        found = extract(model, photos, layer=["early", "values"])
    whole, lacking = alone(model, photos, None, ["early", "values"])  # type: ignore[arg-type]
    assert (whole.summary.computed, lacking.summary.computed) == (0, 0)
    assert len(whole) == 12
    assert 0 < len(lacking) < 12
    assert found.paths == lacking.paths
    assert {bad.path for bad in found.quarantined} == {bad.path for bad in lacking.quarantined}
    assert len(found.quarantined) == 13 - len(lacking)
    assert close(found.X, np.hstack([whole.X[np.isin(whole.paths, found.paths)], lacking.X[:]]))
    assert "rows kept, of 12 rows of" in caplog.text


def test_a_layer_without_any_finite_row_is_an_error_and_the_others_stay(photos: Path) -> None:
    model = network(1e9)
    for i in range(32):
        photo(photos / "cat" / f"more{i}.png", 100 + i)
    with pytest.raises(NoFiniteRow, match="Layer 'values': None of the rows of 32 valid images"):
        extract(model, photos, layer=["early", "values"], batch_size=8)
    assert extract(model, photos, layer="early").summary.stored == 24


def test_an_interrupted_pass_resumes(
    photos: Path, monkeypatch: pytest.MonkeyPatch, passes: list[int]
) -> None:
    from featcache.store.store import Store

    model, append, calls = network(), Store.append, list[int]()

    def interrupted(self: Store, *arguments: Any) -> str:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return append(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            extract(model, photos, layer=["early", "late"], batch_size=3)
    passes.clear()
    found = extract(model, photos, layer=["early", "late"], batch_size=3)
    assert 0 < sum(passes) < 12
    assert len(found) == 12
    assert found.summary.stored > 0
    assert threading.active_count() < 20


def test_networks_that_share_no_pass_are_computed_one_layer_after_the_other(
    photos: Path, tmp_path: Path
) -> None:
    path = write(tmp_path / "network.onnx", cnn())
    options: dict[str, Any] = {"preprocessing": "torch"}
    (name,) = [extract(path, photos, **options).spec.layer]
    import onnx

    inner = next(n.output[0] for n in onnx.load(path).graph.node if n.op_type == "Conv")
    found = extract(path, photos, layer=[inner, name], cache_dir=tmp_path / "new", **options)
    parts = alone(path, photos, tmp_path / "new", [inner, name], **options)
    assert [part.summary.computed for part in parts] == [0, 0]
    assert np.array_equal(found.X[:], np.hstack([part.X[:] for part in parts]))


def test_a_network_that_changed_since_the_plan_is_planned_again(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featcache.extraction.several_layers.build_layers", lambda *_: None)
    assert extract(network(), photos, layer=["early", "late"]).X.shape == (12, 12)


def test_other_weights_than_those_of_the_plan_are_noticed(photos: Path) -> None:
    from dataclasses import replace

    from featcache.backbones.request import BackboneOptions, make_request
    from featcache.backbones.resolve import ResolvedBackbone, build
    from featcache.backbones.several_layers import build_layers

    model = network()
    built = [build(make_request(model, BackboneOptions(layer=n)), None) for n in LAYERS]
    plain = [ResolvedBackbone(b.request, b.spec, b.width) for b in built]
    backbone = build_layers(plain)
    assert backbone is not None
    assert backbone.widths == [5, 7, 3]
    plain[1] = replace(plain[1], spec=replace(plain[1].spec, weights="0" * 64))
    assert build_layers(plain) is None


def test_layers_of_other_dtypes_share_a_pass(photos: Path, tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(4, 3, name="half", dtype="mixed_float16")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool", dtype="float32")(x)
    model = keras.Model(inputs, keras.layers.Dense(3, name="dense")(x))
    found = extract(model, photos, layer=["half", "dense"], engine="keras")
    parts = alone(model, photos, tmp_path / "other", ["half", "dense"], engine="keras")
    assert np.allclose(found.X[:], np.hstack([part.X[:] for part in parts]), atol=1e-2)


def test_a_table_backbone_and_a_bundle_of_its_layers(photos: Path, passes: list[int]) -> None:
    found = extract("pocket", photos, layer=["embedding", -3])
    assert sum(passes) == 12
    assert found.X.shape[1] > 256
    head = heads.LogisticHead(C=1.0).fit(found.X, found.labels)
    bundle = make_bundle(found, head)
    new = str(photo(photos / "new.png", 99))
    passes.clear()
    assert bundle.predict([new])[0].reason is None
    assert sum(passes) == 1
    (told,) = bundle.predict(found.paths[:1], top=2)
    expected = dict(zip(bundle.classes, bundle.predict_proba(found[:1])[0], strict=True))
    assert dict(told.top_classes) == pytest.approx(expected, abs=1e-5)


def test_a_bundle_of_layers_needs_the_model_once(
    photos: Path, tmp_path: Path, passes: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "own.keras"
    network().save(file)
    found = extract(file, photos, layer=["early", "late"])
    head = heads.LogisticHead(C=1.0).fit(found.X, found.labels)
    bundle = make_bundle(found, head)
    new = str(photo(photos / "new.png", 99))
    passes.clear()
    (told,) = bundle.predict([new], backbone=network(), top=2)
    assert sum(passes) == 1
    assert bundle.predict([new], backbone=[file, file], top=2) == [told]
    bundle.save(tmp_path / "b")
    assert bundle.file_options == ("--backbone", str(file))
    assert main(["predict", str(tmp_path / "b"), new, "-q", *bundle.file_options]) == 0
    name, value = told.top_classes[0]
    assert f"{name} {100 * value:.1f} %" in capsys.readouterr().out
    with Predictor(bundle, backbone=file) as predictor:
        (same,) = predictor.predict(new, top=2)
    assert dict(same.top_classes) == pytest.approx(dict(told.top_classes), abs=1e-4)


def test_layers_that_cannot_be_asked_for_are_refused(photos: Path) -> None:
    model = network()
    for layers, message in (
        (["early", "early"], r"names the layer 'early' twice"),
        (["scores", -1], r"layer=\['scores', -1\] names the layer 'scores' twice"),
        ([], "names no layer"),
        (["early", None], "cannot be in a list"),
        ([["early"]], "takes a list of layers"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            extract(model, photos, layer=layers)  # type: ignore[arg-type]
    assert (
        extract(model, photos, layer=["early"]).spec == extract(model, photos, layer="early").spec
    )


@pytest.mark.parametrize("large", [1e9, float("nan")])
def test_a_layer_that_combines_images_is_refused_beside_another(photos: Path, large: float) -> None:
    import keras

    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    big = keras.layers.Rescaling(large, name="big")(x)
    mixed = keras.layers.Identity(name="mixed")(x - keras.ops.mean(x, axis=0, keepdims=True))
    model = keras.Model(inputs, [big, mixed])
    with pytest.raises(InvalidRequest, match="another row in another batch"):
        extract(model, photos, layer=["big", "mixed"])


def test_rows_that_do_not_fit_on_the_disk_are_refused_before_the_pass(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featcache._io.disk_space.free_bytes", lambda *_: 10)
    with pytest.raises(StoreWriteError, match="24 rows of 2 layers need"):
        extract(network(), photos, layer=["early", "late"])


def test_the_command_takes_several_layers(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    words = ["extract", "pocket", str(photos), "--layer", "embedding", "--layer", "-3"]
    assert main([*words, "--dry-run", "-q"]) == 0
    assert capsys.readouterr().out.count("12 to compute") == 2
    assert main([*words, "--json", "-q"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["computed"] == 24
    assert [part["computed"] for part in record["parts"]] == [12, 12]
    assert main(["explain", *words[1:], "--json", "-q"]) == 0
    assert [one["stored"] for one in json.loads(capsys.readouterr().out)] == [12, 12]
    assert main([*words[:5], "--json", "-q"]) == 0
    assert "parts" not in json.loads(capsys.readouterr().out)
