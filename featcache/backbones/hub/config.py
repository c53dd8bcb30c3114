"""Check of the configuration of a preset, without Keras.

keras-hub resolves the names in ``config.json`` to classes. Here the class is one of
`featcache.backbones.hub.families`, everything else is numbers, flags and words, and nothing in
it is resolved but the options that a class of keras-hub takes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .families import FAMILIES

_RECORD_KEYS = {
    "module", "class_name", "config", "registered_name", "build_config", "compile_config",
}  # fmt: skip
_DTYPES = {
    "float16", "bfloat16", "float32", "float64", "mixed_float16", "mixed_bfloat16",
}  # fmt: skip
_KEY = re.compile(r"[a-z][a-z0-9_]{0,60}")
# Names of options, such as of an activation. A class has capitals, a path has dots or slashes.
_WORD = re.compile(r"[a-z0-9_]{0,40}")
_LABEL = re.compile(r"[\w.\- ]{0,200}")
# How often a constructor repeats a layer.
_COUNT = re.compile(r"(layers|depths?|repeats|blocks)$")
# Each stage of HGNetV2: channels in, inside and out, blocks, layers of a block, kernel size.
_STAGES = "stackwise_stage_filters"
_MAX_LAYERS = 1024  # in total
_MAX_VALUES = 20_000
_MAX_DEPTH = 6
_MAX_NUMBER = 10_000_000  # a vocabulary has a million words
_MAX_SIDE = 1024  # of images; users may ask for larger ones
# keras-hub makes a table of window_size ** 4 positions, and multiplies layers by coefficients.
_LIMITS = (("window_size", 32), ("coefficient", 10))
_SHAPES = {"image_shape", "position_embedding_shape", "input_shape"}
_INTEGERS = {"num_register_tokens"}
# Not passed on: the name is set, and everything is computed in float32.
_LEFT_OUT = {"name", "trainable", "dtype"}


@dataclass(frozen=True)
class HubConfig:
    """A class of keras-hub and the arguments of its constructor.

    Attributes
    ----------
    class_name : str
        One of `families.FAMILIES`, or of the encoders in one.
    arguments : mapping of str to Any
        Numbers, flags, words, and lists of them; `HubConfig` for encoders.
    """

    class_name: str
    arguments: Mapping[str, Any]


def read_config(record: Any) -> HubConfig:
    """Return the backbone that ``config.json`` describes.

    Raises
    ------
    ValueError
        If it is not one of the image backbones, or holds anything else.
    """
    if not isinstance(record, dict) or "class_name" not in record:
        raise ValueError("its config.json does not describe a backbone of keras-hub")
    name = str(record["class_name"])
    if name not in FAMILIES:
        raise ValueError(f"it is a {name[:60]!r}, which is not an image backbone known here")
    return _Reader().read(record, FAMILIES[name].towers)


class _Reader:
    def __init__(self) -> None:
        self._values = 0
        self._layers = 0

    def read(self, record: Mapping[str, Any], towers: tuple[str, ...] = ()) -> HubConfig:
        name = record.get("class_name")
        unknown = sorted(set(record) - _RECORD_KEYS)
        if unknown:
            raise ValueError(f"the record of its {name} holds {str(unknown[0])[:60]!r}")
        module, registered = record.get("module"), record.get("registered_name")
        if not re.fullmatch(r"keras_(hub|nlp)\.src\.models\.[a-z0-9_.]{1,100}", str(module)) or (
            registered not in (f"keras_hub>{name}", f"keras_nlp>{name}")
        ):
            shown = f"{module} {registered}"[:120]
            raise ValueError(f"it names {shown!r} for a {name}, which is not a class of keras-hub")
        config = record.get("config")
        if not isinstance(config, dict):
            raise ValueError(f"the configuration of its {name} is not an object")
        _check_dtype(config.get("dtype"))
        arguments: dict[str, Any] = {}
        for key, value in config.items():
            if not _KEY.fullmatch(key):
                raise ValueError(f"it holds the key {key[:60]!r}")
            if key in towers:
                arguments[key] = self._tower(key, value, str(name))
            elif key not in _LEFT_OUT:
                self._check(key, value, 0)
                arguments[key] = value
        missing = sorted(set(towers) - set(arguments))
        if missing:
            raise ValueError(f"its {name} has no {missing[0]}")
        return HubConfig(str(name), arguments)

    def _tower(self, key: str, record: Any, owner: str) -> HubConfig:
        kind = {"vision_encoder": "VisionEncoder", "text_encoder": "TextEncoder"}[key]
        expected = owner.removesuffix("Backbone") + kind
        found = record.get("class_name") if isinstance(record, dict) else None
        if found != expected:
            raise ValueError(f"the {key} of its {owner} is a {str(found)[:60]!r}, not {expected}")
        return self.read(record)

    def _check(self, key: str, value: Any, depth: int) -> None:
        self._values += 1
        if self._values > _MAX_VALUES or depth > _MAX_DEPTH:
            raise ValueError("its configuration holds too many values, or they are nested deeply")
        if key in _SHAPES:
            _check_shape(key, value)
        elif key in _INTEGERS and type(value) is not int:
            raise ValueError(f"its {key} is {str(value)[:60]}, which is not a whole number")
        elif isinstance(value, list):
            for one in value:
                self._check(key, one, depth + 1)
            if key == _STAGES and depth == 1:
                counts = [abs(one) for one in value[3:5] if isinstance(one, (int, float))]
                self._count(math.ceil(math.prod(counts)))
        elif isinstance(value, str):
            if not _WORD.fullmatch(value):
                raise ValueError(f"its {key} is {value[:60]!r}, which is not an option's word")
        elif isinstance(value, dict):
            raise ValueError(f"its {key} is an object, not a number or a word")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            self._check_number(key, value)

    def _check_number(self, key: str, value: float) -> None:
        most = next((limit for part, limit in _LIMITS if part in key), _MAX_NUMBER)
        if not abs(value) <= most:  # also for NaN
            raise ValueError(f"its {key} is {str(value)[:30]}; the limit is {most:,}")
        if _COUNT.search(key):
            self._count(abs(int(value)))

    def _count(self, layers: int) -> None:
        self._layers += layers
        if self._layers > _MAX_LAYERS:
            raise ValueError(f"it has more than {_MAX_LAYERS:,} layers or blocks")


def _check_shape(key: str, value: Any) -> None:
    # Some position embeddings have a height and a width only.
    fits = isinstance(value, list) and (value[2:] == [3] or key != "image_shape") and len(value) < 4
    if not fits or not all(
        side is None or (type(side) is int and 1 <= side <= _MAX_SIDE) for side in value
    ):
        raise ValueError(f"its {key} is {str(value)[:60]}, not [height, width, 3]")


def _check_dtype(dtype: Any) -> None:
    """Raise for numbers of other types: those of quantized weights."""
    name = dtype
    if isinstance(dtype, dict):
        config = dtype.get("config")
        policy = dtype.get("class_name") == "DTypePolicy"
        name = config.get("name") if policy and isinstance(config, dict) else str(dtype)[:60]
    if name is not None and str(name) not in _DTYPES:
        raise ValueError(f"its numbers are of the type {str(name)[:60]!r}, not floating-point ones")
