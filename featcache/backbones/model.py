"""The frozen model of a request, which turns pixels into embeddings, on any Keras backend."""

from __future__ import annotations

import copy
import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._io.logs import get_logger
from .._io.wording import first_line
from ..errors import InvalidRequest, WeightsMismatch
from . import preprocessing
from .architecture import architecture_hash
from .graph import (
    OUTPUT,
    default_layer,
    output_of,
    possible_scores,
    resolve_layer,
)
from .hub.library import DISTRIBUTION as KERAS_HUB
from .hub.network import build_hub_network, hub_output
from .input_check import check_input
from .keras_backend import (
    has_accelerator,
    import_keras,
    preserve_random_state,
    quiet_log,
    quiet_stderr,
)
from .model_file import ModelFile, load_model
from .on_device import copy_on, in_bfloat16, with_rule
from .own_code import operations
from .pretrained import Network, build_network
from .request import HubRequest, ModelRequest, TableRequest
from .spec import Pooling, Precision, own_model_name

log = get_logger(__name__)

_Request = TableRequest | ModelRequest | HubRequest
_FULL_PRECISION = {"float32", "float64"}
_BUILDING = threading.Lock()


class Backbone:
    """A frozen model, cut at a layer, that turns pixels into embeddings.

    Parameters
    ----------
    request : TableRequest, ModelRequest or HubRequest
        What to build.

    Attributes
    ----------
    name : str
        Name in the table, or ``custom-`` and a hash of your own model's architecture.
    layer : str
        The layer whose output is the feature.
    pooling : str
        ``"none"``, ``"avg"``, ``"max"``, ``"flat"`` or ``"cls"``, as applied.
    width : int
        Length of an embedding.
    widths : list of int
        Of several layers side by side, that of each.
    weights_hash : str
        SHA-256 of the values of all weights up to the layer.
    backend : str
        The backend of Keras, such as ``"tensorflow"``.
    on_accelerator : bool
        Whether the backend has a GPU or TPU.
    model : keras.Model
        From preprocessed pixels (b, h, w, 3), float32, to embeddings (b, width), float32.
    rule : str or callable
        The preprocessing rule; see `featcache.backbones.preprocessing.apply`.

    Raises
    ------
    UnknownLayer, InvalidRequest, WeightsMismatch
        If the layer, the size or the weights do not fit the model.
    """

    library = "Keras"

    def __init__(self, request: _Request) -> None:
        keras = import_keras()
        with preserve_random_state():
            part = _build(keras, request)
        self.name, self.layer = part.name, part.layer
        self.pooling, pooled = _pool(keras, part, request.pooling)
        self._set_model(keras, keras.Model(part.inputs, pooled), request)

    def _set_model(self, keras: Any, cut: Any, request: _Request) -> None:
        """Check the model that gives the embeddings, and keep it."""
        self.rule: preprocessing.Rule = request.preprocessing
        self._packages = [KERAS_HUB] if isinstance(request, HubRequest) else []
        _check_size(cut, request.image_size)
        _check_weights(cut, request)
        self.weights_hash = hash_weights(cut)
        self.model = cut
        width = cut.output_shape[-1]
        if width is None:
            raise InvalidRequest(
                f"The width of layer {self.layer!r} is not fixed; use pooling='avg' or 'max'.",
                received=request.pooling,
            )
        self.width = int(width)
        self.widths = [self.width]
        self.backend = str(keras.backend.backend())
        self.on_accelerator = has_accelerator(keras)
        self._precision: Precision = request.precision
        self._pad = self.backend == "jax"  # JAX compiles the model again for each new shape
        self._largest = 0
        self._runnable: dict[Precision, Any] = {}

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute embeddings.

        Parameters
        ----------
        pixels : ndarray (b, h, w, 3), uint8
            RGB at the request's size. Not overwritten.

        Returns
        -------
        ndarray (b, width), float32
        """
        return self.embed_in(self._precision, pixels)

    def embed_in(self, precision: Precision, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute embeddings as `embed`, in a precision of `spec.Precision`."""
        count = len(pixels)
        self._largest = max(self._largest, count)
        if self._pad:
            pixels = preprocessing.padded(pixels, self._largest)
        given = preprocessing.apply(self.rule, pixels) if callable(self.rule) else pixels
        model = self._model_for(precision)
        with quiet_log():
            out = np.asarray(model.predict_on_batch(given), np.float32)
        return out[:count]

    def _model_for(self, precision: Precision) -> Any:
        """Return the model that takes pixels of uint8, or what a function makes of them."""
        with _BUILDING:  # several threads may ask for the first batch
            if precision not in self._runnable:
                model = self.model if precision == "float32" else in_bfloat16(self.model)
                rule = self.rule
                self._runnable[precision] = model if callable(rule) else with_rule(model, rule)
            return self._runnable[precision]

    def copied_to(self, device: str) -> Backbone:
        """Return this backbone on another device of Keras, such as gpu:1.

        Raises
        ------
        InvalidRequest
            If its layers cannot be built again from their settings.
        """
        copied = copy.copy(self)
        copied.model, copied._runnable = copy_on(device, self.model), {}
        copied.on_accelerator = not device.startswith("cpu")
        return copied

    def embed_untraced(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute embeddings of a few images in float32, without compiling for the batch size."""
        if self._pad:
            return self.embed_in("float32", pixels)
        prepared = preprocessing.apply(self.rule, pixels)
        keras = import_keras()
        rows = keras.ops.convert_to_numpy(self.model([prepared], training=False))
        return np.asarray(rows, np.float32)

    def export(self, folder: Path) -> Path:
        """Write the model as a TensorFlow SavedModel, for engines that read it; return its path."""
        with quiet_stderr():
            self.model.export(str(folder), format="tf_saved_model", verbose=False)
        return folder

    def count_params(self) -> int:
        """Return the number of weights."""
        return int(self.model.count_params())

    @property
    def is_exact(self) -> bool:
        """Whether all its layers compute in float32 at least, on a processor."""
        types = {getattr(part, "compute_dtype", "float32") for part in operations(self.model)}
        return types <= _FULL_PRECISION and not self.on_accelerator

    def provenance(self) -> dict[str, str]:
        """Return versions and backend, stored with the rows; not part of the key."""
        packages = ["keras", self.backend, "numpy", "Pillow", "h5py", *self._packages]
        return {"backend": self.backend, **{name: metadata.version(name) for name in packages}}


def _check_size(model: Any, size: tuple[int, int]) -> None:
    """Raise `InvalidRequest` unless a model accepts an image size."""
    try:
        model.compute_output_shape((1, *size, 3))
    except Exception as error:  # layers raise many kinds
        raise InvalidRequest(
            f"The model cannot take images of {size[0]} x {size[1]} pixels "
            f"({first_line(error, 300)}); give a larger image_size.",
            received=size,
        ) from error


@dataclass(frozen=True)
class _Part:
    """The part of a network up to a layer: its name, the layer, its symbolic ends.

    `prefix` is the number of tokens before those of the patches, if it is known.
    """

    name: str
    layer: str
    inputs: Any
    output: Any
    prefix: int | None = None


def _build(keras: Any, request: _Request) -> _Part:
    if isinstance(request, HubRequest):
        network = build_hub_network(keras, request)
        check_input(network.model)
        layer, output = hub_output(keras, network, request)
        inputs = network.model.inputs
        return _Part(network.name, layer, inputs, output, network.prefix_of(output))
    name, model, found = _network_of(keras, request)
    layer, output = _output_of(keras, found, request)
    return _Part(name, layer, model.inputs, output)


def _network_of(keras: Any, request: TableRequest | ModelRequest) -> tuple[str, Any, Network]:
    """Return the network of a request, its name and its model, which is checked."""
    if isinstance(request, TableRequest):
        network = build_network(keras, request)
    else:
        network = _own(request.model)
    check_input(network.model)
    name = request.name if isinstance(request, TableRequest) else _name_of(network.model)
    return name, network.model, network


class PooledOutput(NamedTuple):
    """The symbolic embedding of a layer, its name, and the pooling as applied."""

    layer: str
    pooling: str
    tensor: Any


def symbolic_outputs(
    keras: Any, requests: Sequence[TableRequest | ModelRequest]
) -> tuple[str, Any, list[PooledOutput]]:
    """Build a network once; return its name, its inputs and the embedding of each request."""
    name, model, network = _network_of(keras, requests[0])
    outputs = []
    for request in requests:
        layer, output = _output_of(keras, network, request)
        part = _Part(name, layer, model.inputs, output)
        outputs.append(PooledOutput(layer, *_pool(keras, part, request.pooling)))
    return name, model.inputs, outputs


def _own(model: Any) -> Network:
    return Network(load_model(model.path) if isinstance(model, ModelFile) else model)


def _output_of(
    keras: Any, network: Network, request: TableRequest | ModelRequest
) -> tuple[str, Any]:
    """Return the layer to cut at, and its symbolic output."""
    model = network.model
    if isinstance(request, ModelRequest):
        layer = _own_layer(model, request)
        return layer, output_of(keras, model, layer)
    entry, layer = request.entry, request.entry.layer
    if request.layer is not None:
        layer = resolve_layer(model, request.layer, request.name)
    output = output_of(keras, model, layer)
    if not network.needs_top(keras.Model(model.inputs, output)):
        return layer, output
    if request.layer is None:
        return entry.notop_layer, output_of(keras, model, entry.notop_layer)
    raise WeightsMismatch(
        f"The weights in {network.file} have no classification top, and layer {layer!r} of "
        f"{entry.name} depends on it; leave layer= out for layer {entry.notop_layer!r}, or give "
        "weights with the top.",
        file=network.file,
        received=request.layer,
    )


def _own_layer(model: Any, request: ModelRequest) -> str:
    if request.layer is not None:
        return resolve_layer(model, request.layer, request.name)
    layer = default_layer(model)
    if layer == OUTPUT:
        _log_possible_scores(model, request.name)
    return layer


def _log_possible_scores(model: Any, name: str) -> None:
    """Log which layer to request if the output, used as an embedding, may be class scores."""
    found = possible_scores(model)
    if found is not None:
        meant = (
            "class scores (logits)" if found.activation == "no activation"
            else "scores of several labels per image and not a hash code"
        )  # fmt: skip
        log.warning(
            "%s ends in a layer of %d values with %s; its features are these values. "
            "If they are %s, layer=%r, which feeds that layer, gives better features; "
            "layer='output' keeps the output without this warning.",
            name, model.outputs[0].shape[-1], found.activation, meant, found.feeding,
        )  # fmt: skip


def _name_of(model: Any) -> str:
    try:
        return own_model_name(architecture_hash(model))
    except ValueError as error:
        raise InvalidRequest(
            f"The model cannot be told apart from others ({error}), so its features cannot be "
            "cached safely. Build it as a functional model of layers that describe themselves "
            "with get_config(), and keep functions, numbers and arrays in them; make other objects "
            "inside call().",
            received=type(model).__name__,
        ) from error


def _pool(keras: Any, part: _Part, pooling: Pooling | None) -> tuple[str, Any]:
    output, layer, prefix = part.output, part.layer, part.prefix or 0
    rank = len(output.shape)
    if rank == 2:
        if pooling in ("avg", "max", "cls"):
            raise InvalidRequest(
                f"pooling={pooling!r} needs a spatial layer, but {layer!r} gives one vector an "
                "image. Leave pooling out, or name a layer before the global pooling.",
                received=pooling,
            )
        return "none", output
    pooling = pooling or "avg"
    if pooling == "cls":
        if rank != 3:
            raise InvalidRequest(
                f"pooling='cls' takes the first of the tokens (b, n, d), but {layer!r} gives "
                f"arrays of rank {rank}.",
                received=pooling,
            )
        if part.prefix == 0:
            raise InvalidRequest(
                f"pooling='cls' takes the CLS token, but {layer!r} gives tokens of patches only; "
                "use 'avg', 'max' or 'flat'.",
                received=pooling,
            )
        return pooling, output[:, 0]
    if pooling == "flat":
        return pooling, keras.layers.Flatten()(output)
    dimension = {3: "1D", 4: "2D", 5: "3D"}.get(rank)
    if dimension is None:
        raise InvalidRequest(f"Layer {layer!r} gives arrays of rank {rank}.", received=rank)
    kind = "Average" if pooling == "avg" else "Max"
    patches = output[:, prefix:] if prefix else output
    return pooling, getattr(keras.layers, f"Global{kind}Pooling{dimension}")()(patches)


def _check_weights(model: Any, request: _Request) -> None:
    """Raise `WeightsMismatch` for NaN, which some activations would turn into finite values."""
    for weight in model.weights:
        value = np.asarray(weight)
        if value.dtype.kind == "f" and np.isnan(value).any():
            origin = request.weights.origin
            raise WeightsMismatch(
                f"{int(np.isnan(value).sum())} of the {value.size} values of {weight.path} are NaN "
                f"(weights of {request.name}: {origin}), so its features would mean nothing; "
                "give weights without NaN.",
                file=request.weights.path,
                received=weight.path,
            )


def hash_weights(model: Any) -> str:
    """Return the SHA-256 of the values of all weights of a model."""
    digest = hashlib.sha256()
    for weight in model.weights:
        value = np.ascontiguousarray(np.asarray(weight))
        digest.update(f"{value.dtype.str}{value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
