"""Adam with a learning rate for each layer, and the loss of a fine-tune."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from featcache import import_keras
from featcache.toolkit import layer_names


def compile_for_training(
    model: Any,
    body: Any,
    n_classes: int,
    learning_rate: float,
    layer_decay: float,
    label_smoothing: float,
) -> None:
    """Compile a network for training.

    Parameters
    ----------
    model : keras.Model
    body : keras.Model
        Its backbone.
    n_classes : int
    learning_rate : float
        Of the new top.
    layer_decay : float
        Factor from 0 to 1: the rate of each layer with weights is that of the next one, times
        this (Howard and Ruder 2018, "Universal Language Model Fine-tuning", arXiv:1801.06146).
        1: all layers have the same rate.
    label_smoothing : float
        Fraction of the target that is spread over all classes.
    """
    keras = import_keras()
    factors = layer_factors(body, layer_decay) if layer_decay < 1 else {}
    adam = _scaled_adam(keras, factors)(learning_rate) if factors else keras.optimizers.Adam
    model.compile(
        optimizer=adam if factors else keras.optimizers.Adam(learning_rate),
        loss=_loss(keras, n_classes, label_smoothing),
        weighted_metrics=["accuracy"],
    )


def layer_factors(body: Any, decay: float) -> dict[int, float]:
    """Return the factor of the learning rate of each trained variable, by its id.

    The last layer of the backbone that is trained has the factor `decay`, the one before it
    `decay` squared, and so on.
    """
    layers = [layer for layer in layer_names(body).values() if layer.trainable_variables]
    return {
        id(variable): decay ** (len(layers) - number)
        for number, layer in enumerate(layers)
        for variable in layer.trainable_variables
    }


def _scaled_adam(keras: Any, factors: Mapping[int, float]) -> Any:
    class ScaledAdam(keras.optimizers.Adam):  # type: ignore[misc]
        """Adam whose learning rate is multiplied by the factor of each variable."""

        # Not update_step: some backends update all variables at once, without calling it.
        def _backend_update_step(self, grads: Any, variables: Any, learning_rate: Any) -> None:
            for gradient, variable in zip(grads, variables, strict=True):
                factor = factors.get(id(variable), 1.0)
                self.update_step(gradient, variable, learning_rate * factor)

    return ScaledAdam


def _loss(keras: Any, n_classes: int, label_smoothing: float) -> Any:
    if not label_smoothing:
        return keras.losses.SparseCategoricalCrossentropy()

    def smoothed(codes: Any, proba: Any) -> Any:
        """Cross-entropy with a target that is spread over all classes."""
        target = keras.ops.one_hot(keras.ops.reshape(codes, (-1,)), n_classes)
        target = target * (1 - label_smoothing) + label_smoothing / n_classes
        logs = keras.ops.log(keras.ops.clip(proba, float(np.finfo(np.float32).tiny), 1.0))
        return -keras.ops.sum(target * logs, axis=-1)

    return smoothed
