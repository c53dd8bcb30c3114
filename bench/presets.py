"""What has a name: fine-tuned models and whole comparisons, those of the reference runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from featcache.errors import InvalidRequest
from featcache.toolkit import Crop
from heads import HEADS

T = TypeVar("T")
_BACKBONES = ("vgg19", "resnet50", "inception_resnet_v2")
_FINE_TUNED = ("resnet50-40", "inception_resnet_v2-80")

# Arguments of `FineTuned`: the set-ups of the reference runs on Stanford Dogs.
PRESETS: dict[str, dict[str, Any]] = {
    "vgg19-frozen": {
        "backbone": "vgg19", "layer": "block5_pool", "pooling": "max", "unfreeze": 0.0,
        "units": (1024,), "epochs": 78, "patience": 10,
    },
    "resnet50-40": {
        "backbone": "resnet50", "unfreeze": "conv5_block2", "units": (1024, 1024), "epochs": 31,
    },
    "inception_resnet_v2-80": {
        "backbone": "inception_resnet_v2", "unfreeze": 447, "units": (1024, 1024), "epochs": 21,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """What a comparison consists of; every option of the command line may replace a part.

    Attributes
    ----------
    data, crop : str
        A fetched data set, and which part of its photos.
    backbones, heads, finetune : tuple of str
        The last are names of `PRESETS`.
    splits : mapping of str to (float or None)
        Name of a folder -> fraction of the test part; None for the published split.
    """

    data: str
    crop: Crop
    backbones: tuple[str, ...]
    heads: tuple[str, ...]
    finetune: tuple[str, ...]
    splits: Mapping[str, float | None]


COMPARISONS = {
    # The reference run cropped to the boxes and held 10 % out.
    "stanford-dogs": Comparison(
        data="stanford-dogs",
        crop="box",
        backbones=_BACKBONES,
        heads=tuple(HEADS),
        finetune=_FINE_TUNED,
        splits={"official": None, "90-10": 0.1},
    ),
    "oxford-pets": Comparison(
        data="oxford-pets",
        crop="whole",
        backbones=_BACKBONES,
        heads=tuple(HEADS),
        finetune=_FINE_TUNED,
        splits={"official": None},
    ),
}


def find_preset(name: str, presets: Mapping[str, T]) -> T:
    """Return one of `PRESETS` or `COMPARISONS`.

    Raises
    ------
    InvalidRequest
        With the known names.
    """
    if name not in presets:
        raise InvalidRequest(
            f"There is no preset {name!r}; known: {', '.join(presets)}.", received=name
        )
    return presets[name]
