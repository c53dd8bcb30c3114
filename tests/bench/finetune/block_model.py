"""A tiny network with boundaries between its blocks, and settings that train it quickly."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench import Augmentation

SETTINGS: dict[str, Any] = {
    "epochs": 5, "batch_size": 8, "learning_rate": 0.003, "views": 3, "patience": 9,
    "augmentation": Augmentation(rotation=0.05),
}  # fmt: skip


def blocks(side: int = 16) -> Any:
    """A network of two residual blocks, whose only boundaries are between them."""
    import keras

    generator = np.random.default_rng(3)
    inputs = keras.Input((side, side, 3))
    x = keras.layers.Rescaling(1 / 255, name="scale")(inputs)
    x = keras.layers.Conv2D(8, 3, strides=2, name="stem", activation="relu")(x)
    for number in (1, 2):
        y = keras.layers.Conv2D(8, 3, padding="same", name=f"b{number}_conv")(x)
        y = keras.layers.BatchNormalization(name=f"b{number}_bn")(y)
        x = keras.layers.Add(name=f"b{number}_add")([x, y])
    outputs = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, outputs)
    model.set_weights([generator.normal(0, 0.3, w.shape).astype("float32") for w in model.weights])
    for layer in model.layers:
        if "bn" in layer.name:
            layer.set_weights([np.abs(w) + 0.5 for w in layer.get_weights()])
    return model
