"""The Keras model of a fine-tune: preprocessing, backbone and a new top."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featcache import Augmentation, import_keras
from featcache.errors import InvalidRequest
from featcache.toolkit import (
    CAFFE_MEAN_BGR,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Backbone,
    affine_of,
    all_layers,
    layer_names,
)

from .boundary import Boundary

NO_AUGMENTATION = Augmentation(False, False, 0, 0, 0, 0, 0, 0)


@dataclass(frozen=True)
class Network:
    """A backbone with a new top.

    Attributes
    ----------
    full : keras.Model
        From RGB pixels (b, h, w, 3), float32, 0 to 255, to class probabilities (b, n_classes).
    trained : keras.Model
        What is trained: all of it, or the part from the output of the boundary layer on. It
        shares its layers with `full`, and runs those of the backbone in inference mode.
    first_free : int
        Index of the backbone's first layer that is trained.
    """

    full: Any
    trained: Any
    first_free: int


def build_network(
    backbone: Backbone,
    n_classes: int,
    unfreeze: float | int | str,
    top: Top,
    random_state: int,
    boundary: Boundary | None = None,
) -> Network:
    """Return a backbone with a new top, whose last layers are trainable.

    The backbone stays in inference mode: the statistics that batch normalisation takes of small
    batches would destroy what the backbone has learned, and dropout in its frozen part would
    give outputs that are not those that are stored.

    Parameters
    ----------
    backbone : Backbone
        Its layers' `trainable` is changed.
    n_classes : int
    unfreeze : float, int or str
        As for `first_free_layer`.
    top : Top
    random_state : int
        Seed of the initial weights.
    boundary : Boundary, optional
        Where the trained part begins, if the outputs of the layer before it are stored.

    Returns
    -------
    Network
    """
    keras = import_keras()
    body = backbone.model
    first = first_free_layer(weight_counts(body), unfreeze)
    for number, layer in enumerate(body.layers):
        layer.trainable = number >= first
    for layer in all_layers(body):
        if type(layer).__name__ == "BatchNormalization":
            layer.trainable = False
    layers = top.layers(n_classes, random_state)
    inputs = keras.Input(body.input_shape[1:])
    x = inputs
    for layer in _preprocessing_layers(keras, backbone.rule):
        x = layer(x)
    full = keras.Model(inputs, _apply(layers, body(x)), name=f"{body.name}_finetuned")
    if boundary is None:
        embedding = _inference_layer(keras, body)(x)
        return Network(full, keras.Model(inputs, _apply(layers, embedding), name=full.name), first)
    stored = keras.Input(boundary.shape)
    embedding = stored
    if not boundary.is_output:
        tail = keras.Model(boundary.tensor, body.output, name=f"{body.name}_tail")
        embedding = _inference_layer(keras, tail)(stored)
    trained = keras.Model(stored, _apply(layers, embedding), name=full.name)
    return Network(full, trained, first)


def _inference_layer(keras: Any, model: Any) -> Any:
    """Return a layer that runs a model in inference mode.

    Not ``model(x, training=False)``: Keras replaces that by the mode of the model around it.
    """

    class InInferenceMode(keras.layers.Layer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def call(self, inputs: Any) -> Any:
            return self.model(inputs, training=False)

    return InInferenceMode()


@dataclass(frozen=True)
class Top:
    """The layers between the embedding and the classes.

    Attributes
    ----------
    units : tuple of int
        Widths of the dense layers before the last one.
    dropout : float
        Fraction of values dropped after each of them.
    """

    units: tuple[int, ...]
    dropout: float

    def layers(self, n_classes: int, random_state: int) -> list[Any]:
        """Return new layers, with initial weights that follow from the seed."""
        keras = import_keras()
        found: list[Any] = []
        for number, width in enumerate(self.units):
            start = keras.initializers.GlorotUniform(seed=random_state * 100 + number)
            found.append(keras.layers.Dense(width, activation="relu", kernel_initializer=start))
            found.append(keras.layers.Dropout(self.dropout))
        start = keras.initializers.GlorotUniform(seed=random_state * 100 + 99)
        last = keras.layers.Dense(n_classes, activation="softmax", kernel_initializer=start)
        return [*found, last]


def _apply(layers: Sequence[Any], x: Any) -> Any:
    for layer in layers:
        x = layer(x)
    return x


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
    if callable(rule):
        raise InvalidRequest(
            "A fine-tuned model needs preprocessing by one of the named rules, or a Normalization, "
            "which is saved with the model; a function cannot be saved.",
            received=rule,
        )
    if rule not in scaling:
        return [_normalization_layer(keras, affine_of(rule))]
    chosen = scaling[rule]
    return [] if chosen is None else [keras.layers.Rescaling(*chosen)]


def _normalization_layer(keras: Any, affine: Any) -> Any:
    """Return a layer that takes a mean off the channels, divides, and may reverse their order."""
    mean, scale = np.array(affine.mean), np.array(affine.scale)
    if not affine.reverse:
        return keras.layers.Rescaling((1 / scale).tolist(), (-mean / scale).tolist())
    swap = keras.layers.Conv2D(3, 1, trainable=False, name="rgb_to_bgr_normalized")
    swap.build((None, None, None, 3))
    kernel = (np.eye(3)[:, ::-1] / scale).astype(np.float32).reshape(1, 1, 3, 3)
    swap.set_weights([kernel, (-mean / scale).astype(np.float32)])
    return swap
