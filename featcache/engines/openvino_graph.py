"""What is done to a model's graph before OpenVINO compiles it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backbones import preprocessing

# Weights that no cache holds are read from memory again by every pass.
_LARGE_WEIGHTS = 32 * 2**20
# What a dense layer consists of; each of these treats every row by itself.
_ROW_BY_ROW = {"MatMul", "Add", "Multiply", "Relu", "Elu", "Gelu", "Sigmoid", "Swish", "Tanh"}


def with_preprocessing(model: Any, rule: preprocessing.Rule) -> Any:
    """Put a named rule before the model, so that bytes go in and no copy is made of them."""
    if callable(rule):
        return model
    from openvino import Layout, Type
    from openvino.preprocess import PrePostProcessor

    affine = preprocessing.AFFINE[rule]
    if affine.same_for_all:
        return _with_flat_preprocessing(model, affine)
    processor = PrePostProcessor(model)
    pixels = processor.input()
    pixels.tensor().set_element_type(Type.u8).set_layout(Layout("NHWC"))
    steps = pixels.preprocess().convert_element_type(Type.f32)
    if affine.reverse:
        steps = steps.reverse_channels()
    steps.mean(list(affine.mean)).scale(list(affine.scale))
    return processor.build()


def _with_flat_preprocessing(model: Any, affine: preprocessing.Affine) -> Any:
    """Prepare all numbers of an image in one row, where channels are treated alike.

    Else OpenVINO would move the model's own transposition, which costs nothing where it is,
    before these steps, where it is 5 % of MobileNetV2.
    """
    import openvino
    from openvino import opset13 as ops

    given = model.get_parameters()[0]
    shape = given.partial_shape
    pixels = ops.parameter(shape, np.uint8)
    numbers = ops.reshape(ops.convert(pixels, np.float32), np.array([0, -1]), True)
    mean, scale = (np.array(of_all[:1], np.float32) for of_all in (affine.mean, affine.scale))
    prepared = ops.divide(ops.subtract(numbers, mean), scale)
    as_images = np.array([0, *(size.get_length() for size in list(shape)[1:])])
    given.output(0).replace(ops.reshape(prepared, as_images, True).output(0))
    return openvino.Model(model.get_results(), [pixels])


def without_dense_end(model: Any, at_least: int = _LARGE_WEIGHTS) -> tuple[Any, Any | None]:
    """Take the dense layers off a model's end where their weights are large.

    All of a batch can then go through them at once, and their weights are read once: in passes
    of 4 images, reading VGG-19's 400 MB over and over is 2 % of its time.

    Parameters
    ----------
    model : openvino.Model
        Of one output; no longer to be used afterwards.
    at_least : int
        Bytes of weights from which it is done.

    Returns
    -------
    openvino.Model, openvino.Model or None
        What comes before these layers, and these layers, for any number of rows; or the model
        as it is, and None.
    """
    import openvino
    from openvino import opset13 as ops

    first, weights = None, 0
    output = model.get_results()[0].input_value(0)
    while (given := _rows_given(output.get_node())) is not None:
        if output.get_node().get_type_name() == "MatMul":
            first = given
            weights += output.get_node().input_value(1).get_node().data.nbytes
        output = given.get_source_output()
    if first is None or weights < at_least:
        return model, None
    before = first.get_source_output()
    rows = ops.parameter([-1, before.get_partial_shape()[1].get_length()], np.float32)
    first.replace_source_output(rows.output(0))
    dense = openvino.Model(model.get_results(), [rows])
    return openvino.Model([ops.result(before)], model.get_parameters()), dense


def _rows_given(node: Any) -> Any | None:
    """Return the one input of a node that makes each row of one row and constants; else None."""
    if node.get_type_name() not in _ROW_BY_ROW:
        return None
    given = [
        i for i in node.inputs() if i.get_source_output().get_node().get_type_name() != "Constant"
    ]
    if len(given) != 1 or given[0].get_partial_shape().rank != 2:
        return None
    transposed = node.get_type_name() == "MatMul" and node.get_attributes()["transpose_a"]
    return None if transposed or given[0].get_index() != 0 else given[0]
