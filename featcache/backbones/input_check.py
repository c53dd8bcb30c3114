"""Check that an object can serve as a backbone: a Keras model with one input, of images."""

from __future__ import annotations

import os
from typing import Any

from ..errors import InvalidRequest
from .installed import top_package

_PYTORCH_SUFFIXES = (".pt", ".pth", ".pt2", ".ckpt", ".safetensors")


def refuse_pytorch(backbone: Any) -> None:
    """Raise `InvalidRequest` for a PyTorch model or the file of one: there is a way by ONNX."""
    is_path = isinstance(backbone, (str, os.PathLike))
    is_file = is_path and os.fspath(backbone).lower().endswith(_PYTORCH_SUFFIXES)
    if is_file or (hasattr(backbone, "state_dict") and hasattr(backbone, "forward")):
        what = str(backbone) if is_path else type(backbone).__name__
        raise InvalidRequest(
            f"{what} is a PyTorch model: export it with torch.onnx.export(model.eval(), "
            "torch.zeros(1, 3, height, width), 'model.onnx', external_data=False) and pass the "
            "path 'model.onnx'.",
            received=what,
        )


def check_model(model: Any) -> None:
    """Raise `InvalidRequest` unless an object is a Keras model with RGB images as its input."""
    if not (hasattr(model, "layers") and hasattr(model, "predict_on_batch")):
        raise InvalidRequest(
            "A backbone is a preset of keras-hub ('hub:NAME' or 'hub:./folder'), a name, the path "
            f"of a .keras or .onnx file or a keras.Model, not {type(model).__name__}.",
            received=type(model).__name__,
        )
    check_input(model)


def check_input(model: Any) -> None:
    """Raise `InvalidRequest` unless a model is a built graph with RGB images as its only input."""
    kind = type(model).__name__
    inputs = getattr(model, "inputs", None)
    if not inputs and getattr(model, "built", False):
        raise InvalidRequest(
            f"{kind} is a subclassed model, which has no graph of layers to cut; pass "
            "keras.Model(inputs, model(inputs)) with inputs = keras.Input((height, width, 3)).",
            received=kind,
        )
    if not inputs:
        raise InvalidRequest(
            f"{kind} is not built, so its layers have no shapes yet; build it with "
            "model.build((None, height, width, 3)) or begin it with keras.Input.",
            received=kind,
        )
    _check_call(model)
    if len(inputs) != 1:
        raise InvalidRequest(
            f"The model takes {len(inputs)} inputs ({_shapes(inputs)}); a backbone takes one, a "
            "batch of images (b, h, w, 3).",
            received=[tuple(tensor.shape) for tensor in inputs],
        )
    shape = tuple(inputs[0].shape)
    if len(shape) != 4 or shape[3] != 3:
        raise InvalidRequest(
            f"The model takes arrays {shape}{_channels(shape)}; a backbone takes RGB images "
            "(b, h, w, 3).",
            received=shape,
        )
    _check_batches(model, shape)


def _check_call(model: Any) -> None:
    """Raise if a model runs code of its own around its graph, which is all that is cut."""
    replaced = [name for name in ("__call__", "call") if name in vars(model)]
    calls = {name: getattr(type(model), name, None) for name in ("__call__", "call")}
    own = [name for name, one in calls.items() if one is not None and top_package(one) != "keras"]
    if replaced or own:
        name, kind = (*replaced, *own)[0], type(model).__name__
        raise InvalidRequest(
            f"{kind} has a {name}() of its own, which the features, those of its graph of layers, "
            "would leave out; pass keras.Model(model.inputs, model.outputs) for the graph alone, "
            "or keras.Model(inputs, model(inputs)) with inputs = keras.Input((height, width, 3)).",
            received=kind,
        )


def _check_batches(model: Any, shape: tuple[int | None, ...]) -> None:
    """Raise if the output of a model for an image could depend on other images."""
    if shape[0] is not None:
        raise InvalidRequest(
            f"The model takes only batches of {shape[0]} images, shape {shape}; a backbone takes "
            "any number of them. Build it again with keras.Input((height, width, 3)), without "
            "batch_size= or batch_shape=.",
            received=shape,
        )
    layers = model._flatten_layers() if hasattr(model, "_flatten_layers") else model.layers
    stateful = [layer.name for layer in layers if getattr(layer, "stateful", False)]
    if stateful:
        raise InvalidRequest(
            f"The model's layer {stateful[0]!r} has stateful=True: what it gives for an image "
            "depends on the images before it, so its rows could not be stored. Build it again "
            "with stateful=False.",
            received=stateful,
        )


def _channels(shape: tuple[int | None, ...]) -> str:
    if len(shape) != 4:
        return ""
    if shape[1] == 3:
        return ", channels first"
    return f" of {shape[3]} channel{'s' * (shape[3] != 1)}"


def _shapes(tensors: list[Any]) -> str:
    return ", ".join(f"{tensor.name} {tuple(tensor.shape)}" for tensor in tensors)
