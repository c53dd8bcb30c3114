"""Import of the packages of the extra `onnx`; the only module that imports them."""

from __future__ import annotations

from typing import Any

from ..._io.wording import install_hint
from ...errors import MissingExtra


def import_onnx() -> Any:
    """Return the module `onnx`; raise `MissingExtra` if it is not installed."""
    try:
        import onnx
    except ImportError as error:
        raise _missing("onnx", error) from error
    return onnx


def import_onnxruntime() -> Any:
    """Return the module `onnxruntime`; raise `MissingExtra` if it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise _missing("onnxruntime", error) from error
    return onnxruntime


def _missing(package: str, error: ImportError) -> MissingExtra:
    return MissingExtra(
        f"ONNX networks need the packages onnx and onnxruntime ({error}): {install_hint('onnx')}.",
        package=package,
    )
