"""A whole network in a TFLite file (LiteRT): pixels in, probabilities out."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._io.held_warnings import ignored_warnings
from .._io.wording import first_line
from ..backbones import preprocessing
from ..backbones.exported import IMAGES, PROBABILITIES
from ..backbones.keras_backend import quiet_stderr
from ..backbones.model import Backbone
from ..errors import NotExportable


def encode_tflite(
    backbone: Backbone,
    image_size: tuple[int, int],
    finish: Callable[[Any], Any],
    files: Mapping[str, str],
) -> bytes:
    """Return the encoded TFLite file of a backbone and what comes after it.

    Parameters
    ----------
    backbone : Backbone
        Its preprocessing rule must not be a function.
    image_size : (int, int)
        Height and width.
    finish : callable
        From the embedding, a tensor of TensorFlow, to the output of the network.
    files : mapping of str to str
        Texts that are attached as a ZIP archive, after the end of what LiteRT reads.

    Raises
    ------
    NotExportable
        If Keras does not run on TensorFlow, or the converter refuses the network.
    """
    if backbone.backend != "tensorflow":
        raise NotExportable(
            f"Keras runs on {backbone.backend}, and a TFLite file is made from a network of "
            "TensorFlow: set KERAS_BACKEND=tensorflow.",
            received=backbone.backend,
        )
    import tensorflow

    affine = preprocessing.affine_of(backbone.rule)  # type: ignore[arg-type]

    def network(images: Any) -> dict[str, Any]:
        x = tensorflow.cast(images, tensorflow.float32)
        x = x[..., ::-1] if affine.reverse else x
        x = (x - np.array(affine.mean, np.float32)) / np.array(affine.scale, np.float32)
        return {PROBABILITIES: finish(backbone.model([x], training=False))}

    signature = [tensorflow.TensorSpec((None, *image_size, 3), tensorflow.uint8, IMAGES)]
    try:
        with quiet_stderr(), ignored_warnings():
            traced = tensorflow.function(network, signature, autograph=False)
            # The weights are written only if they belong to the module.
            module: Any = tensorflow.Module()
            module.weights = [variable.value for variable in backbone.model.variables]
            converter = tensorflow.lite.TFLiteConverter.from_concrete_functions(
                [traced.get_concrete_function()], module
            )
            encoded: bytes = converter.convert()
    except Exception as error:  # the converter raises many kinds
        raise NotExportable(
            f"TensorFlow cannot convert the network to TFLite: {first_line(error, 300)}. Write an "
            "ONNX file or an OpenVINO folder instead.",
            received=backbone.name,
        ) from error
    return _with_files(encoded, files)


def _with_files(encoded: bytes, files: Mapping[str, str]) -> bytes:
    whole = io.BytesIO(encoded)
    with zipfile.ZipFile(whole, "a") as archive:
        for name, text in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name), text)  # without a date
    return whole.getvalue()


def run_tflite(encoded: bytes, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return what an encoded file gives for images (n, h, w, 3).

    Raises
    ------
    NotExportable
        If LiteRT refuses the file.
    """
    import tensorflow

    try:
        with quiet_stderr(), ignored_warnings():  # TensorFlow points to the package of LiteRT
            interpreter = tensorflow.lite.Interpreter(model_content=encoded)
            (given,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
            interpreter.resize_tensor_input(given["index"], pixels.shape)
            interpreter.allocate_tensors()
            interpreter.set_tensor(given["index"], pixels)
            interpreter.invoke()
            return np.asarray(interpreter.get_tensor(output["index"]))
    except Exception as error:  # LiteRT raises many kinds
        raise NotExportable(
            f"LiteRT cannot run the network that was written: {first_line(error, 300)}. Write an "
            "ONNX file or an OpenVINO folder instead.",
            received=type(error).__name__,
        ) from error


class TensorFlowOperations:
    """The operations of `featcache.bundle.head_graph.Operations` on tensors of TensorFlow."""

    def __init__(self) -> None:
        import tensorflow

        self._tf: Any = tensorflow

    def add(self, x: Any, values: NDArray[Any]) -> Any:
        """See `Operations`."""
        return x + values

    def subtract(self, x: Any, values: NDArray[Any]) -> Any:
        """See `Operations`."""
        return x - values

    def divide(self, x: Any, values: NDArray[Any]) -> Any:
        """See `Operations`."""
        return x / values

    def matmul(self, x: Any, weights: NDArray[Any]) -> Any:
        """See `Operations`."""
        return self._tf.matmul(x, weights)

    def relu(self, x: Any) -> Any:
        """See `Operations`."""
        return self._tf.nn.relu(x)

    def normalise(self, x: Any) -> Any:
        """See `Operations`."""
        length = self._tf.sqrt(self._tf.reduce_sum(x * x, axis=1, keepdims=True))
        return x / self._tf.maximum(length, np.float32(1e-30))

    def softmax(self, x: Any) -> Any:
        """See `Operations`."""
        return self._tf.nn.softmax(x)

    def as_float16(self, x: Any) -> Any:
        """See `Operations`."""
        return self._tf.cast(self._tf.cast(x, self._tf.float16), self._tf.float32)

    def first_nodes(self, x: Any, roots: NDArray[Any]) -> Any:
        """See `Operations`."""
        return self._tf.tile(np.asarray(roots, np.int32)[None], [self._tf.shape(x)[0], 1])

    def take(self, values: NDArray[Any], indices: Any) -> Any:
        """See `Operations`."""
        kind = np.float32 if values.dtype.kind == "f" else np.int32
        return self._tf.gather(np.asarray(values, kind), indices)

    def pick(self, x: Any, columns: Any) -> Any:
        """See `Operations`."""
        return self._tf.gather(x, columns, batch_dims=1)

    def choose(self, low: Any, high: Any, left: Any, right: Any) -> Any:
        """See `Operations`."""
        return self._tf.where(low > high, right, left)

    def sum_groups(self, x: Any, count: int) -> Any:
        """See `Operations`."""
        grouped = self._tf.reshape(x, [self._tf.shape(x)[0], -1, count])
        return self._tf.reduce_sum(grouped, axis=1)
