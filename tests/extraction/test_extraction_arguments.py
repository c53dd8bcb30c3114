"""Arguments of an extraction: clear errors for wrong ones, defaults, and other forms of data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from extraction_checks import assert_right

import featcache
from conftest import make_tiny_model
from featcache import extract
from featcache.errors import (
    DatasetError,
    InvalidRequest,
    UnknownBackbone,
    UnknownLayer,
    WeightsMismatch,
    WeightsUnavailable,
)

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
    expected = r"a name, the path of a \.keras or \.onnx file or a keras\.Model, not int"
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
    (tmp_path / "t.csv").write_text("picture,label\na.png,x\n")
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
