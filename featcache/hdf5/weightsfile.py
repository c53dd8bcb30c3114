"""A look at weights from elsewhere before Keras opens them."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import h5py

from .checked import first_line


def foreign_reason(source: Path | IO[bytes]) -> str | None:
    """Say why a file of weights from elsewhere should not be opened; None if nothing is odd.

    Only hard links are followed, and every data set must lie in the file, whole and with
    numbers or text in it: what Keras writes. Others could open further files, or claim
    more memory than there is.

    Parameters
    ----------
    source : Path or binary file
        A file that can seek, such as a stored member of a zip archive.
    """
    options = {"locking": False} if isinstance(source, Path) else {}
    try:
        with h5py.File(source, "r", **options) as file:
            return _odd_member(file, file.id.get_filesize(), set())
    except MemoryError:
        raise  # says nothing of the file
    except OSError as error:
        return f"HDF5 cannot open it ({first_line(error)})"
    except Exception as error:  # h5py raises many kinds on damaged structures
        return f"its structure is damaged ({first_line(error)})"


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
            if reason is not None:
                return reason
        elif member.is_virtual or member.external:
            return f"{name!r} keeps its data outside the file"
        elif member.dtype.kind not in "fiubS" or member.nbytes > size:
            return f"{name!r} declares {member.nbytes:,} bytes of {member.dtype} in {size:,} bytes"
    return None
