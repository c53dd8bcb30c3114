"""Sizes of images: one side in pixels, or height and width."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..errors import InvalidRequest

_MAX_SIDE = 4096

ImageSize = int | Sequence[int] | None


def parse_image_size(text: str) -> int | tuple[int, int]:
    """Return the image size that a text describes.

    Parameters
    ----------
    text : str
        A side in pixels, or height and width as ``"192x256"``.

    Raises
    ------
    InvalidRequest
        If it is neither.

    Examples
    --------
    >>> parse_image_size("192"), parse_image_size("192x256")
    (192, (192, 256))
    """
    match = re.fullmatch(r"(\d{1,5})(?:[x,](\d{1,5}))?", text.strip())
    if match is None:
        raise InvalidRequest(
            f"{text!r} is not a size; give 192, or height and width as 192x256.", received=text
        )
    return int(match[1]) if match[2] is None else (int(match[1]), int(match[2]))


def checked_size(given: Any, native: tuple[int, int] | None) -> tuple[int, int]:
    """Return height and width of an argument ``image_size=``, by default the native size.

    Raises
    ------
    InvalidRequest
        If it is no size, or is needed and was not given.
    """
    sizes = f"one side or (height, width) in pixels, 1 to {_MAX_SIDE}"
    if given is None and native is not None:
        if not all(1 <= side <= _MAX_SIDE for side in native):
            raise InvalidRequest(
                f"The model takes images of {native[0]} x {native[1]} pixels; a backbone takes "
                f"{sizes}.",
                received=tuple(native),
            )
        return int(native[0]), int(native[1])
    if given is None:
        raise InvalidRequest(
            f"The model's input size is open, so image_size= must be given: {sizes}.",
            received=None,
        )
    try:
        pair = (given, given) if isinstance(given, int) else tuple(int(side) for side in given)
    except (TypeError, ValueError):
        pair = ()
    if len(pair) == 2 and all(1 <= side <= _MAX_SIDE for side in pair):
        return int(pair[0]), int(pair[1])
    if len(pair) == 2:
        message = f"image_size={given!r} is out of range; give {sizes}."
    else:
        message = f"image_size={given!r} is not a size; give {sizes}."
    raise InvalidRequest(message, received=given)
