"""Small ONNX networks, made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 16
Batch = int | str


def weights(seed: int, **shapes: Sequence[int]) -> list[Any]:
    generator = np.random.default_rng(seed)
    return [
        numpy_helper.from_array(generator.normal(size=shape).astype("f4") / 2, name)
        for name, shape in shapes.items()
    ]


def write(path: Path, model: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def made(
    nodes: list[Any], initializers: list[Any], shape: Sequence[Batch], outputs: Sequence[str],
    *, opset: int = 17, kind: int = TensorProto.FLOAT, given: str = "images",
) -> Any:  # fmt: skip
    """A model with an input "images"."""
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(given, kind, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        initializers,
    )
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def cnn(
    seed: int = 0, batch: Batch = "n", side: Batch = SIDE, opset: int = 17, name: str = ""
) -> Any:
    """Convolution, batch normalization, ReLU and global average pooling, channels second."""
    found = weights(seed, kernel=(6, 3, 3, 3), bias=(6,), scale=(6,), offset=(6,), mean=(6,))
    variance = np.random.default_rng(seed).uniform(0.5, 2, 6).astype("f4")
    found.append(numpy_helper.from_array(variance, "variance"))
    nodes = [
        helper.make_node("Conv", ["images", "kernel", "bias"], [f"{name}conv"], name="first",
                         strides=[2, 2]),
        helper.make_node("BatchNormalization",
                         [f"{name}conv", "scale", "offset", "mean", "variance"], [f"{name}norm"]),
        helper.make_node("Relu", [f"{name}norm"], [f"{name}relu"]),
        helper.make_node("GlobalAveragePool", [f"{name}relu"], [f"{name}pool"]),
        helper.make_node("Flatten", [f"{name}pool"], ["features"], axis=1),
    ]  # fmt: skip
    return made(nodes, found, [batch, 3, side, side], ["features"], opset=opset)


def channels_last(seed: int = 0, batch: Batch = "n") -> Any:
    """As exported from TensorFlow: channels last outside, second inside; a spatial output."""
    found = weights(seed, kernel=(5, 3, 3, 3), bias=(5,))
    nodes = [
        helper.make_node("Transpose", ["images"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernel", "bias"], ["conv"]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("Transpose", ["relu"], ["map"], perm=[0, 2, 3, 1]),
    ]
    return made(nodes, found, [batch, SIDE, SIDE, 3], ["map"])


def transformer(seed: int = 0, batch: Batch = "n", opset: int = 17) -> Any:
    """Patches, a first token, one block of attention, and a normalization: (b, 17, 8)."""
    found = weights(
        seed, patch=(8, 3, 4, 4), first=(1, 1, 8), place=(1, 17, 8), query=(8, 8), key=(8, 8),
        value=(8, 8), scale=(8,), offset=(8,),
    )  # fmt: skip
    for name, value in {
        "tokens": [0, 8, -1], "one": [1], "zero": [0], "ends": [1, 1], "root": None,
    }.items():  # fmt: skip
        array = np.array(8**0.5, "f4") if value is None else np.array(value, np.int64)
        found.append(numpy_helper.from_array(array, name))
    node = helper.make_node
    nodes = [
        node("Conv", ["images", "patch"], ["patches"], strides=[4, 4]),
        node("Reshape", ["patches", "tokens"], ["rows"]),
        node("Transpose", ["rows"], ["sequence"], perm=[0, 2, 1]),
        node("Shape", ["sequence"], ["shape"]),
        node("Slice", ["shape", "zero", "one"], ["count"]),
        node("Concat", ["count", "ends"], ["wanted"], axis=0),
        node("Expand", ["first", "wanted"], ["firsts"]),
        node("Concat", ["firsts", "sequence"], ["all"], axis=1),
        node("Add", ["all", "place"], ["placed"]),
        node("MatMul", ["placed", "query"], ["q"]),
        node("MatMul", ["placed", "key"], ["k"]),
        node("MatMul", ["placed", "value"], ["v"]),
        node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        node("MatMul", ["q", "kt"], ["raw"]),
        node("Div", ["raw", "root"], ["scores"]),
        node("Softmax", ["scores"], ["attention"], axis=-1),
        node("MatMul", ["attention", "v"], ["mixed"]),
        node("Add", ["mixed", "placed"], ["sum"]),
        node("LayerNormalization", ["sum", "scale", "offset"], ["hidden"], axis=-1),
    ]
    return made(nodes, found, [batch, 3, SIDE, SIDE], ["hidden"], opset=opset)


def changed(model: Any) -> Any:
    """A copy, to be changed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy
