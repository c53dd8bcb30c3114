"""Names of shards, which hold their SHA-256, and the check of the bytes behind them."""

from __future__ import annotations

import errno
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from .._io.hashes import file_hash
from ..errors import StoreCorrupt

_NAME = re.compile(
    r"(?P<worker>[0-9a-f]{8})-(?P<seq>\d{6,})-(?P<rows>\d+)-(?P<sha>[0-9a-f]{64})\.h5"
)


@dataclass(frozen=True)
class Damage:
    """A file of a store that is not what was committed.

    Attributes
    ----------
    name : str
    rows : int
        How many rows are lost with it.
    reason : str
    ids : tuple of str
        Content ids of these rows, if the file can still tell them.
    """

    name: str
    rows: int
    reason: str
    ids: tuple[str, ...] = ()


def name_of(worker: str, sequence: int, rows: int, sha: str) -> str:
    """Return the name of a shard."""
    return f"{worker}-{sequence:06d}-{rows}-{sha}.h5"


def rows_of(name: str) -> int | None:
    """Return the number of rows that a shard's name gives; None if it is no shard's name."""
    match = _NAME.fullmatch(name)
    return int(match["rows"]) if match else None


def check_bytes(path: Path) -> Damage | None:
    """Compare a shard's SHA-256 with the one in its name; None if they agree.

    A part that the disk cannot read is damage as well. Other errors of the system, such as
    too many open files, say nothing of the shard and are raised.
    """
    match = _NAME.fullmatch(path.name)
    if match is None:
        return Damage(path.name, 0, "its name is not that of a shard")
    rows = int(match["rows"])
    if path.is_symlink():
        return Damage(path.name, rows, "it is a link, which is not followed")
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be read for ever
        return Damage(path.name, rows, "it is not a regular file")
    try:
        digest = file_hash(path)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return Damage(path.name, rows, "the disk cannot read it: Input/output error")
    if digest != match["sha"]:
        return Damage(path.name, rows, "its SHA-256 is not the one in its name")
    return None


def corrupt(path: Path, reason: str) -> StoreCorrupt:
    """Make the error for a shard that cannot be used, with what to do about it."""
    return StoreCorrupt(
        f"The shard {path} cannot be used: {reason}. `featcache repair {path.parent}` saves its "
        "sound rows; the next extraction then computes only the others again.",
        path=path,
        reason=reason,
    )
