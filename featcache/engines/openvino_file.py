"""A whole network in a folder of OpenVINO: pixels in, what comes after the backbone out."""

# OpenVINO's stubs bind the constructors of a model to the class that it wraps.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._io.own_files import CONVERTED_FILES
from .._io.wording import install_hint
from ..backbones.exported import IMAGES, PROBABILITIES
from ..backbones.model import Backbone
from ..backbones.onnx.backbone import OnnxBackbone
from ..errors import InvalidRequest, MissingExtra
from .openvino import is_installed, openvino_core, refusals
from .openvino_graph import with_preprocessing

_SHORTEST = 1e-30  # of a row that is divided by its length: a row of 0 stays 0


def write_openvino(
    backbone: Backbone | OnnxBackbone,
    image_size: tuple[int, int],
    finish: Callable[[Any], Any],
    folder: Path,
    metadata: Mapping[str, str],
) -> None:
    """Write a backbone and what comes after it into an existing folder.

    Parameters
    ----------
    backbone : Backbone or OnnxBackbone
        Its preprocessing rule must not be a function.
    image_size : (int, int)
        Height and width.
    finish : callable
        From the embedding, an output of a node, to the output of the network.
    folder : Path
        ``model.xml`` and ``model.bin`` are written there.
    metadata : mapping of str to str
        Become entries of ``rt_info/featcache``.

    Raises
    ------
    NotConvertible
        If it cannot be exported, or OpenVINO cannot read it.
    """
    with refusals():
        import openvino
        from openvino import opset13 as ops

        exported = backbone.export(folder / "saved")
        model = openvino_core().read_model(exported)
        batch = model.input(0).partial_shape[0]
        model.reshape([batch, *image_size, 3])
        model = with_preprocessing(model, backbone.rule)
        output = finish(model.get_results()[0].input_value(0))
        output.set_names({PROBABILITIES})
        model.get_parameters()[0].output(0).set_names({IMAGES})
        whole = openvino.Model([ops.result(output)], model.get_parameters(), "featcache")
        for name, value in metadata.items():
            whole.set_rt_info(value, ["featcache", name])
        openvino.save_model(whole, folder / CONVERTED_FILES[0], compress_to_fp16=False)
        del model, whole, output  # they map the files that go now
        shutil.rmtree(folder / "saved")


def run_folder(folder: Path, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return what the network in a folder gives for images (n, h, w, 3), on the processor."""
    with refusals():
        core = openvino_core()
        compiled = core.compile_model(
            core.read_model(folder / CONVERTED_FILES[0]),
            "CPU",
            {"INFERENCE_PRECISION_HINT": "f32"},
        )
        # A network may take one image at a time.
        return np.concatenate([compiled({0: image[None]})[0] for image in pixels])


def check_replaceable(folder: Path) -> None:
    """Raise `InvalidRequest` unless a folder is missing, or has what `write_openvino` writes."""
    if folder.is_symlink():
        raise InvalidRequest(
            f"{folder} is a link, so it is not replaced; name the folder itself.",
            received=str(folder),
        )
    names = os.listdir(folder) if folder.is_dir() else []
    others = sorted(set(names) - set(CONVERTED_FILES))
    if others:
        raise InvalidRequest(
            f"{folder} holds {others[0]!r}, which is not part of an OpenVINO network, so the "
            "folder is not replaced; choose another path.",
            received=str(folder),
        )


def check_installed() -> None:
    """Raise `MissingExtra` if OpenVINO is not installed."""
    if not is_installed():
        raise MissingExtra(
            f"An OpenVINO folder needs the package openvino: {install_hint('openvino')}.",
            package="openvino",
        )


class OpenVINOOperations:
    """The operations of `featcache.bundle.head_graph.Operations` on outputs of nodes."""

    def __init__(self) -> None:
        from openvino import opset13

        self._ops: Any = opset13

    def add(self, x: Any, values: NDArray[Any]) -> Any:
        """See `Operations`."""
        return self._ops.add(x, values).output(0)

    def subtract(self, x: Any, values: NDArray[Any]) -> Any:
        """See `Operations`."""
        return self._ops.subtract(x, values).output(0)

    def divide(self, x: Any, values: NDArray[Any]) -> Any:
        """See `Operations`."""
        return self._ops.divide(x, values).output(0)

    def matmul(self, x: Any, weights: NDArray[Any]) -> Any:
        """See `Operations`."""
        return self._ops.matmul(x, weights, False, False).output(0)

    def relu(self, x: Any) -> Any:
        """See `Operations`."""
        return self._ops.relu(x).output(0)

    def normalise(self, x: Any) -> Any:
        """See `Operations`."""
        length = self._ops.reduce_l2(x, np.array([1]), True)
        return self._ops.divide(
            x, self._ops.maximum(length, np.array([[_SHORTEST]], np.float32))
        ).output(0)

    def softmax(self, x: Any) -> Any:
        """See `Operations`."""
        return self._ops.softmax(x, 1).output(0)

    def as_float16(self, x: Any) -> Any:
        """See `Operations`."""
        return self._ops.convert(self._ops.convert(x, np.float16), np.float32).output(0)

    def first_nodes(self, x: Any, roots: NDArray[Any]) -> Any:
        """See `Operations`."""
        rows = self._ops.gather(self._ops.shape_of(x), np.array([0]), np.array(0))
        shape = self._ops.concat([rows, self._ops.constant(np.array([len(roots)], np.int64))], 0)
        return self._ops.broadcast(np.asarray(roots, np.int32)[None], shape).output(0)

    def take(self, values: NDArray[Any], indices: Any) -> Any:
        """See `Operations`."""
        kind = np.float32 if values.dtype.kind == "f" else np.int32
        return self._ops.gather(np.asarray(values, kind), indices, np.array(0)).output(0)

    def pick(self, x: Any, columns: Any) -> Any:
        """See `Operations`."""
        return self._ops.gather_elements(x, columns, 1).output(0)

    def choose(self, low: Any, high: Any, left: Any, right: Any) -> Any:
        """See `Operations`."""
        return self._ops.select(self._ops.greater(low, high), right, left).output(0)

    def sum_groups(self, x: Any, count: int) -> Any:
        """See `Operations`."""
        grouped = self._ops.reshape(x, np.array([0, -1, count]), True)
        return self._ops.reduce_sum(grouped, np.array([1]), False).output(0)
