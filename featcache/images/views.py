"""Augmented views of an image, each of which follows from its number, a seed and the image's id.

View 0 is the image as it is. View `k` of an image is the same on every machine, in any batch and
in any order, so its embedding can be stored. The random numbers are bytes of a SHA-512 digest
and not those of a generator, whose streams may change between releases of NumPy.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import InvalidRequest
from .decode import Pixels

VIEWS_VERSION = 1
MAX_VIEWS = 1000
Policy = Literal["flip"]
PLAIN = "plain"  # the key of the image as it is
_KEY = re.compile(r"augmented-(\d{1,9}):([0-9.,e-]{1,200}):seed (\d{1,19}):view (\d{1,9})")
_LIMITS = {"rotation": 0.5, "zoom": 0.9}  # of the values of an augmentation; of the others 1
_PADDED_BYTES = 7  # per pixel: three in NumPy and, in Pillow, four
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


@dataclass(frozen=True)
class Augmentation:
    """Random changes of an image; each is turned off with False or 0.

    Attributes
    ----------
    horizontal_flip, vertical_flip : bool
        Mirror half of the views.
    rotation : float
        Largest rotation to either side, as a fraction of a full turn, 0 to 0.5.
    shift : float
        Largest shift, as a fraction of each side, 0 to 1.
    zoom : float
        Largest change of scale, as a fraction, 0 to 0.9.
    brightness : float
        Largest value that is added to all pixels, as a fraction of 255, 0 to 1.
    contrast : float
        Largest change of the distance of each pixel to the mean colour, as a fraction, 0 to 1.
    saturation : float
        Largest change of the distance of each pixel to its grey, as a fraction, 0 to 1.

    Raises
    ------
    InvalidRequest
        If a value is out of its range.
    """

    horizontal_flip: bool = True
    vertical_flip: bool = False
    rotation: float = 0.03
    shift: float = 0.1
    zoom: float = 0.15
    brightness: float = 0.1
    contrast: float = 0.1
    saturation: float = 0.1

    def __post_init__(self) -> None:
        # Plain Python values, so that equal augmentations have one key: -0.0 is 0.0, and the
        # numbers of NumPy are numbers.
        for field in fields(Augmentation):
            value = getattr(self, field.name)
            if field.name.endswith("flip"):
                plain: bool | float = _check_flag(field.name, value)
            else:
                plain = _check_amount(field.name, value, _LIMITS.get(field.name, 1.0))
            object.__setattr__(self, field.name, plain)


def _check_flag(name: str, value: object) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise InvalidRequest(f"{name}={value!r} must be True or False.", received=value)
    return bool(value)


def _check_amount(name: str, value: Any, limit: float) -> float:
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not (number and 0 <= value <= limit):
        raise InvalidRequest(
            f"{name}={value!r} must be a number from 0 to {limit:g}.", received=value
        )
    return abs(float(value))


@dataclass(frozen=True)
class View:
    """One view of all images: the augmentation, the seed and the number of the view.

    Attributes
    ----------
    number : int
        0 is the image as it is.
    augmentation : Augmentation or "flip"
        ``"flip"`` mirrors the image in each odd view and leaves it in each even one.
    random_state : int
    """

    number: int = 0
    augmentation: Augmentation | Policy = Augmentation()
    random_state: int = 0

    @property
    def key(self) -> str:
        """What the cache key holds of this view: equal texts, equal pixels."""
        if self.is_plain:
            return PLAIN
        if isinstance(self.augmentation, str):
            return "flip"
        values = [getattr(self.augmentation, field.name) for field in fields(self.augmentation)]
        numbers = ",".join(repr(float(value)) for value in values)
        return f"augmented-{VIEWS_VERSION}:{numbers}:seed {self.random_state}:view {self.number}"

    @property
    def is_plain(self) -> bool:
        """Whether this view is the image as it is."""
        return self.number == 0 or (self.augmentation == "flip" and self.number % 2 == 0)

    def working_bytes(self, height: int, width: int, image_id: str) -> int:
        """Return the memory that `apply` uses besides the image and its view.

        A view that is zoomed out ten times shows the image mirrored at its edges a hundred times.
        """
        if self.is_plain or isinstance(self.augmentation, str):
            return 0
        drawn = _draw(self.random_state, self.number, image_id)
        placed = _place(height, width, self.augmentation, drawn)
        if placed is None:
            return 0
        padded = (height + 2 * placed.border_y) * (width + 2 * placed.border_x)
        return _PADDED_BYTES * padded

    def apply(self, pixels: Pixels, image_id: str) -> Pixels:
        """Return the view of an image.

        Parameters
        ----------
        pixels : ndarray (h, w, 3), uint8
            The image at the size of the backbone's input.
        image_id : str
            Its example id.

        Returns
        -------
        ndarray (h, w, 3), uint8
            A new array, or `pixels` itself where the view does not change it.
        """
        if self.is_plain:
            return pixels
        if isinstance(self.augmentation, str):
            return np.ascontiguousarray(pixels[:, ::-1])
        drawn = _draw(self.random_state, self.number, image_id)
        moved = _move(pixels, self.augmentation, drawn)
        return _recolour(moved, self.augmentation, drawn)


def views_of(
    count: int, augmentation: Augmentation | Policy | None = None, random_state: int = 0
) -> list[View]:
    """Return the views 0 to ``count - 1``.

    Raises
    ------
    InvalidRequest
        If there cannot be so many, or the augmentation or the seed is not accepted.
    """
    if not (_is_whole(count) and 1 <= count <= MAX_VIEWS):
        raise InvalidRequest(
            f"views={count!r} must be a whole number from 1 to {MAX_VIEWS}; 1 is the image alone.",
            received=count,
        )
    if not (_is_whole(random_state) and 0 <= random_state < 2**63):
        raise InvalidRequest(
            f"random_state={random_state!r} must be a whole number from 0 to 2**63 - 1.",
            received=random_state,
        )
    chosen = _check_augmentation(augmentation)
    if augmentation is not None and count == 1:
        raise InvalidRequest(
            "augmentation= was given, but views=1 is the image alone. Ask for more, as views=2 "
            "(--views 2).",
            received=count,
        )
    if chosen == "flip" and count > 2:
        raise InvalidRequest(
            f"augmentation='flip' has two views, the image and its mirror image, not {count}. "
            "Use views=2, or another augmentation.",
            received=count,
        )
    return [View(number, chosen, int(random_state)) for number in range(count)]


def _is_whole(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _check_augmentation(given: object) -> Augmentation | Policy:
    """Return the augmentation of an argument."""
    if given is None:
        return Augmentation()
    if isinstance(given, str) and given == "flip":
        return "flip"
    # A subclass could have values that the key does not hold.
    if type(given) is not Augmentation:
        raise InvalidRequest(
            f"augmentation={given!r} must be an Augmentation, 'flip' or None.", received=given
        )
    return replace(given)  # which checks the values again


def parse_augmentation(text: str) -> Augmentation | Policy:
    """Return the augmentation that a text describes.

    Parameters
    ----------
    text : str
        ``"flip"``, ``"default"``, or values that differ from the default, as
        ``"rotation=0.1,vertical_flip=true"``.

    Raises
    ------
    InvalidRequest
        If a name or a value is not accepted.

    Examples
    --------
    >>> parse_augmentation("zoom=0.3,horizontal_flip=false").zoom
    0.3
    """
    if text == "flip":
        return "flip"
    values: dict[str, bool | float] = {}
    names = [field.name for field in fields(Augmentation)]
    for part in text.split(",") if text != "default" else []:
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name not in names:
            raise InvalidRequest(
                f"{text!r} is not an augmentation: give flip, default, or values of "
                f"{', '.join(names)}, as in rotation=0.1,zoom=0.2.",
                received=text,
            )
        if name in values:
            raise InvalidRequest(f"{text!r} gives {name} twice.", received=text)
        values[name] = _parse_value(name, value)
    return Augmentation(**values)  # type: ignore[arg-type]  # it checks the values itself


def _parse_value(name: str, text: str) -> bool | float:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return float(text)
    except ValueError:
        raise InvalidRequest(
            f"{name}={text!r} must be a number, or true or false.", received=text
        ) from None


def describe_view(key: str) -> str:
    """Return a few words for the view of a key, for tables.

    >>> describe_view(View(3, random_state=7).key), describe_view("plain")
    ('view 3 of seed 7', '')
    """
    view = parse_view(key)
    if view is None:
        return "views of another version"
    if view.is_plain:
        return ""
    return (
        "flip"
        if isinstance(view.augmentation, str)
        else (f"view {view.number} of seed {view.random_state}")
    )


def parse_view(key: str) -> View | None:
    """Return the view of a key; None if this version knows no such view.

    Examples
    --------
    >>> parse_view(View(3, random_state=7).key) == View(3, random_state=7)
    True
    >>> parse_view("sharpened") is None
    True
    """
    if key == PLAIN:
        return View()
    if key == "flip":
        return View(1, "flip")
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    try:
        flips, others = match[2].split(",")[:2], match[2].split(",")[2:]
        augmentation = Augmentation(*(bool(float(v)) for v in flips), *map(float, others))
    except (InvalidRequest, TypeError, ValueError):
        return None
    view = View(int(match[4]), augmentation, int(match[3]))
    return view if view.key == key else None


def _draw(random_state: int, number: int, image_id: str) -> NDArray[np.float64]:
    """Return 16 numbers from 0 up to but excluding 1 that follow from the arguments alone."""
    text = f"featcache view {VIEWS_VERSION}\n{random_state}\n{number}\n{image_id}"
    digest = hashlib.sha512(text.encode()).digest()
    return np.frombuffer(digest, "<u4").astype(np.float64) / 2.0**32


def _move(pixels: Pixels, augmentation: Augmentation, drawn: NDArray[np.float64]) -> Pixels:
    """Flip, rotate, shift and zoom about the centre; what comes in at an edge is mirrored."""
    if augmentation.horizontal_flip and drawn[0] < 0.5:
        pixels = pixels[:, ::-1]
    if augmentation.vertical_flip and drawn[1] < 0.5:
        pixels = pixels[::-1]
    height, width = pixels.shape[:2]
    placed = _place(height, width, augmentation, drawn)
    if placed is None:
        return np.ascontiguousarray(pixels)
    y, x = placed.border_y, placed.border_x
    padded = np.pad(pixels, ((y, y), (x, x), (0, 0)), "symmetric")
    image = Image.fromarray(padded).transform(
        (width, height), Image.Transform.AFFINE, placed.transform, Image.Resampling.BILINEAR
    )
    return np.asarray(image, np.uint8)


@dataclass(frozen=True)
class _Placement:
    """Where a view lies in an image that is padded on all sides.

    Attributes
    ----------
    border_y, border_x : int
        Pixels above and below, left and right.
    transform : tuple of 6 float
        From a pixel of the view to the place in the padded image that it shows, for Pillow.
    """

    border_y: int
    border_x: int
    transform: tuple[float, ...]


def _place(
    height: int, width: int, augmentation: Augmentation, drawn: NDArray[np.float64]
) -> _Placement | None:
    """Return where a view lies; None if it is neither rotated, shifted nor zoomed."""
    signed = 2 * drawn - 1
    angle = 2 * math.pi * augmentation.rotation * signed[2]
    scale = 1 + augmentation.zoom * signed[5]
    down, right = height * augmentation.shift * signed[3], width * augmentation.shift * signed[4]
    if angle == 0 and scale == 1 and down == 0 and right == 0:
        return None
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    middle_x, middle_y = width / 2, height / 2
    start_x = middle_x - cos * (middle_x + right) + sin * (middle_y + down)
    start_y = middle_y - sin * (middle_x + right) - cos * (middle_y + down)
    across = sorted([0.0, cos * width, -sin * height, cos * width - sin * height])
    along = sorted([0.0, sin * width, cos * height, sin * width + cos * height])
    border_x = _border(start_x + across[0], start_x + across[-1], width)
    border_y = _border(start_y + along[0], start_y + along[-1], height)
    transform = (cos, -sin, start_x + border_x, sin, cos, start_y + border_y)
    return _Placement(border_y, border_x, transform)


def _border(first: float, last: float, side: int) -> int:
    """Return how far beyond the image a view looks on one axis, in pixels."""
    return max(0, math.ceil(max(-first, last - side))) + 2


def _recolour(pixels: Pixels, augmentation: Augmentation, drawn: NDArray[np.float64]) -> Pixels:
    """Change brightness, then contrast, then saturation; the result is clipped to 0..255."""
    signed = 2 * drawn - 1
    add = 255 * augmentation.brightness * float(signed[6])
    contrast = 1 + augmentation.contrast * float(signed[7])
    saturation = 1 + augmentation.saturation * float(signed[8])
    if add == 0 and contrast == saturation == 1:
        return pixels
    # Each step is linear in the colours, so all three are one matrix and one offset.
    to_grey = np.tile(_LUMA, (3, 1))
    saturate = saturation * np.eye(3) + (1 - saturation) * to_grey
    mean = pixels.mean(axis=(0, 1), dtype=np.float64) + add
    offset = saturate @ (contrast * add + (1 - contrast) * mean)
    matrix = np.column_stack([contrast * saturate, offset])
    image = Image.fromarray(pixels).convert("RGB", tuple(matrix.ravel().tolist()))
    return np.asarray(image, np.uint8)
