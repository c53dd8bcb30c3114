"""Inspection of untrusted HDF5 files in a child process.

A single wrong bit can make HDF5 crash the process or loop forever. Files that this library did
not write under a verified digest are therefore parsed by a child process with limits,
`featcache.hdf5.child`. The child opens no file: it requests bytes, and this process reads them.
If the child crashes, the file is refused and this process goes on.

One child inspects many files, one after the other, and exits after it has been idle for a while.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InspectionError, StoreFormatError
from .protocol import (
    DONE,
    HEADER,
    IDLE_STATUS,
    MAX_READ_BYTES,
    MAX_REPLY_BYTES,
    MEMORY_STATUS,
    READ,
    FileKind,
)
from .row_dtype import row_dtype
from .shard_metadata import ID_BYTES, Layout, ShardMetadata, check_layout, plausible_seconds
from .shard_name import shard_error

_SILENCE_SECONDS = 60.0
_SIGKILL_STATUS = -9  # as when the system is short of memory
_START = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "import json; sys.path[:] = json.loads(sys.argv[1]); "
    "from featcache.hdf5.child import main; main()"
)


class FileRefused(Exception):
    """A file that crashed the child or exceeded a limit; the message is the reason."""


class Inspector:
    """A child process that parses HDF5 files; started on first use."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self._lock = threading.Lock()

    def ask(self, kind: FileKind, file: IO[bytes], size: int) -> tuple[dict[str, Any], bytes]:
        """Let the child parse a file and return its answer.

        Parameters
        ----------
        kind : {"shard", "weights"}
        file : binary file
            Open for reading, can seek.
        size : int
            Its bytes.

        Returns
        -------
        (dict, bytes)

        Raises
        ------
        Refused
            If the child crashed or exceeded a limit while it parsed the file.
        InspectionError
            If the child cannot be started or reached, or is killed repeatedly: the file is not
            at fault.
        """
        with self._lock:
            killed = 0
            while True:
                process = self._started()
                try:
                    return _exchange(process, kind, file, size)
                except _ChildExited as ended:
                    self.close()
                    if ended.before_anything and process.returncode == IDLE_STATUS:
                        continue  # it had just exited because it was idle
                    if process.returncode == _SIGKILL_STATUS and not ended.silent and not killed:
                        killed += 1  # by the system or a user: the file is not at fault
                        continue
                    raise _exit_error(process.returncode, ended.silent) from None
                except OSError as error:
                    self._kill()
                    raise _unavailable_error(error) from error
                except BaseException:
                    self._kill()  # a child in the middle of an exchange cannot be reused
                    raise

    def close(self) -> None:
        """Stop the child; the next request starts another."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        with contextlib.suppress(OSError):
            _pipe(process.stdin).close()
        try:
            process.wait(1)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _pipe(process.stdout).close()

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
        self.close()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None:
            # Isolated: never import from the current folder. One thread: the threads of a linear
            # algebra library would reserve addresses that count towards the memory limit.
            command = [sys.executable, "-I", "-B", "-c", _START, json.dumps(_import_path())]
            try:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
                )  # fmt: skip
            except OSError as error:
                raise _unavailable_error(error) from error
        return self._process


def _import_path() -> list[str]:
    """Return the child's module search path, without entries relative to the current folder."""
    own = str(Path(__file__).parents[2])  # replaces a relative entry that stands for it
    places = [place for place in sys.path if isinstance(place, str) and os.path.isabs(place)]
    return [*places, own]


class _ChildExited(Exception):
    """The child exited in the middle of an exchange."""

    def __init__(self, before_anything: bool, silent: bool) -> None:
        super().__init__()
        self.before_anything, self.silent = before_anything, silent


