"""Refuses models that do not give an image the same row whatever is computed beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidRequest

if TYPE_CHECKING:
    from .model import Backbone
    from .onnx.backbone import OnnxBackbone

# Of a row's largest value. Batches of other sizes may be summed in another order, which shows
# where sums are rounded to fewer bits: on GPUs, and in layers of mixed precision.
_TOLERANCE = 1e-4
_ROUNDED_TOLERANCE = 0.05


def check_independence(backbone: Backbone | OnnxBackbone, image_size: tuple[int, int]) -> None:
    """Raise `InvalidRequest` if the row of an image depends on its batch, or on chance.

    Three unlike images go through the model in both orders, and one of them alone. An
    operation over the axis of the images, such as their mean, changes one of these rows.

    Parameters
    ----------
    backbone : Backbone or OnnxBackbone
    image_size : (int, int)
        Height and width.
    """
    noise = np.random.default_rng(0).integers(0, 256, (3, *image_size, 3), np.uint8)
    noise[1] //= 8
    noise[2] = 255 - noise[2] // 8
    rows = backbone.embed_untraced(noise)
    turned, alone = backbone.embed_untraced(noise[::-1])[::-1], backbone.embed_untraced(noise[:1])
    # Each of several layers by itself: the values of one may be far larger, or not finite.
    ends = np.cumsum(backbone.widths).tolist()
    error = max(
        max(_difference(rows[:, columns], turned[:, columns]),
            _difference(rows[:1, columns], alone[:, columns]))
        for columns in map(slice, [0, *ends], ends)
    )  # fmt: skip
    if error > (_TOLERANCE if backbone.is_exact else _ROUNDED_TOLERANCE):
        raise InvalidRequest(
            f"The model gives an image another row in another batch: they differ by {error:.2g} "
            "of the largest value. It combines values of several images (an operation over axis "
            "0) or draws random numbers, so its features cannot be stored for each image; "
            "let it compute each image for itself.",
            received=backbone.name,
        )


def _difference(rows: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    """Return the largest difference in relation to the largest value; 0 if any is not finite."""
    with np.errstate(all="ignore"):  # infinities and NaN are what some models give
        largest = max(float(np.abs(rows).max()), 1e-30)
        error = float(np.abs(rows - others).max()) / largest
    return error if np.isfinite(error) else 0.0  # rows that are not finite are told elsewhere
