"""Names of shards, which contain their SHA-256, and the check of files against them."""

from __future__ import annotations

import errno
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .._io.hashes import file_hash
from ..errors import StoreCorrupt

_NAME = re.compile(
    r"(?P<worker>[0-9a-f]{8})-(?P<seq>\d{6,})-(?P<rows>\d+)-(?P<sha>[0-9a-f]{64})\.h5"
)
_LINE = re.compile(r"^[0-9a-f]{8}-\d{6,}-(\d+)-[0-9a-f]{64}\.h5$", re.MULTILINE)


@dataclass(frozen=True)
class Damage:
    """A file of a store that is not what was committed.

    Attributes
    ----------
    name : str
    rows : int
        Number of rows in it.
    reason : str
    ids : tuple of str
        Image ids of these rows, if they can still be read.
    """

    name: str
    rows: int
    reason: str
    ids: tuple[str, ...] = ()


def make_shard_name(worker: str, sequence: int, rows: int, sha: str) -> str:
    """Return the name of a shard."""
    return f"{worker}-{sequence:06d}-{rows}-{sha}.h5"


def rows_in_name(name: str) -> int | None:
    """Return the number of rows in a shard's name; None if it is not the name of a shard."""
    match = _NAME.fullmatch(name)
    return int(match["rows"]) if match else None


def rows_in_names(names: Sequence[str]) -> list[int]:
    """Return the number of rows in each name, much faster than one after the other.

    Raises
    ------
    ValueError
        If one of them is not the name of a shard.
    """
    text = "\n".join(names)
    rows = _LINE.findall(text)
    if len(rows) != len(names) or text.count("\n") != max(0, len(names) - 1):
        raise ValueError("it lists a file whose name is not that of a shard")
    return [int(number) for number in rows]


def find_damage(path: Path) -> Damage | None:
    """Compare a shard's SHA-256 with the one in its name.

    Returns
    -------
    Damage or None
        None if they are equal. A part that the disk cannot read is damage as well.

    Raises
    ------
    OSError
        Other errors of the system, such as too many open files: they are no damage.
    """
    match = _NAME.fullmatch(path.name)
    if match is None:
        return Damage(path.name, 0, "its name is not that of a shard")
    rows = int(match["rows"])
    if path.is_symlink():
        return Damage(path.name, rows, "it is a link, which is not followed")
    if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe might never end
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


def shard_error(path: Path, reason: str) -> StoreCorrupt:
    """Return the error for a shard that cannot be used, with advice."""
    return StoreCorrupt(
        f"The shard {path} cannot be used: {reason}. `featcache repair {path.parent}` saves its "
        "valid rows; the next extraction then recomputes only the others.",
        path=path,
        reason=reason,
    )
