"""Runs an encoded network with ONNX Runtime, on the processor."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .library import import_onnxruntime
from .rebuild import PIXELS

# Of the values of an image between all nodes of a network that was not run before.
_MAX_BYTES = 4 * 2**30
_MAX_SECONDS = 300
_FATAL = 4

Run = Callable[[NDArray[np.float32]], NDArray[Any]]


def open_session(encoded: bytes, threads: int = 0) -> Run:
    """Return a function that runs a network on pixels (b, h, w, 3).

    Parameters
    ----------
    encoded : bytes
    threads : int
        Number of threads, with the one that calls. Default: one per core.
    """
    options = import_onnxruntime().SessionOptions()
    options.intra_op_num_threads = threads
    return _open(encoded, options)


def open_limited_session(encoded: bytes) -> Run:
    """Return a function that runs a network within 4 GiB and five minutes, as it is, for a trial.

    Some bytes of a file can ask for an array of terabytes. The time ends between two nodes.
    """
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    # Otherwise such an array could be made, outside the limit, when the network is optimized.
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    if _limit_memory():
        options.add_session_config_entry("session.use_env_allocators", "1")
    run_options = runtime.RunOptions()
    run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    run = _open(encoded, options, run_options)

    def run_limited(pixels: NDArray[np.float32]) -> NDArray[Any]:
        timer = threading.Timer(_MAX_SECONDS, lambda: setattr(run_options, "terminate", True))
        timer.start()
        try:
            return run(pixels)
        finally:
            timer.cancel()

    return run_limited


@functools.cache
def _limit_memory() -> bool:
    """Register the allocator of trials with ONNX Runtime, which keeps it for the process."""
    runtime = import_onnxruntime()
    place = runtime.OrtMemoryInfo(
        "Cpu", runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, runtime.OrtMemType.DEFAULT
    )
    limit = runtime.OrtArenaCfg({"max_mem": _MAX_BYTES, "arena_extend_strategy": 1})
    try:
        runtime.create_and_register_allocator(place, limit)
    except Exception:  # the application has registered one of its own
        return False
    return True


def _open(encoded: bytes, options: Any, run_options: Any = None) -> Run:
    options.log_severity_level = _FATAL  # errors are raised as well
    session = import_onnxruntime().InferenceSession(
        encoded, options, providers=["CPUExecutionProvider"]
    )

    def run(pixels: NDArray[np.float32]) -> NDArray[Any]:
        (found,) = session.run(None, {PIXELS: pixels}, run_options)
        return np.asarray(found)

    return run
