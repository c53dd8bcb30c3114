"""HDF5 files that nobody vouches for, opened in a process of their own.

HDF5 may crash the process over a single wrong bit, or never come to an end. What was not
written by this library under a digest that was checked is therefore parsed by a child process
with limits, `featcache.hdf5.child`. It has no file in its hands: it asks for bytes, and
this side reads them. If it dies, the file is refused and nothing else happens.

One child serves many files, one after the other, and ends when it has been idle for a while.
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
    IDLE_STATUS,
    MEMORY_STATUS,
    MOST_READ_BYTES,
    MOST_REPLY_BYTES,
    NUMBERS,
    READ,
    FileKind,
)
from .shard_metadata import ID_BYTES, Layout, ShardMetadata, check_layout
from .shard_name import corrupt

_SILENCE_SECONDS = 60.0
_KILLED = -9  # by SIGKILL, as where memory is short
_START = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "import json; sys.path[:] = json.loads(sys.argv[1]); "
    "from featcache.hdf5.child import main; main()"
)


class Refused(Exception):
    """A file that the child did not survive, or should not be asked about; says why."""


class Inspector:
    """A child process that parses HDF5 files for this one; started when it is needed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self._lock = threading.Lock()

    def ask(self, kind: FileKind, file: IO[bytes], size: int) -> tuple[dict[str, Any], bytes]:
        """Have a file parsed; return what the child found.

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
            If the child crashed over it, or went beyond a limit.
        InspectionError
            If the child cannot be started or reached, or is killed again and again; says
            nothing of the file.
        """
        with self._lock:
            killed = 0
            while True:
                process = self._started()
                try:
                    return _converse(process, kind, file, size)
                except _Ended as ended:
                    self.close()
                    if ended.before_anything and process.returncode == IDLE_STATUS:
                        continue  # it had just gone to rest
                    if process.returncode == _KILLED and not ended.silent and not killed:
                        killed += 1  # by the system or by somebody: that was not the file
                        continue
                    raise _verdict(process.returncode, ended.silent) from None
                except OSError as error:
                    self._kill()
                    raise _unreachable(error) from error
                except BaseException:
                    self._kill()  # in the middle of a conversation it is of no more use
                    raise

    def close(self) -> None:
        """End the child; the next question starts another."""
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
            # Isolated: what lies in the current folder is never imported. One thread: those
            # of a library for linear algebra would reserve addresses that the limit counts.
            command = [sys.executable, "-I", "-B", "-c", _START, json.dumps(_import_path())]
            try:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
                )  # fmt: skip
            except OSError as error:
                raise _unreachable(error) from error
        return self._process


def _import_path() -> list[str]:
    """Return where the child finds modules: nowhere that depends on the current folder."""
    own = str(Path(__file__).parents[2])  # where "" stands for it
    places = [place for place in sys.path if isinstance(place, str) and os.path.isabs(place)]
    return [*places, own]


class _Ended(Exception):
    """The child's end, in the middle of a conversation."""

    def __init__(self, before_anything: bool, silent: bool) -> None:
        super().__init__()
        self.before_anything, self.silent = before_anything, silent


