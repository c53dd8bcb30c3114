"""Import of Keras; the only module that imports it.

Works with every backend: TensorFlow unless ``KERAS_BACKEND`` names another. Changes of the
process, such as log levels, are undone when a step ends, also after an error.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sys
from collections.abc import Iterator
from types import ModuleType

from .._io.shared_change import SharedChange
from ..errors import InvalidRequest

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


def import_keras() -> ModuleType:
    """Import Keras without TensorFlow's start-up messages, and return the module.

    The messages are shown if ``TF_CPP_MIN_LOG_LEVEL`` is 0 or 1.

    Returns
    -------
    module
        `keras`.

    Raises
    ------
    InvalidRequest
        If Keras is configured with ``image_data_format="channels_first"``.
    """
    if "keras" in sys.modules or os.environ.get(_LEVEL) in ("0", "1"):
        import keras
    else:
        with _only_errors(), quiet_stderr():
            import keras
    if keras.config.image_data_format() != "channels_last":
        raise InvalidRequest(
            "Keras is set to image_data_format='channels_first'; featcache needs "
            "'channels_last'. Change it in ~/.keras/keras.json.",
            received=keras.config.image_data_format(),
        )
    module: ModuleType = keras
    return module


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Suppress output to the descriptor of standard error, and TensorFlow's log messages.

    TensorFlow prints several lines before it reads its log level, which look like errors.
    Python's exceptions are not affected.
    """
    with quiet_log(), _quiet_descriptor():
        yield


def has_accelerator(keras: ModuleType) -> bool:
    """Return whether the backend has a GPU or TPU."""
    return any(list_devices(keras, kind) for kind in ("gpu", "tpu"))


def list_devices(keras: ModuleType, kind: str) -> list[str]:
    """Return the names of the devices of a kind, such as ``gpu:0``; empty if none are known."""
    with contextlib.suppress(Exception):  # not every backend lists its devices, or every kind
        return [str(name) for name in keras.distribution.list_devices(kind)]
    return []


def device_scope(name: str) -> contextlib.AbstractContextManager[None]:
    """Context manager in which this thread creates and computes on a device, such as gpu:1."""
    scope: contextlib.AbstractContextManager[None] = import_keras().device(name)
    return scope


@contextlib.contextmanager
def _level_of_errors() -> Iterator[None]:
    """Set TensorFlow's library to print errors only; it reads the variable once, on first use."""
    if _LEVEL in os.environ:
        yield
        return
    os.environ[_LEVEL] = "3"
    try:
        yield
    finally:
        os.environ.pop(_LEVEL, None)


@contextlib.contextmanager
def _level_of_logger() -> Iterator[None]:
    """Set TensorFlow's logger to errors only; notebooks show it besides the descriptor."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(max(level, logging.ERROR))
    try:
        yield
    finally:
        # Keep a level that was set during that step, by the import of TensorFlow.
        if logger.level == max(level, logging.ERROR):
            logger.setLevel(level)


@contextlib.contextmanager
def _descriptor_to_nowhere() -> Iterator[None]:
    try:
        saved = os.dup(2)
    except OSError:  # a service may run without one
        yield
        return
    if sys.stderr is not None:
        sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


@contextlib.contextmanager
def _generator_as_found() -> Iterator[None]:
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


_only_errors = SharedChange(_level_of_errors)
_quiet_descriptor = SharedChange(_descriptor_to_nowhere)
# Keras warns for every model after the fifth that it traces functions again.
quiet_log = SharedChange(_level_of_logger)
# Layers draw seeds from `random`, even if their weights are replaced at once: the caller's random
# numbers would depend on whether rows were cached.
preserve_random_state = SharedChange(_generator_as_found)
