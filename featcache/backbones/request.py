"""Validated requests for a backbone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NoReturn, TypedDict

from .._io.choices import check_choice
from ..errors import InvalidRequest
from ..hdf5.row_dtype import DEFAULT_ROW_DTYPE, ROW_DTYPES, RowDtype
from ..images.decode import RESIZES, Resize
from ..images.resize_rule import WHOLE, ResizeRule
from . import preprocessing
from .graph import OUTPUT, checked_layer
from .hub.built import HubModel, as_hub_model, is_hub_model
from .hub.preset import HubPreset, is_preset, read_preset
from .image_size import ImageSize, checked_size
from .input_check import check_model, refuse_pytorch
from .keras_types import BackboneLike, KerasModel
from .model_file import ModelFile, inspect_model_file, is_keras_file
from .onnx.file import is_onnx_file, read_onnx_file
from .onnx.network import OnnxNetwork, read_network
from .spec import POOLINGS, PRECISIONS, BackboneEntry, Pooling, Precision, RuleName, find_backbone
from .weights import Weights, WeightsLike, choose_weights


@dataclass(frozen=True, kw_only=True)
class _Request(ABC):
    """Common attributes of all kinds of requests.

    Attributes
    ----------
    layer : str, int or None
        Name or index. None means the entry's default layer, or the default for weights without
        the top; for your own model, that of `featcache.backbones.graph.default_layer`; for an
        ONNX network, its output.
    pooling : {"avg", "max", "flat", "cls"} or None
        None means average pooling of spatial layers and of tokens.
    image_size : (int, int)
        Height and width in pixels.
    resize : {"stretch", "crop", "pad"}
    preprocessing : str, Normalization or callable
    weights : Weights
    crop : str
        ``"whole"``, or the kind of boxes: `featcache.Dataset.crop`.
    precision : {"float32", "bfloat16"}
        Number format of the forward pass.
    row_dtype : {"float32", "float16"}
        Number format of the stored rows.
    """

    layer: str | int | None
    pooling: Pooling | None
    image_size: tuple[int, int]
    resize: Resize
    preprocessing: preprocessing.Rule
    weights: Weights
    crop: str = WHOLE
    precision: Precision = "float32"
    row_dtype: RowDtype = DEFAULT_ROW_DTYPE
    # Whether the network is the user's own, and not one of the table.
    is_own: ClassVar[bool] = True

    @property
    @abstractmethod
    def name(self) -> str:
        """Human-readable name of the backbone."""

    @property
    @abstractmethod
    def backbone(self) -> str:
        """The argument `backbone` of `featcache.extract` for the same backbone."""

    @property
    def resize_rule(self) -> ResizeRule:
        """How a photo becomes pixels of the right size."""
        return ResizeRule(self.resize, self.crop)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `featcache.extract` for the same request."""
        return {
            "backbone": self.backbone,
            "layer": self.layer,
            "pooling": self.pooling,
            "image_size": list(self.image_size),
            "resize": self.resize,
            "weights": self.weights.argument,
            "preprocessing": preprocessing.format_rule(self.preprocessing),
            "precision": self.precision,
            "row_dtype": self.row_dtype,
        }

    def metadata(self) -> dict[str, str]:
        """Return human-readable values of components that are hashed in the key.

        And ``weights_argument``, with which the weights can be chosen again.
        """
        rule = self.preprocessing
        return {
            "backbone": self.name,
            "weights": self.weights.origin,
            "weights_argument": self.weights.argument,
            "preprocessing": preprocessing.format_rule(rule) or getattr(rule, "__name__", "own"),
        }


@dataclass(frozen=True, kw_only=True)
class TableRequest(_Request):
    """Request for a backbone of the table."""

    entry: BackboneEntry
    is_own: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The backbone's name in the table."""
        return self.entry.name

    @property
    def backbone(self) -> str:
        """The backbone's name in the table."""
        return self.entry.name


@dataclass(frozen=True, kw_only=True)
class ModelRequest(_Request):
    """Request for the user's own model, a `keras.Model` or a saved one."""

    model: KerasModel | ModelFile

    @property
    def name(self) -> str:
        """The model's own name, which need not be unique."""
        return str(getattr(self.model, "name", "model"))

    @property
    def backbone(self) -> str:
        """The path of the model's file; the model's name where there is no file."""
        return str(self.model.path) if isinstance(self.model, ModelFile) else self.name


