"""Resolution of a request to its spec and embedding width, cached between sessions.

The hash of the weights' values is part of the key, and computing it requires a loaded model. It
is cached per published file, file state or seed, so that Keras is not imported if all rows are
stored.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from .._io.atomic import read_memo, write_memo
from .._io.cache_dirs import cache_folder, weights_folder
from .._io.file_state import FileState
from .._io.logs import get_logger
from .._io.own_files import check_integer
from ..errors import InvalidRequest
from ..images.decode import DECODE_VERSION
from ..images.resize_rule import format_resize
from . import preprocessing
from .graph import OUTPUT
from .hub.library import hub_version
from .hub.preset import HubPreset
from .keras_types import BackboneLike
from .model import Backbone
from .onnx.backbone import OnnxBackbone
from .request import (
    BackboneOptions,
    HubRequest,
    ModelRequest,
    OnnxRequest,
    Request,
    TableRequest,
    make_request,
)
from .spec import BackboneEntry, BackboneSpec, content_key
from .weights import current_state, ensure_available, identities, weights_without_top

log = get_logger(__name__)
_MEMO_VERSION = 5


@dataclass(frozen=True)
class ResolvedBackbone:
    """The spec and embedding width of a request.

    Attributes
    ----------
    request : Request
    spec : BackboneSpec
    width : int
        Length of an embedding.
    """

    request: Request
    spec: BackboneSpec
    width: int

    def arguments(self) -> dict[str, Any]:
        """Return `Request.arguments` with the resolved layer."""
        return {**self.request.arguments(), "layer": self.spec.layer}


@dataclass(frozen=True)
class BuiltBackbone(ResolvedBackbone):
    """A `ResolvedBackbone` with the backbone itself, in the attribute `backbone`."""

    backbone: Backbone | OnnxBackbone

    @property
    def keras_backbone(self) -> Backbone:
        """The backbone, whose `model` can be trained; `InvalidRequest` for an ONNX network."""
        if isinstance(self.backbone, OnnxBackbone):
            raise InvalidRequest(
                f"{self.request.name} is an ONNX network, which cannot be trained; train a head on "
                "its features instead.",
                received=self.request.backbone,
            )
        return self.backbone


def resolve(request: Request, folder: Path) -> ResolvedBackbone:
    """Return the spec of a request, from the cache if possible, else by building the backbone.

    Parameters
    ----------
    request : Request
    folder : Path
        The folder of cached weight hashes.

    Returns
    -------
    ResolvedBackbone
        A `BuiltBackbone` if the backbone was built.
    """
    resolved = _resolve(request, folder)
    _log_layer(resolved)
    return resolved


def _resolve(request: Request, folder: Path) -> ResolvedBackbone:
    memo = _read_cached(folder, request)
    if memo is None and isinstance(request, TableRequest):
        # Cached weights without the top avoid another attempt to download those with the top.
        without = _without_top(request)
        memo = _read_cached(folder, without)
        request = available(request) if memo is None else without
        memo = memo or _read_cached(folder, request)
    if memo is not None:
        return ResolvedBackbone(request, _spec(request, **memo["spec"]), memo["width"])
    return build(request, folder)


def _without_top(request: TableRequest) -> TableRequest:
    """Return a request for the weights without the top if only these are in Keras' cache."""
    weights = request.weights
    missing = weights.kind == "imagenet" and weights.path is None
    found = weights_without_top(request.entry) if missing else None
    return request if found is None else replace(request, weights=found)


def available(request: TableRequest) -> TableRequest:
    """Return a request whose weights are on disk; download them if they are not."""
    weights = ensure_available(request.weights, request.entry, request.layer)
    return replace(request, weights=weights)


