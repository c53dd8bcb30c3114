"""`pocket`: a small convolutional backbone whose weights are part of the package.

It gives useful features without network access. It was trained on drawn breeds of dogs (`python -m
bench.tools.train_pocket`), none of which is in the sample that `featcache.extract` uses by default.
On photos it is far less accurate than a backbone that was trained on photos.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import WeightsMismatch

FILE = Path(__file__).with_name("pocket.npz")
WIDTH = 256
_MAX_BYTES = 16 * 2**20


def build(keras: Any, size: tuple[int, int]) -> Any:
    """Build the network with its initial weights.

    Eight 3 x 3 convolutions, two pairs of which have a shortcut (He et al. 2016,
    arXiv:1512.03385), a 1 x 1 convolution and global average pooling. Each convolution is
    followed by batch normalisation and ReLU. About 0.4 million weights.

    Parameters
    ----------
    keras : module
    size : (int, int)
        Height and width in pixels, at least 32; the weights were trained at 96.

    Returns
    -------
    keras.Model
        From pixels ``(b, h, w, 3)`` in -1..1 to embeddings ``(b, 256)``.

    Raises
    ------
    ValueError
        If a side is below 32.
    """
    if min(size) < 32:
        raise ValueError("the shorter side must be at least 32")
    inputs = keras.Input((*size, 3))
    x = _convolution(keras, inputs, 16, "stem", strides=2)
    x = _convolution(keras, x, 32, "block1", strides=2)
    x = _shortcut(keras, x, 32, "block1")
    x = _convolution(keras, x, 96, "block2", strides=2)
    x = _shortcut(keras, x, 96, "block2")
    x = _convolution(keras, x, 160, "block3", strides=2)
    x = _convolution(keras, x, WIDTH, "widen", side=1)
    x = keras.layers.GlobalAveragePooling2D(name="embedding")(x)
    return keras.Model(inputs, x, name="pocket")


def _convolution(
    keras: Any, x: Any, filters: int, name: str, *, side: int = 3, strides: int = 1
) -> Any:
    make = keras.layers
    x = make.Conv2D(
        filters, side, strides=strides, padding="same", use_bias=False, name=f"{name}_conv"
    )(x)
    return make.ReLU(name=f"{name}_relu")(make.BatchNormalization(name=f"{name}_bn")(x))


def _shortcut(keras: Any, x: Any, filters: int, name: str) -> Any:
    make = keras.layers
    y = _convolution(keras, x, filters, f"{name}_a")
    y = make.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_b_conv")(y)
    y = make.BatchNormalization(name=f"{name}_b_bn")(y)
    return make.ReLU(name=f"{name}_out")(make.Add(name=f"{name}_add")([x, y]))


def pack_weights(model: Any) -> dict[str, NDArray[Any]]:
    """Return the weights of a network as they are saved: kernels in float16, vectors in float32."""
    packed = {}
    for weight in model.weights:
        value = np.asarray(weight)
        kind = np.float16 if value.ndim > 1 else np.float32
        packed[weight.path.replace("/", ".")] = value.astype(kind)
    return packed


def read_weights(path: Path) -> dict[str, NDArray[Any]]:
    """Read a file of packed weights.

    Raises
    ------
    WeightsMismatch
        If it is not such a file. Nothing in it is executed.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError("the file is too large")
        # Opened here, since np.load does not close a damaged file.
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            return {name: np.asarray(file[name], np.float32) for name in file.files}
    except Exception as error:  # a damaged archive raises many types
        raise WeightsMismatch(
            f"{path} is not a file of pocket's weights ({error}). If it is the file of the "
            "package, install featcache again.",
            file=path,
        ) from error


def set_weights(model: Any, packed: Mapping[str, NDArray[Any]]) -> None:
    """Set the weights of a network to those of `read_weights`.

    Raises
    ------
    WeightsMismatch
        If a name or shape differs.
    """
    expected = {weight.path.replace("/", "."): tuple(weight.shape) for weight in model.weights}
    given = {name: value.shape for name, value in packed.items()}
    if expected != given:
        different: Sequence[str] = sorted(
            name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name)
        )
        raise WeightsMismatch(
            f"The weights do not fit pocket; {', '.join(different[:3])} differ.", received=different
        )
    model.set_weights([packed[name] for name in expected])