@dataclass(frozen=True, kw_only=True)
class OnnxRequest(_Request):
    """Request for an ONNX network in a file, up to the requested layer."""

    network: OnnxNetwork

    @property
    def name(self) -> str:
        """The file name without its ending."""
        return self.network.name

    @property
    def backbone(self) -> str:
        """The path of the file."""
        return str(self.network.path)


@dataclass(frozen=True, kw_only=True)
class HubRequest(_Request):
    """Request for the image tower of a backbone of keras-hub, a preset or a built one.

    Without a layer, `pooling` is the default of the backbone's family.
    """

    source: HubPreset | HubModel

    @property
    def name(self) -> str:
        """The name of the preset, or the model's own, which need not be unique."""
        return self.source.name

    @property
    def backbone(self) -> str:
        """``hub:`` and the preset; the model's name where there is none."""
        return self.source.argument


# Built by `make_request`.
Request = TableRequest | ModelRequest | OnnxRequest | HubRequest


@dataclass(frozen=True, kw_only=True)
class BackboneOptions:
    """How a backbone is requested: arguments of `featcache.extract`, not yet checked.

    Attributes
    ----------
    layer : str, int or None
    pooling : {"avg", "max", "flat", "cls"} or None
    image_size : int, (int, int) or None
        Side or (height, width) in pixels.
    resize : {"stretch", "crop", "pad"} or None
        None means "stretch"; for a preset of keras-hub, what its image converter does.
    weights : str or path-like
    preprocessing : str, Normalization, callable or None
    precision : {"float32", "bfloat16"}
    row_dtype : {"float32", "float16"}
    """

    layer: str | int | None = None
    pooling: Pooling | None = None
    image_size: ImageSize = None
    resize: Resize | None = None
    weights: WeightsLike = "auto"
    preprocessing: preprocessing.Rule | None = None
    precision: Precision = "float32"
    row_dtype: RowDtype = DEFAULT_ROW_DTYPE


_DEFAULT = BackboneOptions()


def make_request(backbone: BackboneLike, options: BackboneOptions = _DEFAULT) -> Request:
    """Validate the arguments that describe a backbone and return them as a request.

    Parameters
    ----------
    backbone : str, path-like or keras.Model
        As for `featcache.extract`.
    options : BackboneOptions, optional

    Returns
    -------
    TableRequest, ModelRequest, OnnxRequest or HubRequest

    Raises
    ------
    InvalidRequest, UnknownBackbone
        If an argument is invalid.
    UnknownLayer
        If an ONNX network has no such layer.
    WeightsUnavailable
        If a weights file or a preset of keras-hub does not exist.
    ModelRefused
        If a saved model, an ONNX network or a preset is not safe to load.
    MissingExtra
        If the backbone is an ONNX network or a preset, and the package for it is not installed.
    """
    options = replace(options, layer=checked_layer(options.layer))
    check_pooling(options.pooling)
    if options.resize is not None:
        check_choice("resize", options.resize, RESIZES)
    check_choice("precision", options.precision, PRECISIONS)
    check_choice("row_dtype", options.row_dtype, ROW_DTYPES)
    if options.preprocessing is not None:
        rule = preprocessing.as_rule(options.preprocessing)
        preprocessing.fingerprint(rule)  # raises for an unsuitable function
        options = replace(options, preprocessing=rule)
    if is_onnx_file(backbone):
        return _onnx_request(read_network(read_onnx_file(backbone), options.layer), options)
    if is_preset(backbone):
        return _hub_request(read_preset(backbone), options)
    if is_hub_model(backbone):
        return _hub_request(as_hub_model(backbone), options)
    refuse_pytorch(backbone)
    model = inspect_model_file(backbone) if is_keras_file(backbone) else backbone
    if isinstance(model, str):
        return _table_request(find_backbone(model), options)
    return _model_request(model, options)


class _Checked(TypedDict):
    layer: str | int | None
    pooling: Pooling | None
    resize: Resize
    precision: Precision
    row_dtype: RowDtype


