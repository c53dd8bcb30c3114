"""The only door to Keras.

Nothing else imports it. Backend-neutral: TensorFlow unless ``KERAS_BACKEND`` says otherwise.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

from ..errors import InvalidRequest


def import_keras() -> Any:
    """Import Keras, with TensorFlow's start-up chatter off unless the user asked for it."""
    level = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if level in ("0", "1") or "keras" in sys.modules:
        import keras
    else:
        # Warns of every model after the fifth that it traces their functions again.
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
        with quiet_stderr():
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
    with _quiet_logger("tensorflow"):
        yield from _quiet_descriptor()


@contextlib.contextmanager
def _quiet_logger(name: str) -> Iterator[None]:
    """Let only errors through; in a notebook log lines do not go by the descriptor."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(max(level, logging.ERROR))
    try:
        yield
    finally:
        # What was set meanwhile, by TensorFlow as it was imported, stays.
        if logger.level == max(level, logging.ERROR):
            logger.setLevel(level)


def _quiet_descriptor() -> Iterator[None]:
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


def has_accelerator(keras: Any) -> bool:
    """Tell whether the backend computes on a GPU or TPU."""
    with contextlib.suppress(Exception):  # not every backend knows every kind of device
        return any(keras.distribution.list_devices(kind) for kind in ("gpu", "tpu"))
    return False
