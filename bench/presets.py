"""Named fine-tuned models and named comparisons: the reference runs on Stanford Dogs, and Pets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from featcache import Augmentation
from featcache.errors import InvalidRequest
from featcache.toolkit import Crop

T = TypeVar("T")
_BACKBONES = ("vgg19", "resnet50", "inception_resnet_v2")
_HEADS = ("logistic", "svm", "lightgbm", "dense", "knn")
_FINE_TUNED = ("resnet50-40", "inception_resnet_v2-80")

# Arguments of `FineTuned` that all presets share.
REFERENCE_SETTINGS: Mapping[str, Any] = {
    "augmentation": Augmentation(True, True, 0, 0.2, 0.3, 0, 0, 0),
    "units": (1024,),
    "initial_head": None,
}
# Arguments of `FineTuned`: the settings of the reference runs on Stanford Dogs. Their boundaries
# are stored in float32; boundary_dtype="float16" halves them, within the rounding of float16.
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
    """The options of a named comparison; those of the command line take precedence.

    Attributes
    ----------
    data : str
        Name of a fetched data set.
    crop : {"whole", "box"}
    backbones, heads : tuple of str
    finetune : tuple of str
        Names in `PRESETS`.
    splits : mapping of str to (float or None)
        Fraction of the test part by the name of the results' folder; None for the published
        split.
    """

    data: str
    crop: Crop
    backbones: tuple[str, ...]
    heads: tuple[str, ...]
    finetune: tuple[str, ...]
    splits: Mapping[str, float | None]


COMPARISONS = {
    # The reference run cropped photos to their boxes and held 10 % out.
    "stanford-dogs": Comparison(
        data="stanford-dogs",
        crop="box",
        backbones=_BACKBONES,
        heads=_HEADS,
        finetune=_FINE_TUNED,
        splits={"official": None, "90-10": 0.1},
    ),
    "oxford-pets": Comparison(
        data="oxford-pets",
        crop="whole",
        backbones=_BACKBONES,
        heads=_HEADS,
        finetune=_FINE_TUNED,
        splits={"official": None},
    ),
}


def find_preset(name: str, presets: Mapping[str, T]) -> T:
    """Return an entry of `PRESETS` or `COMPARISONS` by its name.

    Raises
    ------
    InvalidRequest
        If there is no entry of that name; the message lists the names.
    """
    if name not in presets:
        raise InvalidRequest(
            f"There is no preset {name!r}; choose one of {', '.join(presets)}.", received=name
        )
    return presets[name]
