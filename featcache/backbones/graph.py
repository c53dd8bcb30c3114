"""The graph of a Keras model: its layers, and the input of its classification layer.

Works on Keras' model objects; `output_of` alone needs the module, to cut a model that is
itself a layer of another.
"""

from __future__ import annotations

import contextlib
import difflib
import operator
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidRequest, UnknownLayer
from .architecture import layer_names

OUTPUT = "output"
_CLASSIFIERS = {"Dense", "Conv2D"}
_SOFTMAX = {"softmax", "log_softmax"}
_SIGMOID = {"sigmoid", "hard_sigmoid"}
_ACTIVATION_LAYERS = {
    "HardSigmoid": "hard_sigmoid", "LogSoftmax": "log_softmax", "ReLU": "relu",
    "Sigmoid": "sigmoid", "Softmax": "softmax",
}  # fmt: skip
# Layers that may follow the layer that computes class scores.
_AFTER_SCORES = set(_ACTIVATION_LAYERS) | {
    "Activation", "AveragePooling2D", "BatchNormalization", "Dropout", "Flatten",
    "GlobalAveragePooling2D", "GlobalMaxPooling2D", "Identity", "Reshape", "Squeeze",
}  # fmt: skip
_SCORE_NAME = re.compile(r"(?:^|_)(?:predictions?|logits?|classifier|classification)(?:_|$)")
_REPRESENTATION_NAME = re.compile(r"pre_?logits?|embedding")
# Layers that do not change the values of a forward pass.
_IDENTITIES = {
    "ActivityRegularization", "AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise",
    "Identity", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D",
}  # fmt: skip
_RESHAPING = {"Flatten", "Reshape", "Squeeze"}


def checked_layer(layer: Any) -> str | int | None:
    """Return a layer as a name, an int or None; raise `InvalidRequest` for anything else."""
    if layer is None or isinstance(layer, str):
        return layer
    if isinstance(layer, (list, tuple, set, dict)):
        raise InvalidRequest(
            f"layer={layer!r} is a {type(layer).__name__}, but one layer is expected here: call "
            "this once per layer. featcache.extract takes a list of layers.",
            received=layer,
        )
    with contextlib.suppress(TypeError):
        if not isinstance(layer, bool):
            return operator.index(layer)
    raise InvalidRequest(
        f"layer={layer!r} is a {type(layer).__name__}; give a layer's name, or its index as an "
        "int (-2 is the last but one).",
        received=layer,
    )


def resolve_layer(model: Any, layer: str | int, called: str) -> str:
    """Return the name of a layer requested by name or index.

    Parameters
    ----------
    model : keras.Model
    layer : str or int
        A name, ``"model/layer"`` for a layer of a model that is itself a layer,
        ``"output"`` for the model's output, or an index into ``model.layers``. Digits in a
        string are an index unless a layer has that name.
    called : str
        What to call the model in messages.

    Raises
    ------
    UnknownLayer
        With the nearest names.
    InvalidRequest
        If ``"output"`` is also the name of a layer before the end.
    """
    names = layer_names(model)
    if isinstance(layer, str) and layer not in names and re.fullmatch(r"-?\d+", layer):
        layer = int(layer)
    if isinstance(layer, int):
        count = len(model.layers)
        if not -count <= layer < count:
            raise UnknownLayer(
                f"{called} has {count} layers, so layer={layer} is out of range; indexes go "
                f"from {-count} to {count - 1}.",
                received=layer,
                layers=list(names),
            )
        layer = str(_name_in(model, model.layers[layer]))
    if layer == OUTPUT:
        _check_output_name(model, names)
    elif not _has_layer(names, layer):
        raise _unknown_layer(names, layer, called)
    return layer


def default_layer(model: Any) -> str:
    """Return the default layer for the features of a model.

    That is the layer which feeds the classification layer, or ``"output"``, the model's
    own output, if it does not end in one. A model ends in a classification layer if, going
    back from its single output of one vector per image, past layers that only pool,
    reshape, normalize, drop or activate, the first other layer is a Dense or Conv2D layer, and

    - softmax is that layer's activation or is applied after it, or
    - sigmoid is, and the layer has a single unit or a name of class scores, or
    - its name is one of class scores, and no activation follows;

    and if a layer with weights precedes it. A name of class scores holds the word predictions,
    logits, classifier or classification, and neither pre_logits nor embedding. Several sigmoid
    values without such a name may be scores of several labels per image or a hash code: they
    are kept as the output, of which `extract` warns, as of a last layer without an activation
    (see `possible_scores`). The layer that feeds the classification layer is the nearest one
    before it that changes values: dropout is passed over, and so is a Flatten or Reshape of
    one vector per image.

    Raises
    ------
    InvalidRequest
        If the model has several outputs: one has to be named.
    """
    if len(model.outputs) > 1:
        outputs = [_name_of(model, tensor) for tensor in model.outputs]
        raise InvalidRequest(
            f"The model has {len(outputs)} outputs; name one with layer=: {', '.join(outputs)}.",
            received=outputs,
        )
    found = _feeding_layer(model)
    if not found:
        _check_output_name(model, layer_names(model))
        return OUTPUT
    return found


