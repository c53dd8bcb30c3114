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
from ..errors import EngineUnavailable
from . import openvino
from .devices import DeviceRequest, cores_of, keras_devices
from .engine import Engine, Runner
from .group import EngineGroup
from .keras import keras_runners
from .micro_batch import MicroBatchSize, find_fastest, read_size, write_size
from .onnxruntime import OnnxRuntimeRunner
from .openvino import NotConvertible, OpenVINORunner

log = get_logger(__name__)

AGREEMENT = 1e-5
# A conversion takes seconds, and is not worth it for fewer images.
_WORTH_CONVERTING = 100
_WORTH_MEASURING = 1000
_TRIAL_SECONDS = 0.3  # per size, after a first run that compiles and allocates
_ACCELERATOR_FILES = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


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
    devices : DeviceRequest, optional
        Default: one engine, on all cores or on Keras' default device.
    """

    engine: EngineName
    request: Request
    spec: BackboneSpec
    cache: Path
    images: int
    batch_size: int | None
    devices: DeviceRequest | None = None

    @property
    def on_processor(self) -> bool:
        """Whether cores of the processor were asked for."""
        return self.devices is not None and self.devices.on_processor

    @property
    def needs_gpu(self) -> bool:
        """Whether a GPU was asked for."""
        return self.devices is not None and self.devices.needs_gpu

    @property
    def folder(self) -> Path:
        """The folder of the converted model, which may not exist yet."""
        return engines_folder(self.cache) / self.spec.network

    def runner(self, folder: Path, precision: str, core: int | None = None) -> OpenVINORunner:
        """Return the runner of a converted model; raise `NotConvertible` if it is unusable."""
        size = self.known_size(OpenVINORunner) or OpenVINORunner.candidates[0]
        rule = self.request.preprocessing
        return OpenVINORunner(folder, self.spec.image_size, rule, precision, size, core)

    def known_size(self, runner: Runner | type[OpenVINORunner]) -> int | None:
        """Return the micro-batch size chosen by the user or cached by an earlier run, or None."""
        if self.batch_size is not None:
            return runner.size_within(self.batch_size)
        return read_size(self.memo(runner))

    def memo(self, runner: Runner | type[OpenVINORunner]) -> Path:
        """Return the path of the file with the cached micro-batch size of this machine."""
        cores = "one core" if self.on_processor else os.cpu_count()
        machine = f"{platform.machine()} {cores} {platform.node()}"
        sizes = list(runner.candidates)
        parts = {"key": self.spec.key, "engine": runner.name, "machine": machine, "sizes": sizes}
        return engines_folder(self.cache) / f"pass-{content_key(parts)[:32]}.json"


def load_converted_engine(request: EngineRequest) -> Engine | None:
    """Return an engine for a model converted earlier, without building it; else None."""
    if not _may_use_openvino(request) or _may_have_accelerator(request):
        return None
    try:
        return _openvino_engine(request)
    except NotConvertible as reason:
        log.debug("%s: %s", request.spec.backbone, reason)
        return None


def make_engine(request: EngineRequest, backbone: Backbone | OnnxBackbone) -> Engine:
    """Return an engine for a backbone; convert it to OpenVINO if that saves time.

    Raises
    ------
    EngineUnavailable
        If the requested engine cannot run the backbone on such devices, or Keras does not use
        TensorFlow.
    InvalidRequest
        If the rows of a model of the user's own depend on the batch.
    """
    _check_engine_of(backbone, request)
    if request.request.is_own:
        check_independence(backbone, request.spec.image_size)
    is_required = request.engine == "openvino" or _needs_openvino(request)
    many = request.images >= _WORTH_CONVERTING and not backbone.on_accelerator
    worth = is_required or request.on_processor or many
    if worth and _may_use_openvino(request):
        name = request.request.name
        try:
            return _load_or_convert(request, backbone)
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
    return _own_engine(request, backbone)


def _check_engine_of(backbone: Backbone | OnnxBackbone, request: EngineRequest) -> None:
    """Raise `EngineUnavailable` if an engine was requested that does not run such a backbone."""
    engine, name = request.engine, request.request.name
    if isinstance(backbone, OnnxBackbone):
        if request.needs_gpu:
            raise EngineUnavailable(
                f"devices= asks for a GPU, and {name} is an ONNX network, which runs on the "
                "processor; leave devices= out, or name cores, as in devices=['cpu:0', 'cpu:1'].",
                received=engine,
            )
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


def _own_engine(request: EngineRequest, backbone: Backbone | OnnxBackbone) -> Engine:
    """Return the engine of the library that built the backbone, on each device."""
    runners: Sequence[Runner]
    if isinstance(backbone, OnnxBackbone):
        runners = [OnnxRuntimeRunner(backbone, core) for core in cores_of(request.devices)]
        return _joined(runners, request)
    devices = [] if request.devices is None else keras_devices(request.devices)
    return _joined(keras_runners(backbone, devices, request.spec.image_size), request, devices)


def _openvino_engine(request: EngineRequest) -> Engine:
    """Return the engine of a converted model, on each core; raise `NotConvertible` if unusable."""
    precision = request.spec.precision
    cores = cores_of(request.devices)
    return _joined([request.runner(request.folder, precision, core) for core in cores], request)


def _joined(runners: Sequence[Runner], request: EngineRequest, names: Sequence[str] = ()) -> Engine:
    """Return one engine of all runners, whose devices have names; default: those asked for."""
    engines = [_make_engine(runner, request) for runner in runners]
    if len(engines) == 1:
        return engines[0]
    asked = request.devices.names if request.devices is not None else ()
    return EngineGroup(engines, names or asked)


def _load_or_convert(request: EngineRequest, backbone: Backbone | OnnxBackbone) -> Engine:
    """Return the engine of the converted model; convert it if there is no intact one."""
    with contextlib.suppress(NotConvertible):
        return _openvino_engine(request)

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
    return _openvino_engine(request)


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
    if request.needs_gpu:
        reason = "it runs on the processor, and devices= asks for a GPU"
    elif not openvino.is_installed():
        reason = f"it is not installed: {install_hint('openvino')}"
    elif not openvino.supports(request.spec.precision):
        reason = f"this processor has no {request.spec.precision}"
    if reason and request.engine == "openvino":
        raise EngineUnavailable(f"OpenVINO cannot be used: {reason}.", received=request.engine)
    return reason is None


def _may_have_accelerator(request: EngineRequest) -> bool:
    """Return whether device files of an accelerator exist, without importing a backend."""
    if request.engine == "openvino" or request.on_processor:
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
