"""The Keras model of a fine-tune: augmentation, preprocessing, backbone and a new top."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featcache import import_keras
from featcache.errors import InvalidRequest
from featcache.toolkit import (
    CAFFE_MEAN_BGR,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Backbone,
    layer_names,
)


@dataclass(frozen=True)
class Augmentation:
    """Random augmentation of training images; False or 0 turns a transformation off.

    Attributes
    ----------
    horizontal_flip, vertical_flip : bool
    rotation : float
        Maximum rotation, as a fraction of a full turn.
    shift : float
        Maximum translation, as a fraction of height and width.
    zoom : float
        Maximum change of scale, as a fraction.
    brightness, contrast, saturation : float
        Maximum change, as a fraction of the range.
    """

    horizontal_flip: bool = True
    vertical_flip: bool = False
    rotation: float = 0.03
    shift: float = 0.1
    zoom: float = 0.15
    brightness: float = 0.1
    contrast: float = 0.1
    saturation: float = 0.1

    def layers(self) -> list[Any]:
        """Return the Keras layers, for pixels from 0 to 255."""
        keras = import_keras()
        make = keras.layers
        flips = {(True, True): "horizontal_and_vertical", (True, False): "horizontal"}
        flip = flips.get((self.horizontal_flip, self.vertical_flip), "vertical")
        # The factor 0.5 of Keras' RandomSaturation changes nothing.
        saturation = (0.5 - self.saturation / 2, 0.5 + self.saturation / 2)
        wanted: list[tuple[Any, Callable[[], Any]]] = [
            (self.horizontal_flip or self.vertical_flip, lambda: make.RandomFlip(flip)),
            (self.rotation, lambda: make.RandomRotation(self.rotation)),
            (self.shift, lambda: make.RandomTranslation(self.shift, self.shift)),
            (self.zoom, lambda: make.RandomZoom(self.zoom)),
            (self.brightness, lambda: make.RandomBrightness(self.brightness)),
            (self.contrast, lambda: make.RandomContrast(self.contrast)),
        ]
        chosen = [build() for on, build in wanted if on]
        if self.saturation:
            # With pixels from 0 to 255 Keras clips the saturation to 255 instead of 1, so that
            # colours leave the range; with pixels from 0 to 1 it is correct.
            inner = make.RandomSaturation(saturation, value_range=(0, 1))
            chosen += [make.Rescaling(1 / 255), inner, make.Rescaling(255.0)]
        return chosen


NO_AUGMENTATION = Augmentation(False, False, 0, 0, 0, 0, 0, 0)


def build_network(
    backbone: Backbone,
    n_classes: int,
    unfreeze: float | int | str,
    units: Sequence[int],
    dropout: float,
    augmentation: Augmentation,
    random_state: int,
) -> Any:
    """Return a model of a backbone with a new top, whose last layers are trainable.

    Batch normalisation of the backbone stays in inference mode: the statistics of the small
    batches of fine-tuning would destroy what the backbone has learned.

    Parameters
    ----------
    backbone : Backbone
        Its layers' `trainable` is changed.
    n_classes : int
    unfreeze : float, int or str
        As for `first_free_layer`.
    units : sequence of int
        Widths of the dense layers between backbone and classes.
    dropout : float
        Fraction of values dropped after each of them.
    augmentation : Augmentation
        Applied in training alone.
    random_state : int
        Seed of the initial weights.

    Returns
    -------
    keras.Model
        From RGB pixels (b, h, w, 3), float32, 0 to 255, to class probabilities (b, n_classes).
    """
    keras = import_keras()
    body = backbone.model
    first = first_free_layer(weight_counts(body), unfreeze)
    for number, layer in enumerate(body.layers):
        layer.trainable = number >= first and type(layer).__name__ != "BatchNormalization"
    inputs = keras.Input(body.input_shape[1:])
    x = inputs
    for layer in augmentation.layers():
        x = layer(x)
    for layer in _preprocessing_layers(keras, backbone.rule):
        x = layer(x)
    x = body(x, training=False)
    for number, width in enumerate(units):
        start = keras.initializers.GlorotUniform(seed=random_state * 100 + number)
        x = keras.layers.Dense(width, activation="relu", kernel_initializer=start)(x)
        x = keras.layers.Dropout(dropout)(x)
    start = keras.initializers.GlorotUniform(seed=random_state * 100 + 99)
    outputs = keras.layers.Dense(n_classes, activation="softmax", kernel_initializer=start)(x)
    return keras.Model(inputs, outputs, name=f"{body.name}_finetuned")


def weight_counts(model: Any) -> list[tuple[str, int]]:
    """Return the name of each layer, as in a fresh session, and its number of weights."""
    return [
        (name, int(sum(np.prod(w.shape) for w in layer.weights)))
        for name, layer in layer_names(model).items()
    ]


def first_free_layer(layers: Sequence[tuple[str, int]], unfreeze: float | int | str) -> int:
    """Return the index of the first layer of a backbone that is trained.

    Parameters
    ----------
    layers : sequence of (str, int)
        Name and number of weights of each layer, from the input to the output.
    unfreeze : float, int or str
        What to train: the last fraction of the weights (0.0 to 1.0), the last N layers, or all
        layers from a name on; a name is the first that begins with it.

    Returns
    -------
    int
        ``len(layers)`` if no layer is trained.

    Raises
    ------
    InvalidRequest
        If `unfreeze` is out of range, or no layer has that name.

    Examples
    --------
    >>> layers = [("a", 10), ("b", 0), ("c", 30), ("d", 60)]
    >>> [first_free_layer(layers, u) for u in (0.0, 0.5, 0.7, 2, "b")]
    [4, 3, 2, 2, 1]
    """
    if isinstance(unfreeze, str):
        for index, (name, _) in enumerate(layers):
            if name.startswith(unfreeze):
                return index
        named = [name for name, count in layers if count][-6:]
        raise InvalidRequest(
            f"unfreeze={unfreeze!r} is not a layer of the backbone; its last ones with weights are "
            f"{', '.join(named)}.",
            received=unfreeze,
        )
    if isinstance(unfreeze, bool) or unfreeze < 0 or (isinstance(unfreeze, float) and unfreeze > 1):
        raise InvalidRequest(
            f"unfreeze={unfreeze!r} must be a fraction from 0.0 to 1.0, a number of layers, or the "
            "name of a layer.",
            received=unfreeze,
        )
    if isinstance(unfreeze, int):
        return max(0, len(layers) - unfreeze)
    total = sum(count for _, count in layers)
    taken, index = 0, len(layers)
    while index > 0 and taken < unfreeze * total - 1e-9:
        index -= 1
        taken += layers[index][1]
    return index


def _preprocessing_layers(keras: Any, rule: Any) -> list[Any]:
    """Return a preprocessing rule as built-in Keras layers, which are saved with the model."""
    mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
    scaling = {
        "none": None,
        "unit": (1 / 255, 0.0),
        "tf": (1 / 127.5, -1.0),
        "torch": ((1 / 255 / std).tolist(), (-mean / std).tolist()),
    }
    if rule == "caffe":
        # The channels are reversed by a fixed 1 x 1 convolution: loading it needs no custom code.
        swap = keras.layers.Conv2D(3, 1, trainable=False, name="rgb_to_bgr_less_mean")
        swap.build((None, None, None, 3))
        kernel = np.eye(3, dtype=np.float32)[:, ::-1].reshape(1, 1, 3, 3)
        swap.set_weights([kernel, -np.array(CAFFE_MEAN_BGR, np.float32)])
        return [swap]
    if not isinstance(rule, str) or rule not in scaling:
        raise InvalidRequest(
            "A fine-tuned model needs preprocessing by one of the named rules, which is saved with "
            "the model; a function cannot be saved.",
            received=rule,
        )
    chosen = scaling[rule]
    return [] if chosen is None else [keras.layers.Rescaling(*chosen)]
