"""Choice of the engine and of the micro-batch size.

The engine is recorded with the rows and is not part of the key: in float32 all engines agree to
1e-5, which is checked whenever a model is converted.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .._io.cache_dirs import engines_folder
from .._io.choices import check_choice
from .._io.logs import get_logger
from .._io.wording import install_hint
from ..backbones.independence import check_independence
from ..backbones.model import Backbone
from ..backbones.onnx.backbone import OnnxBackbone
from ..backbones.request import OnnxRequest, Request
from ..backbones.spec import ENGINES, BackboneSpec, EngineName, content_key
from ..errors import EngineUnavailable, OutOfMemory
from . import openvino
from .keras import KerasRunner
from .micro_batch import MicroBatchSize, find_fastest, is_out_of_memory, read_size, write_size
from .onnxruntime import OnnxRuntimeRunner
from .openvino import NotConvertible, OpenVINORunner

log = get_logger(__name__)

AGREEMENT = 1e-5
# A conversion takes seconds, and is not worth it for fewer images.
_WORTH_CONVERTING = 100
_WORTH_MEASURING = 1000
_TRIAL_SECONDS = 0.3  # per size, after a first run that compiles and allocates
# A batch that takes less time than this is followed by one twice as large, up to a limit on its
# pixels: large batches keep the engine busy, small ones lose little work when interrupted.
_QUICK_SECONDS = 0.15
_MAX_BYTES = 20_000_000
_ACCELERATOR_FILES = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


class Runner(Protocol):
    """Protocol of a runner; `run` accepts any number of images, `size` per micro-batch."""

    name: str
    candidates: tuple[int, ...]  # micro-batch sizes to try, the default first
    trial: int  # number of images to compare sizes with
    most: int  # initial number of images per batch
    width: int  # length of an embedding

    def size_within(self, batch_size: int) -> int:
        """Return the micro-batch size for a batch size chosen by the user."""
        ...

    def run(self, pixels: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
        """Compute embeddings (b, width) of pixels (b, h, w, 3)."""
        ...

    def provenance(self) -> dict[str, str]:
        """Return engine and versions."""
        ...


class Engine:
    """A frozen model, ready to run, with a suitable micro-batch size.

    Attributes
    ----------
    batch_size : int
        Images per call of `embed`; grows while a batch takes little time, unless the user has
        chosen it.
    """

    def __init__(
        self, runner: Runner, sizes: MicroBatchSize, batch_size: int, *, grows: bool = False
    ) -> None:
        self._runner, self._sizes, self.batch_size = runner, sizes, batch_size
        self._grows = grows

    @property
    def name(self) -> str:
        """``"keras"``, ``"openvino"`` or ``"onnxruntime"``."""
        return self._runner.name

    @property
    def width(self) -> int:
        """Length of an embedding."""
        return self._runner.width

    @property
    def commits_each_batch(self) -> bool:
        """Whether each batch is one commit, as with a batch size chosen by the user."""
        return not self._grows

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute embeddings (b, width), float32, of pixels (b, h, w, 3), uint8.

        Raises
        ------
        OutOfMemory
            If the memory is insufficient even for one image at a time.
        """
        while True:
            started = time.perf_counter()
            size = self._sizes.current
            try:
                rows = self._runner.run(pixels, size)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if not self._sizes.halve():
                    raise OutOfMemory(
                        "The backbone does not fit the memory even with one image at a time. "
                        "Close other programs, or choose a smaller backbone or image_size.",
                        engine=self.name,
                    ) from error
                log.warning(
                    "%d images at a time do not fit the memory; continuing with %d.",
                    size, self._sizes.current,
                )  # fmt: skip
                continue
            quick = time.perf_counter() - started < _QUICK_SECONDS
            whole = len(pixels) == self.batch_size
            if self._grows and quick and whole and 2 * pixels.nbytes <= _MAX_BYTES:
                self.batch_size *= 2
            return rows

    def provenance(self) -> dict[str, str]:
        """Return engine and versions, stored with the rows; not part of the key."""
        return self._runner.provenance()


def check_engine(name: object) -> None:
    """Raise `InvalidRequest` unless `name` is one of `ENGINES`."""
    check_choice("engine", name, ENGINES)


