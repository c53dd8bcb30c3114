"""What a caller asked of a backbone, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .._io.choices import check_choice
from ..errors import InvalidRequest
from ..images.decode import RESIZES, Resize
from . import preprocessing
from .graph import check_input, checked_layer
from .model_file import ModelFile, is_model_file, look_at_model
from .spec import POOLINGS, PRECISIONS, BackboneEntry, Pooling, Precision, RuleName, find_backbone
from .weights import Weights, choose_weights

_LARGEST_SIDE = 4096


@dataclass(frozen=True)
class Request:
    """A backbone as asked for; `make_request` builds it.

    Attributes
    ----------
    entry : BackboneEntry or None
        Row of the table; None for the user's own model.
    model : keras.Model, ModelFile or None
        The user's own model.
    layer : str, int or None
        Name or index. None means the entry's layer, or one that its weights have; for an
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

    entry: BackboneEntry | None
    model: Any
    layer: str | int | None
    pooling: Pooling | None
    image_size: tuple[int, int]
    resize: Resize
    preprocessing: preprocessing.Rule
    weights: Weights
    crop: str = "whole"
    precision: Precision = "float32"

    @property
    def name(self) -> str:
        """The backbone's name, for people."""
        return self.entry.name if self.entry else str(getattr(self.model, "name", "model"))

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

    def metadata(self) -> dict[str, str]:
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


def make_request(
    backbone: Any,
    *,
    layer: str | int | None = None,
    pooling: Pooling | None = None,
    image_size: Any = None,
    resize: Resize = "stretch",
    weights: Any = "auto",
    preprocessing_rule: preprocessing.Rule | None = None,
    precision: Precision = "float32",
) -> Request:
    """Check the arguments that name a backbone; see `featcache.extract` for them.

    Raises
    ------
    InvalidRequest, UnknownBackbone, WeightsUnavailable
    """
    layer = checked_layer(layer)
    check_pooling(pooling)
    check_choice("resize", resize, RESIZES)
    check_choice("precision", precision, PRECISIONS)
    if preprocessing_rule is not None:
        preprocessing.fingerprint(preprocessing_rule)  # raises for an unknown one
    own = look_at_model(backbone) if is_model_file(backbone) else backbone
    if isinstance(own, str):
        entry = find_backbone(own)
        native = (entry.image_size, entry.image_size)
        size = _size(image_size, native)
        _check_at_size(preprocessing_rule, size)
        return Request(
            entry=entry,
            model=None,
            layer=layer,
            pooling=pooling,
            image_size=size,
            resize=resize,
            preprocessing=preprocessing_rule or entry.preprocessing,
            weights=choose_weights(weights, entry),
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
    _check_at_size(preprocessing_rule, size)
    return Request(
        entry=None,
        model=own,
        layer=layer,
        pooling=pooling,
        image_size=size,
        resize=resize,
        preprocessing=preprocessing_rule or _rule_of(own),
        weights=Weights("model", own.path if isinstance(own, ModelFile) else None),
        precision=precision,
    )


def _check_at_size(rule: preprocessing.Rule | None, size: tuple[int, int]) -> None:
    if rule is not None:
        preprocessing.check_at_size(rule, size)


def check_pooling(pooling: object) -> None:
    """Raise `InvalidRequest` unless `pooling` is None or a known word."""
    if pooling is not None:
        otherwise = ", or leave it out (avg for spatial layers)"
        check_choice("pooling", pooling, POOLINGS, otherwise)


def _size(given: Any, native: tuple[int, int] | None) -> tuple[int, int]:
    if given is None and native is not None:
        return int(native[0]), int(native[1])
    try:
        pair = (given, given) if isinstance(given, int) else tuple(int(side) for side in given)
    except (TypeError, ValueError):
        pair = ()
    if len(pair) == 2 and all(1 <= side <= _LARGEST_SIDE for side in pair):
        return int(pair[0]), int(pair[1])
    sizes = f"one side or (height, width) in pixels, 1 to {_LARGEST_SIDE}"
    if given is None:
        message = f"The model's input size is open, so image_size= must be given: {sizes}."
    elif len(pair) == 2:
        message = f"image_size={given!r} is out of range; give {sizes}."
    else:
        message = f"image_size={given!r} is not a size; give {sizes}."
    raise InvalidRequest(message, received=given)


def _input_size(model: Any) -> tuple[int, int] | None:
    if isinstance(model, ModelFile):
        return model.input_size
    shape: Any = model.input_shape
    return None if None in shape[1:3] else shape[1:3]


def _rule_of(model: Any) -> RuleName:
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
