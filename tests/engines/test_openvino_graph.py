"""Dense layers at the end of a model, which OpenVINO runs apart from the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from featcache.engines.openvino_graph import split_dense_end

pytest.importorskip("openvino", reason="the extra featcache[openvino] is not installed")


def dense_model(end: Callable[[Any, Any], Any]) -> Any:
    """Means of an image's channels, a dense layer of 12 values, and whatever `end` adds to it."""
    import openvino
    from openvino import opset13 as ops

    weights = np.random.default_rng(0).normal(size=(3, 12)).astype(np.float32)
    images = ops.parameter([-1, 8, 8, 3], np.float32)
    means = ops.reduce_mean(images, np.array([1, 2]))
    first = ops.relu(ops.add(ops.matmul(means, weights, False, False), np.float32([0.5])))
    square = np.random.default_rng(1).normal(size=(12, 12)).astype(np.float32)
    return openvino.Model([ops.result(end(first, square))], [images])


def run_all(models: Sequence[Any], images: Any) -> Any:
    import openvino

    exactly = {"INFERENCE_PRECISION_HINT": "f32"}
    for model in models:
        images = openvino.Core().compile_model(model, "CPU", exactly)({0: images})[0]
    return images


def another_dense(rows: Any, square: Any) -> Any:
    from openvino import opset13 as ops

    return ops.tanh(ops.matmul(rows, square, False, True))


def residual(rows: Any, square: Any) -> Any:
    from openvino import opset13 as ops

    return ops.add(rows, ops.matmul(rows, square, False, False))


def mixed_rows(rows: Any, square: Any) -> Any:
    from openvino import opset13 as ops

    return ops.softmax(ops.matmul(rows, square, False, False), 0)


@pytest.mark.parametrize(
    ("end", "width"),
    [(lambda rows, _: rows, 3), (another_dense, 3), (residual, None), (mixed_rows, None)],
)
def test_what_is_taken_off_a_model_is_dense_and_the_two_parts_are_the_whole(
    end: Callable[[Any, Any], Any], width: int | None
) -> None:
    images = np.random.default_rng(2).normal(size=(5, 8, 8, 3)).astype(np.float32)
    expected = run_all([dense_model(end)], images)
    before, dense = split_dense_end(dense_model(end), 0)
    assert (dense is None) == (width is None)
    parts = [before] if dense is None else [before, dense]
    assert np.allclose(run_all(parts, images), expected, rtol=1e-5, atol=1e-6)
    assert before.outputs[0].partial_shape[1].get_length() == (width or 12)


def test_small_dense_layers_stay_where_they_are() -> None:
    weights = 4 * (3 * 12 + 12 * 12)
    assert split_dense_end(dense_model(another_dense), weights + 1)[1] is None
    assert split_dense_end(dense_model(another_dense), weights)[1] is not None
