"""The formats of network files by name, for the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..errors import InvalidRequest

if TYPE_CHECKING:
    from .bundle import Bundle

NetworkFormat = Literal["onnx", "openvino", "tflite"]
NETWORK_FORMATS: tuple[NetworkFormat, ...] = get_args(NetworkFormat)

_BY_ENDING: dict[str, NetworkFormat] = {"onnx": "onnx", "tflite": "tflite"}


def network_format(path: str, format: NetworkFormat | None = None) -> NetworkFormat:
    """Return the format of a network to write: the given one, or that of the path's ending.

    Raises
    ------
    InvalidRequest
        If the ending does not say which, or says another one.

    Examples
    --------
    >>> network_format("dogs.onnx"), network_format("dogs", "openvino")
    ('onnx', 'openvino')
    """
    ending = Path(path).suffix.lower().removeprefix(".")
    by_ending = _BY_ENDING.get(ending)
    if format and by_ending and format != by_ending:
        raise InvalidRequest(
            f"The ending of {Path(path).name!r} belongs to the format {by_ending!r}, and "
            f"{format!r} was asked for; leave out one of them.",
            received=path,
        )
    found = format or by_ending
    if found is None:
        raise InvalidRequest(
            f"The ending of {Path(path).name!r} does not say the format: name a file that ends in "
            ".onnx or .tflite, or give --format openvino for a folder.",
            received=path,
        )
    return found


def write_network(bundle: Bundle, path: str, format: NetworkFormat, **options: Any) -> None:
    """Write a bundle as a network, with the options of `Bundle.to_onnx`."""
    write = {"onnx": bundle.to_onnx, "openvino": bundle.to_openvino, "tflite": bundle.to_tflite}
    write[format](path, **options)
