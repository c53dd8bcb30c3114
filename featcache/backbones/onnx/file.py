"""ONNX files: read once, checked, and parsed. Nothing that they name is opened."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from ..._io.own_files import open_to_read
from ..._io.paths import absolute_path
from ..._io.wording import first_line
from ...errors import ModelRefused
from .library import import_onnx
from .wire import check_encoding

ONNX_SUFFIX = ".onnx"
# Protocol Buffers have no larger messages.
_MAX_BYTES = 2**31 - 1


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file as it was read.

    Attributes
    ----------
    path : Path
        Absolute.
    digest : str
        SHA-256 of the bytes that were read, in hexadecimal digits.
    model : onnx.ModelProto
        As parsed from these bytes. Untrusted: what it holds is checked where it is used.
    """

    path: Path
    digest: str
    model: Any = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """The file name without its ending."""
        return self.path.stem


def is_onnx_file(backbone: object) -> TypeGuard[str | os.PathLike[str]]:
    """Return whether the argument `backbone` is the path of an ONNX network."""
    if not isinstance(backbone, (str, os.PathLike)):
        return False
    return os.fspath(backbone).lower().endswith(ONNX_SUFFIX)


def read_onnx_file(path: str | os.PathLike[str]) -> OnnxFile:
    """Read and parse an ONNX file. The file is read once, so that it cannot change in between.

    A link to the file is followed, since caches of downloads consist of links.

    Raises
    ------
    ModelRefused
        If there is no such file, or it is not an ONNX network.
    MissingExtra
        If `onnx` is not installed.
    """
    path = absolute_path(path)
    onnx = import_onnx()
    try:
        data = _read(path)
        check_encoding(data)
        model = onnx.ModelProto.FromString(data)
    except FileNotFoundError as error:
        raise ModelRefused(f"There is no model file {path}.", path=path) from error
    except Exception as error:  # the parser raises kinds of its own
        raise refusal(path, first_line(error, 300)) from error
    return OnnxFile(path, hashlib.sha256(data).hexdigest(), model)


def refusal(path: Path, reason: str) -> ModelRefused:
    """Return the error for a network that is not used, for a reason without a full stop."""
    return ModelRefused(f"The ONNX network {path} is not used: {reason}.", path=path, reason=reason)


def _read(path: Path) -> bytes:
    with open(open_to_read(path), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a regular file")
        if status.st_size > _MAX_BYTES:
            raise ValueError(f"it has {status.st_size:,} bytes; the limit is {_MAX_BYTES:,}")
        data = file.read(status.st_size + 1)
    if len(data) != status.st_size:
        raise ValueError("it changed while it was read")
    if not data:
        raise ValueError("it is empty")
    return data
