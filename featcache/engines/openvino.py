"""The model as OpenVINO runs it on a processor.

Keras hands its graph over as a SavedModel; OpenVINO reads it, and the result is kept in one
folder of the cache, sealed by checksums. Loading that takes neither Keras nor TensorFlow.
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

from .._io.atomic import make_folder, sync_folder, temporary_path, write_atomic
from .._io.hashes import file_hash
from .._io.wording import first_line
from ..backbones import preprocessing
from ..backbones.model import Backbone
from .openvino_graph import with_preprocessing, without_dense_end

_FILES = ("model.xml", "model.bin")
_SEAL = "seal.json"
_HINTS = {"float32": "f32", "bfloat16": "bf16"}
# Passes that wait for a core, which would else stand still while the next one is handed over.
_WAITING = 2


class NotConvertible(Exception):
    """A model cannot be run by OpenVINO; the message says why."""


def is_installed() -> bool:
    """Tell whether OpenVINO is there, without importing it."""
    return util.find_spec("openvino") is not None


@functools.cache
def supports(precision: str) -> bool:
    """Tell whether this processor has the arithmetic; without, OpenVINO would not use it."""
    if precision == "float32":
        return True
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVINORunner:
    """A converted model, compiled for this processor.

    A batch is cut into passes of a fixed size, which run beside each other: one thread for
    each pass keeps its layers in the nearest cache, where all threads in one pass would
    wait for each other at every layer.

    Parameters
    ----------
    folder : Path
        As `convert` made it.
    image_size : (int, int)
    rule : str or callable
        How pixels are prepared. Named rules become part of the compiled model.
    precision : {"float32", "bfloat16"}
    size : int
        Images in a pass; another size asked of `run` is compiled then.

    Raises
    ------
    NotConvertible
        If the files are not those that were written, or OpenVINO refuses them.
    """

    name = "openvino"
    candidates: tuple[int, ...] = (4, 2, 8)
    most = 32

    def __init__(
        self,
        folder: Path,
        image_size: tuple[int, int],
        rule: preprocessing.Rule,
        precision: str,
        size: int = candidates[0],
    ) -> None:
        check_seal(folder)
        self._folder, self._image_size = folder, image_size
        self._rule, self._precision = rule, precision
        self._queue: Any = None
        self._dense: Any = None  # the model's last layers, if a whole batch goes through them
        self._size = 0
        with _refusals():
            self._compile(size)

    @classmethod
    def size_within(cls, batch_size: int) -> int:
        """Return how many images of a batch of the user's size go into a micro-batch."""
        return max(1, min(cls.candidates[0], batch_size // 2))

    def run(self, pixels: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
        """Compute embeddings (b, width) of pixels (b, h, w, 3), `size` images per micro-batch."""
        if size != self._size:
            self._compile(size)
        if callable(self._rule):
            pixels = preprocessing.apply(self._rule, pixels)  # type: ignore[assignment]
        # Whole passes, each of which writes where its rows belong: a callback that copied them
        # would have OpenVINO's threads wait for the interpreter's lock.
        rows = np.empty((-(-len(pixels) // size) * size, self._given), np.float32)
        parts = []  # OpenVINO reads them where they are
        try:
            for start in range(0, len(pixels), size):
                parts.append(preprocessing.padded(pixels[start : start + size], size))
                output = _shared(rows[start : start + size])
                self._queue[self._queue.get_idle_request_id()].set_output_tensor(output)
                self._queue.start_async({0: _shared(parts[-1])})
            self._queue.wait_all()
        except BaseException:
            # Waits for passes that still write into these rows, which would be gone.
            self._queue, self._size = None, 0
            raise
        rows = rows[: len(pixels)]
        return rows if self._dense is None else self._dense.infer({0: _shared(rows)})[0]

    def provenance(self) -> dict[str, str]:
        """Return engine and versions, recorded beside the rows; no part of the key."""
        packages = ["openvino", "numpy", "Pillow", "h5py"]
        return {"engine": self.name, **{name: metadata.version(name) for name in packages}}

    def _compile(self, size: int) -> None:
        import openvino

        # Two compiled models at once would take twice the memory.
        self._queue = self._dense = None
        model = _core().read_model(self._folder / _FILES[0])
        model = with_preprocessing(model, self._rule)
        model.reshape([size, *self._image_size, 3])
        model, dense = without_dense_end(model)
        compiled = self._compiled(model, "THROUGHPUT")
        if dense is not None:
            self._dense = self._compiled(dense, "LATENCY").create_infer_request()
        self._given = int(compiled.outputs[0].shape[1])
        last = compiled if self._dense is None else self._dense.get_compiled_model()
        self.width = int(last.outputs[0].partial_shape[1].get_length())
        beside = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self.trial = beside * max(self.candidates)
        self._queue = openvino.AsyncInferQueue(compiled, beside + _WAITING)
        self._size = size

    def _compiled(self, model: Any, hint: str) -> Any:
        precision = _HINTS[self._precision]
        options = {"PERFORMANCE_HINT": hint, "INFERENCE_PRECISION_HINT": precision}
        return _core().compile_model(model, "CPU", options)


def _shared(array: NDArray[Any]) -> Any:
    import openvino

    return openvino.Tensor(array, shared_memory=True)


def convert(backbone: Backbone, folder: Path, accept: Callable[[Path], None]) -> None:
    """Convert a backbone and keep it as `folder`, whole or not at all.

    Parameters
    ----------
    backbone : Backbone
    folder : Path
    accept : callable
        Looks at the converted model, in another folder, before it gets its name; raises
        `NotConvertible` if it should not be used.

    Raises
    ------
    NotConvertible
        If Keras cannot export it, OpenVINO cannot read it, the disk or `accept` refuses.
    """
    make_folder(folder.parent, private=True)
    work = temporary_path(folder.parent)
    try:
        with _refusals():
            work.mkdir()
            backbone.export(work / "saved")
            import openvino

            model = _core().read_model(work / "saved")
            openvino.save_model(model, work / _FILES[0], compress_to_fp16=False)
            del model  # it maps the files that go now
            shutil.rmtree(work / "saved")
            seal = {name: file_hash(work / name) for name in _FILES}
            write_atomic(work / _SEAL, json.dumps(seal).encode(), description="a converted model")
            accept(work)
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(folder)  # a damaged one
            work.rename(folder)
            sync_folder(folder.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def check_seal(folder: Path) -> None:
    """Raise `NotConvertible` unless the files are there, and those that were written."""
    try:
        seal = json.loads((folder / _SEAL).read_bytes())
        sound = all(seal[name] == file_hash(folder / name) for name in _FILES)
    except FileNotFoundError as error:
        raise NotConvertible("it was not converted yet") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise NotConvertible(f"the converted model cannot be read ({error})") from error
    if not sound:
        raise NotConvertible("the converted model is not the one that was written")


@functools.cache
def _core() -> Any:
    import openvino

    return openvino.Core()


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Turn whatever Keras, TensorFlow or OpenVINO raise for a model into `NotConvertible`."""
    try:
        yield
    except Exception as error:
        raise NotConvertible(first_line(error, 300)) from error
