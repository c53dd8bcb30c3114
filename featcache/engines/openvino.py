"""Conversion of a backbone to OpenVINO, and its runner on the processor.

Keras exports its graph as a SavedModel, an ONNX network is one already. OpenVINO converts it, and
the result is stored in a folder of the cache with checksums. Loading it needs no other framework.
"""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
from collections.abc import Callable, Iterator
from importlib import metadata, util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._io.atomic import make_folder, open_folder_atomic, write_atomic
from .._io.hashes import file_hash
from .._io.own_files import CONVERTED_FILES, CONVERTED_SEAL
from .._io.wording import first_line
from ..backbones import preprocessing
from ..backbones.model import Backbone
from ..backbones.onnx.backbone import OnnxBackbone
from .devices import pinned_to
from .openvino_graph import split_dense_end, with_preprocessing

_HINTS = {"float32": "f32", "bfloat16": "bf16"}
# Queued micro-batches, so that no core is idle while the next one is submitted.
_WAITING = 2


class NotConvertible(Exception):
    """A model cannot be run by OpenVINO; the message says why."""


def is_installed() -> bool:
    """Return whether OpenVINO is installed, without importing it."""
    return util.find_spec("openvino") is not None


@functools.cache
def supports(precision: str) -> bool:
    """Return whether this processor has instructions for a precision."""
    if precision == "float32":
        return True
    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVINORunner:
    """Runs a converted model, compiled for this processor.

    A batch is split into micro-batches of a fixed size, which run in parallel: one thread per
    micro-batch keeps its layers in the nearest cache, while several threads on one micro-batch
    would wait for each other at every layer.

    Parameters
    ----------
    folder : Path
        As written by `convert`.
    image_size : (int, int)
        Height and width.
    rule : str or callable
        Preprocessing of pixels. Named rules become part of the compiled model.
    precision : {"float32", "bfloat16"}
    size : int
        Images per micro-batch; if `run` is called with another size, it is compiled then.
    core : int, optional
        Run on this core alone. Default: on all.

    Raises
    ------
    NotConvertible
        If the files are not those that were written, or OpenVINO refuses them.
    """

    name = "openvino"
    candidates: tuple[int, ...] = (4, 2, 8)
    most = 32
    parallel = 1

    def __init__(
        self,
        folder: Path,
        image_size: tuple[int, int],
        rule: preprocessing.Rule,
        precision: str,
        size: int = candidates[0],
        core: int | None = None,
    ) -> None:
        check_seal(folder)
        self._folder, self._image_size = folder, image_size
        self._rule: preprocessing.Rule = rule
        self._precision, self._core = precision, core
        self._queue: Any = None
        self._dense: Any = None  # the model's last layers, if a whole batch goes through them
        self._size = 0
        self._one_by_one = False  # whether the network takes one image at a time
        with refusals():
            self._compile(size)

    @classmethod
    def size_within(cls, batch_size: int) -> int:
        """Return the micro-batch size for a batch size chosen by the user."""
        return max(1, min(cls.candidates[0], batch_size // 2))

    def run(self, pixels: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
        """Compute embeddings (b, width) of pixels (b, h, w, 3), `size` images per micro-batch."""
        with pinned_to(self._core):
            return self._run(pixels, size)

    def _run(self, pixels: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
        if self._one_by_one:
            size = 1
        if size != self._size:
            self._compile(size)
        if callable(self._rule):
            pixels = preprocessing.apply(self._rule, pixels)  # type: ignore[assignment]
        # Each micro-batch writes directly to its rows: OpenVINO's threads would wait for the GIL
        # in a callback that copies them.
        rows = np.empty((-(-len(pixels) // size) * size, self._input_width), np.float32)
        parts = []  # keeps the inputs alive, which OpenVINO reads without a copy
        try:
            for start in range(0, len(pixels), size):
                parts.append(preprocessing.padded(pixels[start : start + size], size))
                output = _share_memory(rows[start : start + size])
                self._queue[self._queue.get_idle_request_id()].set_output_tensor(output)
                self._queue.start_async({0: _share_memory(parts[-1])})
            self._queue.wait_all()
        except BaseException:
            # Deleting the queue waits for micro-batches that still write into these rows.
            self._queue, self._size = None, 0
            raise
        rows = rows[: len(pixels)]
        return rows if self._dense is None else self._dense.infer({0: _share_memory(rows)})[0]

    def provenance(self) -> dict[str, str]:
        """Return engine and versions, stored with the rows; not part of the key."""
        packages = ["openvino", "numpy", "Pillow", "h5py"]
        return {"engine": self.name, **{name: metadata.version(name) for name in packages}}

    def _compile(self, size: int) -> None:
        import openvino

        # Release the previous model first: two compiled models would need twice the memory.
        self._queue = self._dense = None
        model = openvino_core().read_model(self._folder / CONVERTED_FILES[0])
        if model.input(0).partial_shape[0].is_static:
            self._one_by_one, self.candidates, size = True, (1,), 1
        model = with_preprocessing(model, self._rule)
        model.reshape([size, *self._image_size, 3])
        model, dense = split_dense_end(model)
        compiled = self._compile_model(model, "THROUGHPUT")
        if dense is not None:
            self._dense = self._compile_model(dense, "LATENCY").create_infer_request()
        self._input_width = int(compiled.outputs[0].shape[1])
        last = compiled if self._dense is None else self._dense.get_compiled_model()
        self.width = int(last.outputs[0].partial_shape[1].get_length())
        parallel_requests = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self.trial = parallel_requests * max(self.candidates)
        self._queue = openvino.AsyncInferQueue(compiled, parallel_requests + _WAITING)
        self._size = size

    def _compile_model(self, model: Any, hint: str) -> Any:
        precision = _HINTS[self._precision]
        options: dict[str, Any] = {"PERFORMANCE_HINT": hint, "INFERENCE_PRECISION_HINT": precision}
        if self._core is not None:
            # No threads of its own, which OpenVINO would keep for a model on another core: the
            # thread that calls `run` computes.
            options |= {"NUM_STREAMS": 0, "INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": False}
        return openvino_core().compile_model(model, "CPU", options)


def _share_memory(array: NDArray[Any]) -> Any:
    import openvino

    return openvino.Tensor(array, shared_memory=True)


def convert(
    backbone: Backbone | OnnxBackbone, folder: Path, accept: Callable[[Path], None]
) -> None:
    """Convert a backbone and store it in a folder, atomically.

    Parameters
    ----------
    backbone : Backbone or OnnxBackbone
    folder : Path
        Replaced if it exists.
    accept : callable
        Called with a temporary folder of the converted model before it is renamed; raises
        `NotConvertible` if the model should not be used.

    Raises
    ------
    NotConvertible
        If it cannot be exported, OpenVINO cannot read it, the disk or `accept` refuses.
    """
    make_folder(folder.parent, private=True)
    with refusals(), open_folder_atomic(folder) as work:
        exported = backbone.export(work / "saved")
        import openvino

        model = openvino_core().read_model(exported)
        openvino.save_model(model, work / CONVERTED_FILES[0], compress_to_fp16=False)
        del model  # it maps the files that go now
        shutil.rmtree(work / "saved")
        seal = {name: file_hash(work / name) for name in CONVERTED_FILES}
        write_atomic(
            work / CONVERTED_SEAL, json.dumps(seal).encode(), description="a converted model"
        )
        accept(work)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)  # a damaged one


def check_seal(folder: Path) -> None:
    """Raise `NotConvertible` unless the files exist and have the recorded checksums."""
    try:
        seal = json.loads((folder / CONVERTED_SEAL).read_bytes())
        is_intact = all(seal[name] == file_hash(folder / name) for name in CONVERTED_FILES)
    except FileNotFoundError as error:
        raise NotConvertible("it was not converted yet") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise NotConvertible(f"the converted model cannot be read ({error})") from error
    if not is_intact:
        raise NotConvertible("the converted model is not the one that was written")


@functools.cache
def openvino_core() -> Any:
    """Return the one instance of OpenVINO's library in this process."""
    import openvino

    return openvino.Core()


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Turn whatever Keras, TensorFlow or OpenVINO raise for a model into `NotConvertible`."""
    try:
        yield
    except Exception as error:
        raise NotConvertible(first_line(error, 300)) from error
