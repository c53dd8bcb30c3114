"""Hashes of whole files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

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
