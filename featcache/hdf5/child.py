"""The child process that parses HDF5 files for `featcache.hdf5.sandbox`.

It can open no file, start no process that would need one, write no file, and use no more
memory and time than a file of the size in question may take.
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
from .protocol import DONE, IDLE_STATUS, MEMORY_STATUS, MOST_READ_BYTES, NUMBERS, READ
from .shard_file import ShardFile, encode_shard
from .shard_metadata import ID_BYTES
from .weights_file import example_weights, weights_reason

_IDLE_SECONDS = 30.0
_SPARE_BYTES = 256 << 20
_SPARE_SECONDS = 5
_BYTES_A_SECOND = 10 << 20
_STANDARD_FILES = 3


class RemoteFile(io.RawIOBase):
    """A file whose bytes the other process reads; blocks of it are kept for a while."""

    def __init__(self, size: int, requests: IO[bytes], replies: IO[bytes]) -> None:
        self._size, self._at = size, 0
        self._requests, self._replies = requests, replies
        self._block = functools.lru_cache(maxsize=64)(self._fetch)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to an offset; return it."""
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer whole, or raise `OSError`: HDF5 would take what lay in it before."""
        view = memoryview(buffer).cast("B")
        if self._at < 0 or self._at + len(view) > self._size:
            raise OSError("bytes beyond the end of the file are asked for")
        done = 0
        while done < len(view):
            number, within = divmod(self._at + done, MOST_READ_BYTES)
            piece = self._block(number)[within : within + len(view) - done]
            view[done : done + len(piece)] = piece
            done += len(piece)
        self._at += done
        return done

    def _fetch(self, number: int) -> bytes:
        start = number * MOST_READ_BYTES
        count = min(MOST_READ_BYTES, self._size - start)
        self._replies.write(NUMBERS.pack(READ, start, count))
        self._replies.flush()
        data = self._requests.read(count)
        if len(data) != count:
            os._exit(0)  # nobody is there any more
        return data


def serve(requests: IO[bytes], replies: IO[bytes], limits: Limits) -> None:
    """Answer questions until there are no more."""
    while line := requests.readline():
        question = json.loads(line)
        size = int(question["size"])
        limits.allow(size)
        file = RemoteFile(size, requests, replies)
        said, values = (_shard if question["kind"] == "shard" else _weights)(file)
        text = json.dumps(said).encode()
        replies.write(NUMBERS.pack(DONE, len(text), len(values)) + text + values)
        replies.flush()
        limits.wait(requests)


def _shard(file: IO[bytes] | io.RawIOBase) -> tuple[dict[str, Any], bytes]:
    try:
        with ShardFile(Path("shard"), file) as reader:
            metadata = reader.metadata
    except StoreCorrupt as error:
        return {"reason": error.evidence["reason"]}, b""
    except StoreFormatError as error:
        return {"version": error.evidence["version"]}, b""
    said = {
        "rows": len(metadata.views),
        "width": metadata.width,
        "rows_per_chunk": metadata.layout.rows_per_chunk,
        "offsets": metadata.layout.offsets.tolist(),
        "components": metadata.components,
        "seconds": metadata.seconds,
    }
    return said, metadata.image_ids.tobytes() + metadata.views.astype("<i4").tobytes()


def _weights(file: IO[bytes] | io.RawIOBase) -> tuple[dict[str, Any], bytes]:
    return {"reason": weights_reason(file)}, b""


class Limits:
    """The limits of this process; on systems without them, those of the other side hold."""

    def __init__(self) -> None:
        try:
            import resource

            self._resource: Any = resource
            with open("/proc/self/statm", "rb") as file:
                pages = int(file.read().split()[0])
            self._addresses = pages * resource.getpagesize()
        except (ImportError, OSError):
            self._resource, self._addresses = None, 0

    def close_doors(self) -> None:
        """Open and write no file from now on, and leave none behind after a crash."""
        if self._resource is None:
            return
        for kind, most in (
            (self._resource.RLIMIT_FSIZE, 0),
            (self._resource.RLIMIT_CORE, 0),
            (self._resource.RLIMIT_NOFILE, _STANDARD_FILES),
        ):
            self._resource.setrlimit(kind, (most, most))

    def allow(self, size: int) -> None:
        """Allow as much memory and processor time as a file of some bytes may take."""
        if self._resource is None:
            return
        used = self._resource.getrusage(self._resource.RUSAGE_SELF)
        seconds = int(used.ru_utime + used.ru_stime) + 1 + _SPARE_SECONDS + size // _BYTES_A_SECOND
        self._lower(self._resource.RLIMIT_CPU, seconds)
        self._lower(self._resource.RLIMIT_AS, self._addresses + _SPARE_BYTES + 4 * size)

    def wait(self, requests: IO[bytes]) -> None:
        """End this process if no question comes for a while."""
        if self._resource is not None and not select.select([requests], [], [], _IDLE_SECONDS)[0]:
            os._exit(IDLE_STATUS)

    def _lower(self, kind: int, most: int) -> None:
        _, hard = self._resource.getrlimit(kind)
        if hard != self._resource.RLIM_INFINITY:
            most = min(most, hard)
        self._resource.setrlimit(kind, (most, hard))


def warm_up() -> None:
    """Parse files of all kinds once, so that whatever Python imports late is there."""
    rows, views = np.zeros((1, 1), np.float32), np.zeros(1, np.int32)
    data, _ = encode_shard(rows, np.zeros((1, ID_BYTES), np.uint8), views, {}, {})
    for image in (data, example_weights()):
        for length in (len(image), len(image) // 2, 3):
            _shard(io.BytesIO(image[:length]))
            _weights(io.BytesIO(image[:length]))


def main() -> None:
    """Answer the questions that come by standard input."""
    try:
        warm_up()
        limits = Limits()
        limits.close_doors()
        serve(sys.stdin.buffer, sys.stdout.buffer, limits)
    except MemoryError:
        os._exit(MEMORY_STATUS)
    except BrokenPipeError:
        os._exit(0)