@dataclass(frozen=True)
class PossibleScores:
    """An output that `default_layer` keeps although it may be class scores.

    Attributes
    ----------
    feeding : str
        The layer to name if they are class scores.
    activation : {"no activation", "sigmoid"}
        Of the values.
    """

    feeding: str
    activation: str


def possible_scores(model: Any) -> PossibleScores | None:
    """Return whether an output that `default_layer` keeps may be class scores.

    A last Dense or Conv2D layer without an activation may compute logits or project to an
    embedding; several sigmoid values may be scores of several labels per image or a hash
    code. Nothing in the model tells which, unless the layer's name is one of a representation.
    None for other models.
    """
    end = _end_of(model)
    if end is None or _REPRESENTATION_NAME.search(end.operation.name.lower()):
        return None
    if end.activations and not end.activations <= _SIGMOID:
        return None
    if not end.activations and end.passed:
        return None
    feeding = _feeding_layer(model, surely=True)
    if not feeding:
        return None
    return PossibleScores(feeding, "sigmoid" if end.activations else "no activation")


def output_of(keras: Any, model: Any, layer: str) -> Any:
    """Return the symbolic output of a layer that `resolve_layer` or `default_layer` named.

    Raises
    ------
    InvalidRequest
        If that is not one array.
    """
    names = layer_names(model)
    if layer == OUTPUT and layer not in names:
        if len(model.outputs) > 1:
            default_layer(model)  # raises
        return model.outputs[0]
    if layer in names:
        outputs = node_of(model, names[layer]).output_tensors
        if len(outputs) != 1:
            raise InvalidRequest(
                f"Layer {layer!r} gives {len(outputs)} arrays; name one that gives a single one.",
                received=layer,
            )
        return outputs[0]
    head, _, rest = layer.partition("/")
    inner = names[head]
    node = node_of(model, inner)
    return keras.Model(inner.inputs, output_of(keras, inner, rest))(node.input_tensors[0])


def _check_output_name(model: Any, names: dict[str, Any]) -> None:
    """Raise for an ambiguous ``"output"``: rows of two layers would share a key."""
    named = names.get(OUTPUT)
    if named is not None and all(_origin(tensor)[0] is not named for tensor in model.outputs):
        raise InvalidRequest(
            "layer='output' means the model's output, but a layer before its end is called "
            "'output' too; rename that layer, or name another one.",
            received=OUTPUT,
        )


def _has_layer(names: dict[str, Any], layer: str) -> bool:
    if layer in names:
        return True
    head, _, rest = layer.partition("/")
    inner = names.get(head)
    return bool(rest) and _is_model(inner) and _has_layer(layer_names(inner), rest)


def _unknown_layer(names: dict[str, Any], layer: str, called: str) -> UnknownLayer:
    near = difflib.get_close_matches(layer, names, n=5, cutoff=0.4)
    last = [name for name in list(names)[-8:] if name not in near]
    return UnknownLayer(
        f"{called} has no layer {layer!r}. "
        + (f"Near it: {', '.join(near)}. " if near else "")
        + f"Its last layers are {', '.join(last)}.",
        received=layer,
        layers=list(names),
    )


@dataclass(frozen=True)
class _End:
    """The last layer of a model before those that only pool, reshape, normalize or activate.

    `activations` holds those that are applied to its values, by name, without "linear";
    `passed` tells whether other layers stand between it and the output.
    """

    operation: Any
    node: Any
    activations: frozenset[str]
    passed: bool

    def is_classification(self) -> bool:
        """Return whether the layer computes class scores; see `default_layer`."""
        if self.activations & _SOFTMAX:
            return True
        name = self.operation.name.lower()
        named = bool(_SCORE_NAME.search(name)) and not _REPRESENTATION_NAME.search(name)
        if self.activations & _SIGMOID:
            return named or self.node.output_tensors[0].shape[-1] == 1
        return named and not self.activations


def _last(model: Any, after: frozenset[str] = frozenset(), passed: bool = False) -> _End | None:
    """Return the end of a model, which may be a model itself; None without one vector per image."""
    tensor = model.outputs[0]
    if not _is_vector(tensor):
        return None
    operation, node = _origin(tensor)
    while type(operation).__name__ in _AFTER_SCORES and len(node.input_tensors) == 1:
        after, passed = after | _activations(operation), True
        operation, node = _origin(node.input_tensors[0])
    if len(node.input_tensors) != 1:
        return None
    return _End(operation, node, after | _activations(operation), passed)


