"""Request -> frozen model; pixels -> embeddings. Neutral as to Keras' backend."""

from __future__ import annotations

import difflib
import functools
import hashlib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import pocket, preprocessing
from .architecture import all_layers, architecture_hash, layer_names
from .errors import InvalidRequest, UnknownLayer, WeightsMismatch
from .hdf5 import foreign_reason
from .keras_door import has_accelerator, import_keras, quiet_stderr
from .modelfile import ModelFile, load_model
from .specs import POOLINGS, Recipe

if TYPE_CHECKING:
    from .request import Request


class Backbone:
    """A frozen model, cut at a layer, that turns pixels into embeddings.

    Parameters
    ----------
    request : Request
        What to build.

    Attributes
    ----------
    name : str
        Name in the table, or ``custom-`` and a hash of the own model's architecture.
    layer : str
        The layer whose output is kept.
    pooling : str
        ``"none"``, ``"avg"``, ``"max"`` or ``"flat"``, as applied.
    width : int
        Length of an embedding.
    weights_hash : str
        SHA-256 over the values of all weights up to the layer.
    backend : str
        Keras' own.
    on_accelerator : bool
        Whether that computes on a GPU or TPU.
    model : keras.Model
        Prepared pixels ``(b, h, w, 3)`` to embeddings ``(b, width)``.
    rule : str or callable
        How pixels are prepared; see `featcache.preprocessing.apply`.

    Raises
    ------
    UnknownLayer, InvalidRequest, WeightsMismatch
        If the layer, the size or the weights do not fit the model.
    """

    def __init__(self, request: Request) -> None:
        keras = import_keras()
        self.rule = request.preprocessing
        whole = _own(request.model) if request.recipe is None else _build(keras, request)
        self.name = request.recipe.name if request.recipe else _name_of(whole)
        self.layer, output = _output_of(whole, request)
        self.pooling, pooled = _pool(keras, output, request.pooling, self.layer)
        cut = keras.Model(whole.inputs, pooled)
        self.weights_hash = _hash_weights(cut)
        self.model = cut
        width = cut.output_shape[-1]
        if width is None:
            raise InvalidRequest(
                f"The width of layer {self.layer!r} is not fixed; use pooling='avg' or 'max'.",
                received=request.pooling,
            )
        self.width = int(width)
        self.backend = str(keras.backend.backend())
        self.on_accelerator = has_accelerator(keras)
        self._precision = request.precision
        self._pad = self.backend == "jax"  # each new shape would be compiled anew
        self._largest = 0

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

    def embed_in(self, precision: str, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute embeddings as `embed`, in a precision of `featcache.specs.PRECISIONS`."""
        count = len(pixels)
        self._largest = max(self._largest, count)
        if self._pad:
            pixels = preprocessing.padded(pixels, self._largest)
        prepared = preprocessing.apply(self.rule, pixels)
        model = self.model if precision == "float32" else self._in_bfloat16
        out = np.asarray(model.predict_on_batch(prepared), np.float32)
        return out[:count]

    def export(self, folder: Path) -> None:
        """Write the model as a TensorFlow SavedModel, for engines that read such."""
        with quiet_stderr():
            self.model.export(str(folder), format="tf_saved_model", verbose=False)

    def provenance(self) -> dict[str, str]:
        """Return versions and backend, recorded beside the rows; no part of the key."""
        packages = ["keras", self.backend, "numpy", "Pillow", "h5py"]
        return {"backend": self.backend, **{name: metadata.version(name) for name in packages}}

    @functools.cached_property
    def _in_bfloat16(self) -> Any:
        """The same network with bfloat16 between its layers; its weights stay float32."""
        keras = import_keras()

        def in_bfloat16(layer: Any) -> Any:
            config = layer.get_config()
            if not isinstance(layer, keras.layers.InputLayer):
                config["dtype"] = "mixed_bfloat16"
            return type(layer).from_config(config)

        clone = keras.models.clone_model(self.model, clone_function=in_bfloat16)
        clone.set_weights([np.asarray(weight) for weight in self.model.weights])
        return clone


def _own(model: Any) -> Any:
    return load_model(model.path) if isinstance(model, ModelFile) else model


def _name_of(model: Any) -> str:
    try:
        return f"custom-{architecture_hash(model)[:16]}"
    except ValueError as error:
        raise InvalidRequest(
            f"The model cannot be told apart from others ({error}), so its features cannot be "
            "cached safely. Build it as a functional model of layers that describe themselves "
            "with get_config().",
            received=type(model).__name__,
        ) from error


def _build(keras: Any, request: Request) -> Any:
    recipe: Recipe = request.recipe  # type: ignore[assignment]
    height, width = request.image_size
    try:
        if recipe.packaged:
            model = pocket.build(keras, (height, width))
        else:
            constructor = getattr(keras.applications, recipe.constructor)
            model = constructor(weights=None, input_shape=(height, width, 3))
    except ValueError as error:
        raise InvalidRequest(
            f"{recipe.name} cannot take images of {height} x {width} pixels "
            f"({_sentence(error)}). Its native size is {recipe.image_size}.",
            received=request.image_size,
        ) from error
    if request.weights.kind == "random":
        _randomise(model, request.weights.seed)
    else:
        _load(model, request)
    return model


def _load(model: Any, request: Request) -> None:
    recipe: Recipe = request.recipe  # type: ignore[assignment]
    path = request.weights.path
    if path is not None and path.suffix == ".npz":
        pocket.set_weights(model, pocket.read_weights(path))
        return
    reason = foreign_reason(Path(str(path)))
    if reason is not None:
        raise WeightsMismatch(
            f"The weights in {path} are not loaded: {reason}. Fetch the file anew from where it "
            "is published.",
            file=path,
        )
    try:
        model.load_weights(path)
    except Exception as error:  # Keras and HDF5 raise many kinds
        native = (recipe.image_size, recipe.image_size)
        hint = "" if request.image_size == native else (
            f" If the layer depends on the image size, use the native {recipe.image_size}."
        )  # fmt: skip
        raise WeightsMismatch(
            f"The weights in {path} do not fit {recipe.constructor}(include_top=True) for images "
            f"of {request.image_size[0]} x {request.image_size[1]} pixels: {_sentence(error)}."
            f"{hint}",
            file=path,
        ) from error
    if request.weights.kind == "imagenet" and recipe.second_scaling:
        _divide_by_deviation_again(model)


def _divide_by_deviation_again(model: Any) -> None:
    """Give EfficientNet the scaling that its published weights were trained with.

    Keras inserts one more division by sqrt(deviation) only for ``weights="imagenet"``, and
    not when the same file is loaded by path. (x - m) / sqrt(v) / sqrt(s) is
    (x - m) / sqrt(v * s), so the variance of the layer that is there takes it up.
    """
    layer = next(la for la in model.layers if type(la).__name__ == "Normalization")
    deviation = np.array([0.229, 0.224, 0.225], np.float32)
    mean, variance, count = (np.asarray(value) for value in layer.get_weights())
    layer.set_weights([mean, variance * deviation, count])
    layer.finalize_state()


def _randomise(model: Any, seed: int) -> None:
    """Set kernels to LeCun-uniform values that are equal on every backend and machine.

    LeCun et al. 1998, "Efficient BackProp": variance 1 / fan-in, under which frozen batch
    normalisation with its starting statistics neither saturates nor overflows. Uniform,
    since NumPy's uniform floats are exact multiples of 2**-53 and need no function of the C
    library. Vectors keep the constants that Keras starts them with.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    # A depthwise kernel (h, w, channels, 1) sums over one channel, whatever its shape says.
    depthwise_layers = {
        id(weight)
        for layer in all_layers(model)
        if type(layer).__name__.startswith("Depthwise")
        for weight in layer.weights
    }
    values = []
    for weight in model.weights:
        shape = tuple(weight.shape)
        if len(shape) < 2:
            values.append(np.asarray(weight))
            continue
        depthwise = id(weight) in depthwise_layers or weight.name.startswith("depthwise")
        fan_in = int(np.prod(shape[:2])) if depthwise else int(np.prod(shape[:-1]))
        limit = np.sqrt(3.0 / fan_in)
        values.append(((generator.random(shape) * 2 - 1) * limit).astype(np.float32))
    model.set_weights(values)


def _output_of(model: Any, request: Request) -> tuple[str, Any]:
    if len(getattr(model, "inputs", None) or []) != 1 or len(model.inputs[0].shape) != 4:
        raise InvalidRequest(
            "The model must be built, and take one batch of images (b, h, w, 3). A functional or "
            "a built Sequential model does.",
            received=type(model).__name__,
        )
    if request.layer is None:
        return "output", model.outputs[0]
    names = layer_names(model)
    layer = names.get(request.layer)
    if layer is None:
        near = difflib.get_close_matches(request.layer, names, n=5, cutoff=0.4)
        last = [name for name in list(names)[-8:] if name not in near]
        raise UnknownLayer(
            f"{request.name} has no layer {request.layer!r}. "
            + (f"Near it: {', '.join(near)}. " if near else "")
            + f"Its last layers are {', '.join(last)}.",
            received=request.layer,
            layers=list(names),
        )
    return request.layer, layer.output


def _pool(keras: Any, output: Any, pooling: str | None, layer: str) -> tuple[str, Any]:
    rank = len(output.shape)
    if rank == 2:
        if pooling in ("avg", "max"):
            raise InvalidRequest(
                f"pooling={pooling!r} needs a spatial layer, but {layer!r} gives one vector an "
                "image. Leave pooling out, or name a layer before the global pooling.",
                received=pooling,
            )
        return "none", output
    pooling = pooling or "avg"
    if pooling == "flat":
        return pooling, keras.layers.Flatten()(output)
    dimension = {3: "1D", 4: "2D", 5: "3D"}.get(rank)
    if dimension is None:
        raise InvalidRequest(f"Layer {layer!r} gives arrays of rank {rank}.", received=rank)
    kind = "Average" if pooling == "avg" else "Max"
    return pooling, getattr(keras.layers, f"Global{kind}Pooling{dimension}")()(output)


def check_pooling(pooling: str | None) -> None:
    """Raise `InvalidRequest` unless `pooling` is None or a known word."""
    if pooling is not None and pooling not in POOLINGS:
        raise InvalidRequest(
            f"pooling={pooling!r} is not known; choose one of {', '.join(POOLINGS)}, or leave it "
            "out (avg for spatial layers).",
            received=pooling,
        )


def _hash_weights(model: Any) -> str:
    sum_ = hashlib.sha256()
    for weight in model.weights:
        value = np.ascontiguousarray(np.asarray(weight))
        sum_.update(f"{value.dtype.str}{value.shape}".encode())
        sum_.update(value.tobytes())
    return sum_.hexdigest()


def _sentence(error: BaseException) -> str:
    return str(error).split("\n")[0].rstrip(". ")[:300]
