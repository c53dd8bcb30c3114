"""Pixels -> what a backbone was trained on: the rules of keras.applications, in NumPy.

Every family of backbones expects its own scaling, and the wrong one gives plausible,
useless features. A rule is named in the table of backbones; the cache key holds a
fingerprint of what the rule does, not its name, and of a function's own code.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from .._io.choices import check_choice
from ..errors import InvalidRequest
from .function_hash import function_hash
from .imagenet import CAFFE_MEAN_BGR, CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from .normalization import Normalization, parse_normalization
from .spec import RuleName

FloatImages = NDArray[np.float32]
RULES: tuple[RuleName, ...] = get_args(RuleName)
Rule = RuleName | Normalization | Callable[[FloatImages], Any]

_MEAN = np.array(IMAGENET_MEAN, np.float32)
_STD = np.array(IMAGENET_STD, np.float32)
_MEAN_BGR = np.array(CAFFE_MEAN_BGR, np.float32)
_CLIP_MEAN = np.array(CLIP_MEAN, np.float32)
_CLIP_STD = np.array(CLIP_STD, np.float32)

_RULES: dict[RuleName, Callable[[FloatImages], NDArray[Any]]] = {
    "none": lambda x: x,
    "unit": lambda x: x / np.float32(255),
    "tf": lambda x: x / np.float32(127.5) - np.float32(1),
    "torch": lambda x: (x / np.float32(255) - _MEAN) / _STD,
    "caffe": lambda x: x[..., ::-1] - _MEAN_BGR,
    "clip": lambda x: (x / np.float32(255) - _CLIP_MEAN) / _CLIP_STD,
}
_OR_ANOTHER = (
    ", or pass a featcache.Normalization, or a function that takes a float32 RGB batch in 0..255"
)
# Two normalizations that differ by less are one: so do the roundings of their numbers.
_EQUAL = 1e-6
_OTHER_SHAPES = ((24, 40), (33, 7))
_LARGE_BATCH = 257  # more than the 256 images of a batch on a GPU
# Pixels of a batch of the size asked for, of 2 images at least: some tenths of a second.
_PIXELS_AT_SIZE = 600_000
_MAX_IMAGES_AT_SIZE = 33

_ALONE = "gives other values for an image alone than in a batch"
_ORDER = "depends on the order of the batch"
_NUMBER = "depends on the number of images in the batch"


@dataclass(frozen=True)
class Affine:
    """A named rule as engines know it: reverse the channels, take a mean off, divide."""

    reverse: bool
    mean: tuple[float, float, float]
    scale: tuple[float, float, float]

    @property
    def same_for_all(self) -> bool:
        """Whether all three channels have the same mean and scale and keep their order."""
        return not self.reverse and len({*self.mean}) == len({*self.scale}) == 1


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


AFFINE = {
    "none": Affine(False, (0, 0, 0), (1, 1, 1)),
    "unit": Affine(False, (0, 0, 0), (255, 255, 255)),
    "tf": Affine(False, (127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    "torch": Affine(False, _three(_MEAN * 255), _three(_STD * 255)),
    "caffe": Affine(True, _three(_MEAN_BGR), (1, 1, 1)),
    "clip": Affine(False, _three(_CLIP_MEAN * 255), _three(_CLIP_STD * 255)),
}


def affine_of(rule: RuleName | Normalization) -> Affine:
    """Return a rule that is not a function as engines know it."""
    if isinstance(rule, Normalization):
        return Affine(rule.channels == "bgr", rule.pixel_mean, rule.pixel_std)
    return AFFINE[rule]


def as_rule(rule: object) -> Rule:
    """Return the argument ``preprocessing=`` as a rule.

    A normalization that does what a named rule does is that rule, so that both have one key.

    Parameters
    ----------
    rule : str, Normalization or callable
        A name, or the text of a normalization (`normalization.parse_normalization`).

    Raises
    ------
    InvalidRequest
        If it is none of these.

    Examples
    --------
    >>> as_rule(Normalization(mean=0.5, std=0.5)), as_rule("mean:0.5:std:0.25").std
    ('tf', (0.25, 0.25, 0.25))
    """
    if isinstance(rule, str) and ":" in rule:
        rule = parse_normalization(rule)
    if isinstance(rule, Normalization):
        return next((name for name in RULES if _are_equal(affine_of(rule), AFFINE[name])), rule)
    if not callable(rule):
        check_choice("preprocessing", rule, RULES, _OR_ANOTHER)
    return rule  # type: ignore[return-value]


def format_rule(rule: Rule) -> str | None:
    """Return the text for which `as_rule` returns a rule; None for a function."""
    return None if callable(rule) else str(rule)


def _are_equal(one: Affine, other: Affine) -> bool:
    if one.reverse != other.reverse:
        return False
    means = np.abs(np.subtract(one.mean, other.mean)) / 255
    scales = np.abs(np.divide(one.scale, other.scale) - 1)
    return bool(max(means.max(), scales.max()) < _EQUAL)


def apply(rule: Rule, images: NDArray[Any]) -> FloatImages:
    """Apply a preprocessing rule to a batch of images.

    Parameters
    ----------
    rule : str, Normalization or callable
        ``"none"`` (0..255 unchanged), ``"unit"`` (0..1), ``"tf"`` (-1..1, also known as mean and
        standard deviation 0.5), ``"torch"`` (0..1, then ImageNet's mean and standard deviation),
        ``"caffe"`` (BGR minus ImageNet's mean), ``"clip"`` (0..1, then those of CLIP's images),
        a `Normalization`, or a function from float32 ``(b, h, w, 3)`` RGB in 0..255 to an array
        of that shape. All names but ``"clip"`` are those of `keras.applications.imagenet_utils`.
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
    pixels = images.astype(np.float32)  # a copy, which a function may overwrite
    if isinstance(rule, Normalization):
        affine = affine_of(rule)
        ordered = pixels[..., ::-1] if affine.reverse else pixels
        mean, scale = np.array(affine.mean, np.float32), np.array(affine.scale, np.float32)
        return np.asarray((ordered - mean) / scale, np.float32)
    if not callable(rule):
        check_choice("preprocessing", rule, RULES, _OR_ANOTHER)
        return np.asarray(_RULES[rule](pixels), np.float32)
    try:
        prepared = np.asarray(rule(pixels), dtype=np.float32)
    except (TypeError, ValueError, IndexError) as error:
        raise InvalidRequest(
            f"The preprocessing function failed on a batch of shape {images.shape} and type "
            f"float32: {error}. It must take RGB images of any size in 0..255.",
            received=images.shape,
        ) from error
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
    """Return a batch padded with black images to `count`; unchanged if it has that many."""
    if len(pixels) >= count:
        return pixels
    filler = np.zeros((count - len(pixels), *pixels.shape[1:]), pixels.dtype)
    return np.concatenate([pixels, filler])


def synthetic_images() -> NDArray[np.uint8]:
    """Return two fixed images (2, 16, 16, 3) for the fingerprint of a rule."""
    y, x = np.mgrid[0:16, 0:16]
    ramp = np.stack([x * 17, y * 17, (x * y) % 256], axis=-1)
    return np.stack([ramp, 255 - ramp[::-1]]).astype(np.uint8)


def fingerprint(rule: Rule) -> str:
    """Return a hash of a rule's results on fixed images and, for a function, of its code.

    Parameters
    ----------
    rule : str or callable
        As in `apply`.

    Returns
    -------
    str
        16 hexadecimal digits. For a named rule they depend only on its results, for a
        normalization on its values; for a function also on its source and all values that it
        refers to (`function_hash.function_hash`).

    Raises
    ------
    InvalidRequest
        As `apply`; and if a function's result for an image depends on the other images of the
        batch, on randomness or on earlier calls, or if it refers to an object that cannot be
        hashed.
    """
    rule = as_rule(rule)
    if isinstance(rule, Normalization):
        return _fingerprint_of_values(affine_of(rule))
    prepared = _rounded(apply(rule, synthetic_images()))
    if not callable(rule):
        return hashlib.sha256(prepared.tobytes()).hexdigest()[:16]
    parts = [prepared, *(_rounded(images) for images in _checked_behaviour(rule))]
    text = function_hash(rule)
    _run_on_each(rule, probe_images())
    if function_hash(rule) != text:
        raise _nondeterminism_error("changes values that it refers to whenever it is called")
    digest = hashlib.sha256(text.encode())
    for part in parts:
        digest.update(part.tobytes())
    return digest.hexdigest()[:16]


def _fingerprint_of_values(affine: Affine) -> str:
    values = [f"{value:.7e}" for value in (*affine.mean, *affine.scale)]
    text = " ".join(["normalization", "bgr" if affine.reverse else "rgb", *values])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_rule_at_size(rule: Rule, size: tuple[int, int]) -> None:
    """Check that a function processes images of the requested size independently.

    `fingerprint` uses small images, for which a function may behave differently.

    Parameters
    ----------
    rule : str, Normalization or callable
        As in `apply`; only functions need a check.
    size : (int, int)
        Height and width in pixels.

    Raises
    ------
    InvalidRequest
        As `fingerprint`.
    """
    if not callable(rule):
        return
    height, width = size
    count = min(_MAX_IMAGES_AT_SIZE, max(2, _PIXELS_AT_SIZE // (height * width)))
    images = images_of_size(count, size)
    with _unmoved_generators():
        _check_same(apply(rule, images), _run_on_each(rule, images), _ALONE)


def images_of_size(count: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Repeat the pixels of the probes to images of a size, no two of which are alike."""
    probes = probe_images()
    rows, columns = (np.arange(side) * 16 // max(side, 16) for side in size)
    scaled = probes[:, rows][:, :, columns]
    shifts = np.arange(count, dtype=np.uint8)[:, None, None, None]
    return scaled[np.arange(count) % len(probes)] // 2 + 3 * shifts


def _rounded(images: FloatImages) -> NDArray[np.float64]:
    """Round to 1e-3, so that a division's last bit, as processors differ, makes no other key."""
    rounded = np.round(images.astype(np.float64), 3) + 0.0
    return np.ascontiguousarray(rounded, "<f8")


def probe_images() -> NDArray[np.uint8]:
    """Fixed images (9, 16, 16, 3) that a function may tell apart by range, contrast or noise."""
    first, second = synthetic_images()
    noise = np.random.default_rng(0).integers(0, 256, first.shape, np.uint8)
    return np.stack([
        first, second, noise,
        noise // 16,  # dark
        224 + noise // 16,  # bright
        112 + noise // 32,  # of low contrast
        noise // 16 * [1, 8, 15],  # channels of different ranges
        np.broadcast_to(np.array([200, 90, 30]), first.shape),  # one colour
        np.zeros_like(first),
    ]).astype(np.uint8)  # fmt: skip


def _checked_behaviour(rule: Rule) -> list[FloatImages]:
    """Apply a function to fixed images in several ways; return its results.

    Raises
    ------
    InvalidRequest
        If the values of an image depend on the other images of its batch, on their order, or on
        how often the function was called.
    """
    images = probe_images()
    order = np.random.default_rng(1).permutation(len(images))
    with _unmoved_generators():
        together = apply(rule, images)
        many = np.resize(images, (_LARGE_BATCH, *images.shape[1:]))
        again = "gives other values for the same images when called again"
        _check_same(together, apply(rule, images), again)
        _check_same(together, _run_on_each(rule, images), _ALONE)
        _check_same(together, apply(rule, images[order])[np.argsort(order)], _ORDER)
        _check_same(together[:3], apply(rule, images[:3]), _NUMBER)
        _check_same(np.resize(together, many.shape), apply(rule, many), _NUMBER)
        seen = [together]
        for shape in _OTHER_SHAPES:
            # A function may be made for images of one size; then this says nothing of it.
            with contextlib.suppress(Exception):
                seen.append(apply(rule, np.resize(images[2], (1, *shape, 3))))
    return seen


def _check_same(expected: FloatImages, found: FloatImages, reason: str) -> None:
    nearly = 1e-5 * max(1e-3, float(np.abs(expected).max()))
    if np.abs(found - expected).max() > nearly:
        raise _nondeterminism_error(reason)


@contextlib.contextmanager
def _unmoved_generators() -> Iterator[None]:
    """Refuse a function that draws from the shared generators of random numbers.

    One that does something rare by chance gives the same values in all trials.
    """
    before = _states_of_generators()
    yield
    if _states_of_generators() != before:
        raise _nondeterminism_error("draws random numbers from numpy.random or random")


def _states_of_generators() -> tuple[str, Any]:
    with np.printoptions(threshold=10_000):
        return repr(np.random.get_state(legacy=False)), random.getstate()


def _run_on_each(rule: Rule, images: NDArray[np.uint8]) -> FloatImages:
    return np.concatenate([apply(rule, image[None]) for image in images])


def _nondeterminism_error(reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"The preprocessing function {reason}. An embedding would then depend on more than its "
        "image, and rows of one key could not be compared: it must treat each image by itself, "
        "without chance, and keep nothing from call to call.",
        received=reason,
    )
