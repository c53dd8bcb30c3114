"""The image tower of a backbone of keras-hub: built, named for the key, and cut at an output."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..._io.held_warnings import held_warnings
from ..._io.wording import first_line
from ...errors import InvalidRequest
from ...hdf5.sandbox import unsafe_hdf5_reason
from ..graph import OUTPUT, node_of, output_of, resolve_layer
from ..installed import top_package
from ..keras_backend import quiet_stderr
from ..model_file import MAX_EXTRA_WEIGHTS, check_outputs, limited_weights
from ..own_code import operations
from ..request import HubRequest
from ..spec import own_model_name
from .config import HubConfig
from .families import FAMILIES, Family
from .library import import_keras_hub
from .preset import HubPreset, refusal

TOKENS = "tokens"
_VECTORS = ("avg", "max", "flat", "cls")
# Their last layer of the image tower is not part of their vision encoder.
_WHOLE = {"MetaCLIP2Backbone"}
# Version of what is hashed for the name of a network in a spec.
_NAME_VERSION = 1
# Of one layer for one image: 16 GiB in float32.
_MAX_SCORES = 2**32
_PACKAGES = {"keras", "keras_hub"}
_LEFT_OUT = {"name", "trainable", "dtype"}


@dataclass(frozen=True)
class HubNetwork:
    """An image tower.

    Attributes
    ----------
    model : keras.Model
        From images to its output, without a part for texts.
    name : str
        Hash of its class and settings, as in a spec.
    tokens : symbolic tensor or None
        The last sequence of tokens, (b, n, d).
    prefix : int or None
        Number of tokens before those of the patches. None for feature maps.
    pooled : bool
        Whether the output is one vector that the network makes of the tokens.
    """

    model: Any
    name: str
    tokens: Any
    prefix: int | None
    pooled: bool

    def prefix_of(self, output: Any) -> int | None:
        """Return the number of tokens before those of the patches in the output of a layer."""
        if self.tokens is None or len(output.shape) != 3:
            return None
        return self.prefix if output.shape[1] == self.tokens.shape[1] else None


def build_hub_network(keras: Any, request: HubRequest) -> HubNetwork:
    """Build the image tower of a request, with weights.

    Raises
    ------
    ModelRefused
        If a preset cannot be built, or its weights do not fit.
    InvalidRequest
        If the settings of a built backbone are not plain values.
    """
    source = request.source
    backbone: Any
    if isinstance(source, HubPreset):
        backbone = _load(keras, source, request.image_size)
    else:
        backbone = source.model
    if hasattr(backbone, "vision_encoder") and type(backbone).__name__ not in _WHOLE:
        backbone = backbone.vision_encoder
    return _tower(keras, backbone)


def hub_output(keras: Any, network: HubNetwork, request: HubRequest) -> tuple[str, Any]:
    """Return the name of the layer that a request asks for, and its symbolic output.

    The pooling of tokens asks a network that makes one vector of its tokens for these.
    """
    layer = OUTPUT if request.layer is None else request.layer
    if network.pooled and (layer == TOKENS or (layer == OUTPUT and request.pooling in _VECTORS)):
        return TOKENS, network.tokens
    if layer != OUTPUT:
        layer = resolve_layer(network.model, layer, request.name)
    return str(layer), output_of(keras, network.model, str(layer))


def _load(keras: Any, preset: HubPreset, size: tuple[int, int]) -> Any:
    hub = import_keras_hub()
    path = preset.weights
    try:
        if (reason := unsafe_hdf5_reason(path)) is not None:
            raise ValueError(f"of its weights, {reason}")
        most = os.stat(path).st_size // 2 + MAX_EXTRA_WEIGHTS
        with quiet_stderr(), held_warnings(), limited_weights(keras, most):
            backbone = _of_size(hub, preset, size)
            check_outputs(backbone)
            _load_weights(backbone, path)
    except InvalidRequest:
        raise
    except Exception as error:  # Keras and HDF5 raise many kinds
        raise refusal(path.parent, error) from error
    return backbone


def _load_weights(backbone: Any, path: Path) -> None:
    """Load weights from a file of any name, such as a hash in a cache of downloads."""
    with tempfile.TemporaryDirectory(prefix="featcache-hub-") as folder:
        named = Path(folder) / "model.weights.h5"
        named.symlink_to(path)
        backbone.load_weights(named)


def _of_size(hub: Any, preset: HubPreset, size: tuple[int, int]) -> Any:
    """Return a backbone for images of a size; raise `InvalidRequest` if it cannot take them."""
    shape = preset.config.arguments.get("image_shape", [])
    if not preset.any_size or None in shape or shape == [*size, 3]:
        return _construct(hub, preset.config)
    try:
        return _construct(hub, preset.config, size)
    except ValueError as error:
        raise InvalidRequest(
            f"{preset.name} cannot take images of {size[0]} x {size[1]} pixels "
            f"({first_line(error, 200)}); give another image_size.",
            received=size,
        ) from error


def _construct(hub: Any, config: HubConfig, size: tuple[int, int] | None = None) -> Any:
    """Return a backbone of one of the known classes; no name in a file is looked up."""
    arguments = {
        name: _construct(hub, value) if isinstance(value, HubConfig) else value
        for name, value in config.arguments.items()
    }
    if size is not None:
        arguments["image_shape"] = [*size, 3]
    return getattr(hub.models, config.class_name)(**arguments, dtype="float32")


def _tower(keras: Any, backbone: Any) -> HubNetwork:
    kind = type(backbone).__name__
    family = FAMILIES[kind]
    settings = getattr(backbone, "vision_encoder", backbone).get_config()
    output, tokens = _ends(backbone, family)
    images = next(tensor for tensor in backbone.inputs if len(tensor.shape) == 4)
    model = keras.Model(images, output)
    _check_layers(model, kind)
    _check_attention(tokens, settings)
    prefix = family.prefix(settings) if family.prefix else None
    return HubNetwork(model, _name_of(kind, settings, model), tokens, prefix, family.pooled)


def _ends(backbone: Any, family: Family) -> tuple[Any, Any]:
    """Return the symbolic output of an image tower, and its tokens if it has any."""
    kind = type(backbone).__name__
    if kind == "HGNetV2Backbone":  # gives the output of each stage
        return node_of(backbone, backbone.encoder_layer).output_tensors[-1], None
    if kind == "MetaCLIP2Backbone":
        end = node_of(backbone, backbone.vision_post_layer_norm)
        return end.output_tensors[0], node_of(backbone, backbone.vision_encoder).output_tensors[0]
    if kind == "SigLIPVisionEncoder":
        tokens = node_of(backbone, backbone.post_layer_norm).output_tensors[0]
        return backbone.outputs[0], tokens
    if kind == "CLIPVisionEncoder":  # may give the output of another block as well
        tokens = node_of(backbone, backbone.layer_norm).output_tensors[0]
        return tokens, tokens
    return backbone.outputs[0], backbone.outputs[0] if family.prefix else None


def _check_attention(tokens: Any, settings: Mapping[str, Any]) -> None:
    """Raise `InvalidRequest` if each token is compared with more others than memory holds."""
    heads = settings.get("num_heads")
    if tokens is None or not isinstance(heads, int):  # a list: in windows of a limited size
        return
    count = int(tokens.shape[1] or 1)
    if count**2 * heads > _MAX_SCORES:
        raise InvalidRequest(
            f"The network compares {count:,} tokens of an image with each other in {heads} heads; "
            f"the limit is {_MAX_SCORES:,} pairs. Give a smaller image_size.",
            received=count,
        )


def _check_layers(model: Any, kind: str) -> None:
    """Raise `InvalidRequest` for layers that compute what the settings do not tell."""
    for layer in operations(model):
        if getattr(layer, "lora_enabled", False):
            raise InvalidRequest(
                f"The {kind} has LoRA weights, whose scaling is not part of its settings; save its "
                "weights with save_weights(), which merges them, and load these into a new one.",
                received=kind,
            )
        if "call" in vars(layer) or top_package(type(layer)) not in _PACKAGES:
            raise InvalidRequest(
                f"The layer {layer.name!r} of the {kind} is not keras-hub's own, so that the "
                "settings do not tell what it computes; pass keras.Model(backbone.inputs, "
                "backbone.outputs).",
                received=layer.name,
            )


def _name_of(kind: str, settings: Mapping[str, Any], model: Any) -> str:
    kept = {name: _plain(one, kind) for name, one in settings.items() if name not in _LEFT_OUT}
    parts = [getattr(part, "compute_dtype", "float32") for part in operations(model)]
    described = {
        "keras_hub": _NAME_VERSION,
        "class": kind,
        "settings": kept,
        "types": sorted(set(parts) - {"float32"}),
    }
    text = json.dumps(described, sort_keys=True, allow_nan=False)
    return own_model_name(hashlib.sha256(text.encode()).hexdigest())


def _plain(value: Any, kind: str) -> Any:
    """Return numbers, flags, words and lists of them; raise for anything else."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(one, kind) for one in value]
    raise InvalidRequest(
        f"The settings of the {kind} hold a {type(value).__name__}, such as a function, so that "
        "it cannot be told apart from others by them; build it with numbers and names only, or "
        "pass keras.Model(backbone.inputs, backbone.outputs).",
        received=type(value).__name__,
    )
