"""Networks of the table with their weights: from a file with or without the top, or random."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._io.held_warnings import held_warnings
from .._io.wording import first_line
from ..errors import InvalidRequest, WeightsMismatch
from ..hdf5.sandbox import unsafe_hdf5_reason
from ..hdf5.saved_layers import SavedLayer, saved_layers
from . import pocket
from .architecture import all_layers, automatic_base, layer_names
from .imagenet import IMAGENET_STD
from .request import TableRequest
from .spec import BackboneEntry


@dataclass(frozen=True)
class Network:
    """A network of the table of backbones, with weights.

    Attributes
    ----------
    model : keras.Model
        With the classification top.
    random_top : sequence of weights
        Weights of the top that the file lacks; empty if the file has a top.
    file : Path or None
        File of the weights.
    """

    model: Any
    random_top: Sequence[Any] = ()
    file: Path | None = None

    def needs_top(self, part: Any) -> bool:
        """Return whether a part of this model depends on weights that the file lacks."""
        lacking = {id(weight) for weight in self.random_top}
        return any(id(weight) in lacking for weight in part.weights)


def build_network(keras: Any, request: TableRequest) -> Network:
    """Build a backbone of the table and set its weights.

    Raises
    ------
    InvalidRequest
        If the network cannot take images of the requested size.
    WeightsMismatch
        If the weights file does not fit; the message names the layer and both shapes.
    """
    if request.weights.kind == "random":
        model = _construct(keras, request)
        _randomise(model, request.weights.seed)
        return Network(model)
    path = Path(str(request.weights.path))
    if path.suffix == ".npz":
        model = _construct(keras, request)
        pocket.set_weights(model, pocket.read_weights(path))
        return Network(model, file=path)
    return _load(keras, request, path)


def _construct(keras: Any, request: TableRequest, *, top: bool = True) -> Any:
    entry = request.entry
    height, width = request.image_size
    try:
        if entry.packaged:
            return pocket.build(keras, (height, width))
        constructor = getattr(keras.applications, entry.constructor)
        return constructor(weights=None, include_top=top, input_shape=(height, width, 3))
    except ValueError as error:
        raise InvalidRequest(
            f"{entry.name} cannot take images of {height} x {width} pixels "
            f"({first_line(error, 300)}). Its native size is {entry.image_size}.",
            received=request.image_size,
        ) from error


def _load(keras: Any, request: TableRequest, path: Path) -> Network:
    entry = request.entry
    reason = unsafe_hdf5_reason(path)
    if reason is not None:
        raise WeightsMismatch(
            f"The weights in {path} are not loaded: {reason}. Download the file again from its "
            "source.",
            file=path,
        )
    try:
        saved = saved_layers(path)
    except ValueError as error:
        raise WeightsMismatch(
            f"The weights in {path} are not loaded: {error}.", file=path
        ) from None
    model = _construct(keras, request)
    n_without_top = len(model.weights) - _count_top_weights(model, entry)
    top = entry.packaged or _count_weights(saved) > n_without_top
    target = model if top else _construct(keras, request, top=False)
    try:
        _load_quietly(target, path)
    except Exception as error:  # Keras and HDF5 raise many types
        raise WeightsMismatch(_mismatch(request, target, saved, top, error), file=path) from error
    random_top = [] if top else _copy_weights(target, model)
    published = request.weights.kind == "imagenet"
    if entry.second_scaling and (published or _scales_twice(saved)):
        _divide_by_std_again(model)
    return Network(model, random_top, path)


def _load_quietly(model: Any, path: Path) -> None:
    """Load weights without the warnings of Keras about a file that does not fit."""
    with held_warnings():
        model.load_weights(path)


def _count_weights(saved: Sequence[SavedLayer]) -> int:
    return sum(len(layer.shapes) for layer in saved)


def _count_top_weights(model: Any, entry: BackboneEntry) -> int:
    names = layer_names(model)
    return sum(len(names[name].weights) for name in entry.top_layers if name in names)


def _copy_weights(body: Any, model: Any) -> list[Any]:
    """Copy the weights of a network without the top to one with it; return the other weights.

    Both list their layers in the order of the network, and the top is a chain at its end.
    """
    count = len(body.weights)
    for target, source in zip(model.weights, body.weights, strict=False):
        if _name_and_shape(target) != _name_and_shape(source):
            raise WeightsMismatch(
                f"This Keras builds {model.name} with {target.path} {tuple(target.shape)} where "
                f"the network without the top has {source.path} {tuple(source.shape)}, so weights "
                "without the top cannot be used; pass a file with the top.",
            )
        target.assign(source)
    for layer in model.layers:
        if hasattr(layer, "finalize_state"):
            # Normalization computes with constants that it derives from its weights.
            layer.finalize_state()
    return list(model.weights[count:])


def _name_and_shape(weight: Any) -> tuple[str, tuple[int, ...]]:
    """Return name and shape of a weight, without the number of an automatic name."""
    return re.sub(r"_\d+$", "", weight.name), tuple(weight.shape)


def _mismatch(
    request: TableRequest, model: Any, saved: Sequence[SavedLayer], top: bool, error: BaseException
) -> str:
    """Return a message that names the first layer in which a file differs from a network."""
    entry = request.entry
    height, width = request.image_size
    fixed = request.image_size == (entry.image_size, entry.image_size) or not top
    layer, difference = _first_difference(model, saved) or (None, first_line(error, 300))
    # A layer outside the top does not show whether the file was saved with the top.
    whole = layer is None or layer in entry.top_layers
    network = f"{entry.name}, as {entry.constructor}(include_top={top})" if whole else entry.name
    return (
        f"The weights in {request.weights.path} do not fit {network} for images of "
        f"{height} x {width} pixels: {difference}."
    ) + (
        "" if fixed else
        f" If the layer depends on the image size, use the native {entry.image_size}."
    )  # fmt: skip


def _first_difference(model: Any, saved: Sequence[SavedLayer]) -> tuple[str | None, str] | None:
    """Return the first layer that differs, with the expected and the saved shapes."""
    expected_layers = list(_layers_with_weights(model))
    given = [layer for layer in saved if layer.shapes]
    by_path = {layer.path: layer for layer in given}
    # Older files have no such paths, but the layers in order.
    in_order = not any(path.startswith("layers/") for path in by_path)
    for index, (path, name, shapes) in enumerate(expected_layers):
        layer = (given[index] if index < len(given) else None) if in_order else by_path.get(path)
        expected = f"layer {name!r} expects weights of {_listed(shapes)}, and the file has"
        if layer is None:
            return name, f"{expected} none"
        if layer.shapes != shapes:
            known = "" if layer.name == name else f" (of its layer {layer.name!r})"
            return name, f"{expected} {_listed(layer.shapes)}{known}"
    if len(given) > len(expected_layers):
        expected = f"{len(expected_layers)} are expected"
        return None, f"the file has {len(given)} layers with weights, and {expected}"
    return None


def _layers_with_weights(
    model: Any, inside: str = "layers"
) -> Iterator[tuple[str, str, tuple[tuple[int, ...], ...]]]:
    """Yield the path in a ``.weights.h5`` file, the name and the shapes of each layer with weights.

    Keras numbers the layers of each class in the order of the network.
    """
    counts: Counter[str] = Counter()
    for layer in model.layers:
        base = automatic_base(type(layer).__name__)
        path = f"{inside}/{base}_{counts[base]}" if counts[base] else f"{inside}/{base}"
        counts[base] += 1
        if hasattr(layer, "layers"):
            yield from _layers_with_weights(layer, f"{path}/layers")
        elif layer.weights:
            yield path, layer.name, tuple(tuple(weight.shape) for weight in layer.weights)


def _listed(shapes: Sequence[tuple[int, ...]]) -> str:
    noun = "shape" if len(shapes) == 1 else "shapes"
    return f"{noun} " + " and ".join(str(shape).replace(",)", ")") for shape in shapes)


def _scales_twice(saved: Sequence[SavedLayer]) -> bool:
    """Return whether a file was saved from a network with EfficientNet's second scaling."""
    return sum(layer.path.split("/")[-1].startswith("rescaling") for layer in saved) > 1


def _divide_by_std_again(model: Any) -> None:
    """Set the input scaling that EfficientNet's published weights were trained with.

    For ``weights="imagenet"`` Keras adds a division by sqrt(std), but not if the same file is
    loaded by its path. (x - m) / sqrt(v) / sqrt(s) equals (x - m) / sqrt(v * s), so the variance of
    the existing layer is multiplied by std.
    """
    layer = next(la for la in model.layers if type(la).__name__ == "Normalization")
    mean, variance, count = (np.asarray(value) for value in layer.get_weights())
    layer.set_weights([mean, variance * np.array(IMAGENET_STD, np.float32), count])
    layer.finalize_state()


def _randomise(model: Any, seed: int) -> None:
    """Set kernels to LeCun-uniform random values, the same on every backend and machine.

    LeCun et al. 1998, "Efficient BackProp": with a variance of 1 / fan-in, batch normalisation with
    its initial statistics neither saturates nor overflows. Uniform, since NumPy's uniform floats
    are exact multiples of 2**-53, which no function of the C library rounds. Vectors keep the
    initial constants of Keras.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    # A depthwise kernel (h, w, channels, 1) sums over one channel, despite its shape.
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
