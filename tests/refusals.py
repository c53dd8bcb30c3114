"""Calls of the system that fail, for as many times as a test says."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ALWAYS = 10**9


def refuse(
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    code: int,
    *,
    concerns: Callable[..., bool] = lambda *_: True,
    times: int = ALWAYS,
) -> list[Any]:
    """Make a function raise `OSError` for arguments that a test chooses; return the failed calls.

    Other calls, and those after the given number of failures, reach the real function.
    """
    real, failed = getattr(owner, name), list[Any]()

    def refusing(*arguments: Any, **options: Any) -> Any:
        if len(failed) < times and concerns(*arguments):
            failed.append(arguments)
            raise OSError(code, os.strerror(code), str(arguments[0]))
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, refusing)
    return failed


def before_first_call(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, act: Callable[[], object]
) -> list[int]:
    """Act as another process does just before the first call of a function."""
    real, calls = getattr(owner, name), list[int]()

    def wrapped(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            act()
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, wrapped)
    return calls


def open_files(folder: Path) -> list[str]:
    """Return the files below a folder that this process has open, deleted ones included."""
    found = []
    for handle in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{handle}"))
    return [path for path in found if path.startswith(str(folder))]
