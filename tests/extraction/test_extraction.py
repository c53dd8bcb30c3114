"""The main job: extract once, never twice, never a row on the wrong image."""

from __future__ import annotations

import logging
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import featcache
from conftest import make_tiny_model, photo
from featcache import Dataset, Features, explain, extract
from featcache._io.cache_dirs import cache_folder, stores_folder
from featcache.backbones.model import Backbone
from featcache.errors import (
    DatasetError,
    InvalidRequest,
    NoUsableImages,
    StoreWriteError,
    UnknownBackbone,
    UnknownLayer,
    WeightsMismatch,
    WeightsUnavailable,
)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of images in each forward pass."""
    passes: list[int] = []
    embed = Backbone.embed

    def counting(self: Backbone, pixels: Any) -> Any:
        passes.append(len(pixels))
        return embed(self, pixels)

    monkeypatch.setattr(Backbone, "embed", counting)
    return passes


def expected_rows(model: Any, paths: list[str]) -> np.ndarray[Any, Any]:
    """What Keras alone gives, one image at a time."""
    side = model.input_shape[1]
    images = [
        Image.open(p).convert("RGB").resize((side, side), Image.Resampling.BILINEAR) for p in paths
    ]
    return np.concatenate([np.asarray(model(np.asarray(i, np.float32)[None])) for i in images])


def assert_right(features: Features, model: Any) -> None:
    """Every row belongs to the image at its own path."""
    assert np.allclose(
        np.asarray(features.X), expected_rows(model, features.paths), rtol=1e-4, atol=1e-5
    )


def test_every_row_is_its_own_images_embedding(photos: Path, tiny_model: Any) -> None:
    features = extract(tiny_model, photos, batch_size=5)
    assert features.X.shape == (12, 8)
    assert (features.classes, features.labels) == (["cat", "dog"], ["cat"] * 6 + ["dog"] * 6)
    assert_right(features, tiny_model)


def test_a_second_call_computes_nothing(photos: Path, tiny_model: Any, computed: list[int]) -> None:
    first = np.asarray(extract(tiny_model, photos).X)
    assert sum(computed) == 12
    again = extract(tiny_model, photos)
    assert sum(computed) == 12
    assert (again.summary.stored, again.summary.computed) == (12, 0)
    assert np.array_equal(np.asarray(again.X), first)


def test_new_and_changed_images_alone_are_computed(
    photos: Path, tiny_model: Any, computed: list[int]
) -> None:
    extract(tiny_model, photos)
    for i in range(3):
        photo(photos / "cat" / f"new{i}.png", 100 + i)
    photo(photos / "dog" / "07.png", 200)
    features = extract(tiny_model, photos)
    assert sum(computed) == 12 + 4
    assert_right(features, tiny_model)


def test_moved_renamed_and_relabelled_sets_are_hits(
    photos: Path, tiny_model: Any, computed: list[int]
) -> None:
    extract(tiny_model, photos)
    moved = photos.rename(photos.with_name("elsewhere"))
    (moved / "cat").rename(moved / "wolf")
    (moved / "wolf" / "00.png").rename(moved / "dog" / "zz.png")
    features = extract(tiny_model, moved)
    flat = extract(
        tiny_model, [moved / "dog" / "06.png", moved / "wolf" / "01.png"], labels=["x", "y"]
    )
    assert sum(computed) == 12
    assert features.classes == ["dog", "wolf"]
    assert_right(features, tiny_model)
    assert_right(flat, tiny_model)


def test_copies_of_a_photo_are_computed_once_and_each_has_its_row(
    photos: Path, tiny_model: Any, computed: list[int]
) -> None:
    shutil.copy(photos / "cat" / "00.png", photos / "dog" / "copy.png")
    features = extract(tiny_model, photos)
    assert (len(features), sum(computed)) == (13, 12)
    assert_right(features, tiny_model)


def test_a_bad_image_is_quarantined_and_the_others_stay_aligned(
    photos: Path, tiny_model: Any
) -> None:
    (photos / "cat" / "02.png").write_bytes(b"")
    (photos / "dog" / "08.png").write_text("this is a text")
    (photos / "dog" / "09.png").write_bytes((photos / "dog" / "09.png").read_bytes()[:200])
    features = extract(tiny_model, photos, batch_size=4)
    reasons = {Path(q.path).name: q.reason for q in features.quarantined}
    assert reasons["02.png"] == "the file is empty"
    assert "known format" in reasons["08.png"]
    assert "damaged" in reasons["09.png"]
    assert features.positions.tolist() == [0, 1, 3, 4, 5, 6, 7, 10, 11]
    assert features.summary.quarantined == 3
    assert "1 x the file is empty" in str(features.summary)
    assert_right(features, tiny_model)


def test_quarantine_is_remembered_until_a_retry_is_asked_for(
    photos: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featcache.images import decode as images

    monkeypatch.setattr(images.limits, "MAX_PIXELS", 100)
    photo(photos / "cat" / "tiny.png", 50, (9, 9))
    assert len(extract(tiny_model, photos).quarantined) == 12
    monkeypatch.undo()
    monkeypatch.setenv("FEATCACHE_CACHE", str(photos.parent / "cache"))
    assert len(extract(tiny_model, photos).quarantined) == 12
    features = extract(tiny_model, photos, retry_failed=True)
    assert (len(features), len(features.quarantined)) == (13, 0)


def test_if_every_image_is_bad_it_is_an_error_with_the_reasons(
    tmp_path: Path, tiny_model: Any
) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_text("no image")
    with pytest.raises(
        NoUsableImages, match=r"No image can be used: 2 images .* 'a.jpg': is not an image"
    ) as raised:
        extract(tiny_model, tmp_path)
    assert len(raised.value.quarantined) == 2


def test_values_that_are_not_finite_never_enter_a_store(photos: Path) -> None:
    model = make_tiny_model()
    kernel, bias = model.get_weights()
    model.set_weights([kernel * np.float32(1e38), bias])
    with pytest.raises(InvalidRequest, match=r"12 valid images is finite: the model gives"):
        extract(model, photos)
    assert not list(stores_folder(cache_folder()).iterdir())


@pytest.mark.parametrize("batch_size", [1, 5, None])
def test_a_model_that_gives_no_finite_value_is_blamed_and_not_the_images(
    photos: Path, tmp_path: Path, batch_size: int | None
) -> None:
    for i in range(12, 40):
        photo(photos / "dog" / f"{i}.png", i)
    model = make_tiny_model()
    kernel, bias = model.get_weights()
    model.set_weights([kernel * np.float32(1e38), bias])
    model.save(tmp_path / "own.keras")
    for own in (model, tmp_path / "own.keras"):
        with pytest.raises(InvalidRequest, match="Check its weights") as raised:
            extract(own, photos, batch_size=batch_size)
        assert raised.value.images >= 32
        assert not list(stores_folder(cache_folder()).iterdir())


def test_weights_of_nan_are_refused_even_where_an_activation_hides_them(
    photos: Path, tmp_path: Path
) -> None:
    model = make_tiny_model()
    model.set_weights([np.full(w.shape, np.nan, np.float32) for w in model.get_weights()])
    model.save(tmp_path / "nan.keras")
    for own in (model, tmp_path / "nan.keras"):
        with pytest.raises(WeightsMismatch, match="216 of the 216 values of conv/kernel are NaN"):
            extract(own, photos)
        assert not stores_folder(cache_folder()).exists()


def test_an_image_whose_values_are_not_finite_beside_others_is_quarantined(photos: Path) -> None:
    import keras

    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, keras.ops.max(inputs / keras.ops.max(inputs), axis=(1, 2)))
    Image.new("RGB", (24, 20)).save(photos / "cat" / "00.png")
    options: dict[str, Any] = {"preprocessing": "none", "batch_size": 1}
    first = extract(model, photos, **options)
    assert [Path(q.path).name for q in first.quarantined] == ["00.png"]
    Image.new("RGB", (30, 20)).save(photos / "cat" / "black.png")
    again = extract(model, photos, **options)
    assert [Path(q.path).name for q in again.quarantined] == ["00.png", "black.png"]


def test_what_differs_under_one_description_is_not_described_twice(photos: Path) -> None:
    extract(make_tiny_model(), photos)
    other = str(explain(make_tiny_model(seed=1), photos))
    assert "differs in other weights)" in other
    layer = str(explain(make_tiny_model(), photos, layer="conv"))
    assert "layer (output there, conv requested)" in layer
    assert "weights" not in layer or "weights of other layers" in layer
    deeper = str(explain(make_tiny_model(seed=1), photos, layer="conv"))
    assert "weights of other layers" in deeper
    assert "passed" not in other + layer + deeper


def test_two_models_never_share_a_row(photos: Path) -> None:
    one, other = make_tiny_model(0), make_tiny_model(1)
    assert extract(one, photos).summary.folder != extract(other, photos).summary.folder
    assert_right(extract(other, photos), other)


def test_equal_weights_in_another_architecture_make_another_store(photos: Path) -> None:
    one, other = make_tiny_model(), make_tiny_model(activation="tanh")
    assert extract(one, photos).spec.key != extract(other, photos).spec.key
    assert_right(extract(other, photos), other)


def test_the_same_model_built_again_is_a_hit(photos: Path, computed: list[int]) -> None:
    extract(make_tiny_model(), photos)
    extract(make_tiny_model(), photos)
    assert sum(computed) == 12


@pytest.mark.parametrize(
    "changes", [{"batch_size": 1}, {"workers": 1}, {"batch_size": 7, "workers": 3}]
)
def test_how_it_is_run_is_no_part_of_the_key(
    photos: Path, tiny_model: Any, computed: list[int], changes: dict[str, int]
) -> None:
    extract(tiny_model, photos)
    extract(tiny_model, photos, **changes)  # type: ignore[arg-type]
    assert sum(computed) == 12


@pytest.mark.parametrize(
    ("changes", "component"),
    [
        ({"image_size": 40}, "image_size"),
        ({"layer": "conv1"}, "layer"),
        ({"weights": "random:1"}, "weights"),
        ({"pooling": "max", "layer": "conv_pw_13_relu"}, "pooling"),
        ({"resize": "crop"}, "resize"),
        ({"preprocessing": "unit"}, "preprocessing"),
    ],
)
def test_what_changes_a_feature_makes_another_store_and_explain_names_it(
    photos: Path, changes: dict[str, Any], component: str
) -> None:
    base: dict[str, Any] = {"image_size": 32, "weights": "random"}
    if "pooling" in changes:
        base["layer"] = changes["layer"]
    extract("mobilenet", photos, **base)
    assert explain("mobilenet", photos, **base).exists
    explanation = explain("mobilenet", photos, **{**base, **changes})
    assert not explanation.exists
    assert explanation.to_compute == 12
    assert component in explanation.differs_in
    assert component in str(explanation)
    # A layer before others has fewer weights under it, which is a difference of its own.
    assert set(explanation.differs_in) <= {
        component,
        "weights" if component == "layer" else component,
        "pooling",
    }


def test_explain_computes_and_writes_nothing(
    photos: Path, tiny_model: Any, computed: list[int], tmp_path: Path
) -> None:
    explanation = explain(tiny_model, photos)
    assert (explanation.stored, explanation.to_compute, explanation.exists) == (0, 12, False)
    assert not computed
    assert not (tmp_path / "cache" / "stores").exists()


def test_each_call_logs_counts_and_place(
    photos: Path, tiny_model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "featcache"):
        folder = extract(tiny_model, photos).summary.folder
    assert f"12 images: 0 stored, 12 to compute, 0 quarantined; store {folder}" in caplog.text


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
    monkeypatch.setattr("featcache.engines.select._MAX_BYTES", 0)  # batches do not grow
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
    monkeypatch.setattr("featcache.engines.select._MAX_BYTES", 0)
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


def test_a_known_id_is_checked_when_the_file_is_read(photos: Path, tiny_model: Any) -> None:
    paths = sorted(str(p) for p in photos.glob("cat/*.png"))
    lying = Dataset(paths, ids=["ab" * 32] * len(paths))
    with pytest.raises(NoUsableImages, match="replaced since it was listed"):
        extract(tiny_model, lying)


# What users get wrong


def test_an_unknown_backbone_suggests_near_names(photos: Path) -> None:
    with pytest.raises(UnknownBackbone, match="'vgg19'"):
        extract("vgg91", photos)


def test_an_unknown_layer_lists_some(photos: Path) -> None:
    with pytest.raises(UnknownLayer, match=r"Near it: conv1.*Its last layers are .*predictions"):
        extract("mobilenet", photos, layer="conv_1", weights="random", image_size=32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 must be a whole number"),
        ({"workers": -1}, "workers=-1"),
        ({"pooling": "mean"}, "choose one of avg, max, flat"),
        ({"resize": "squash"}, "choose one of stretch, crop, pad"),
        ({"image_size": "big"}, "image_size='big'"),
        ({"image_size": (1, 2, 3)}, "image_size"),
        ({"preprocessing": "imagenet"}, "choose one of none, unit"),
        ({"weights": 3}, "weights="),
    ],
)
def test_an_argument_that_makes_no_sense_is_told(
    photos: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        extract("mobilenet", photos, **arguments)


def test_pooling_of_a_layer_that_gives_vectors_is_told(photos: Path) -> None:
    with pytest.raises(InvalidRequest, match="needs a spatial layer"):
        extract("resnet50", photos, pooling="max", weights="random", image_size=32)


def test_an_image_size_that_a_backbone_cannot_take_is_told(photos: Path) -> None:
    with pytest.raises(
        InvalidRequest, match=r"inception_v3 cannot take images of 20 x 20.*native size is 299"
    ):
        extract("inception_v3", photos, image_size=20, weights="random")


def test_your_own_model_must_say_how_pixels_are_prepared(photos: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    with pytest.raises(InvalidRequest, match="How are images prepared for your model"):
        extract(model, photos)
    assert extract(model, photos, preprocessing="unit").X.shape == (12, 192)


def test_what_is_no_backbone_is_told(photos: Path) -> None:
    expected = r"a name, the path of a \.keras file or a keras\.Model, not int"
    with pytest.raises(InvalidRequest, match=expected):
        extract(7, photos)


def test_missing_weights_fail_at_once_and_say_where_to_put_which_file(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "featcache._io.download._connection_error", lambda host, port: f"{host} cannot be reached"
    )
    with pytest.raises(
        WeightsUnavailable, match=r"vgg19_weights.*cbe5617147190e668d6c5d5026f83318.*models"
    ):
        extract("vgg19", photos)
    with pytest.raises(WeightsUnavailable, match="There is no weights file"):
        extract("vgg19", photos, weights="no/such/file.h5")


def test_a_weights_file_of_another_backbone_is_told(photos: Path, tmp_path: Path) -> None:
    make_tiny_model().save_weights(tmp_path / "tiny.weights.h5")
    with pytest.raises(WeightsMismatch, match=r"do not fit mobilenet for .* layer 'conv1' expects"):
        extract("mobilenet", photos, weights=tmp_path / "tiny.weights.h5", image_size=32)


def test_a_damaged_download_in_keras_cache_is_not_used(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "keras-home" / "models"
    folder.mkdir(parents=True)
    (folder / "resnet50_weights_tf_dim_ordering_tf_kernels.h5").write_bytes(b"cut off")
    with pytest.raises(WeightsMismatch, match="delete it and run again"):
        extract("resnet50", photos)


def test_a_csv_without_a_path_column_is_told(tmp_path: Path, tiny_model: Any) -> None:
    (tmp_path / "t.csv").write_text("file,label\na.png,x\n")
    with pytest.raises(DatasetError, match="no column 'path'"):
        extract(tiny_model, tmp_path / "t.csv")


# Other ways in


def test_a_dataframe_brings_labels_split_and_attributes(photos: Path, tiny_model: Any) -> None:
    frame = pd.DataFrame(
        {
            "path": [str(p) for p in sorted(photos.glob("*/*.png"))],
            "label": [p.parent.name for p in sorted(photos.glob("*/*.png"))],
            "split": ["train", "train", "test"] * 4,
            "light": [str(i) for i in range(12)],
        }
    )
    features = extract(tiny_model, frame)
    train, test = features.split()
    assert (len(train), len(test)) == (8, 4)
    assert test.attributes["light"].tolist() == ["2", "5", "8", "11"]
    assert_right(test, tiny_model)


def test_the_folder_in_the_environment_is_the_default(
    photos: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATCACHE_DATA", str(photos))
    assert len(extract(tiny_model)) == 12


def test_the_one_liner_works_on_a_fresh_machine_and_says_that_weights_are_random(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "featcache._io.download._connection_error", lambda host, port: f"{host} cannot be reached"
    )
    with pytest.warns(featcache.RandomWeightsWarning, match="seeded random weights"):
        features = extract("mobilenet", image_size=32)
    assert (len(features), len(features.classes or [])) == (200, 10)
    assert set(features.attributes) >= {"size", "light", "fur_length"}


def test_any_layer_and_pooling_of_a_backbone(photos: Path) -> None:
    def width(**options: Any) -> int:
        return extract("mobilenet", photos, weights="random", image_size=32, **options).X.shape[1]

    assert width() == 1024
    assert width(layer="conv_pw_1_relu") == 64
    assert width(layer="conv_pw_1_relu", pooling="flat") == 16 * 16 * 64
    assert width(layer="conv_pw_1_relu", pooling="max") == 64


def test_an_unlabelled_folder_gives_features_without_y(photos: Path, tiny_model: Any) -> None:
    features = extract(tiny_model, photos / "cat")
    assert (features.y, features.classes, features.labels) == (None, None, None)
