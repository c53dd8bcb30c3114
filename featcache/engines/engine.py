"""What runs a frozen model: the protocol of runners, and the engine that picks micro-batches."""

from __future__ import annotations

import threading
import time
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .._io.logs import get_logger
from ..errors import InvalidRequest, OutOfMemory
from .micro_batch import MicroBatchSize, is_out_of_memory

log = get_logger(__name__)

# A batch that takes less time than this is followed by one twice as large, up to a limit on its
# pixels: large batches keep the engine busy, small ones lose little work when interrupted.
_QUICK_SECONDS = 0.15
_MAX_BYTES = 20_000_000


class Runner(Protocol):
    """Protocol of a runner; `run` accepts any number of images, `size` per micro-batch."""

    name: str
    candidates: tuple[int, ...]  # micro-batch sizes to try, the default first
    trial: int  # number of images to compare sizes with
    most: int  # initial number of images per batch
    width: int  # length of an embedding
    parallel: int  # number of batches at a time; see `Engine.parallel`

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
        self._lock = threading.Lock()

    @property
    def parallel(self) -> int:
        """Number of threads that should call `embed`.

        2 on a GPU: the second thread sends its batch while that of the first is computed.
        """
        return self._runner.parallel

    @property
    def devices(self) -> int:
        """Number of devices."""
        return 1

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
        InvalidRequest
            If the model does not give one row per image.
        """
        while True:
            started = time.perf_counter()
            size = self._sizes.current
            try:
                rows = self._runner.run(pixels, size)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if not self._sizes.halve(size):
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
            if self._grows and quick and 2 * pixels.nbytes <= _MAX_BYTES:
                with self._lock:
                    if len(pixels) == self.batch_size:
                        self.batch_size *= 2
            self._check_shape(rows.shape, len(pixels))
            return rows

    def _check_shape(self, shape: tuple[int, ...], images: int) -> None:
        """Raise `InvalidRequest` unless there is a row for each image.

        Of a model that leaves out or adds rows, it is unknown which image a row belongs to.
        """
        if shape != (images, self.width):
            raise InvalidRequest(
                f"The model gave an array {shape} for {images} images, not one row of "
                f"{self.width} values per image, so it cannot be used. Check what its layers do "
                "with the first axis, which numbers the images.",
                received=shape,
            )

    def provenance(self) -> dict[str, str]:
        """Return engine and versions, stored with the rows; not part of the key."""
        return self._runner.provenance()
