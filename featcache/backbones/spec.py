"""The table of backbones, the spec that identifies features, and the cache key.

`BackboneEntry` is a row of the table of backbones. `BackboneSpec` contains everything that
changes an embedding and nothing else; its `key` names the store.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from .._io.names import check_name
from .._io.own_files import is_keyed_name
from ..errors import InvalidRequest, UnknownBackbone
from ..hdf5.row_dtype import COMPONENT as ROW_DTYPE
from ..hdf5.row_dtype import DEFAULT_ROW_DTYPE, ROW_DTYPES

Pooling = Literal["avg", "max", "flat", "cls"]
Precision = Literal["float32", "bfloat16"]
RuleName = Literal["none", "unit", "tf", "torch", "caffe", "clip"]
EngineName = Literal["auto", "openvino", "keras", "tensorflow", "onnxruntime"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
_OWN_MODEL = "custom-"
IMPORTED = "imported-"
_MAX_SIDE = 2**16
_MAX_FIELD_LENGTH = 4096  # characters
_MAX_VERSION = 10**6
_NETWORK = ("backbone", "layer", "weights", "pooling", "image_size")


@dataclass(frozen=True)
class BackboneEntry:
    """A row of the table of backbones.

    The rows are the networks of `keras.applications`, and `pocket`, which is part of the package.

    Attributes
    ----------
    name, constructor : str
        The name here (``"resnet50_v2"``) and in Keras (``"ResNet50V2"``).
    module : str
        The module of `keras.applications` with its ``preprocess_input``.
    image_size : int
        Default height and width in pixels.
    preprocessing : str
        A rule of `featcache.backbones.preprocessing`.
    layer, width : str, int
        The penultimate layer and the width of its embedding.
    parameters : int
        Number of weights, including the classification top.
    second_scaling : bool
        EfficientNet's ImageNet weights expect a further division by the square root of the
        channels' standard deviation, which Keras adds to the graph only for
        ``weights="imagenet"``.
    file, url, hash : str, str, str or None
        ImageNet weights with the top: file name in Keras' cache, URL, MD5 or SHA-256. The URL is
        empty for weights that are part of the package.
    notop_file, notop_hash : str or None
        ImageNet weights without the top, under the same rules.
    notop_layer : str
        The default layer with these: `layer`, or the last one before the top if `layer`
        depends on the top's weights.
    top_layers : tuple of str
        The layers that depend on the top's weights.
    """

    name: str
    constructor: str
    module: str
    image_size: int
    preprocessing: RuleName
    layer: str
    width: int
    parameters: int
    second_scaling: bool
    file: str
    url: str
    hash: str | None
    notop_file: str | None
    notop_hash: str | None
    notop_layer: str
    top_layers: tuple[str, ...]

    def needs_top(self, layer: str | int | None) -> bool:
        """Return whether a layer depends on the top's weights; an index is taken to."""
        layer = self.layer if layer is None else layer
        return isinstance(layer, int) or layer == "output" or layer in self.top_layers

    def published(self, *, top: bool) -> tuple[str | None, str | None]:
        """Return file name and hash of the ImageNet weights with or without the top."""
        return (self.file, self.hash) if top else (self.notop_file, self.notop_hash)

    @property
    def packaged(self) -> bool:
        """Whether network and weights are part of the package."""
        return not self.url


