"""Inspection of weights files from other sources before Keras opens them."""

from __future__ import annotations

import io
from typing import IO, Any

import h5py
import numpy as np
from h5py import h5o  # pyright: ignore[reportAttributeAccessIssue]  # compiled, without a stub

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


def unsafe_weights_reason(source: IO[bytes] | io.RawIOBase) -> str | None:
    """Return why a weights file should not be opened; None if its structure is usual.

    Reads everything that Keras reads, with the same library: call it only in a process that may
    crash, as `featcache.hdf5.sandbox.unsafe_hdf5_reason` does.
    """
    try:
        with h5py.File(source, "r") as file:
            _read_attributes(file)
            return _unsafe_member_reason(file, file.id.get_filesize(), set())
    except MemoryError:
        raise  # running out of memory does not mean that the file is damaged
    except OSError as error:
        return f"HDF5 cannot open it ({first_line(error)})"
    except Exception as error:  # h5py raises many kinds on damaged structures
        return f"its structure is damaged ({first_line(error)})"


def example_weights() -> bytes:
    """Return a small file with every structure found in weights files."""
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


def _unsafe_member_reason(group: h5py.Group, size: int, seen: set[int]) -> str | None:
    for name in map(str, group):
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            return f"{name!r} is a link to another object"
        member = group[name]
        address = h5o.get_info(member.id).addr
        if address in seen:  # a group that contains itself would be traversed forever
            continue
        seen.add(address)
        if isinstance(member, h5py.Group):
            reason = _unsafe_member_reason(member, size, seen)
        else:
            reason = _unsafe_values_reason(name, member, size)
        if reason is not None:
            return reason
        _read_attributes(member)
    return None


def _unsafe_values_reason(name: str, member: Any, size: int) -> str | None:
    if not isinstance(member, h5py.Dataset):
        return f"{name!r} is neither a group nor a data set"
    if member.is_virtual or member.external:
        return f"{name!r} keeps its data outside the file"
    if member.dtype.kind not in "fiubS" or member.nbytes > size:
        return f"{name!r} declares {member.nbytes:,} bytes of {member.dtype} in {size:,} bytes"
    # Contiguous values are only copied, from a range that HDF5 has checked: no need to read them.
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
