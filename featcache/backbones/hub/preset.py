"""Presets of keras-hub: a folder, a name that keras-hub knows, or an address; read and checked.

Nothing is built here, and no class that a file names is looked up.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from ..._io.own_files import open_own_file, read_own_file
from ..._io.paths import absolute_path
from ..._io.wording import first_line
from ...errors import (
    FeatcacheError,
    InvalidRequest,
    ModelRefused,
    UnknownBackbone,
    WeightsUnavailable,
)
from .config import HubConfig, read_config
from .converter import Converter, read_converter
from .families import FAMILIES, Family
from .library import fetch_file, preset_table

PREFIX = "hub:"
_CONFIG, _CONVERTER, _WEIGHTS = "config.json", "image_converter.json", "model.weights.h5"
_SPLIT_WEIGHTS = "model.weights.json"
_MAX_BYTES = 4 * 2**20
_ADDRESS = re.compile(r"(kaggle|hf)://[\w.\-]+(/[\w.\-]+){1,5}")
_NAME = re.compile(r"[\w.\-]{1,200}")

# Returns the path of a file of the preset; raises FileNotFoundError if there is none.
Locate = Callable[[str], Path]


@dataclass(frozen=True)
class HubPreset:
    """A preset that has passed all checks.

    Attributes
    ----------
    argument : str
        ``hub:`` and the name, the address or the absolute folder.
    config : HubConfig
        The whole backbone, of which the image tower is used.
    weights : Path
    digest : str
        SHA-256 of ``config.json``.
    converter : Converter or None
        What its images are prepared with.
    """

    argument: str
    config: HubConfig
    weights: Path
    digest: str
    converter: Converter | None

    @property
    def name(self) -> str:
        """The last part of the name, the address or the folder."""
        return self.argument.removeprefix(PREFIX).rstrip("/\\").replace("\\", "/").split("/")[-1]

    @property
    def family(self) -> Family:
        """What the outputs are."""
        return FAMILIES[self.config.class_name]

    @property
    def tower(self) -> dict[str, Any]:
        """The arguments of the image tower."""
        arguments = self.config.arguments
        return dict(arguments["vision_encoder"].arguments if self.family.towers else arguments)

    @property
    def any_size(self) -> bool:
        """Whether it can be built for images of any size."""
        return self.family.any_size


def is_preset(backbone: object) -> TypeGuard[str | os.PathLike[str]]:
    """Return whether the argument `backbone` stands for a preset of keras-hub.

    That is a text that begins with ``hub:``, and the path of a folder.
    """
    if isinstance(backbone, str) and backbone.startswith(PREFIX):
        return True
    is_path = isinstance(backbone, os.PathLike) or (isinstance(backbone, str) and "/" in backbone)
    return is_path and absolute_path(backbone).is_dir()  # type: ignore[arg-type]


def read_preset(backbone: str | os.PathLike[str]) -> HubPreset:
    """Find a preset, download it if necessary, and check its files but for the weights' content.

    Raises
    ------
    WeightsUnavailable
        If there is no such folder, or a file is missing and cannot be downloaded.
    ModelRefused
        If it is not an image backbone, or its files are not those that keras-hub writes.
    UnknownBackbone
        If keras-hub knows no preset of that name.
    InvalidRequest
        If the text is neither a name, an address nor a folder.
    MissingExtra
        If it is not a folder, and keras-hub is not installed.
    """
    text = os.fspath(backbone).removeprefix(PREFIX)
    if _ADDRESS.fullmatch(text):
        return _read(text, lambda name: _downloaded(text, name))
    if "://" not in text and (os.path.isdir(text) or "/" in text or "\\" in text):
        folder = absolute_path(text)
        if not folder.is_dir():
            raise _no_folder(folder)
        return _read(str(folder), lambda name: folder / name)
    _check_name(text)
    return _read(text, lambda name: _downloaded(text, name))


def _check_name(name: str) -> None:
    """Raise unless keras-hub knows an image backbone of that name."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name[:100]!r} is not a preset of keras-hub; after 'hub:' give a name of "
            "`featcache backbones --hub`, a folder, or an address hf://USER/MODEL or "
            "kaggle://USER/MODEL/keras/VARIATION.",
            received=name,
        )
    names = image_presets()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=4, cutoff=0.5)
        hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise UnknownBackbone(
            f"keras-hub has no image backbone {name!r}. {hint}`featcache backbones --hub` lists "
            f"all {len(names)}; a folder is given as 'hub:./{name}'.",
            received=name,
            near=near,
        )


