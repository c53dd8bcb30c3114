"""What a caller asked of a backbone, checked; and its spec, remembered between sessions.

The hash of the weights' values is part of the key, and takes a loaded model to compute.
It is remembered beside the stores for each published file, file state or seed, so that a
full cache hit needs no Keras at all.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from .._io.atomic import recall, remember
from .._io.cache_dirs import cache_folder, weights_folder
from ..errors import InvalidRequest
from ..images.decode import DECODE_VERSION, RESIZES
from . import preprocessing
from .graph import OUTPUT, check_input, check_layer
from .model import Backbone, check_pooling
from .model_file import ModelFile, is_model_file, look_at_model
from .spec import PRECISIONS, BackboneSpec, Recipe, content_key, find_recipe
from .weights import Weights, choose_weights, ensure_available, identity, weights_without_top

log = logging.getLogger("featcache")
_MEMO_VERSION = 3


@dataclass(frozen=True)
class Request:
    """A backbone as asked for; `make_request` builds it.

    Attributes
    ----------
    recipe : Recipe or None
        Row of the table; None for the user's own model.
    model : keras.Model, ModelFile or None
        The user's own model.
    layer : str, int or None
        Name or index. None means the recipe's layer, or one that its weights have; for an
        own model, the layer that `featcache.backbones.graph.default_layer` finds.
    pooling : str or None
        None means average pooling of spatial layers.
    image_size : (int, int)
        Height and width in pixels.
    resize : str
    preprocessing : str or callable
    weights : Weights
    crop : str
        ``"whole"``, or how the part of each photo is chosen: `featcache.Dataset.crop`.
    precision : str
        Number format of the forward pass.
    """

    recipe: Recipe | None
    model: Any
    layer: str | int | None
    pooling: str | None
    image_size: tuple[int, int]
    resize: str
    preprocessing: preprocessing.Rule
    weights: Weights
    crop: str = "whole"
    precision: str = "float32"

    @property
    def name(self) -> str:
        """The backbone's name, for people."""
        return self.recipe.name if self.recipe else str(getattr(self.model, "name", "model"))

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `featcache.extract` that ask for the same."""
        rule = self.preprocessing
        return {
            "backbone": str(self.model.path) if isinstance(self.model, ModelFile) else self.name,
            "layer": self.layer,
            "pooling": self.pooling,
            "image_size": list(self.image_size),
            "resize": self.resize,
            "weights": _weights_argument(self.weights),
            "preprocessing": rule if isinstance(rule, str) else None,
            "precision": self.precision,
        }

    def about(self) -> dict[str, str]:
        """Return words for what the key holds as hashes."""
        rule = self.preprocessing
        return {
            "backbone": self.name,
            "weights": self.weights.origin,
            "preprocessing": rule if isinstance(rule, str) else getattr(rule, "__name__", "own"),
        }


def _weights_argument(weights: Weights) -> str:
    """Return the word or path that stands for weights in `choose_weights`."""
    if weights.kind == "random":
        return f"random:{weights.seed}"
    return str(weights.path) if weights.kind == "file" else "auto"


@dataclass(frozen=True)
class Resolved:
    """A request's spec and embedding width; `backbone` if it had to be built for that."""

    request: Request
    spec: BackboneSpec
    width: int
    backbone: Backbone | None = None

    def arguments(self) -> dict[str, Any]:
        """Return `Request.arguments` with the layer that was found to be meant."""
        return {**self.request.arguments(), "layer": self.spec.layer}


