"""The argument ``devices=``: what it asks for, which devices there are, and cores to run on."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .._io.wording import format_count
from ..backbones.keras_backend import import_keras, list_devices
from ..errors import InvalidRequest

Devices = str | int | Sequence[str]

_NAME = re.compile(r"(cpu|gpu):(0|[1-9][0-9]{0,3})")
_EXPECTED = (
    "give 'auto' for all GPUs, their number, or names of different devices as a list, such as "
    "['gpu:0', 'gpu:1'] or ['cpu:0', 'cpu:1']"
)


@dataclass(frozen=True)
class DeviceRequest:
    """The devices that were asked for.

    Attributes
    ----------
    names : tuple of str
        ``gpu:N`` or ``cpu:N``; empty if GPUs are to be found.
    count : int or None
        Number of GPUs to find; None for all there are.
    """

    names: tuple[str, ...] = ()
    count: int | None = None

    @property
    def on_processor(self) -> bool:
        """Whether no GPU is asked for."""
        return bool(self.names) and all(name.startswith("cpu") for name in self.names)

    @property
    def needs_gpu(self) -> bool:
        """Whether at least one GPU is asked for, whether there is one or not."""
        return self.count is not None or any(name.startswith("gpu") for name in self.names)


def parse_devices(devices: object) -> DeviceRequest | None:
    """Return what the argument ``devices=`` asks for; None for the default.

    Raises
    ------
    InvalidRequest
        If it is nothing that can be asked for.

    Examples
    --------
    >>> parse_devices("auto"), parse_devices(2).count, parse_devices(["gpu:0", "gpu:2"]).names
    (DeviceRequest(names=(), count=None), 2, ('gpu:0', 'gpu:2'))
    """
    if devices is None:
        return None
    if devices == "auto":
        return DeviceRequest()
    if type(devices) is int and devices > 0:
        return DeviceRequest(count=devices)
    names: tuple[object, ...] = (devices,)
    if isinstance(devices, (list, tuple)):
        names = tuple(devices)
    known = tuple(name for name in names if isinstance(name, str) and _NAME.fullmatch(name))
    if names and len({*known}) == len(names):
        return DeviceRequest(known)
    raise InvalidRequest(f"devices={devices!r} is not known; {_EXPECTED}.", received=devices)


def keras_devices(request: DeviceRequest) -> list[str]:
    """Return the names of Keras' devices that were asked for; empty for Keras' default.

    Raises
    ------
    InvalidRequest
        If there are fewer.
    """
    keras = import_keras()
    found = {kind: list_devices(keras, kind) for kind in ("gpu", "cpu")}
    if not request.names:
        gpus = found["gpu"][: request.count]
        if request.count is not None and len(gpus) < request.count:
            raise _too_few(request.count, found)
        return gpus
    known = [*found["gpu"], *found["cpu"]]
    # PyTorch's devices are not listed by Keras: then a name is tried.
    missing = [name for name in request.names if known and name not in known]
    if missing:
        raise InvalidRequest(
            f"devices={list(request.names)!r} names {', '.join(missing)}, and Keras has "
            f"{', '.join(known)}. Name some of these, or leave devices= out.",
            received=missing[0],
        )
    return list(request.names)


def _too_few(count: int, found: dict[str, list[str]]) -> InvalidRequest:
    return InvalidRequest(
        f"devices={count} asks for {format_count(count, 'GPU')}, and Keras finds "
        f"{len(found['gpu'])}. Leave devices= out; or name cores of the processor, as in "
        "devices=['cpu:0', 'cpu:1'].",
        received=count,
    )


def cores_of(request: DeviceRequest | None) -> list[int | None]:
    """Return the core of each engine on the processor; ``[None]`` for one engine on all cores.

    ``cpu:N`` is the core of number N among those that this process may use.

    Raises
    ------
    InvalidRequest
        If there are fewer.
    """
    if request is None or not request.on_processor:
        return [None]
    usable = usable_cores()
    wanted = [int(name.removeprefix("cpu:")) for name in request.names]
    if max(wanted) >= len(usable):
        raise InvalidRequest(
            f"devices={list(request.names)!r} names cpu:{max(wanted)}, and this process may use "
            f"{format_count(len(usable), 'core')}, counted from cpu:0.",
            received=f"cpu:{max(wanted)}",
        )
    return [usable[number] for number in wanted]


def usable_cores() -> list[int]:
    """Return the cores that this process may use, as the system numbers them."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


@contextlib.contextmanager
def pinned_to(core: int | None) -> Iterator[None]:
    """Context manager in which this thread, and threads that it starts, run on one core.

    Does nothing for None, and on systems other than Linux.
    """
    if core is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
