"""An exclusive lease on a store, for the few actions that remove files.

A lease is a file made with O_EXCL, which also holds on network disks where locks do not.
It is renewed by nobody: whoever finds one older than `LIFETIME`, or whose process on this
machine is gone, takes it over.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

NAME = ".lease"
LIFETIME = 600.0


@contextlib.contextmanager
def lease(folder: Path, wait: float = 0.0) -> Iterator[bool]:
    """Hold the lease of a store; yields False if another process holds it.

    Parameters
    ----------
    folder : Path
    wait : float
        Seconds to wait for it.
    """
    path = folder / NAME
    token = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "id": uuid.uuid4().hex})
    deadline = time.monotonic() + wait
    while True:
        held = _take(path, token) or (_abandoned(path) and _take_over(path, token))
        if held or time.monotonic() >= deadline:
            break
        time.sleep(0.02)
    try:
        yield held
    finally:
        if held and _read(path) == token:
            with contextlib.suppress(OSError):
                path.unlink()


def _take(path: Path, token: str) -> bool:
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(token)
    except OSError:
        return False
    return True


def _take_over(path: Path, token: str) -> bool:
    # Renamed away first: of two that find the same dead lease, one rename fails.
    grave = path.with_name(f"{NAME}-{uuid.uuid4().hex}")
    try:
        os.rename(path, grave)
        grave.unlink()
    except OSError:
        return False
    return _take(path, token)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _abandoned(path: Path) -> bool:
    try:
        if time.time() - path.stat().st_mtime > LIFETIME:
            return True
        owner = json.loads(_read(path))
        if owner["host"] != socket.gethostname():
            return False
        os.kill(int(owner["pid"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return False
