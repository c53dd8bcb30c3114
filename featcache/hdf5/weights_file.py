"""A look at weights from elsewhere before Keras opens them."""

from __future__ import annotations

import io
from typing import IO, Any

import h5py
import numpy as np

from .._io.wording import first_line

_BLOCK_BYTES = 16 << 20
_VALUES = (
    np.float16(1),
    np.arange(2),
    np.array([b"text"]),
    np.bool_(True),
    np.complex64(1),
    "text",
)


def weights_reason(source: IO[bytes] | io.RawIOBase) -> str | None:
    """Say why a file of weights should not be opened; None if it is as usual.

    Everything that Keras reads is read, by the same library: call this only where its crash
    does no harm. `featcache.hdf5.sandbox.foreign_reason` does so in a process of its own.
    """
    try:
        with h5py.File(source, "r") as file:
            _read_attributes(file)
            return _odd_member(file, file.id.get_filesize(), set())
    except MemoryError:
        raise  # says nothing of the structure
    except OSError as error:
        return f"HDF5 cannot open it ({first_line(error)})"
    except Exception as error:  # h5py raises many kinds on damaged structures
        return f"its structure is damaged ({first_line(error)})"


def example_weights() -> bytes:
    """Return a small file that has whatever files of weights are seen to have."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        group = file.create_group("layers")
        for number, value in enumerate(_VALUES):
            group[str(number)] = value
            file.attrs[str(number)] = value
        group["chunked"] = file.create_dataset("c", (4,), "<f4", chunks=(2,), compression="gzip")
        group["text"] = "text"
        file.attrs["empty"] = h5py.Empty("f")
        file.attrs["reference"] = group.ref
    return buffer.getvalue()


def _odd_member(group: h5py.Group, size: int, seen: set[int]) -> str | None:
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            return f"{name!r} is a link to somewhere else"
        member = group[name]
        address = h5py.h5o.get_info(member.id).addr
        if address in seen:  # a group that holds itself would be walked for ever
            continue
        seen.add(address)
        if isinstance(member, h5py.Group):
            reason = _odd_member(member, size, seen)
        else:
            reason = _odd_values(name, member, size)
        if reason is not None:
            return reason
        _read_attributes(member)
    return None


def _odd_values(name: str, member: Any, size: int) -> str | None:
    if not isinstance(member, h5py.Dataset):
        return f"{name!r} is neither a group nor a data set"
    if member.is_virtual or member.external:
        return f"{name!r} keeps its data outside the file"
    if member.dtype.kind not in "fiubS" or member.nbytes > size:
        return f"{name!r} declares {member.nbytes:,} bytes of {member.dtype} in {size:,} bytes"
    # Values in one piece are only copied, from a place that HDF5 has checked: no need to read.
    if member.id.get_offset() is None and member.nbytes:
        _read_values(member)
    return None


def _read_values(member: h5py.Dataset) -> None:
    if not member.shape:
        member[()]
        return
    at_once = max(1, _BLOCK_BYTES * member.shape[0] // member.nbytes)
    for start in range(0, member.shape[0], at_once):
        member[start : start + at_once]


def _read_attributes(member: Any) -> None:
    for name in member.attrs:
        member.attrs[name]
