"""Whole comparisons by name: the reference task and its second data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from featcache.errors import InvalidRequest
from featcache.toolkit import Crop
from heads import HEADS

REFERENCE = ("vgg19", "resnet50", "inception_resnet_v2")


@dataclass(frozen=True)
class Preset:
    """What a comparison consists of; every option of the command line may replace a part.

    Attributes
    ----------
    data, crop : str
        A fetched data set, and which part of its photos.
    backbones, heads, finetune : tuple of str
    splits : mapping of str to (float or None)
        Name of a folder -> fraction of the test part; None for the published split.
    """

    data: str
    crop: Crop
    backbones: tuple[str, ...]
    heads: tuple[str, ...]
    finetune: tuple[str, ...]
    splits: Mapping[str, float | None]


BY_NAME = {
    # The reference run cropped to the boxes and held 10 % out.
    "stanford-dogs": Preset(
        data="stanford-dogs",
        crop="box",
        backbones=REFERENCE,
        heads=tuple(HEADS),
        finetune=("resnet50-40", "inception_resnet_v2-80"),
        splits={"official": None, "90-10": 0.1},
    ),
    "oxford-pets": Preset(
        data="oxford-pets",
        crop="whole",
        backbones=REFERENCE,
        heads=tuple(HEADS),
        finetune=("resnet50-40", "inception_resnet_v2-80"),
        splits={"official": None},
    ),
}


def find_preset(name: str) -> Preset:
    """Return a preset.

    Raises
    ------
    InvalidRequest
        With the known names.
    """
    if name not in BY_NAME:
        raise InvalidRequest(
            f"There is no preset {name!r}; known: {', '.join(BY_NAME)}.", received=name
        )
    return BY_NAME[name]
