"""Quarantine lists: JSON files in a store's folder that list images that cannot be decoded."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from .._io.atomic import write_atomic
from .._io.own_files import read_own_file

_NAME = re.compile(r"[0-9a-f]{8}-\d{6,}-(?P<sha>[0-9a-f]{64})\.quarantine\.json")
MAX_BYTES = 2**30
_MALFORMED = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


def write(folder: Path, prefix: str, reasons: Mapping[str, str]) -> None:
    """Commit a list of image id -> reason under a name that contains its SHA-256."""
    data = encode(reasons)
    write_atomic(folder / make_name(prefix, data), data, description="the quarantine list")


def encode(reasons: Mapping[str, str]) -> bytes:
    """Return the bytes of a list."""
    return json.dumps({"quarantine": dict(reasons)}, sort_keys=True).encode()


def make_name(prefix: str, data: bytes) -> str:
    """Return the name of a list with these bytes."""
    return f"{prefix}-{hashlib.sha256(data).hexdigest()}.quarantine.json"


def is_intact(path: Path) -> bool:
    """Return whether a list has the SHA-256 that is in its name."""
    match = _NAME.fullmatch(path.name)
    try:
        data = read_own_file(path, MAX_BYTES)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False  # a link or a pipe
    return match is not None and hashlib.sha256(data).hexdigest() == match["sha"]


def is_name(name: str) -> bool:
    """Return whether a file has the name of a quarantine list."""
    return _NAME.fullmatch(name) is not None


def read(folder: Path, names: Collection[str]) -> dict[str, str]:
    """Return image id -> reason from all intact lists among the files of a folder."""
    reasons: dict[str, str] = {}
    for name in sorted(names):
        match = _NAME.fullmatch(name)
        if match is None:
            continue
        # A damaged list is ignored: its images are decoded, and fail, once more.
        with contextlib.suppress(*_MALFORMED):
            data = read_own_file(folder / name, MAX_BYTES)
            if hashlib.sha256(data).hexdigest() == match["sha"]:
                reasons.update({str(k): str(v) for k, v in json.loads(data)["quarantine"].items()})
    return reasons
