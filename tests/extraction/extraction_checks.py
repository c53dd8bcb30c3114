"""What Keras alone gives for images, to compare the rows of an extraction with."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from featcache import Features


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
