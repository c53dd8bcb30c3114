"""How a frozen model is run: by Keras on any of its backends, or by OpenVINO.

Which one it was is recorded beside the rows and is no part of the key: in float32 they
agree to 1e-5, which is checked whenever a model is converted.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .._io.cache_dirs import engines_folder
from .._io.choices import check_choice
from .._io.logs import get_logger
from ..backbones.independence import check_independence
from ..backbones.model import Backbone
from ..backbones.request import ModelRequest, Request
from ..backbones.spec import ENGINES, BackboneSpec, EngineName, content_key
from ..errors import EngineUnavailable, OutOfMemory
from . import openvino
from .keras import KerasRunner
from .micro_batch import MicroBatchSize, is_out_of_memory, quickest, remember_size, remembered_size
from .openvino import NotConvertible, OpenVINORunner

log = get_logger(__name__)

AGREEMENT = 1e-5
# A conversion takes seconds: less work than this is done sooner without.
_WORTH_CONVERTING = 100
_WORTH_MEASURING = 1000
_TRIAL_SECONDS = 0.3  # for a size, after a pass of each that compiles and allocates
# A batch that takes less than this is followed by one twice as large, until its pixels would
# take more than that: few waits for the last pass, and never much work lost with a batch.
_QUICK_SECONDS = 0.15
_MOST_BYTES = 20_000_000
_ACCELERATOR_FILES = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


class Runner(Protocol):
    """What runs a model; `run` takes any number of images, `size` at a time."""

    name: str
    candidates: tuple[int, ...]  # sizes worth trying, the usual one first
    trial: int  # images that keep it busy at each of these sizes
    most: int
    width: int  # numbers in an embedding

    def size_within(self, batch_size: int) -> int:
        """Return how many images of a batch of the user's size go into a micro-batch."""

    def run(self, pixels: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
        """Compute embeddings (b, width) of pixels (b, h, w, 3)."""

    def provenance(self) -> dict[str, str]:
        """Return engine and versions."""


class Engine:
    """A frozen model, ready to run, with a suitable number of images per micro-batch.

    Attributes
    ----------
    batch_size : int
        Images to hand over together; grows while that takes little time, unless the user
        said how many.
    """

    def __init__(
        self, runner: Runner, sizes: MicroBatchSize, batch_size: int, *, grows: bool = False
    ) -> None:
        self._runner, self._sizes, self.batch_size = runner, sizes, batch_size
        self._grows = grows

    @property
    def name(self) -> str:
        """``"keras"`` or ``"openvino"``."""
        return self._runner.name

    @property
    def width(self) -> int:
        """Numbers in an embedding, as the model itself has them."""
        return self._runner.width

    @property
    def commits_each_batch(self) -> bool:
        """Whether a batch is to be a commit as well, since the user said how many images."""
        return not self._grows

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute embeddings (b, width), float32, of pixels (b, h, w, 3), uint8.

        Raises
        ------
        OutOfMemory
            If not even one image fits.
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
                    "%d images at a time do not fit the memory; going on with %d.",
                    size, self._sizes.current,
                )  # fmt: skip
                continue
            quick = time.perf_counter() - started < _QUICK_SECONDS
            whole = len(pixels) == self.batch_size
            if self._grows and quick and whole and 2 * pixels.nbytes <= _MOST_BYTES:
                self.batch_size *= 2
            return rows

    def provenance(self) -> dict[str, str]:
        """Return engine and versions, recorded beside the rows; no part of the key."""
        return self._runner.provenance()


def check_engine(name: object) -> None:
    """Raise `InvalidRequest` unless `name` is one of `ENGINES`."""
    check_choice("engine", name, ENGINES)


@dataclass(frozen=True)
class EngineRequest:
    """What is to be run, and on how much.

    Attributes
    ----------
    engine : {"auto", "openvino", "keras", "tensorflow"}
    request : Request
    spec : BackboneSpec
    cache : Path
        The cache folder.
    images : int
        Number of images to compute.
    batch_size : int or None
        As the user said it.
    """

    engine: EngineName
    request: Request
    spec: BackboneSpec
    cache: Path
    images: int
    batch_size: int | None

    @property
    def folder(self) -> Path:
        """Where the converted model is, or will be."""
        return engines_folder(self.cache) / self.spec.network

    def runner(self, folder: Path, precision: str) -> OpenVINORunner:
        """Compile a converted model; raise `NotConvertible` if that cannot be."""
        size = self.known_size(OpenVINORunner) or OpenVINORunner.candidates[0]
        rule = self.request.preprocessing
        return OpenVINORunner(folder, self.spec.image_size, rule, precision, size)

    def known_size(self, runner: Runner | type[OpenVINORunner]) -> int | None:
        """Return how many images a micro-batch holds, as the user or an earlier run says."""
        if self.batch_size is not None:
            return runner.size_within(self.batch_size)
        return remembered_size(self.memo(runner))

    def memo(self, runner: Runner | type[OpenVINORunner]) -> Path:
        """Where the size of a micro-batch on this machine is remembered."""
        machine = f"{platform.machine()} {os.cpu_count()} {platform.node()}"
        sizes = list(runner.candidates)
        parts = {"key": self.spec.key, "engine": runner.name, "machine": machine, "sizes": sizes}
        return engines_folder(self.cache) / f"pass-{content_key(parts)[:32]}.json"


