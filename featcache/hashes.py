"""Hashes of whole files."""

from __future__ import annotations

import hashlib
from pathlib import Path


def file_hash(path: Path, kind: str = "sha256") -> str:
    """Return the hash of a file's bytes, in hexadecimal digits.

    Parameters
    ----------
    path : Path
    kind : {"sha256", "md5"}
        MD5 is for what others published with it, and guards against cut-off files only.
    """
    sum_ = hashlib.new(kind, usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            sum_.update(block)
    return sum_.hexdigest()
