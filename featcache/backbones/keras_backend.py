"""The only door to Keras.

Nothing else imports it. Backend-neutral: TensorFlow unless ``KERAS_BACKEND`` says otherwise.
What a step changes in the process is as before when the step ends, on an error as well.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sys
from collections.abc import Iterator
from typing import Any

from .._io.shared_change import SharedChange
from ..errors import InvalidRequest

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


def import_keras() -> Any:
    """Import Keras, with TensorFlow's start-up chatter off unless the user asked for it."""
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
    return keras


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Drop what libraries write to the standard error's descriptor, and TensorFlow's log lines.

    TensorFlow prints several lines before its own log level is read; they look like
    errors to a newcomer. Python's exceptions are not affected.
    """
    with quiet_log(), _quiet_descriptor():
        yield


def has_accelerator(keras: Any) -> bool:
    """Tell whether the backend computes on a GPU or TPU."""
    with contextlib.suppress(Exception):  # not every backend knows every kind of device
        return any(keras.distribution.list_devices(kind) for kind in ("gpu", "tpu"))
    return False


@contextlib.contextmanager
def _level_of_errors() -> Iterator[None]:
    """Let TensorFlow's library print errors only; it reads the variable once, at its first line."""
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
    """Let only errors of TensorFlow's logger through; notebooks show it beside the descriptor."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(max(level, logging.ERROR))
    try:
        yield
    finally:
        # What was set during that step, by TensorFlow as it was imported, stays.
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
# Keras warns of every model after the fifth that it traces their functions again.
quiet_log = SharedChange(_level_of_logger)
# Layers draw their seeds from `random`, also those whose weights are replaced at once: a caller's
# random numbers would depend on whether the rows were stored.
unmoved_random = SharedChange(_generator_as_found)