def make_request(
    backbone: Any,
    *,
    layer: str | int | None = None,
    pooling: str | None = None,
    image_size: Any = None,
    resize: str = "stretch",
    weights: Any = "auto",
    preprocessing_rule: preprocessing.Rule | None = None,
    precision: str = "float32",
) -> Request:
    """Check the arguments that name a backbone; see `featcache.extract` for them.

    Raises
    ------
    InvalidRequest, UnknownBackbone, WeightsUnavailable
    """
    check_layer(layer)
    check_pooling(pooling)
    if resize not in RESIZES:
        raise InvalidRequest(
            f"resize={resize!r} is not known; choose one of {', '.join(RESIZES)}.", received=resize
        )
    if precision not in PRECISIONS:
        raise InvalidRequest(
            f"precision={precision!r} is not known; choose one of {', '.join(PRECISIONS)}.",
            received=precision,
        )
    if preprocessing_rule is not None:
        preprocessing.fingerprint(preprocessing_rule)  # raises for an unknown one
    own = look_at_model(backbone) if is_model_file(backbone) else backbone
    if isinstance(own, str):
        recipe = find_recipe(own)
        native = (recipe.image_size, recipe.image_size)
        return Request(
            recipe=recipe,
            model=None,
            layer=layer,
            pooling=pooling,
            image_size=_size(image_size, native),
            resize=resize,
            preprocessing=preprocessing_rule or recipe.preprocessing,
            weights=choose_weights(weights, recipe),
            precision=precision,
        )
    known = isinstance(own, ModelFile)
    if not known and not (hasattr(own, "layers") and hasattr(own, "predict_on_batch")):
        raise InvalidRequest(
            f"A backbone is a name, the path of a .keras file or a keras.Model, not "
            f"{type(own).__name__}.",
            received=type(own).__name__,
        )
    if not known:
        check_input(own)
    native_size = _input_size(own)
    size = _size(image_size, native_size)
    if native_size is not None and size != tuple(native_size):
        raise InvalidRequest(
            f"The model takes images of {native_size[0]} x {native_size[1]} pixels alone, not of "
            f"{size[0]} x {size[1]}; leave image_size= out.",
            received=size,
        )
    if weights not in ("auto", "imagenet-or-random"):
        raise InvalidRequest("Your own model brings its weights; leave weights= out.")
    return Request(
        recipe=None,
        model=own,
        layer=layer,
        pooling=pooling,
        image_size=size,
        resize=resize,
        preprocessing=preprocessing_rule or _rule_of(own),
        weights=Weights("model", own.path if isinstance(own, ModelFile) else None),
        precision=precision,
    )


def resolve(request: Request, folder: Path) -> Resolved:
    """Find a request's spec, from memory if it is there, else by building the backbone.

    Parameters
    ----------
    folder : Path
        Where weight hashes are remembered.
    """
    resolved = _resolve(request, folder)
    _log_layer(resolved)
    return resolved


def _resolve(request: Request, folder: Path) -> Resolved:
    memo = _recall(folder, request)
    if memo is None and request.recipe is not None:
        # Remembered weights without the top spare a new attempt to download those with it.
        without = _without_top(request, request.recipe)
        memo = _recall(folder, without)
        request = _available(request, request.recipe) if memo is None else without
        memo = memo or _recall(folder, request)
    if memo is not None:
        return Resolved(request, _spec(request, **memo["spec"]), memo["width"])
    return build(request, folder)


def _without_top(request: Request, recipe: Recipe) -> Request:
    """Return a request for the weights without the top if only these are in Keras' cache."""
    weights = request.weights
    missing = weights.kind == "imagenet" and weights.path is None
    found = weights_without_top(recipe) if missing else None
    return request if found is None else replace(request, weights=found)


def _available(request: Request, recipe: Recipe) -> Request:
    weights = ensure_available(request.weights, recipe, request.layer)
    return replace(request, weights=weights)


def _log_layer(resolved: Resolved) -> None:
    """Say which layer was chosen where it is not the one that a user would expect."""
    request, layer = resolved.request, resolved.spec.layer
    recipe = request.recipe
    if request.layer is not None:
        return
    if recipe is None and layer != OUTPUT:
        log.info(
            "%s ends in a classification layer; its features are the output of layer %r, which "
            "feeds it. layer='output' keeps the model's output.",
            request.name,
            layer,
        )
    elif recipe is not None and layer != recipe.layer:
        log.warning(
            "%s: the weights have no classification top, which its default layer %r belongs to; "
            "the features are those of layer %r, pooled (%s).",
            request.name,
            recipe.layer,
            layer,
            resolved.spec.pooling,
        )


def build(request: Request, folder: Path) -> Resolved:
    """Build the backbone of a request and remember what its weights hash to."""
    if request.recipe is not None:
        request = _available(request, request.recipe)
    backbone = Backbone(request)
    found = {
        "backbone": backbone.name,
        "layer": backbone.layer,
        "weights": backbone.weights_hash,
        "pooling": backbone.pooling,
    }
    _remember(folder, request, {"spec": found, "width": backbone.width})
    return Resolved(request, _spec(request, **found), backbone.width, backbone)