def _converse(
    process: subprocess.Popen[bytes], kind: FileKind, file: IO[bytes], size: int
) -> tuple[dict[str, Any], bytes]:
    """Ask, hand over the bytes that the child asks for, and return its answer."""
    messages, most = 0, 1024 + 16 * (size // MOST_READ_BYTES)
    with _Watch(process) as watch:
        try:
            _send(process, json.dumps({"kind": kind, "size": size}).encode() + b"\n", watch)
            while True:
                tag, first, second = NUMBERS.unpack(_receive(process, NUMBERS.size, watch))
                messages += 1
                if tag == DONE:
                    return _answer(process, first, second, size, watch)
                beyond = second > MOST_READ_BYTES or first + second > size
                if tag != READ or beyond or messages > most:
                    raise Refused("HDF5 asks for bytes without end")
                _send(process, _read(file, first, second), watch)
        except (EOFError, BrokenPipeError):
            raise _Ended(messages == 0, watch.barked) from None


def _read(file: IO[bytes], offset: int, count: int) -> bytes:
    try:
        file.seek(offset)
        data = file.read(count)
    except OSError as error:
        raise Refused(f"it cannot be read ({error.strerror or error})") from error
    if len(data) != count:
        raise Refused("it is shorter than it was")
    return data


def _answer(
    process: subprocess.Popen[bytes], text_bytes: int, more_bytes: int, size: int, watch: _Watch
) -> tuple[dict[str, Any], bytes]:
    if text_bytes + more_bytes > MOST_REPLY_BYTES + 4 * size:
        raise Refused("HDF5 makes more of it than it holds")
    said = json.loads(_receive(process, text_bytes, watch))
    return said, _receive(process, more_bytes, watch)


def _send(process: subprocess.Popen[bytes], data: bytes, watch: _Watch) -> None:
    pipe = _pipe(process.stdin)
    with watch.waiting():
        pipe.write(data)
        pipe.flush()


def _receive(process: subprocess.Popen[bytes], count: int, watch: _Watch) -> bytes:
    with watch.waiting():
        data = _pipe(process.stdout).read(count)
    if len(data) != count:
        raise EOFError
    return data


class _Watch:
    """Kills a child that stays silent for too long while this side waits for it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._since: float | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.barked = False

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()  # no thread is left that a fork could lose

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the seconds of a block."""
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = None

    def _run(self) -> None:
        while not self._over.wait(_SILENCE_SECONDS / 8):
            since = self._since
            if since is not None and time.monotonic() - since > _SILENCE_SECONDS:
                self.barked = True
                self._process.kill()
                return


def _verdict(status: int, silent: bool) -> Exception:
    """Return the error for a child that ended before it answered."""
    if silent or (hasattr(signal, "SIGXCPU") and status == -signal.SIGXCPU):
        return Refused("HDF5 does not come to an end with it")
    if status == MEMORY_STATUS:
        return Refused("HDF5 needs more memory for it than a file of its size may take")
    if status < 0 and status != _KILLED:
        return Refused(f"HDF5 crashes over it ({signal.Signals(-status).name})")
    advice = (
        "Free some memory, then run the same command again."
        if status == _KILLED
        else f"Check that `{sys.executable} -c 'import h5py'` works."
    )
    return InspectionError(
        f"The process that inspects HDF5 files ended with status {status}. {advice}",
        status=status,
    )


def _unreachable(error: OSError) -> InspectionError:
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
    """Leave the child to the process that started it: two cannot talk to one."""
    global _inspector
    _of_parents.append(_inspector)
    _inspector = Inspector()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows does not fork
    os.register_at_fork(after_in_child=_after_fork)


def inspect_shard(path: Path) -> ShardMetadata:
    """Return what a shard says of itself, parsed by the child process.

    Parameters
    ----------
    path : Path
        A file whose SHA-256 is the one in its name, which anybody can bring about.

    Raises
    ------
    StoreFormatError
        If a newer version of this library wrote it.
    StoreCorrupt
        If it is anything but an intact shard.
    FileNotFoundError
        If it is gone: merged into a larger one, perhaps.
    InspectionError
        If the child process cannot be started; says nothing of the file.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            said, values = _inspector.ask("shard", file, size)
            if "version" in said:
                raise StoreFormatError(
                    f"{path} has format version {int(said['version'])}, which this featcache does "
                    "not read. Upgrade featcache, or name another cache folder.",
                    path=path,
                    version=int(said["version"]),
                )
            if "reason" in said:
                raise Refused(str(said["reason"]))
            return _shard_metadata(said, values, size)
        except Refused as error:
            raise corrupt(path, str(error)) from error
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            if isinstance(error, StoreFormatError):
                raise
            raise corrupt(path, "HDF5 makes no sense of it") from error


def _shard_metadata(said: dict[str, Any], values: bytes, size: int) -> ShardMetadata:
    """Build a metadata from the child's answer; raise ValueError if that cannot be."""
    rows, width, per_chunk = int(said["rows"]), int(said["width"]), int(said["rows_per_chunk"])
    offsets: NDArray[np.int64] = np.array(said["offsets"], np.int64)
    layout = Layout(offsets, per_chunk, width)
    check_layout(layout, rows, size)
    ids = np.frombuffer(values, "u1", rows * ID_BYTES).reshape(rows, ID_BYTES)
    views = np.frombuffer(values, "<i4", rows, rows * ID_BYTES).astype(np.int32)
    return ShardMetadata(ids, views, layout, dict(said["components"]), float(said["seconds"]))


def foreign_reason(source: Path | IO[bytes]) -> str | None:
    """Say why a file of weights from elsewhere should not be opened; None if it is as usual.

    A child process reads the whole file as Keras does, so that what HDF5 does not survive
    ends the child. Only hard links are followed, and every data set must lie in the file,
    whole and with numbers or text in it: what Keras writes. Others could open further files,
    or claim more memory than there is.

    Parameters
    ----------
    source : Path or binary file
        A file that can seek, such as a stored member of a zip archive.

    Raises
    ------
    InspectionError
        If the child process cannot be started; says nothing of the file.
    """
    try:
        with _opened(source) as file:
            size = file.seek(0, os.SEEK_END)
            said, _ = _inspector.ask("weights", file, size)
            return None if said["reason"] is None else str(said["reason"])
    except Refused as error:
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
