"""Lists of images that cannot be decoded: small sealed JSON files beside a store's shards."""

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
_MOST_BYTES = 2**30
_MALFORMED = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


def write(folder: Path, prefix: str, reasons: Mapping[str, str]) -> None:
    """Commit a list of content id -> reason under a name that holds its SHA-256."""
    data = json.dumps({"quarantine": dict(reasons)}, sort_keys=True).encode()
    name = f"{prefix}-{hashlib.sha256(data).hexdigest()}.quarantine.json"
    write_atomic(folder / name, data, description="the quarantine list")


def is_sound(path: Path) -> bool:
    """Tell whether a list's bytes are those that were committed."""
    match = _NAME.fullmatch(path.name)
    try:
        data = read_own_file(path, _MOST_BYTES)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False  # a link or a pipe
    return match is not None and hashlib.sha256(data).hexdigest() == match["sha"]


def is_name(name: str) -> bool:
    """Tell whether a file's name is that of a quarantine list."""
    return _NAME.fullmatch(name) is not None


def read(folder: Path, names: Collection[str]) -> dict[str, str]:
    """Join the sound lists among the files of a folder; content id -> reason."""
    reasons: dict[str, str] = {}
    for name in sorted(names):
        match = _NAME.fullmatch(name)
        if match is None:
            continue
        # A damaged list costs one more try at each of its images, nothing else.
        with contextlib.suppress(*_MALFORMED):
            data = read_own_file(folder / name, _MOST_BYTES)
            if hashlib.sha256(data).hexdigest() == match["sha"]:
                reasons.update({str(k): str(v) for k, v in json.loads(data)["quarantine"].items()})
    return reasons