def stored_engine(wanted: EngineRequest) -> Engine | None:
    """Return an engine that needs no Keras: a model that was converted before; else None."""
    if not _may_use_openvino(wanted) or _may_have_accelerator(wanted):
        return None
    try:
        return _engine(wanted.runner(wanted.folder, wanted.spec.precision), wanted)
    except NotConvertible as reason:
        log.debug("%s: %s", wanted.spec.backbone, reason)
        return None


def make_engine(wanted: EngineRequest, backbone: Backbone) -> Engine:
    """Return an engine for a backbone that was built; convert it if that is worth it.

    Raises
    ------
    EngineUnavailable
        If OpenVINO was asked for and cannot do it, or TensorFlow was and is not in use.
    InvalidRequest
        If the rows of a model of the user's own depend on the batch.
    """
    if isinstance(wanted.request, ModelRequest):
        check_independence(backbone, wanted.spec.image_size)
    insisted = wanted.engine == "openvino"
    if wanted.engine == "tensorflow" and backbone.backend != "tensorflow":
        raise EngineUnavailable(
            f"engine='tensorflow' was asked for, but Keras runs on {backbone.backend}. Unset "
            "KERAS_BACKEND, or take engine='keras'.",
            received=wanted.engine,
        )
    worth = insisted or (wanted.images >= _WORTH_CONVERTING and not backbone.on_accelerator)
    if worth and _may_use_openvino(wanted):
        name = wanted.request.name
        try:
            return _engine(_converted(wanted, backbone), wanted)
        except NotConvertible as reason:
            if insisted:
                raise EngineUnavailable(
                    f"OpenVINO cannot run {name}: {reason}. Leave engine= out to run it with "
                    "Keras.",
                    received=wanted.engine,
                ) from reason
            log.info("%s: OpenVINO cannot run it (%s); Keras does.", name, reason)
    return _engine(KerasRunner(backbone), wanted)


def _converted(wanted: EngineRequest, backbone: Backbone) -> OpenVINORunner:
    """Return the runner of the converted model; convert it if there is none that is sound."""
    precision = wanted.spec.precision
    with contextlib.suppress(NotConvertible):
        return wanted.runner(wanted.folder, precision)

    def agrees(folder: Path) -> None:
        """Compare with Keras on a few images before a row is trusted to it."""
        shape = (4, *wanted.spec.image_size, 3)
        pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        expected = backbone.embed_in("float32", pixels)
        found = wanted.runner(folder, "float32").run(pixels, 4)
        error = np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30)
        if not error <= AGREEMENT:
            raise NotConvertible(f"its embeddings differ from Keras' by {error:.1e}")

    log.info("%s: converting for OpenVINO, once", wanted.request.name)
    openvino.convert(backbone, wanted.folder, agrees)
    return wanted.runner(wanted.folder, precision)


def _may_use_openvino(wanted: EngineRequest) -> bool:
    if wanted.engine not in ("auto", "openvino"):
        return False
    reason = None
    if not openvino.is_installed():
        reason = "it is not installed: pip install 'featcache[openvino]'"
    elif not openvino.supports(wanted.spec.precision):
        reason = f"this processor has no {wanted.spec.precision}"
    if reason and wanted.engine == "openvino":
        raise EngineUnavailable(f"OpenVINO cannot be used: {reason}.", received=wanted.engine)
    return reason is None


def _may_have_accelerator(wanted: EngineRequest) -> bool:
    """Tell from device files alone; asking the backend would mean importing it."""
    if wanted.engine == "openvino":
        return False
    metal = platform.system() == "Darwin"
    return metal or any(os.path.exists(path) for path in _ACCELERATOR_FILES)


def _engine(runner: Runner, wanted: EngineRequest) -> Engine:
    if wanted.batch_size is not None:
        return Engine(
            runner, MicroBatchSize(runner.size_within(wanted.batch_size)), wanted.batch_size
        )
    memo, size = wanted.memo(runner), wanted.known_size(runner)
    if size is None and wanted.images >= _WORTH_MEASURING:
        log.info("%s: measuring the best size of a micro-batch, once", wanted.request.name)
        size = quickest(runner.candidates, lambda size: _seconds(runner, size, wanted.spec))
        remember_size(memo, size)
    sizes = MicroBatchSize(size or runner.candidates[0], memo)
    return Engine(runner, sizes, runner.most, grows=True)


def _seconds(runner: Runner, size: int, spec: BackboneSpec) -> float:
    """Measure what some images take, `size` a pass, with nothing else at work.

    Beside threads that decode it would be a matter of how far ahead these are.
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
