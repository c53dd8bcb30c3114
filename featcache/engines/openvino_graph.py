"""Transformations of a model's graph before OpenVINO compiles it."""

# OpenVINO's stubs bind the constructors of a model to the class that it wraps.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

from typing import Any

import numpy as np

from ..backbones import preprocessing

# Weights larger than the processor's cache are read from memory for every micro-batch.
_LARGE_WEIGHTS = 32 * 2**20
# Operations of dense layers, each of which processes every row independently.
_ROW_BY_ROW = {"MatMul", "Add", "Multiply", "Relu", "Elu", "Gelu", "Sigmoid", "Swish", "Tanh"}


def with_preprocessing(model: Any, rule: preprocessing.Rule) -> Any:
    """Add a preprocessing rule to the model, which then takes uint8 without a copy.

    A function is not added: the model is returned unchanged.
    """
    if callable(rule):
        return model
    from openvino import Layout, Type
    from openvino.preprocess import PrePostProcessor

    affine = preprocessing.affine_of(rule)
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
    """Add preprocessing that is equal for all channels, on flattened images.

    Otherwise OpenVINO would move the model's transposition, which is free in its place, before
    these steps, where it takes 5 % of the time of MobileNetV2.
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


def split_dense_end(model: Any, at_least: int = _LARGE_WEIGHTS) -> tuple[Any, Any | None]:
    """Split the dense layers off a model's end if their weights are large.

    A whole batch can then go through them at once, so that their weights are read once: in
    micro-batches of 4 images, reading VGG-19's 400 MB repeatedly takes 2 % of its time.

    Parameters
    ----------
    model : openvino.Model
        With one output; must not be used afterwards.
    at_least : int
        Minimum bytes of weights for a split.

    Returns
    -------
    openvino.Model, openvino.Model or None
        The model up to these layers, and the layers, for any number of rows; or the unchanged
        model and None.
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
    """Return the input of a node that maps each row independently; None for other nodes."""
    if node.get_type_name() not in _ROW_BY_ROW:
        return None
    given = [
        i for i in node.inputs() if i.get_source_output().get_node().get_type_name() != "Constant"
    ]
    if len(given) != 1 or given[0].get_partial_shape().rank != 2:
        return None
    transposed = node.get_type_name() == "MatMul" and node.get_attributes()["transpose_a"]
    return None if transposed or given[0].get_index() != 0 else given[0]