def _exchange(
    process: subprocess.Popen[bytes], kind: FileKind, file: IO[bytes], size: int
) -> tuple[dict[str, Any], bytes]:
    """Send a request, serve the bytes that the child reads, and return its answer."""
    messages, most = 0, 1024 + 16 * (size // MAX_READ_BYTES)
    with _Watchdog(process) as watch:
        try:
            _send(process, json.dumps({"kind": kind, "size": size}).encode() + b"\n", watch)
            while True:
                tag, first, second = HEADER.unpack(_receive(process, HEADER.size, watch))
                messages += 1
                if tag == DONE:
                    return _receive_answer(process, first, second, size, watch)
                beyond = second > MAX_READ_BYTES or first + second > size
                if tag != READ or beyond or messages > most:
                    raise FileRefused("HDF5 reads it without end")
                _send(process, _read(file, first, second), watch)
        except (EOFError, BrokenPipeError):
            raise _ChildExited(messages == 0, watch.timed_out) from None


def _read(file: IO[bytes], offset: int, count: int) -> bytes:
    try:
        file.seek(offset)
        data = file.read(count)
    except OSError as error:
        raise FileRefused(f"it cannot be read ({error.strerror or error})") from error
    if len(data) != count:
        raise FileRefused("it was truncated while it was read")
    return data


def _receive_answer(
    process: subprocess.Popen[bytes], text_bytes: int, more_bytes: int, size: int, watch: _Watchdog
) -> tuple[dict[str, Any], bytes]:
    if text_bytes + more_bytes > MAX_REPLY_BYTES + 4 * size:
        raise FileRefused("HDF5 returns more data than the file contains")
    answer = json.loads(_receive(process, text_bytes, watch))
    return answer, _receive(process, more_bytes, watch)


def _send(process: subprocess.Popen[bytes], data: bytes, watch: _Watchdog) -> None:
    pipe = _pipe(process.stdin)
    with watch.waiting():
        pipe.write(data)
        pipe.flush()


def _receive(process: subprocess.Popen[bytes], count: int, watch: _Watchdog) -> bytes:
    with watch.waiting():
        data = _pipe(process.stdout).read(count)
    if len(data) != count:
        raise EOFError
    return data


class _Watchdog:
    """Kills a child that does not respond in time."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._since: float | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.timed_out = False

    def __enter__(self) -> _Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()  # a thread that still runs would be lost in a fork

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Measure the time that a block waits for the child."""
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = None

    def _run(self) -> None:
        while not self._over.wait(_SILENCE_SECONDS / 8):
            since = self._since
            if since is not None and time.monotonic() - since > _SILENCE_SECONDS:
                self.timed_out = True
                self._process.kill()
                return


def _exit_error(status: int, silent: bool) -> Exception:
    """Return the error for a child that ended before it answered."""
    if silent or (hasattr(signal, "SIGXCPU") and status == -signal.SIGXCPU):
        return FileRefused("HDF5 does not finish reading it")
    if status == MEMORY_STATUS:
        return FileRefused("HDF5 needs more memory than a file of its size should")
    if status < 0 and status != _SIGKILL_STATUS:
        return FileRefused(f"it crashes HDF5 ({signal.Signals(-status).name})")
    advice = (
        "Free some memory, then run the same command again."
        if status == _SIGKILL_STATUS
        else f"Check that `{sys.executable} -c 'import h5py'` works."
    )
    return InspectionError(
        f"The process that inspects HDF5 files ended with status {status}. {advice}",
        status=status,
    )


def _unavailable_error(error: OSError) -> InspectionError:
    reason = error.strerror or str(error)
    return InspectionError(
        f"The process that inspects HDF5 files cannot be started or reached: {reason}. Free some "
        "memory or processes, then run the same command again.",
        reason=reason,
    )


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


_inspector = Inspector()
atexit.register(lambda: _inspector.close())
_of_parents: list[Inspector] = []


def _after_fork() -> None:
    """Forget the parent's child process: two processes cannot use the same pipes."""
    global _inspector
    _of_parents.append(_inspector)
    _inspector = Inspector()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows does not fork
    os.register_at_fork(after_in_child=_after_fork)


def inspect_shard(path: Path) -> ShardMetadata:
    """Return the metadata of a shard, parsed by the child process.

    Parameters
    ----------
    path : Path
        A file whose SHA-256 is the one in its name. Anyone can create such a file, so that its
        content is still untrusted.

    Raises
    ------
    StoreFormatError
        If a newer version of this library wrote it.
    StoreCorrupt
        If it is not an intact shard.
    FileNotFoundError
        If it was removed, for example merged into a larger one.
    InspectionError
        If the child process cannot be started: the file is not at fault.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            answer, values = _inspector.ask("shard", file, size)
            if "version" in answer:
                raise StoreFormatError(
                    f"{path} has format version {int(answer['version'])}, which this featcache "
                    "does not read. Upgrade featcache, or name another cache folder.",
                    path=path,
                    version=int(answer["version"]),
                )
            if "reason" in answer:
                raise FileRefused(str(answer["reason"]))
            return _shard_metadata(answer, values, size)
        except FileRefused as error:
            raise shard_error(path, str(error)) from error
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            if isinstance(error, StoreFormatError):
                raise
            raise shard_error(path, "HDF5 reads contradictory metadata from it") from error


def _shard_metadata(answer: dict[str, Any], values: bytes, size: int) -> ShardMetadata:
    """Return the metadata in the child's answer; raise ValueError if it is inconsistent."""
    rows, width, per_chunk = (
        int(answer["rows"]),
        int(answer["width"]),
        int(answer["rows_per_chunk"]),
    )
    offsets: NDArray[np.int64] = np.array(answer["offsets"], np.int64)
    components = dict(answer["components"])
    layout = Layout(offsets, per_chunk, width, row_dtype(components))
    check_layout(layout, rows, size)
    ids = np.frombuffer(values, "u1", rows * ID_BYTES).reshape(rows, ID_BYTES)
    views = np.frombuffer(values, "<i4", rows, rows * ID_BYTES).astype(np.int32)
    return ShardMetadata(ids, views, layout, components, plausible_seconds(answer["seconds"]))


def unsafe_hdf5_reason(source: Path | IO[bytes]) -> str | None:
    """Return why an untrusted weights file should not be opened; None if it is safe.

    A child process reads the whole file as Keras would, so that a crash of HDF5 ends only the
    child. Links other than hard links are refused, and so are data sets outside the file, or of
    other types than Keras writes (numbers and text): they could open further files or allocate
    more memory than is available.

    Parameters
    ----------
    source : Path or binary file
        A seekable file, such as an uncompressed member of a zip archive.

    Raises
    ------
    InspectionError
        If the child process cannot be started: the file is not at fault.
    """
    try:
        with _opened(source) as file:
            size = file.seek(0, os.SEEK_END)
            answer, _ = _inspector.ask("weights", file, size)
            return None if answer["reason"] is None else str(answer["reason"])
    except FileRefused as error:
        return str(error)
    except OSError as error:
        return f"it cannot be read ({error.strerror or error})"


@contextlib.contextmanager
def _opened(source: Path | IO[bytes]) -> Iterator[IO[bytes]]:
    if isinstance(source, Path):
        with open(source, "rb") as file:
            yield file
    else:
        yield source
