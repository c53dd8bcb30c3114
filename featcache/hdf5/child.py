"""The child process that parses HDF5 files for `featcache.hdf5.sandbox`.

It cannot open or write files, cannot start processes that would need one, and may use only as
much memory and processor time as a file of the given size can need.
"""

from __future__ import annotations

import functools
import io
import json
import os
import select
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import StoreCorrupt, StoreFormatError
from .protocol import DONE, HEADER, IDLE_STATUS, MAX_READ_BYTES, MEMORY_STATUS, READ
from .shard_file import ShardFile, encode_shard
from .shard_metadata import ID_BYTES
from .weights_file import example_weights, unsafe_weights_reason

_IDLE_SECONDS = 30.0
_EXTRA_BYTES = 256 << 20
_EXTRA_SECONDS = 5
_BYTES_PER_SECOND = 10 << 20
_STANDARD_FILES = 3


class RemoteFile(io.RawIOBase):
    """A binary file whose bytes the parent process reads; caches the last blocks."""

    def __init__(self, size: int, requests: IO[bytes], replies: IO[bytes]) -> None:
        self._size, self._position = size, 0
        self._requests, self._replies = requests, replies
        self._block = functools.lru_cache(maxsize=64)(self._fetch)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to an offset and return it."""
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the whole buffer or raise `OSError`: HDF5 would use its previous content."""
        view = memoryview(buffer).cast("B")
        if self._position < 0 or self._position + len(view) > self._size:
            raise OSError("bytes beyond the end of the file were requested")
        done = 0
        while done < len(view):
            number, within = divmod(self._position + done, MAX_READ_BYTES)
            piece = self._block(number)[within : within + len(view) - done]
            view[done : done + len(piece)] = piece
            done += len(piece)
        self._position += done
        return done

    def _fetch(self, number: int) -> bytes:
        start = number * MAX_READ_BYTES
        count = min(MAX_READ_BYTES, self._size - start)
        self._replies.write(HEADER.pack(READ, start, count))
        self._replies.flush()
        data = self._requests.read(count)
        if len(data) != count:
            os._exit(0)  # the parent process has ended
        return data


def serve(requests: IO[bytes], replies: IO[bytes], limits: Limits) -> None:
    """Answer requests until the input ends."""
    while line := requests.readline():
        question = json.loads(line)
        size = int(question["size"])
        limits.set_limits(size)
        file = RemoteFile(size, requests, replies)
        answer, values = (_inspect_shard if question["kind"] == "shard" else _inspect_weights)(file)
        text = json.dumps(answer).encode()
        replies.write(HEADER.pack(DONE, len(text), len(values)) + text + values)
        replies.flush()
        limits.exit_if_idle(requests)


def _inspect_shard(file: IO[bytes] | io.RawIOBase) -> tuple[dict[str, Any], bytes]:
    try:
        with ShardFile(Path("shard"), file) as reader:
            metadata = reader.metadata
    except StoreCorrupt as error:
        return {"reason": error.reason}, b""
    except StoreFormatError as error:
        return {"version": error.version}, b""
    answer = {
        "rows": len(metadata.views),
        "width": metadata.width,
        "rows_per_chunk": metadata.layout.rows_per_chunk,
        "offsets": metadata.layout.offsets.tolist(),
        "components": metadata.components,
        "seconds": metadata.seconds,
    }
    return answer, metadata.image_ids.tobytes() + metadata.views.astype("<i4").tobytes()


def _inspect_weights(file: IO[bytes] | io.RawIOBase) -> tuple[dict[str, Any], bytes]:
    return {"reason": unsafe_weights_reason(file)}, b""


class Limits:
    """Resource limits of this process; without system support only the parent's limits apply."""

    def __init__(self) -> None:
        try:
            import resource

            self._resource: Any = resource
            # Not psutil: this process imports as little as it can.
            with open("/proc/self/statm", "rb") as file:
                pages = int(file.read().split()[0])
            self._addresses = pages * resource.getpagesize()
        except (ImportError, OSError):
            self._resource, self._addresses = None, 0

    def forbid_files(self) -> None:
        """Forbid this process to open or write files, core dumps included."""
        if self._resource is None:
            return
        for kind, most in (
            (self._resource.RLIMIT_FSIZE, 0),
            (self._resource.RLIMIT_CORE, 0),
            (self._resource.RLIMIT_NOFILE, _STANDARD_FILES),
        ):
            self._resource.setrlimit(kind, (most, most))

    def set_limits(self, size: int) -> None:
        """Limit memory and processor time to what parsing a file of `size` bytes can need."""
        if self._resource is None:
            return
        used = self._resource.getrusage(self._resource.RUSAGE_SELF)
        seconds = (
            int(used.ru_utime + used.ru_stime) + 1 + _EXTRA_SECONDS + size // _BYTES_PER_SECOND
        )
        self._lower(self._resource.RLIMIT_CPU, seconds)
        self._lower(self._resource.RLIMIT_AS, self._addresses + _EXTRA_BYTES + 4 * size)

    def exit_if_idle(self, requests: IO[bytes]) -> None:
        """Exit unless another request arrives within the idle time."""
        if self._resource is not None and not select.select([requests], [], [], _IDLE_SECONDS)[0]:
            os._exit(IDLE_STATUS)

    def _lower(self, kind: int, most: int) -> None:
        _, hard = self._resource.getrlimit(kind)
        if hard != self._resource.RLIM_INFINITY:
            most = min(most, hard)
        self._resource.setrlimit(kind, (most, hard))


def warm_up() -> None:
    """Parse example files of all kinds, so that lazy imports happen before files are forbidden."""
    rows, views = np.zeros((1, 1), np.float32), np.zeros(1, np.int32)
    data, _ = encode_shard(rows, np.zeros((1, ID_BYTES), np.uint8), views, {}, {})
    for image in (data, example_weights()):
        for length in (len(image), len(image) // 2, 3):
            _inspect_shard(io.BytesIO(image[:length]))
            _inspect_weights(io.BytesIO(image[:length]))


def main() -> None:
    """Answer the requests on standard input."""
    try:
        warm_up()
        limits = Limits()
        limits.forbid_files()
        serve(sys.stdin.buffer, sys.stdout.buffer, limits)
    except MemoryError:
        os._exit(MEMORY_STATUS)
    except BrokenPipeError:
        os._exit(0)
