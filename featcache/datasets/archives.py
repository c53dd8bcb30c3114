"""Safe unpacking of untrusted tar archives: regular files, below one folder, within limits."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from .._io.atomic import make_write_error
from .._io.progress import progress_bar
from .._io.tar_entry import DAMAGE, TarEntry
from ..errors import DatasetError, UnsafeArchive

_BLOCK = 1 << 20
_MAX_BYTES_PER_FILE = 64 * 2**20
# What every file system in use takes, below a folder of the user's.
_MAX_PARTS = 32
_MAX_BYTES_PER_PART = 200
_MAX_BYTES_PER_NAME = 1024


def unpack(
    archive: Path,
    folder: Path,
    *,
    wanted: Callable[[str], bool] = lambda _: True,
    max_bytes: int = 4 * 2**30,
    max_files: int = 100_000,
    progress: bool | None = None,
) -> int:
    """Unpack selected files of a tar archive (plain, gzip, bzip2 or xz) below a folder.

    Parameters
    ----------
    archive : Path
    folder : Path
        An existing folder. No file is written outside it, and no file in it is replaced.
    wanted : callable
        Returns by its name whether to unpack a file; all names are checked.
    max_bytes, max_files : int
        Limits on the sum of all unpacked files.
    progress : bool, optional
        Show a progress bar. Default: in a terminal and in a notebook.

    Returns
    -------
    int
        Number of files written.

    Raises
    ------
    UnsafeArchive
        For a link, a device, a name outside the folder, too long or too deep, a duplicate file,
        or beyond a limit. Files written before stay in `folder`, which the caller removes.
    DatasetError
        If the archive is truncated or damaged.
    StoreWriteError
        If the disk refuses.
    """
    files = 0
    try:
        size = archive.stat().st_size
        # Read as a stream: one pass, and the bar shows how far in the archive it is.
        with (
            open(archive, "rb") as raw,
            tarfile.open(fileobj=raw, mode="r:*", tarinfo=TarEntry) as tar,
            progress_bar(size, f"Unpacking {archive.name}", "B", progress) as bar,
        ):
            for member in _limited(tar, archive, max_bytes, max_files):
                _check(member, archive)
                if member.isdir():
                    continue
                files += 1
                name = str(PurePosixPath(member.name))  # without a leading ./
                if wanted(name):
                    _write(tar, member, folder / name, archive)
                bar.update(max(0, raw.tell() - bar.n))
    except UnsafeArchive:
        raise
    except DAMAGE as error:
        raise DatasetError(
            f"{archive} is cut off or damaged ({error or type(error).__name__}). Delete it and get "
            "it again.",
            path=archive,
        ) from error
    return files


def _limited(
    tar: tarfile.TarFile, archive: Path, max_bytes: int, max_files: int
) -> Iterator[tarfile.TarInfo]:
    """Yield the entries of an archive; raise `UnsafeArchive` at the first beyond a limit."""
    room = 0
    for number, member in enumerate(tar, start=1):
        room += member.size
        if room > max_bytes or number > max_files:
            raise UnsafeArchive(
                f"{archive} holds more than {max_files:,} entries or {max_bytes:,} "
                "bytes; it is not the archive that was expected.",
                path=archive,
                member=member.name,
            )
        yield member


def _check(member: tarfile.TarInfo, archive: Path) -> None:
    """Raise unless an entry is a regular file or a folder with a safe name."""
    name = member.name
    path = PurePosixPath(name)
    odd = not name or path.is_absolute() or ".." in path.parts
    # A backslash or a drive is a way out on Windows; control characters hide things.
    if odd or re.search(r'[\\:*?"<>|\x00-\x1f\x7f]', name):
        raise _unsafe(archive, name, "its name leads elsewhere or is not plain")
    sizes = [len(os.fsencode(part)) for part in path.parts]
    deep = len(sizes) > _MAX_PARTS or sum(sizes) > _MAX_BYTES_PER_NAME
    if deep or max(sizes, default=0) > _MAX_BYTES_PER_PART:
        shown = f"{name[:60]}..."
        raise _unsafe(archive, shown, "its name is too long, or in too many folders")
    if member.isdir():
        return
    if not member.isreg() or member.issparse():
        raise _unsafe(archive, name, "it is not a regular file, but a link, a device or the like")
    if member.size > _MAX_BYTES_PER_FILE:
        raise _unsafe(archive, name, f"it has {member.size:,} bytes")


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path, archive: Path) -> None:
    source = tar.extractfile(member)
    assert source is not None
    left = member.size
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "xb") as file:  # x: a name that comes twice could be a trick
            while left:
                block = source.read(min(_BLOCK, left))
                if not block:
                    raise tarfile.ReadError("it ends in the middle of a file")
                file.write(block)
                left -= len(block)
    except (FileExistsError, NotADirectoryError) as error:
        raise _unsafe(archive, member.name, "the name occurs twice") from error
    except OSError as error:
        raise make_write_error(error, target, f"{member.name} of {archive.name}") from error


def _unsafe(archive: Path, name: str, why: str) -> UnsafeArchive:
    return UnsafeArchive(
        f"{archive} is not safe to unpack: {name!r} is refused, since {why}. Nothing was kept. "
        "Get the archive from its own site.",
        path=archive,
        member=name,
    )
