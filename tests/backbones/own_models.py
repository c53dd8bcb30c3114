"""Small models of a user's own, and the rows that Keras gives for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from featcache.images.decode import decode, resize


def body(keras: Any, channels: int = 3) -> tuple[Any, Any]:
    """An input and a vector of 6 values per image."""
    inputs = keras.Input((16, 16, channels))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(6, 3, activation="relu", name="conv")(x)
    return inputs, keras.layers.GlobalAveragePooling2D(name="pool")(x)


def dense_softmax(keras: Any, x: Any) -> Any:
    return keras.layers.Dense(4, activation="softmax", name="top")(x)


def expected(model: Any, folder: Path) -> Any:
    files = sorted(folder.iterdir())
    pixels = np.stack([resize(decode(f.read_bytes()), (16, 16)) for f in files])
    return model.predict(pixels.astype(np.float32), verbose=0)