def _log_layer(resolved: ResolvedBackbone) -> None:
    """Log which layer was chosen if it is not the default that a user would expect."""
    request, layer = resolved.request, resolved.spec.layer
    if request.layer is not None or isinstance(request, HubRequest):
        return
    if isinstance(request, OnnxRequest):
        if request.network.feeding and resolved.spec.pooling == "none":
            log.warning(
                "%s ends in a linear layer of %d values; its features are these values. If they "
                "are class scores, layer=%r, which feeds that layer, gives better features; "
                "layer='output' keeps the output without this warning.",
                request.name, resolved.width, request.network.feeding,
            )  # fmt: skip
        return
    if isinstance(request, ModelRequest):
        if layer == OUTPUT:
            return
        log.warning(
            "%s ends in a classification layer; its features are the output of layer %r, which "
            "feeds it. layer='output' keeps the model's output.",
            request.name,
            layer,
        )
    elif layer != request.entry.layer:
        log.warning(
            "%s: the weights have no classification top, which its default layer %r belongs to; "
            "the features are those of layer %r, pooled (%s).",
            request.name,
            request.entry.layer,
            layer,
            resolved.spec.pooling,
        )


def build(request: Request, folder: Path | None) -> BuiltBackbone:
    """Build the backbone of a request and cache the hash of its weights.

    The hash is cached only if the weights file did not change while it was loaded.

    Parameters
    ----------
    request : Request
    folder : Path or None
        The folder of cached weight hashes. None: nothing is written.
    """
    if isinstance(request, TableRequest) and request.weights.path is None:
        request = available(request)
    state = current_state(request.weights)
    if isinstance(request, TableRequest):
        request = available(request)  # checks the file whose state is known
    files = [] if folder is None else _memo_files(folder, request)
    backbone = OnnxBackbone(request) if isinstance(request, OnnxRequest) else Backbone(request)
    found = {
        "backbone": backbone.name,
        "layer": backbone.layer,
        "weights": backbone.weights_hash,
        "pooling": backbone.pooling,
    }
    if folder is not None and _is_unchanged(request, state):
        still = set(_memo_files(folder, request))
        _write_cached([file for file in files if file in still], found, backbone.width)
    return BuiltBackbone(request, _spec(request, **found), backbone.width, backbone)


def load_backbone(
    backbone: BackboneLike,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    preprocessing: preprocessing.Rule | None = None,
    **options: Any,
) -> BuiltBackbone:
    """Build a backbone, to inspect it or to train on top of it.

    Parameters
    ----------
    backbone : str, path-like or keras.Model
        As for `featcache.extract`: a name in the table, a ``.keras`` or ``.onnx`` file, a preset
        of keras-hub, or a model.
    cache_dir : path-like, optional
        The cache folder. Default: ``FEATCACHE_CACHE``, else the user's cache folder.
    preprocessing : str, Normalization or callable, optional
        As for `featcache.extract`. Required for your own model unless it contains a Rescaling or
        Normalization layer of Keras.
    **options
        As for `featcache.extract`: ``layer``, ``pooling``, ``image_size``, ``resize``,
        ``weights``, ``precision``, ``row_dtype``.

    Returns
    -------
    BuiltBackbone
        ``backbone.embed`` computes embeddings (b, width) of pixels (b, h, w, 3), uint8. Of a
        Keras model, ``backbone.model`` is the `keras.Model` that does so from preprocessed
        pixels, float32. ``spec`` identifies its features; ``width`` is their length.

    Raises
    ------
    InvalidRequest, UnknownBackbone, UnknownLayer
        If an argument is invalid.
    WeightsUnavailable, WeightsMismatch
        If the weights cannot be downloaded, or do not belong to the backbone.
    ModelRefused
        If a saved model, an ONNX network or a preset of keras-hub is not safe to load.
    MissingExtra
        If the backbone is an ONNX network or a preset, and the packages for it are not installed.
    """
    request = make_request(backbone, BackboneOptions(preprocessing=preprocessing, **options))
    resolved = build(request, weights_folder(cache_folder(cache_dir)))
    _log_layer(resolved)
    return resolved


