"""The preprocessing of a preset: keras-hub's image converter, as a rule of featcache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import InvalidRequest
from ...images.decode import Resize
from .. import preprocessing
from ..normalization import Normalization
from .families import FAMILIES

# Those of the known families do what their base class does.
_CLASSES = {
    "ImageConverter",
    *(f"{name.removesuffix('Backbone')}ImageConverter" for name in FAMILIES),
}
_MAX_SIDE = 1024
_SMALLEST = 1e-9


@dataclass(frozen=True)
class Converter:
    """What an image converter does.

    Attributes
    ----------
    rule : Rule
        ``pixels * scale + offset``, on an image of the network's size.
    size : (int, int) or None
        Height and width that images are resized to.
    resize : {"stretch", "crop", "pad"}
        What becomes of the aspect ratio.
    """

    rule: preprocessing.Rule
    size: tuple[int, int] | None
    resize: Resize


def read_converter(record: Any) -> Converter:
    """Return what a converter does from its record in ``image_converter.json``.

    Raises
    ------
    ValueError
        If it is not one, or does something else.
    """
    config = record.get("config") if isinstance(record, dict) else None
    if not isinstance(config, dict):
        raise ValueError("image_converter.json does not describe an image converter")
    if (kind := str(record.get("class_name"))) not in _CLASSES:
        raise ValueError(f"its image converter is a {kind[:60]!r}, which may do other things")
    scale, offset = _scale_and_offset(config)
    try:
        rule = _rule(scale, offset)
    except InvalidRequest as error:
        raise ValueError(f"of its image converter, {error}") from error
    return Converter(rule, _size(config), _resize(config))


def _resize(config: Mapping[str, Any]) -> Resize:
    if config.get("pad_to_aspect_ratio"):
        return "pad"
    return "crop" if config.get("crop_to_aspect_ratio", True) else "stretch"


def _scale_and_offset(config: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    scale = _three("scale", config.get("scale"), 1.0)
    if config.get("variance") is not None and config.get("mean") is not None:  # of older presets
        std = [value**0.5 for value in _three("variance", config["variance"], 1.0)]
        mean = _three("mean", config["mean"], 0.0)
        scaled = [one / other for one, other in zip(scale, std, strict=True)]
        return scaled, [-one / other for one, other in zip(mean, std, strict=True)]
    return scale, _three("offset", config.get("offset"), 0.0)


def _rule(scale: list[float], offset: list[float]) -> preprocessing.Rule:
    """Return ``pixels * scale + offset`` as a normalization: ``(pixels / 255 - mean) / std``."""
    std = [1 / (255 * value) for value in scale]
    mean = [-one * other for one, other in zip(offset, std, strict=True)]
    return preprocessing.as_rule(Normalization(mean=mean, std=std))


def _three(name: str, value: Any, default: float) -> list[float]:
    values = [default if value is None else value]
    if isinstance(value, list):
        values = value * 3 if len(value) == 1 else value
    else:
        values *= 3
    numbers = [one for one in values if isinstance(one, (int, float)) and abs(one) < 1e6]
    positive = name == "offset" or name == "mean" or all(one > _SMALLEST for one in numbers)
    if len(values) != 3 or len(numbers) != 3 or not positive:
        raise ValueError(f"the {name} of its image converter is {str(value)[:60]}")
    return [float(one) for one in numbers]


def _size(config: Mapping[str, Any]) -> tuple[int, int] | None:
    size: Any = config.get("image_size")
    if size is None and "height" in config:  # of older presets
        size = [config["height"], config.get("width")]
    if size is None:
        return None
    fits = isinstance(size, list) and len(size) == 2
    if not fits or not all(type(side) is int and 1 <= side <= _MAX_SIDE for side in size):
        raise ValueError(f"the image_size of its image converter is {str(size)[:60]}")
    return size[0], size[1]
