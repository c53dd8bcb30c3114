"""Fine-tuned models of the command line: a preset, or a backbone and the part to train."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from featcache import Augmentation
from featcache.errors import InvalidRequest
from featcache.toolkit import ROW_DTYPES, is_model_file, parse_bytes
from heads.schedule import RATE_SCHEDULES

from ..finetune.fine_tuned import FineTuned
from ..finetune.initial_head import InitialHead
from ..finetune.network import NO_AUGMENTATION
from ..presets import PRESETS
from .backbones import BACKBONE_OPTIONS, SharedOptions, check_backbone, check_options
from .entries import Parser, non_empty, number, one_of, parse_entry, whole_number

_AUGMENTATIONS: Mapping[str, Any] = {
    "default": Augmentation(),
    "flip": "flip",
    "none": NO_AUGMENTATION,
}
_INITIAL_HEADS: Mapping[str, Any] = {**{name: name for name in get_args(InitialHead)}, "none": None}
# A fine-tuned network is trained in float32, by Keras.
_NOT_TRAINED = ("precision", "row_dtype", "engine")
_DEFAULT_PART = 0.4


def _augmentation(text: str) -> Any:
    return _AUGMENTATIONS[one_of(tuple(_AUGMENTATIONS))(text)]


def _initial_head(text: str) -> Any:
    return _INITIAL_HEADS[one_of(tuple(_INITIAL_HEADS))(text)]


def _widths(text: str) -> tuple[int, ...]:
    """Return the widths of dense layers: ``"1024x512"``; none for ``"none"``."""
    if text == "none":
        return ()
    try:
        return tuple(whole_number(1)(width) for width in text.split("x"))
    except InvalidRequest:
        raise InvalidRequest(
            f"{text!r} is no list of widths; give one such as 1024 or 1024x512, or none."
        ) from None


# Arguments of `FineTuned` that may follow its backbone, and what reads their values.
FINETUNE_OPTIONS: Mapping[str, Parser] = {
    "epochs": whole_number(1),
    "views": whole_number(1),
    "learning_rate": number(0, above=True),
    "lr_schedule": one_of(RATE_SCHEDULES),
    "warmup": number(0),
    "label_smoothing": number(0, 0.999),
    "layer_decay": number(0, 1),
    "augmentation": _augmentation,
    "initial_head": _initial_head,
    "units": _widths,
    "dropout": number(0, 0.999),
    "batch_size": whole_number(1),
    "patience": whole_number(1),
    "lr_patience": whole_number(1),
    "factor": number(0, 1, above=True),
    "validation_fraction": number(0, 0.999),
    "class_weight": one_of(("balanced",)),
    "boundary": non_empty,
    "boundary_dtype": one_of(ROW_DTYPES),
    "max_cache": parse_bytes,
    **{name: parser for name, parser in BACKBONE_OPTIONS.items() if name not in _NOT_TRAINED},
}


def parse_fine_tuned(
    text: str, shared: SharedOptions, changes: Mapping[str, Any]
) -> tuple[str, FineTuned]:
    """Return the name and the contender of an entry of ``--finetune``.

    Parameters
    ----------
    text : str
        ``BACKBONE:PART`` or a key of `PRESETS`, and ``@OPTION=VALUE,...`` with
        `FINETUNE_OPTIONS`.
    shared : SharedOptions
    changes : mapping of str to object
        Arguments of `FineTuned` for all of them; those of the entry take precedence.

    Raises
    ------
    InvalidRequest, UnknownBackbone, WeightsUnavailable, ModelRefused
        If the backbone or an option is not accepted.

    Examples
    --------
    >>> changes = {"epochs": 3}
    >>> name, contender = parse_fine_tuned("vgg16:0.3@views=2", SharedOptions(), changes)
    >>> name, contender.unfreeze, contender.views.count, contender.schedule.epochs
    ('vgg16:0.3@views=2 fine-tuned', 0.3, 2, 3)
    """
    entry = parse_entry(text, FINETUNE_OPTIONS)
    preset = PRESETS.get(entry.name, {})
    named, part = (preset["backbone"], None) if preset else _split_part(entry.name)
    backbone, label = check_backbone(named, text)
    options = {**changes, **shared.complete(backbone, entry.options)}
    for name in _NOT_TRAINED:  # given for the frozen backbones
        options.pop(name, None)
    used = {**preset, **options}
    check_options(backbone, {k: v for k, v in used.items() if k in BACKBONE_OPTIONS}, text)
    try:
        if preset:
            return entry.name + entry.suffix, FineTuned.preset(entry.name, **options)
        tuned = FineTuned(backbone, _DEFAULT_PART if part is None else part, **options)
    except InvalidRequest as error:
        raise InvalidRequest(f"{text}: {error}", received=text) from error
    return f"{label}{entry.name.removeprefix(named)}{entry.suffix} fine-tuned", tuned


def parse_all_fine_tuned(
    texts: Sequence[str], shared: SharedOptions, changes: Mapping[str, Any]
) -> dict[str, FineTuned]:
    """Return the contenders of ``--finetune`` by names that differ."""
    found: dict[str, FineTuned] = {}
    for text in dict.fromkeys(texts):
        name, contender = parse_fine_tuned(text, shared, changes)
        # Two files in different folders may have one name.
        found[f"{text} fine-tuned" if name in found else name] = contender
    return found


def _split_part(name: str) -> tuple[str, float | int | str | None]:
    """Return backbone and part of ``BACKBONE:PART``; a whole number is a number of layers."""
    backbone, colon, part = name.rpartition(":")
    if not colon or is_model_file(name):
        return str(name), None
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return backbone, kind(part)
    return backbone, part or None
