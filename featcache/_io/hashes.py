"""Hashes of whole files and of JSON values."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

Algorithm = Literal["sha256", "md5"]


def file_hash(path: Path, kind: Algorithm = "sha256") -> str:
    """Return the hash of a file's bytes, in hexadecimal digits.

    Parameters
    ----------
    path : Path
    kind : {"sha256", "md5"}
        MD5 only for files that were published with it: it detects truncated downloads, not
        manipulation.
    """
    digest = hashlib.new(kind, usedforsecurity=False)
    # One small buffer that is reused and stays in the processor's cache.
    block = memoryview(bytearray(1 << 18))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(block[:count])
    return digest.hexdigest()


def json_hash(value: Any) -> str:
    """Return the SHA-256 of a JSON value, in hexadecimal digits; the order of keys does not count.

    Examples
    --------
    >>> json_hash({"a": 1, "b": [2]}) == json_hash({"b": [2], "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