def _checked(options: BackboneOptions) -> _Checked:
    """Return the options that are equal in a request."""
    return {
        "layer": options.layer,
        "pooling": options.pooling,
        "resize": options.resize or "stretch",
        "precision": options.precision,
        "row_dtype": options.row_dtype,
    }


def _table_request(entry: BackboneEntry, options: BackboneOptions) -> TableRequest:
    size = checked_size(options.image_size, (entry.image_size, entry.image_size))
    _check_at_size(options.preprocessing, size)
    return TableRequest(
        entry=entry,
        image_size=size,
        preprocessing=options.preprocessing or entry.preprocessing,
        weights=choose_weights(options.weights, entry),
        **_checked(options),
    )


def _model_request(model: Any, options: BackboneOptions) -> ModelRequest:
    if not isinstance(model, ModelFile):
        check_model(model)
    size = _own_size(options, _input_size(model))
    return ModelRequest(
        model=model,
        image_size=size,
        preprocessing=options.preprocessing or _rule_of(model),
        weights=Weights("model", model.path if isinstance(model, ModelFile) else None),
        **_checked(options),
    )


def _onnx_request(network: OnnxNetwork, options: BackboneOptions) -> OnnxRequest:
    size = _own_size(options, network.input.size)
    return OnnxRequest(
        network=network,
        image_size=size,
        preprocessing=options.preprocessing or _unknown_rule(),
        weights=Weights("model", network.path, digest=network.file.digest),
        **_checked(options),
    )


def _hub_request(source: HubPreset | HubModel, options: BackboneOptions) -> HubRequest:
    converter, tower = source.converter, source.tower
    sides = tower.get("image_shape", (None, None))[:2]
    native = None if None in sides else (int(sides[0]), int(sides[1]))
    fixed = None if source.any_size and options.image_size is not None else native
    size = _own_size(options, fixed, converter.size if converter else None)
    resize = options.resize or (converter.resize if converter else None)
    options = replace(options, pooling=_hub_pooling(source, options), resize=resize)
    path = source.weights if isinstance(source, HubPreset) else None
    return HubRequest(
        source=source,
        image_size=size,
        preprocessing=options.preprocessing or (converter.rule if converter else _unknown_rule()),
        weights=Weights("model", path),
        **_checked(options),
    )


def _hub_pooling(source: HubPreset | HubModel, options: BackboneOptions) -> Pooling | None:
    """Return the requested pooling; for the output by default that of the family."""
    if options.pooling is None and options.layer in (None, OUTPUT):
        return source.family.default_pooling(source.tower)
    return options.pooling


def _own_size(
    options: BackboneOptions,
    native_size: tuple[int, int] | None,
    default: tuple[int, int] | None = None,
) -> tuple[int, int]:
    """Return the image size of a model of the user's own, and check what depends on it.

    `default` is the size for a network that takes images of any size.
    """
    size = checked_size(options.image_size, native_size or default)
    if native_size is not None and size != tuple(native_size):
        raise InvalidRequest(
            f"The model accepts only images of {native_size[0]} x {native_size[1]} pixels, not "
            f"{size[0]} x {size[1]}; omit image_size=.",
            received=size,
        )
    if options.weights not in ("auto", "imagenet-or-random"):
        raise InvalidRequest("Your own model has its own weights; omit weights=.")
    _check_at_size(options.preprocessing, size)
    return size


def _check_at_size(rule: preprocessing.Rule | None, size: tuple[int, int]) -> None:
    if rule is not None:
        preprocessing.check_rule_at_size(rule, size)


def check_pooling(pooling: object) -> None:
    """Raise `InvalidRequest` unless `pooling` is None or one of `POOLINGS`."""
    if pooling is not None:
        otherwise = ", or leave it out (avg for spatial layers)"
        check_choice("pooling", pooling, POOLINGS, otherwise)


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
    return _unknown_rule()


def _unknown_rule() -> NoReturn:
    raise InvalidRequest(
        "How are images prepared for your model? Pass preprocessing='none' (RGB 0..255), 'unit' "
        "(0..1), 'tf' (-1..1), 'torch' or 'caffe' (ImageNet's mean), 'clip', a "
        "featcache.Normalization, or a function. The wrong one would give plausible but useless "
        "features.",
        received=None,
    )