@dataclass(frozen=True)
class EngineRequest:
    """Request for an engine: what it runs, and on how many images.

    Attributes
    ----------
    engine : {"auto", "openvino", "keras", "tensorflow", "onnxruntime"}
    request : Request
    spec : BackboneSpec
    cache : Path
        The cache folder.
    images : int
        Number of images to compute.
    batch_size : int or None
        As chosen by the user.
    """

    engine: EngineName
    request: Request
    spec: BackboneSpec
    cache: Path
    images: int
    batch_size: int | None

    @property
    def folder(self) -> Path:
        """The folder of the converted model, which may not exist yet."""
        return engines_folder(self.cache) / self.spec.network

    def runner(self, folder: Path, precision: str) -> OpenVINORunner:
        """Return the runner of a converted model; raise `NotConvertible` if it is unusable."""
        size = self.known_size(OpenVINORunner) or OpenVINORunner.candidates[0]
        rule = self.request.preprocessing
        return OpenVINORunner(folder, self.spec.image_size, rule, precision, size)

    def known_size(self, runner: Runner | type[OpenVINORunner]) -> int | None:
        """Return the micro-batch size chosen by the user or cached by an earlier run, or None."""
        if self.batch_size is not None:
            return runner.size_within(self.batch_size)
        return read_size(self.memo(runner))

    def memo(self, runner: Runner | type[OpenVINORunner]) -> Path:
        """Return the path of the file with the cached micro-batch size of this machine."""
        machine = f"{platform.machine()} {os.cpu_count()} {platform.node()}"
        sizes = list(runner.candidates)
        parts = {"key": self.spec.key, "engine": runner.name, "machine": machine, "sizes": sizes}
        return engines_folder(self.cache) / f"pass-{content_key(parts)[:32]}.json"


def load_converted_engine(request: EngineRequest) -> Engine | None:
    """Return an engine for a model converted earlier, without building it; else None."""
    if not _may_use_openvino(request) or _may_have_accelerator(request):
        return None
    try:
        return _make_engine(request.runner(request.folder, request.spec.precision), request)
    except NotConvertible as reason:
        log.debug("%s: %s", request.spec.backbone, reason)
        return None


def make_engine(request: EngineRequest, backbone: Backbone | OnnxBackbone) -> Engine:
    """Return an engine for a backbone; convert it to OpenVINO if that saves time.

    Raises
    ------
    EngineUnavailable
        If the requested engine cannot run the backbone, or Keras does not use TensorFlow.
    InvalidRequest
        If the rows of a model of the user's own depend on the batch.
    """
    _check_engine_of(backbone, request)
    if request.request.is_own:
        check_independence(backbone, request.spec.image_size)
    is_required = request.engine == "openvino" or _needs_openvino(request)
    worth = is_required or (request.images >= _WORTH_CONVERTING and not backbone.on_accelerator)
    if worth and _may_use_openvino(request):
        name = request.request.name
        try:
            return _make_engine(_load_or_convert(request, backbone), request)
        except NotConvertible as reason:
            if is_required:
                raise EngineUnavailable(
                    f"OpenVINO cannot run {name}: {reason}. {_without_openvino(request, backbone)}",
                    received=request.engine,
                ) from reason
            log.info("%s: OpenVINO cannot run it (%s); %s does.", name, reason, backbone.library)
    if _needs_openvino(request):
        raise EngineUnavailable(
            f"ONNX Runtime computes in float32 only, and OpenVINO cannot be used with "
            f"engine={request.engine!r} for {request.spec.precision} on this machine. "
            "Leave precision= out.",
            received=request.engine,
        )
    return _make_engine(_own_runner(backbone), request)


def _check_engine_of(backbone: Backbone | OnnxBackbone, request: EngineRequest) -> None:
    """Raise `EngineUnavailable` if an engine was requested that does not run such a backbone."""
    engine, name = request.engine, request.request.name
    if isinstance(backbone, OnnxBackbone):
        if engine in ("keras", "tensorflow"):
            raise EngineUnavailable(
                f"engine={engine!r} was requested, but {name} is an ONNX network; use "
                "engine='onnxruntime' or 'openvino', or leave it out.",
                received=engine,
            )
    elif engine == "onnxruntime":
        raise EngineUnavailable(
            f"engine='onnxruntime' was requested, but {name} is a Keras model, not an ONNX "
            "network; use engine='keras' or 'openvino', or leave it out.",
            received=engine,
        )
    elif engine == "tensorflow" and backbone.backend != "tensorflow":
        raise EngineUnavailable(
            f"engine='tensorflow' was requested, but Keras runs on {backbone.backend}. Unset "
            "KERAS_BACKEND, or use engine='keras'.",
            received=engine,
        )