def _end_of(model: Any) -> _End | None:
    """Return the Dense or Conv2D layer that a model ends in, also within inner models."""
    end = _last(model)
    while end is not None and _is_chain(end.operation):
        end = _last(end.operation, end.activations, end.passed)
    return end if end is not None and type(end.operation).__name__ in _CLASSIFIERS else None


def _is_chain(operation: Any) -> bool:
    return _is_model(operation) and len(operation.outputs) == len(operation.inputs) == 1


def _feeding_layer(
    model: Any, after: frozenset[str] = frozenset(), fed: bool = False, surely: bool = False
) -> str | None:
    """Return the layer that feeds the classification layer.

    `after` holds the activations that follow the model, `fed` tells whether layers with weights
    precede it, `surely` takes the last layer for one of class scores. None if there is no such
    layer, ``""`` if it precedes the model.
    """
    end = _last(model, after)
    if end is None:
        return None
    (given,) = end.node.input_tensors
    if _is_chain(end.operation):
        fed_inside = fed or _has_weights(given)
        inner = _feeding_layer(end.operation, end.activations, fed_inside, surely)
        if inner == "":
            return _named_before(model, given, fed)
        return inner and f"{_name_in(model, end.operation)}/{inner}"
    if type(end.operation).__name__ not in _CLASSIFIERS:
        return None
    return _named_before(model, given, fed) if surely or end.is_classification() else None


def _named_before(model: Any, tensor: Any, fed: bool) -> str | None:
    """Return the nearest layer at or before a tensor that changes values and has a name."""
    while True:
        operation, node = _origin(tensor)
        if type(operation).__name__ == "InputLayer":
            return "" if fed else None
        name = _name_in(model, operation)
        if name is not None and not _passes_on(operation, node):
            return name if fed or _has_weights(tensor) else None
        if len(node.input_tensors) != 1:
            return None
        tensor = node.input_tensors[0]


def _passes_on(operation: Any, node: Any) -> bool:
    kind = type(operation).__name__
    if kind in _IDENTITIES:
        return True
    return kind in _RESHAPING and len(node.input_tensors) == 1 and _is_vector(node.input_tensors[0])


def _is_vector(tensor: Any) -> bool:
    """Return whether a tensor has one vector per image, (b, n) or (b, 1, 1, n)."""
    shape = tuple(tensor.shape)
    return len(shape) == 2 or (len(shape) == 4 and shape[1:3] == (1, 1))


def _activations(operation: Any) -> frozenset[str]:
    """Return the name of a layer's activation; None for "linear"."""
    kind = type(operation).__name__
    if kind in _ACTIVATION_LAYERS:
        return frozenset({_ACTIVATION_LAYERS[kind]})
    activation = getattr(operation, "activation", None)
    name = getattr(activation, "__name__", type(activation).__name__)
    return frozenset() if activation is None or name == "linear" else frozenset({name})


def _has_weights(tensor: Any) -> bool:
    """Return whether a layer with weights, other than input scaling, precedes a tensor."""
    return any(
        getattr(node.operation, "weights", None)
        and type(node.operation).__name__ != "Normalization"
        for node in nodes_before([tensor])
    )


def nodes_before(tensors: list[Any]) -> Iterator[Any]:
    """Yield the nodes of a graph that tensors depend on, each once."""
    waiting, seen = list(tensors), set()
    while waiting:
        _, node = _origin(waiting.pop())
        if id(node) not in seen:
            seen.add(id(node))
            waiting.extend(node.input_tensors)
            yield node


def node_of(model: Any, layer: Any) -> Any:
    """Return the first call of a layer within a model; the layer may be part of others."""
    within = {id(node) for node in nodes_before(model.outputs)}
    return next(node for node in layer._inbound_nodes if id(node) in within)


def _origin(tensor: Any) -> tuple[Any, Any]:
    """Return the layer or operation that produced a symbolic tensor, and its call."""
    history = tensor._keras_history
    return history.operation, history.operation._inbound_nodes[history.node_index]


def _is_model(operation: Any) -> bool:
    return hasattr(operation, "layers") and bool(getattr(operation, "inputs", None))


def _name_in(model: Any, operation: Any) -> str | None:
    return next((n for n, layer in layer_names(model).items() if layer is operation), None)


def _name_of(model: Any, tensor: Any) -> str:
    operation = _origin(tensor)[0]
    return _name_in(model, operation) or str(operation.name)