@dataclass(frozen=True)
class KnownPreset:
    """A preset of an image backbone that keras-hub knows by name.

    Attributes
    ----------
    name, family : str
    parameters : int or None
        Number of weights, those of a part for texts included.
    """

    name: str
    family: str
    parameters: int | None


def image_presets() -> dict[str, KnownPreset]:
    """Return the presets of image backbones that keras-hub knows, by name; download nothing."""
    return {
        name: KnownPreset(name, FAMILIES[kind].title, record.get("metadata", {}).get("params"))
        for kind, presets in sorted(preset_table().items())
        if kind in FAMILIES
        for name, record in sorted(presets.items())
    }


def _no_folder(folder: Path) -> WeightsUnavailable:
    return WeightsUnavailable(
        f"There is no folder {folder}. Give a folder that backbone.save_to_preset() of keras-hub "
        "wrote, or a name of `featcache backbones --hub`.",
        file=folder,
    )


def _downloaded(preset: str, name: str) -> Path:
    try:
        # Caches of downloads consist of links, to files of other names.
        return Path(os.path.realpath(fetch_file(preset, name)))
    except (FileNotFoundError, FeatcacheError):
        raise
    except Exception as error:  # each service raises kinds of its own
        raise WeightsUnavailable(
            f"The preset {preset} of keras-hub is not on this machine and cannot be downloaded "
            f"({first_line(error, 200)}). Download it on another machine with "
            f"keras_hub.models.Backbone.from_preset({preset!r}).save_to_preset('folder') and "
            f"keras_hub.layers.ImageConverter.from_preset({preset!r}).save_to_preset('folder'), "
            "and give 'hub:./folder'.",
            file=Path(name),
            url=preset,
            reason=first_line(error, 200),
        ) from error


def _read(shown: str, locate: Locate) -> HubPreset:
    try:
        data = read_own_file(locate(_CONFIG), _MAX_BYTES)
        config = read_config(json.loads(data))
        converter = _read_converter(locate)
        weights = _find_weights(shown, locate)
    except FileNotFoundError as error:
        raise WeightsUnavailable(
            f"{shown} is not a preset of keras-hub, or cannot be reached: there is no {_CONFIG}. "
            "Give a folder that backbone.save_to_preset() wrote, or a name of `featcache "
            "backbones --hub`.",
            file=Path(shown) / _CONFIG,
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, FeatcacheError):
            raise
        raise refusal(Path(shown), error) from error
    digest = hashlib.sha256(data).hexdigest()
    return HubPreset(f"{PREFIX}{shown}", config, weights, digest, converter)


def _read_converter(locate: Locate) -> Converter | None:
    try:
        data = read_own_file(locate(_CONVERTER), _MAX_BYTES)
    except FileNotFoundError:
        return None
    return read_converter(json.loads(data))


def _find_weights(shown: str, locate: Locate) -> Path:
    try:
        path = locate(_WEIGHTS)
        os.close(open_own_file(path))
    except FileNotFoundError as error:
        raise _no_weights(shown, locate) from error
    return path


def _no_weights(shown: str, locate: Locate) -> WeightsUnavailable:
    try:
        split = locate(_SPLIT_WEIGHTS).is_file()
    except FileNotFoundError:
        split = False
    problem = f"has no {_WEIGHTS}"
    remedy = "Save the backbone again with its save_to_preset()."
    if split:
        problem = "has weights that are split over several files"
        remedy = (
            "Load it with keras_hub.models.Backbone.from_preset() and pass the backbone itself, "
            "or save it with save_to_preset(folder, max_shard_size=None)."
        )
    return WeightsUnavailable(
        f"The preset {shown} {problem}. {remedy}", file=Path(shown) / _WEIGHTS
    )


def refusal(path: Path, error: BaseException) -> ModelRefused:
    """Return the error for a preset that is not used, for a reason without a full stop."""
    reason = first_line(error, 300)
    return ModelRefused(
        f"The preset {path} of keras-hub is not loaded: {reason}. If you trust its author, load "
        "it with keras_hub.models.Backbone.from_preset() and pass the backbone.",
        path=path,
        reason=reason,
    )
