"""Backbones of the command line: names of the table or files of networks, with their options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import featcache
from featcache.errors import InvalidRequest
from featcache.toolkit import (
    ENGINES,
    POOLINGS,
    PRECISIONS,
    RESIZES,
    ROW_DTYPES,
    BackboneOptions,
    as_rule,
    find_backbone,
    is_model_file,
    make_request,
    parse_image_size,
    weights_for,
)

from .entries import Parser, non_empty, one_of, parse_entry, split_entries, split_joined

# Arguments of `featcache.extract` that may follow a backbone, and what reads their values.
BACKBONE_OPTIONS: Mapping[str, Parser] = {
    "layer": non_empty,
    "pooling": one_of(POOLINGS),
    "image_size": parse_image_size,
    "resize": one_of(RESIZES),
    "weights": non_empty,
    "preprocessing": as_rule,
    "precision": one_of(PRECISIONS),
    "row_dtype": one_of(ROW_DTYPES),
    "engine": one_of(ENGINES),
}
# Not part of what is computed.
_ENGINE = "engine"


@dataclass(frozen=True)
class SharedOptions:
    """Options of all backbones of a command.

    Attributes
    ----------
    values : mapping of str to object
        Values of `BACKBONE_OPTIONS`; None for an option that was not given.
    sample : bool
        Whether the images are the sample of drawn dogs, for which ``weights="auto"`` may fall
        back to random weights.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    sample: bool = False

    def complete(self, backbone: str, own: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of a backbone: its own ones, else those of all.

        A model of your own has its own weights, so that weights for all do not apply to it.
        """
        options = {name: value for name, value in self.values.items() if value is not None}
        if is_model_file(backbone):
            options.pop("weights", None)
        options |= own
        if "weights" in options:
            options["weights"] = weights_for(options["weights"], sample=self.sample)
        return options


@dataclass(frozen=True)
class BackboneChoice:
    """A backbone of the command line.

    Attributes
    ----------
    backbone : str
        Its name in the table, or the path of a ``.keras`` or ``.onnx`` file.
    options : mapping of str to object
        Further arguments of `featcache.extract`, with those of all backbones.
    name : str
        What contenders with it are called: ``"xception@image_size=224"``.
    text : str
        As it was given.
    others : tuple of BackboneChoice
        Further backbones whose features are put beside those of this one.
    """

    backbone: str
    options: Mapping[str, Any]
    name: str
    text: str
    others: tuple[BackboneChoice, ...] = ()


def parse_backbone(text: str, shared: SharedOptions) -> BackboneChoice:
    """Return a backbone with its options, which are checked without building it.

    Parameters
    ----------
    text : str
        ``BACKBONE`` or ``BACKBONE@OPTION=VALUE,...`` with `BACKBONE_OPTIONS`.
    shared : SharedOptions

    Raises
    ------
    InvalidRequest, UnknownBackbone, WeightsUnavailable, ModelRefused
        If the backbone or an option is not accepted.
    """
    entry = parse_entry(text, BACKBONE_OPTIONS)
    backbone, label = check_backbone(entry.name, text)
    options = shared.complete(backbone, entry.options)
    check_options(backbone, options, text)
    return BackboneChoice(backbone, options, label + entry.suffix, text)


def check_backbone(name: str, text: str) -> tuple[str, str]:
    """Return the argument `backbone` of `featcache.extract` and a short name for it."""
    if "," in name and not Path(name).is_file():
        raise InvalidRequest(
            f"{text}: an entry with options is the only one of its argument; give the others in "
            f"arguments of their own, as in --backbones {name.split(',')[0]} --backbones "
            f"{text.split(',', 1)[1]}.",
            received=text,
        )
    if is_model_file(name):
        return str(name), Path(name).stem
    if "@" in name:
        raise InvalidRequest(
            f"{text}: options follow @ as option=value, as in xception@image_size=224; choose "
            f"from {', '.join(BACKBONE_OPTIONS)}.",
            received=text,
        )
    known = find_backbone(name).name
    return known, known


def check_options(backbone: str, options: Mapping[str, Any], text: str) -> None:
    """Raise an error that names the entry if the options do not fit the backbone."""
    chosen = {name: value for name, value in options.items() if name != _ENGINE}
    try:
        make_request(backbone, BackboneOptions(**chosen))
    except InvalidRequest as error:
        raise InvalidRequest(f"{text}: {error}", received=text) from error


def check_layer(choice: BackboneChoice, cache_dir: str | None) -> None:
    """Raise an error if the backbone does not have the named layer, or cannot pool it.

    The backbone is built for that, which takes seconds: otherwise a wrong name would be found
    only after the contenders before it were computed.

    Raises
    ------
    UnknownLayer, InvalidRequest
    """
    if choice.options.keys() & {"layer", "pooling"}:
        chosen = {name: value for name, value in choice.options.items() if name != _ENGINE}
        featcache.load_backbone(choice.backbone, cache_dir=cache_dir, **chosen)


def parse_backbones(values: Sequence[str], shared: SharedOptions) -> list[BackboneChoice]:
    """Return the backbones of ``--backbones``, each once, with names that differ."""
    choices: list[BackboneChoice] = []
    for text in split_entries(values):
        choice = _parse_joined(text, shared)
        if not any(_are_equal(choice, other) for other in choices):
            choices.append(choice)
    # Two files in different folders may have one name: then the whole texts tell them apart.
    names = [choice.name for choice in choices]
    return [
        choice if names.count(choice.name) == 1 else replace(choice, name=choice.text)
        for choice in choices
    ]


def _parse_joined(text: str, shared: SharedOptions) -> BackboneChoice:
    """Return the choice of an entry, which may join backbones by ``+``."""
    first, *rest = (parse_backbone(part, shared) for part in split_joined(text))
    if not rest:
        return first
    name = "+".join(choice.name for choice in (first, *rest))
    return replace(first, name=name, text=text, others=tuple(rest))


def _are_equal(one: BackboneChoice, other: BackboneChoice) -> bool:
    mine, theirs = (
        [(part.backbone, part.options) for part in (choice, *choice.others)]
        for choice in (one, other)
    )
    return mine == theirs
