"""Backbones with weights that are not constant, from Keras alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from featcache.backbones import pocket
from featcache.backbones.spec import BackboneEntry

# With He's variance these differ from themselves by 1e-1 between two batch sizes.
CHAOTIC = {"efficientnet_v2_s", "efficientnet_v2_m", "efficientnet_v2_l"}


def reference_model(entry: BackboneEntry, side: int) -> Any:
    """The backbone with weights that are not constant, from Keras alone."""
    import keras

    if entry.packaged:
        model = pocket.build(keras, (side, side))
    else:
        model = getattr(keras.applications, entry.constructor)(
            weights=None, input_shape=(side, side, 3)
        )
    generator = np.random.default_rng(2)

    gain = 1.3 if entry.name in CHAOTIC else 2.0

    # He's variance and small offsets: with less, random deep networks hardly notice the image,
    # and a wrong preprocessing would pass.
    def values(start: Any) -> Any:
        if start.ndim < 2:
            return start + generator.uniform(0, 0.02, start.shape)
        depthwise = start.ndim == 4 and start.shape[-1] == 1
        fan_in = np.prod(start.shape[:2] if depthwise else start.shape[:-1])
        return generator.normal(0, np.sqrt(gain / fan_in), start.shape)

    model.set_weights([np.asarray(values(w), w.dtype) for w in model.get_weights()])
    for layer in model.layers:
        if hasattr(layer, "finalize_state"):  # Normalization computes with copies of its weights
            layer.finalize_state()
    return model