def _needs_openvino(request: EngineRequest) -> bool:
    """Return whether only OpenVINO computes in the requested precision."""
    return isinstance(request.request, OnnxRequest) and request.spec.precision != "float32"


def _without_openvino(request: EngineRequest, backbone: Backbone | OnnxBackbone) -> str:
    if _needs_openvino(request):
        return f"Leave precision= out to run it with {backbone.library}."
    return f"Leave engine= out to run it with {backbone.library}."


def _own_runner(backbone: Backbone | OnnxBackbone) -> Runner:
    """Return the runner of the library that built the backbone."""
    if isinstance(backbone, OnnxBackbone):
        return OnnxRuntimeRunner(backbone)
    return KerasRunner(backbone)


def _load_or_convert(request: EngineRequest, backbone: Backbone | OnnxBackbone) -> OpenVINORunner:
    """Return the runner of the converted model; convert it if there is no intact one."""
    precision = request.spec.precision
    with contextlib.suppress(NotConvertible):
        return request.runner(request.folder, precision)

    def check_agreement(folder: Path) -> None:
        """Raise `NotConvertible` unless the embeddings of a few images agree."""
        shape = (4, *request.spec.image_size, 3)
        pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        expected = backbone.embed_in("float32", pixels)
        found = request.runner(folder, "float32").run(pixels, 4)
        error = _largest_error(found, expected, backbone.widths)
        if not error <= AGREEMENT:
            owner = backbone.library + ("'" if backbone.library.endswith("s") else "'s")
            raise NotConvertible(f"its embeddings differ from {owner} by {error:.1e}")

    log.info("%s: converting for OpenVINO, once", request.request.name)
    openvino.convert(backbone, request.folder, check_agreement)
    return request.runner(request.folder, precision)


def _largest_error(
    found: NDArray[np.float32], expected: NDArray[np.float32], widths: Sequence[int]
) -> float:
    """Return the largest error in relation to the largest value; of layers, of each by itself."""
    columns = np.cumsum(widths[:-1], dtype=np.int64)
    pairs = zip(np.split(found, columns, 1), np.split(expected, columns, 1), strict=True)
    errors = [np.abs(a - b).max() / max(np.abs(b).max(), 1e-30) for a, b in pairs]
    return float(np.max(errors))  # NaN if any is


def _may_use_openvino(request: EngineRequest) -> bool:
    if request.engine not in ("auto", "openvino"):
        return False
    reason = None
    if not openvino.is_installed():
        reason = f"it is not installed: {install_hint('openvino')}"
    elif not openvino.supports(request.spec.precision):
        reason = f"this processor has no {request.spec.precision}"
    if reason and request.engine == "openvino":
        raise EngineUnavailable(f"OpenVINO cannot be used: {reason}.", received=request.engine)
    return reason is None


def _may_have_accelerator(request: EngineRequest) -> bool:
    """Return whether device files of an accelerator exist, without importing a backend."""
    if request.engine == "openvino":
        return False
    metal = platform.system() == "Darwin"
    return metal or any(os.path.exists(path) for path in _ACCELERATOR_FILES)


def _make_engine(runner: Runner, request: EngineRequest) -> Engine:
    if request.batch_size is not None:
        return Engine(
            runner, MicroBatchSize(runner.size_within(request.batch_size)), request.batch_size
        )
    memo, size = request.memo(runner), request.known_size(runner)
    if size is None and request.images >= _WORTH_MEASURING:
        log.info("%s: measuring the best size of a micro-batch, once", request.request.name)
        size = find_fastest(
            runner.candidates, lambda size: _measure_seconds(runner, size, request.spec)
        )
        write_size(memo, size)
    sizes = MicroBatchSize(size or runner.candidates[0], memo)
    return Engine(runner, sizes, runner.most, grows=True)


def _measure_seconds(runner: Runner, size: int, spec: BackboneSpec) -> float:
    """Return the minimum seconds that the trial images take at a micro-batch size.

    Measured without decoding threads, which would compete for the processor.
    """
    shape = (runner.trial, *spec.image_size, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    runner.run(pixels, size)
    times: list[float] = []
    while sum(times) < _TRIAL_SECONDS:
        started = time.perf_counter()
        runner.run(pixels, size)
        times.append(time.perf_counter() - started)
    return min(times)
