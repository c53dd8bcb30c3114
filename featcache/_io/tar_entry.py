"""Entries of untrusted tar archives."""

from __future__ import annotations

import tarfile
import zlib

_MAX_BYTES_PER_HEADER = 1 << 16
_LONG = (
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)  # fmt: skip
# What `tarfile` raises; headers that refer to each other are read one within the other.
DAMAGE = (tarfile.TarError, EOFError, zlib.error, ValueError, OverflowError, RecursionError)


class TarEntry(tarfile.TarInfo):
    """An entry that raises where `tarfile` would stop silently or use much memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> TarEntry:
        """Read a header; `tarfile` would treat a damaged or missing one as the archive's end."""
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if buf and not any(buf):
                raise  # zeros are how an archive ends
            raise tarfile.ReadError(str(error)) from error

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        """Read the data of a header; the method that `tarfile` lets subclasses override."""
        if self.type in _LONG and self.size > _MAX_BYTES_PER_HEADER:
            raise tarfile.ReadError(f"a header declares {self.size:,} bytes")
        return super()._proc_member(tar)  # type: ignore[misc, no-any-return]