def load_backbone(
    backbone: Any,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    preprocessing: preprocessing.Rule | None = None,
    **options: Any,
) -> Resolved:
    """Build a backbone, to look at it or to train on top of it.

    Parameters
    ----------
    backbone, **options
        As `featcache.extract`: ``layer``, ``pooling``, ``image_size``, ``resize``,
        ``weights``, ``precision``.

    Returns
    -------
    Resolved
        Its ``backbone.model`` is the `keras.Model`, its ``spec`` what identifies it.
    """
    request = make_request(backbone, preprocessing_rule=preprocessing, **options)
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
        resize=_resize(request),
        decode_version=DECODE_VERSION,
        preprocessing=preprocessing.fingerprint(request.preprocessing),
        precision=request.precision,
    )


def _resize(request: Request) -> str:
    """Tell how a photo becomes pixels of the right size, in the words of the key."""
    how = f"{request.resize}-bilinear"
    return how if request.crop == "whole" else f"{request.crop}-{how}"


def _memo_file(folder: Path, request: Request) -> Path | None:
    pinned = identity(request.weights, request.recipe)
    if not pinned:
        return None  # a model that is at hand is hashed each time
    layer, recipe = request.layer, request.recipe
    if layer is None and recipe is not None:
        layer = recipe.layer  # so a bundle, which asks for the default by its name, finds it
    question = {
        "version": _MEMO_VERSION,
        "backbone": recipe.name if recipe else None,
        "layer": layer,
        "pooling": request.pooling,
        "image_size": list(request.image_size),
        "weights": [str(part) for part in pinned],
        # A new Keras may lay a backbone out anew: then its weights are looked at again.
        "keras": metadata.version("keras"),
    }
    return folder / f"{content_key(question)[:32]}.json"


def _recall(folder: Path, request: Request) -> dict[str, Any] | None:
    file = _memo_file(folder, request)
    if file is None:
        return None
    memo: Any = recall(file)
    try:
        spec = {
            name: str(memo["spec"][name]) for name in ("backbone", "layer", "weights", "pooling")
        }
        width = int(memo["width"])
    except (ValueError, KeyError, TypeError):
        return None  # lost or damaged: computed again
    recipe = request.recipe
    if recipe is not None and request.layer == recipe.layer != spec["layer"]:
        return None  # of weights without the top, which do not give the layer that is named
    return {"spec": spec, "width": width}


def _remember(folder: Path, request: Request, memo: dict[str, Any]) -> None:
    file = _memo_file(folder, request)
    if file is not None:
        remember(file, memo, "a weights hash")


def _size(given: Any, native: tuple[int, int] | None) -> tuple[int, int]:
    if given is None and native is not None:
        return int(native[0]), int(native[1])
    try:
        pair = (given, given) if isinstance(given, int) else tuple(int(side) for side in given)
    except (TypeError, ValueError):
        pair = ()
    if len(pair) != 2 or not all(1 <= side <= 4096 for side in pair):
        what = "is needed, since the model's input size is open" if given is None else "is odd"
        raise InvalidRequest(
            f"image_size={given!r} {what}; give one side or (height, width) in pixels, 1 to 4096.",
            received=given,
        )
    return int(pair[0]), int(pair[1])


def _input_size(model: Any) -> tuple[int, int] | None:
    if isinstance(model, ModelFile):
        return model.input_size
    shape: Any = model.input_shape
    return None if None in shape[1:3] else shape[1:3]


def _rule_of(model: Any) -> str:
    if isinstance(model, ModelFile):
        kinds: Sequence[str] = model.kinds
    else:
        kinds = [type(layer).__name__ for layer in model.layers[:6]]
    if "Rescaling" in kinds or "Normalization" in kinds:
        return "none"
    raise InvalidRequest(
        "How are images prepared for your model? Say preprocessing='none' (RGB 0..255 as it is), "
        "'unit' (0..1), 'tf' (-1..1), 'torch' or 'caffe' (ImageNet's mean), or pass a function. "
        "A wrong guess would give plausible but useless features.",
        received=None,
    )
