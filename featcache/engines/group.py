"""Several engines of one model, one for each device, that look like one engine."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .._io.wording import first_line
from ..errors import DeviceError, FeatcacheError
from .engine import Engine


class EngineGroup(Engine):
    """Gives each batch to an engine that is free.

    Parameters
    ----------
    engines : sequence of Engine
        Of the same model, each on its own device.
    names : sequence of str
        Of the devices.
    """

    def __init__(self, engines: Sequence[Engine], names: Sequence[str]) -> None:
        self._engines, self._names = list(engines), list(names)
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        # In turn, so that each device has a first batch before one has a second.
        for turn in range(max(engine.parallel for engine in engines)):
            for number, engine in enumerate(engines):
                if turn < engine.parallel:
                    self._free.put(number)

    @property
    def parallel(self) -> int:
        """Number of threads that should call `embed`."""
        return sum(engine.parallel for engine in self._engines)

    @property
    def devices(self) -> int:
        """Number of devices."""
        return len(self._engines)

    @property
    def name(self) -> str:
        """The name of each engine."""
        return self._engines[0].name

    @property
    def width(self) -> int:
        """Length of an embedding."""
        return self._engines[0].width

    @property
    def batch_size(self) -> int:  # type: ignore[override]
        """Images per call of `embed`, as few as the slowest device takes."""
        return min(engine.batch_size for engine in self._engines)

    @property
    def commits_each_batch(self) -> bool:
        """Whether each batch is one commit, as with a batch size chosen by the user."""
        return self._engines[0].commits_each_batch

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute embeddings as `Engine.embed`, on a device that is free.

        Raises
        ------
        FeatcacheError
            The error of the device, which the message names.
        """
        number = self._free.get()
        try:
            return self._engines[number].embed(pixels)
        except FeatcacheError as error:
            name = self._names[number]
            raise replace(error, message=f"The device {name}: {error.message}") from error
        except Exception as error:  # frameworks raise many kinds
            name = self._names[number]
            raise DeviceError(
                f"The device {name} cannot go on: {type(error).__name__}: "
                f"{first_line(error, 300)}. Committed rows are kept, and the same call computes "
                f"the others; leave {name} out of devices= if it fails again.",
                device=name,
            ) from error
        finally:
            self._free.put(number)

    def provenance(self) -> dict[str, str]:
        """Return engine and versions, stored with the rows; not part of the key."""
        return self._engines[0].provenance()
