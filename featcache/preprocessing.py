"""Pixels -> what a backbone was trained on: the rules of keras.applications, in NumPy.

Every family of backbones expects its own scaling, and the wrong one gives plausible,
useless features. A rule is named in the table of backbones; the cache key holds a
fingerprint of what the rule does, not its name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidRequest

FloatImages = NDArray[np.float32]
Rule = str | Callable[[FloatImages], Any]

_IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_IMAGENET_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
_CAFFE_MEAN_BGR = np.array([103.939, 116.779, 123.68], np.float32)

_RULES: dict[str, Callable[[FloatImages], FloatImages]] = {
    "none": lambda x: x,
    "unit": lambda x: x / np.float32(255),
    "tf": lambda x: x / np.float32(127.5) - np.float32(1),
    "torch": lambda x: (x / np.float32(255) - _IMAGENET_MEAN) / _IMAGENET_DEVIATION,
    "caffe": lambda x: x[..., ::-1] - _CAFFE_MEAN_BGR,
}
RULES = tuple(_RULES)


@dataclass(frozen=True)
class Affine:
    """A named rule as engines know it: reverse the channels, take a mean off, divide."""

    reverse: bool
    mean: tuple[float, float, float]
    scale: tuple[float, float, float]

    @property
    def same_for_all(self) -> bool:
        """Whether the three channels are treated alike."""
        return not self.reverse and len({*self.mean}) == len({*self.scale}) == 1


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


AFFINE = {
    "none": Affine(False, (0, 0, 0), (1, 1, 1)),
    "unit": Affine(False, (0, 0, 0), (255, 255, 255)),
    "tf": Affine(False, (127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    "torch": Affine(False, _three(_IMAGENET_MEAN * 255), _three(_IMAGENET_DEVIATION * 255)),
    "caffe": Affine(True, _three(_CAFFE_MEAN_BGR), (1, 1, 1)),
}


def apply(rule: Rule, images: NDArray[Any]) -> FloatImages:
    """Prepare a batch of images as a rule says.

    Parameters
    ----------
    rule : str or callable
        ``"none"`` (0..255 as it is), ``"unit"`` (0..1), ``"tf"`` (-1..1), ``"torch"``
        (0..1, then ImageNet's mean and deviation), ``"caffe"`` (BGR less ImageNet's mean),
        or a function from float32 ``(b, h, w, 3)`` RGB in 0..255 to an array of that shape.
        The named rules are those of `keras.applications.imagenet_utils`.
    images : ndarray (b, h, w, 3)
        RGB, 0..255, uint8 or float32. Never overwritten.

    Returns
    -------
    ndarray (b, h, w, 3), float32

    Raises
    ------
    InvalidRequest
        If the name is unknown, or a function returns another shape or non-finite values.

    Examples
    --------
    >>> apply("tf", np.full((1, 1, 1, 3), 255, np.uint8)).ravel().tolist()
    [1.0, 1.0, 1.0]
    """
    pixels = images.astype(np.float32)  # a copy, so a careless function cannot harm the batch
    if not callable(rule):
        if rule not in _RULES:
            raise InvalidRequest(
                f"preprocessing={rule!r} is not known; choose one of {', '.join(RULES)}, or "
                "pass a function that takes a float32 RGB batch in 0..255.",
                received=rule,
            )
        return _RULES[rule](pixels)
    prepared = np.asarray(rule(pixels), dtype=np.float32)
    if prepared.shape != images.shape or not np.isfinite(prepared).all():
        raise InvalidRequest(
            f"The preprocessing function turned a batch of shape {images.shape} into one of "
            f"shape {prepared.shape}"
            + ("" if np.isfinite(prepared).all() else " with values that are not finite")
            + "; it must return finite numbers of the same shape.",
            received=prepared.shape,
        )
    return prepared


def padded(pixels: NDArray[Any], count: int) -> NDArray[Any]:
    """Add black images to a batch until it has `count`; one that has is returned as it is."""
    if len(pixels) >= count:
        return pixels
    filler = np.zeros((count - len(pixels), *pixels.shape[1:]), pixels.dtype)
    return np.concatenate([pixels, filler])


def synthetic_images() -> NDArray[np.uint8]:
    """Two fixed images (2, 16, 16, 3) on which a rule shows what it does."""
    y, x = np.mgrid[0:16, 0:16]
    ramp = np.stack([x * 17, y * 17, (x * y) % 256], axis=-1)
    return np.stack([ramp, 255 - ramp[::-1]]).astype(np.uint8)


def fingerprint(rule: Rule) -> str:
    """Hash what a rule does to fixed images; equal for equal behaviour, whatever its name.

    Rounded to 1e-3 so that the last bit of a division, which may differ between
    processors, does not make another key.
    """
    prepared = np.round(apply(rule, synthetic_images()).astype(np.float64), 3) + 0.0
    return hashlib.sha256(np.ascontiguousarray(prepared, "<f8").tobytes()).hexdigest()[:16]