def _normalize(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


@functools.cache
def backbone_entries() -> Mapping[str, BackboneEntry]:
    """Return the table of backbones, by name."""
    text = resources.files("featcache.backbones").joinpath("backbones.json").read_text("utf-8")
    rows = [{**row, "top_layers": tuple(row["top_layers"])} for row in json.loads(text)]
    return {row["name"]: BackboneEntry(**row) for row in rows}


def find_backbone(name: str) -> BackboneEntry:
    """Return the entry of a backbone in the table.

    Parameters
    ----------
    name : str
        Case, ``_`` and ``-`` are ignored.

    Returns
    -------
    BackboneEntry

    Raises
    ------
    UnknownBackbone
        If there is none; carries the most similar names as `near`.

    Examples
    --------
    >>> find_backbone("ResNet50").layer, find_backbone("inception-resnet-v2").width
    ('avg_pool', 1536)
    """
    table = {_normalize(known): entry for known, entry in backbone_entries().items()}
    entry = table.get(_normalize(name))
    if entry is None:
        near = difflib.get_close_matches(_normalize(name), table, n=4, cutoff=0.5)
        names = [table[match].name for match in near]
        hint = f"Did you mean {' or '.join(map(repr, names))}? " if names else ""
        raise UnknownBackbone(
            f"There is no backbone {name!r}. {hint}`featcache backbones` lists all "
            f"{len(table)}; your own keras.Model, or the path of a saved one (.keras) or of an "
            "ONNX network (.onnx), can stand in its place.",
            received=name,
            near=names,
        )
    return entry


@dataclass(frozen=True)
class BackboneSpec:
    """Everything that changes an embedding, and nothing else.

    Specs with equal fields give equal features on any machine. Paths of images, batch size,
    engine and installed versions are not part of it.

    Attributes
    ----------
    backbone : str
        Name in the table, or ``custom-<hash of the architecture or graph>``: 1 to 100 letters,
        digits, ``_``, ``.`` and ``-``, since it becomes part of a path.
    layer : str
        The layer whose output is the feature, named as in a fresh Keras session.
    weights : str
        SHA-256 of the values of all weights up to that layer, in hexadecimal digits.
    pooling : str
        ``"none"``, ``"avg"``, ``"max"``, ``"flat"`` or ``"cls"``, as applied.
    image_size : (int, int)
        Height and width of the backbone's input in pixels.
    resize : str
        Crop, resize mode and filter, such as ``"stretch-bilinear"``.
    decode_version : int
        Version of the decoding rules, `featcache.toolkit.DECODE_VERSION`.
    preprocessing : str
        Fingerprint of the preprocessing rule: 16 hexadecimal digits.
    precision : str
        Number format of the forward pass, ``"float32"`` or ``"bfloat16"``.
    views : str
        ``"plain"`` for images without augmentation; else the policy, seed and number of the
        view: `featcache.images.views.View.key`.
    row_dtype : str
        Number format of the stored rows, ``"float32"`` or ``"float16"``.

    Raises
    ------
    InvalidRequest
        If `backbone` is not a valid name.
    """

    backbone: str
    layer: str
    weights: str
    pooling: str
    image_size: tuple[int, int]
    resize: str
    decode_version: int
    preprocessing: str
    precision: str = "float32"
    views: str = "plain"
    row_dtype: str = DEFAULT_ROW_DTYPE

    def __post_init__(self) -> None:
        # It becomes the name of a folder, and may come from a file that anybody made.
        check_name(self.backbone, "The backbone of a spec")

    def components(self) -> dict[str, Any]:
        """Return the components of the key by name, as JSON types.

        Without `row_dtype` if that is the default, so that stores which were written before there
        was a choice have the same key.
        """
        values = self.all_values()
        if self.row_dtype == DEFAULT_ROW_DTYPE:
            del values[ROW_DTYPE]
        return values

    def all_values(self) -> dict[str, Any]:
        """Return all fields by name, as JSON types."""
        return {**asdict(self), "image_size": list(self.image_size)}

    def row_bytes(self, width: int) -> int:
        """Return the bytes of a stored row of `width` values."""
        return np.dtype(self.row_dtype).itemsize * width

    @classmethod
    def from_components(cls, components: Mapping[str, Any]) -> BackboneSpec:
        """Return the spec of `components`, which are validated, since files are untrusted.

        Raises
        ------
        InvalidRequest
            For a missing or unknown field, a wrong type or range, or a backbone's name that is
            not safe as part of a path.
        """
        expected = {field.name for field in fields(cls)}
        if set(components) | {ROW_DTYPE} != expected:
            unexpected = sorted(expected ^ {*components, ROW_DTYPE})
            raise InvalidRequest(
                f"A spec has wrong or missing fields: {unexpected}.", received=unexpected
            )
        values = dict(components)
        size = values["image_size"]
        if not (isinstance(size, (list, tuple)) and len(size) == 2):
            raise InvalidRequest(f"image_size must be two integers, not {size!r}.", received=size)
        values["image_size"] = tuple(size)
        for name, value in values.items():
            kinds = {"image_size": tuple, "decode_version": int}.get(name, str)
            if type(value) is not kinds:
                raise InvalidRequest(
                    f"The {name} of a spec must be of type {kinds.__name__}, not "
                    f"{type(value).__name__}.",
                    received=value,
                )
        _check_ranges(values)
        return cls(**values)

    @property
    def key(self) -> str:
        """The cache key, 64 hexadecimal digits."""
        return content_key(self.components())

    @property
    def folder(self) -> str:
        """Name of the store's folder: the backbone and the first 16 digits of the key."""
        return f"{self.backbone}-{self.key[:16]}"

    @property
    def is_own_model(self) -> bool:
        """Whether the backbone is a model of the caller's, and not in the table."""
        return self.backbone.startswith(_OWN_MODEL)

    @property
    def is_imported(self) -> bool:
        """Whether the features were computed elsewhere: `featcache.import_features`."""
        return self.backbone.startswith(IMPORTED)

    @property
    def network(self) -> str:
        """Name of the converted model's folder, equal for all specs of one network."""
        parts = {name: value for name, value in self.components().items() if name in _NETWORK}
        return f"{self.backbone}-{content_key(parts)[:16]}"


def _check_ranges(values: Mapping[str, Any]) -> None:
    """Raise `InvalidRequest` for fields of a spec that no extraction produces."""
    dtype = values.get(ROW_DTYPE)
    if dtype is not None and (dtype not in ROW_DTYPES or dtype == DEFAULT_ROW_DTYPE):
        # The default is never written: with it, one spec would have two keys.
        raise InvalidRequest(
            f"The {ROW_DTYPE} of a spec is {dtype[:40]!r}, which this version of featcache does "
            "not write.",
            received=dtype[:40],
        )
    for side in values["image_size"]:
        if type(side) is not int or not 1 <= side <= _MAX_SIDE:
            raise InvalidRequest(
                f"The image_size of a spec must be two integers from 1 to {_MAX_SIDE}.",
                received=str(side)[:40],
            )
    if not 0 <= values["decode_version"] <= _MAX_VERSION:
        raise InvalidRequest("The decode_version of a spec is out of range.", received="")
    for name, value in values.items():
        if isinstance(value, str) and len(value) > _MAX_FIELD_LENGTH:
            raise InvalidRequest(
                f"The {name} of a spec has {len(value):,} characters.", received=value[:40]
            )


def is_possible_in(spec: BackboneSpec, folder: Path) -> bool:
    """Return whether a folder's name has the key of a spec, or no key at all."""
    name = os.path.basename(os.path.abspath(folder))
    return name == spec.folder or not is_keyed_name(name)


def own_model_name(architecture_hash: str) -> str:
    """Return the name that stands for a model of the caller's in a spec."""
    return f"{_OWN_MODEL}{architecture_hash[:16]}"


def content_key(components: Mapping[str, Any]) -> str:
    """Return the SHA-256 of named components, in hexadecimal digits.

    Parameters
    ----------
    components : mapping of str to value
        Strings, integers, booleans, None and (nested) lists of them. They are hashed as JSON
        with sorted keys.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    TypeError
        For a value of another type, whose text might not be unique.
    """
    canonical = json.dumps(
        {name: _strict(value) for name, value in components.items()},
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=True,
    )
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _strict(value: Any) -> Any:
    if value is None or type(value) in (str, int, bool):
        return value
    if type(value) in (list, tuple):
        return [_strict(item) for item in value]
    raise TypeError(f"a cache key cannot hold a {type(value).__name__}: {value!r}")


def differing(one: BackboneSpec, other: BackboneSpec) -> list[str]:
    """Return the names of the fields in which two specs differ, in their order."""
    mine, theirs = one.all_values(), other.all_values()
    return [name for name in mine if mine[name] != theirs[name]]
