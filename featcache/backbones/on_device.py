"""Keras models as engines run them: preprocessing on the device, copies for other devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._io.wording import first_line
from ..errors import InvalidRequest
from . import preprocessing
from .keras_backend import device_scope, import_keras, preserve_random_state
from .normalization import Normalization
from .spec import RuleName


def with_rule(model: Any, rule: RuleName | Normalization) -> Any:
    """Return a model that takes pixels of uint8, and scales them where it runs.

    Prepared pixels of float32 would be four times as many bytes on the way to a GPU.

    Parameters
    ----------
    model : keras.Model
        From preprocessed pixels (b, h, w, 3).
    rule : str or Normalization
        A rule that is not a function.

    Returns
    -------
    keras.Model
        It shares the layers and weights of `model`.
    """
    keras = import_keras()
    affine = preprocessing.affine_of(rule)
    with preserve_random_state():
        pixels = keras.Input(model.input_shape[1:], dtype="uint8")
        x = keras.ops.cast(pixels, "float32")
        x = x[..., ::-1] if affine.reverse else x
        x = x - np.array(affine.mean, np.float32) if any(affine.mean) else x
        x = x / np.array(affine.scale, np.float32) if {*affine.scale} != {1} else x
        return keras.Model(pixels, model([x]))


def copy_on(device: str, model: Any) -> Any:
    """Return a copy of a model whose weights are on a device, such as ``"gpu:1"``.

    Raises
    ------
    InvalidRequest
        If its layers cannot be built again from their settings.
    """
    try:
        with device_scope(device):
            return _clone(model)
    except Exception as error:  # of layers of other packages, or of the device
        raise InvalidRequest(
            "Several devices need layers that can be built again from their settings, and one "
            f"cannot be built on {device} ({first_line(error, 200)}); leave devices= out.",
            received=device,
        ) from error


def in_bfloat16(model: Any) -> Any:
    """Return a model with bfloat16 between its layers; its weights stay float32.

    Raises
    ------
    InvalidRequest
        If its layers cannot be built again from their settings.
    """
    keras = import_keras()

    def layer_in_bfloat16(layer: Any) -> Any:
        config = layer.get_config()
        if not isinstance(layer, keras.layers.InputLayer):
            config["dtype"] = "mixed_bfloat16"
        return type(layer).from_config(config)

    try:
        return _clone(model, layer_in_bfloat16)
    except Exception as error:  # layers of other packages may not take their own settings
        raise InvalidRequest(
            "precision='bfloat16' needs layers that can be built again from their settings, and "
            f"one cannot ({first_line(error, 200)}); leave precision= out.",
            received="bfloat16",
        ) from error


def _clone(model: Any, clone_function: Callable[[Any], Any] | None = None) -> Any:
    """Return a model built again from the settings of its layers, with the same weights."""
    keras = import_keras()
    with preserve_random_state():
        copied = keras.models.clone_model(model, clone_function=clone_function)
    copied.set_weights([np.asarray(weight) for weight in model.weights])
    return copied