def _spec(
    request: Request, *, backbone: str, layer: str, weights: str, pooling: str
) -> BackboneSpec:
    return BackboneSpec(
        backbone=backbone,
        layer=layer,
        weights=weights,
        pooling=pooling,
        image_size=request.image_size,
        resize=format_resize(request.resize_rule),
        decode_version=DECODE_VERSION,
        preprocessing=preprocessing.fingerprint(request.preprocessing),
        precision=request.precision,
        row_dtype=request.row_dtype,
    )


def apply_request(request: Request, known: BackboneSpec) -> BackboneSpec:
    """Return a spec with all fields replaced that a request determines without its backbone.

    Layer and weights are unchanged, since resolving them requires the backbone. If the result
    differs from the spec, the request cannot have this spec.
    """
    return replace(
        known,
        backbone=request.name if isinstance(request, TableRequest) else known.backbone,
        # Vectors are never pooled, whatever was requested.
        pooling=known.pooling if known.pooling == "none" else request.pooling or "avg",
        image_size=request.image_size,
        resize=format_resize(request.resize_rule),
        decode_version=DECODE_VERSION,
        preprocessing=preprocessing.fingerprint(request.preprocessing),
        precision=request.precision,
        row_dtype=request.row_dtype,
    )


def _is_unchanged(request: Request, state: FileState | None) -> bool:
    try:
        return current_state(request.weights) == state
    except OSError:  # it was removed as soon as it was loaded
        return False


def _memo_file(folder: Path, request: Request, identity: list[Any]) -> Path:
    layer, entry = request.layer, _entry_of(request)
    if layer is None and entry is not None:
        layer = entry.layer  # so that bundles, which name the default layer, find it
    parts = {
        "version": _MEMO_VERSION,
        "backbone": entry.name if entry else None,
        "layer": layer,
        "pooling": request.pooling,
        "image_size": list(request.image_size),
        "weights": [str(part) for part in identity],
        # Another version of Keras may build a backbone differently: hash its weights again.
        "keras": metadata.version("keras"),
        **_hub_parts(request),
    }
    return folder / f"{content_key(parts)[:32]}.json"


def _hub_parts(request: Request) -> dict[str, str]:
    """Return what the weights of a preset do not tell: its settings and who reads them."""
    if not isinstance(request, HubRequest) or not isinstance(request.source, HubPreset):
        return {}
    return {"keras_hub": hub_version(), "config": request.source.digest}


def _entry_of(request: Request) -> BackboneEntry | None:
    return request.entry if isinstance(request, TableRequest) else None


def _memo_files(folder: Path, request: Request) -> list[Path]:
    """Return the files of the cached spec; none for a model in memory."""
    all_identities = identities(request.weights, _entry_of(request))
    return [_memo_file(folder, request, identity) for identity in all_identities]


def _read_cached(folder: Path, request: Request) -> dict[str, Any] | None:
    stale: list[Path] = []
    for identity in identities(request.weights, _entry_of(request)):
        file = _memo_file(folder, request, identity)
        memo = _read_memo(file, request)
        if memo is not None:
            if stale:  # found by content: next time the file's state is enough
                _write_cached(stale, memo["spec"], memo["width"])
            return memo
        stale.append(file)
    return None


def _read_memo(file: Path, request: Request) -> dict[str, Any] | None:
    memo: Any = read_memo(file)
    try:
        spec = {
            name: str(memo["spec"][name]) for name in ("backbone", "layer", "weights", "pooling")
        }
        width = check_integer(memo["width"], 1, 2**31 - 1)
    except (ValueError, KeyError, TypeError):
        return None  # lost or damaged: computed again
    entry = _entry_of(request)
    if entry is not None and request.layer == entry.layer != spec["layer"]:
        return None  # of weights without the top, which do not have the requested layer
    return {"spec": spec, "width": width}


def _write_cached(files: list[Path], spec: dict[str, str], width: int) -> None:
    for file in files:
        write_memo(file, {"spec": spec, "width": width}, "a weights hash")
