"""Own models of which an image's row would depend on the images beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from featcache import extract
from featcache._io.cache_dirs import cache_folder, stores_folder
from featcache.errors import InvalidRequest


def mean_of_batch(ops: Any, x: Any) -> Any:
    return x - ops.mean(x, axis=0, keepdims=True)


def neighbour(ops: Any, x: Any) -> Any:
    return ops.roll(x, 1, axis=0)


def running_sum(ops: Any, x: Any) -> Any:
    return ops.cumsum(x, axis=0)


@pytest.mark.parametrize("combined", [mean_of_batch, neighbour, running_sum])
@pytest.mark.parametrize("saved", [False, True], ids=["model", "file"])
def test_models_that_combine_images_of_a_batch_are_refused(
    photos: Path, tmp_path: Path, combined: Any, saved: bool
) -> None:
    import keras

    inputs = keras.Input((16, 16, 3))
    rows = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs))
    model = keras.Model(inputs, combined(keras.ops, rows))
    if saved:
        model.save(tmp_path / "m.keras")
    given = tmp_path / "m.keras" if saved else model
    with pytest.raises(InvalidRequest, match="another row in another batch"):
        extract(given, photos, preprocessing="unit", layer="output")
    assert not any(stores_folder(cache_folder()).glob("*"))
    normalised = keras.Model(inputs, keras.ops.normalize(rows, axis=-1))
    assert extract(normalised, photos, preprocessing="unit", layer="output").X.shape == (12, 4)


def test_random_numbers_in_a_model_are_refused(photos: Path) -> None:
    import keras

    class Jitter(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x + keras.random.normal(keras.ops.shape(x))

    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, Jitter()(keras.layers.GlobalAveragePooling2D()(inputs)))
    with pytest.raises(InvalidRequest, match="draws random numbers"):
        extract(model, photos, preprocessing="unit", layer="output")


def test_rounding_in_mixed_precision_is_no_dependence(photos: Path) -> None:
    import keras

    inputs = keras.Input((16, 16, 3))
    x = inputs
    for _ in range(4):
        x = keras.layers.Conv2D(8, 3, padding="same", dtype="mixed_bfloat16")(x)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D(dtype="float32")(x))
    assert extract(model, photos, preprocessing="unit").X.shape == (12, 8)
