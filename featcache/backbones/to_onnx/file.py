"""A whole network in an ONNX file: pixels of uint8 in, what comes after the backbone out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._io.wording import first_line
from ...errors import NotExportable
from .. import preprocessing
from ..exported import IMAGES, PROBABILITIES
from ..model import Backbone
from ..onnx.backbone import OnnxBackbone
from ..onnx.library import import_onnx, import_onnxruntime
from ..onnx.rebuild import EMBEDDING, FORMAT_VERSION, PIXELS
from .network import write_function, write_keras_model
from .writer import OPSET, GraphWriter, Refused, Value, not_exportable

# Continues a graph at its embedding: the writer and the embedding's tensor, to the output's tensor.
Finish = Callable[[GraphWriter, str], str]


def encode_network(
    backbone: Backbone | OnnxBackbone,
    image_size: tuple[int, int],
    finish: Finish,
    width: int,
    metadata: Mapping[str, str],
) -> bytes:
    """Return the encoded file of a backbone and what comes after it.

    Parameters
    ----------
    backbone : Backbone or OnnxBackbone
        Its preprocessing rule must not be a function.
    image_size : (int, int)
        Height and width.
    finish : callable
        Writes what comes after the embedding.
    width : int
        Number of values per image of the output.
    metadata : mapping of str to str

    Returns
    -------
    bytes
        A graph from ``images`` (n, h, w, 3), uint8, RGB, to ``probabilities`` (n, `width`),
        float32, which the checker of ONNX accepts.

    Raises
    ------
    NotExportable
        If a layer has no counterpart in ONNX.
    MissingExtra
        If `onnx` is not installed.
    """
    onnx = import_onnx()
    if isinstance(backbone, OnnxBackbone):
        nodes, weights, batch, opset = _onnx_graph(backbone, finish)
    else:
        nodes, weights, batch, opset = _keras_graph(backbone, image_size, finish)
    given = onnx.helper.make_tensor_value_info(
        IMAGES, onnx.TensorProto.UINT8, [batch, *image_size, 3]
    )
    output = onnx.helper.make_tensor_value_info(
        PROBABILITIES, onnx.TensorProto.FLOAT, [batch, width]
    )
    graph = onnx.helper.make_graph(nodes, "featcache", [given], [output], weights)
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=FORMAT_VERSION,
        producer_name="featcache",
    )  # fmt: skip
    onnx.helper.set_model_props(model, dict(sorted(metadata.items())))
    encoded: bytes = model.SerializeToString(deterministic=True)
    onnx.checker.check_model(encoded)
    return encoded


def run_network(encoded: bytes, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return what an encoded file gives for images (n, h, w, 3), with ONNX Runtime.

    Raises
    ------
    NotExportable
        If ONNX Runtime refuses the file.
    """
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # errors are raised as well
    try:
        session = runtime.InferenceSession(encoded, options, providers=["CPUExecutionProvider"])
        one_by_one = session.get_inputs()[0].shape[0] == 1
        parts = [image[None] for image in pixels] if one_by_one else [pixels]
        return np.concatenate([session.run(None, {IMAGES: part})[0] for part in parts])
    except Exception as error:  # the runtime raises many kinds
        raise NotExportable(
            f"ONNX Runtime cannot run the network that was written: {first_line(error, 300)}.",
            received=type(error).__name__,
        ) from error


_Written = tuple[list[Any], list[Any], str | int, int]


def _keras_graph(backbone: Backbone, image_size: tuple[int, int], finish: Finish) -> _Written:
    writer = GraphWriter(write_function=write_function)
    pixels = write_preprocessing(writer, backbone.rule)
    try:
        value = write_keras_model(writer, backbone.model, Value(pixels, (None, *image_size, 3)))
    except Refused as error:
        raise not_exportable(error) from error
    writer.add("Identity", writer.last(value), output=EMBEDDING)
    _name_output(writer, finish(writer, EMBEDDING))
    return writer.nodes, writer.weights, "n", OPSET


def _onnx_graph(backbone: OnnxBackbone, finish: Finish) -> _Written:
    """Return the graph of an ONNX network, between the nodes of preprocessing and of the rest."""
    model = import_onnx().ModelProto.FromString(backbone.encoded)
    opset = model.opset_import[0].version
    before, after = GraphWriter(opset, "before_"), GraphWriter(opset, "after_")
    before.add("Identity", write_preprocessing(before, backbone.rule), output=PIXELS)
    _name_output(after, finish(after, EMBEDDING))
    nodes = [*before.nodes, *model.graph.node, *after.nodes]
    weights = [*before.weights, *model.graph.initializer, *after.weights]
    (batch,) = {one.type.tensor_type.shape.dim[0].dim_value for one in model.graph.input}
    return nodes, weights, batch or "n", opset


def write_preprocessing(writer: GraphWriter, rule: preprocessing.Rule) -> str:
    """Write a preprocessing rule that is not a function; return the prepared pixels."""
    affine = preprocessing.affine_of(rule)  # type: ignore[arg-type]
    x = writer.add("Cast", IMAGES, to=import_onnx().TensorProto.FLOAT)
    if affine.reverse:
        x = writer.add("Gather", x, writer.integers([2, 1, 0]), axis=3)
    if any(affine.mean):
        x = writer.add("Sub", x, writer.constant(affine.mean))
    if set(affine.scale) != {1}:
        x = writer.add("Div", x, writer.constant(affine.scale))
    return x


def _name_output(writer: GraphWriter, name: str) -> None:
    writer.add("Identity", name, output=PROBABILITIES)
