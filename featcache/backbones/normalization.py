"""`Normalization`: scaling, mean and standard deviation of a network's images, as values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from .._io.choices import check_choice
from ..errors import InvalidRequest

Channels = Literal["rgb", "bgr"]
CHANNELS: tuple[Channels, ...] = get_args(Channels)
Three = tuple[float, float, float]
_LARGEST = 1e6
_SMALLEST = 1e-6
_FIELDS = ("mean", "std", "scale", "channels")
_EXAMPLE = "mean:0.48:0.46:0.41:std:0.27:0.26:0.28"


@dataclass(frozen=True)
class Normalization:
    """How a network wants its images: ``(pixels * scale - mean) / std``, channel by channel.

    Attributes
    ----------
    mean, std : float or 3 floats
        Of the scaled pixels, in the order of the network's channels.
    scale : float
        What pixels of 0 to 255 are multiplied with first. Default: 1/255.
    channels : {"rgb", "bgr"}
        The order in which the network takes them.

    Raises
    ------
    InvalidRequest
        If a value is no number, or out of range.

    Examples
    --------
    >>> Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)).scale == 1 / 255
    True
    """

    mean: float | Sequence[float] = 0.0
    std: float | Sequence[float] = 1.0
    scale: float = 1 / 255
    channels: Channels = "rgb"

    def __post_init__(self) -> None:
        check_choice("channels", self.channels, CHANNELS)
        object.__setattr__(self, "mean", _three("mean", self.mean, -_LARGEST))
        object.__setattr__(self, "std", _three("std", self.std, _SMALLEST))
        scale: Any = self.scale
        one = None if isinstance(scale, (list, tuple)) else scale
        object.__setattr__(self, "scale", _three("scale", one, _SMALLEST)[0])

    @property
    def pixel_mean(self) -> Three:
        """The mean of pixels of 0 to 255, in the order of the network's channels."""
        red, green, blue = (value / self.scale for value in _three("mean", self.mean, -_LARGEST))
        return red, green, blue

    @property
    def pixel_std(self) -> Three:
        """The standard deviation of pixels of 0 to 255."""
        red, green, blue = (value / self.scale for value in _three("std", self.std, _SMALLEST))
        return red, green, blue

    def __str__(self) -> str:
        """Return the text that `parse_normalization` reads."""
        mean, std = _three("mean", self.mean, -_LARGEST), _three("std", self.std, _SMALLEST)
        words = ["mean", *map(repr, mean), "std", *map(repr, std), "scale", repr(self.scale)]
        return ":".join([*words, "channels", self.channels])


def parse_normalization(text: str) -> Normalization:
    """Return the normalization that a text describes.

    Parameters
    ----------
    text : str
        ``mean``, ``std``, ``scale`` or ``channels``, each followed by its values, all separated by
        colons.

    Raises
    ------
    InvalidRequest
        If it describes none.

    Examples
    --------
    >>> parse_normalization("mean:0.5:std:0.25:0.25:0.2:channels:bgr").std
    (0.25, 0.25, 0.2)
    """
    values: dict[str, list[str]] = {}
    name = ""
    for word in text.split(":"):
        if word in _FIELDS and word not in values:
            name = word
            values[name] = []
        elif name:
            values[name].append(word)
        else:
            raise _unreadable(text)
    channels = values.pop("channels", ["rgb"])
    try:
        numbers = {name: [float(word) for word in words] for name, words in values.items()}
    except ValueError as error:
        raise _unreadable(text) from error
    (scale,) = numbers.pop("scale", [1 / 255])[:1] or (0.0,)
    if len(channels) != 1 or len(values.get("scale", [""])) != 1:
        raise _unreadable(text)
    given = {name: some[0] if len(some) == 1 else some for name, some in numbers.items()}
    return Normalization(**given, scale=scale, channels=channels[0])  # type: ignore[arg-type]


def _unreadable(text: str) -> InvalidRequest:
    return InvalidRequest(
        f"{text!r} is not a normalization; give values of {', '.join(_FIELDS)}, separated by "
        f"colons, as in {_EXAMPLE}.",
        received=text,
    )


def _three(name: str, value: Any, smallest: float) -> Three:
    """Return three numbers of a number or of three; raise `InvalidRequest` if they are none."""
    several: Any = value.tolist() if hasattr(value, "tolist") else value  # of NumPy
    found = list(several) if isinstance(several, (list, tuple)) else [several] * 3
    numbers = [one for one in found if isinstance(one, (int, float)) and type(one) is not bool]
    fits = all(math.isfinite(one) and smallest <= one <= _LARGEST for one in numbers)
    if len(found) != 3 or len(numbers) != 3 or not fits:
        raise InvalidRequest(
            f"{name}={value!r} must be a number, or three, from {smallest:g} to {_LARGEST:g}.",
            received=value,
        )
    red, green, blue = (float(one) for one in numbers)
    return red, green, blue
