"""Stores that go: taken away by one rename, and put back if somebody has begun to use them."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .._io.wording import format_values
from ..errors import StoreError
from .lease import NAME as LEASE_NAME
from .lease import USE_PREFIX, is_in_use, lease
from .manifest import NAME as MANIFEST_NAME
from .own_files import foreign_files

_GONE = ".gone-"
_HEX_DIGITS = 32
_GRAVE = re.compile(rf"{re.escape(_GONE)}[0-9a-f]{{{_HEX_DIGITS}}}(-.+)?")
FULL = (errno.ENOSPC, errno.EDQUOT)
USED = "it is in use"
GONE = "another process has just removed it"
LEASED = "another process is merging or removing its shards; try again later"


@dataclass(frozen=True)
class Removal:
    """What goes, or would go.

    Attributes
    ----------
    name : str
        The folder of the store, or of the converted model.
    rows : int
    bytes : int
        That are freed; approximate for rows of a store that stays.
    reason : str
    """

    name: str
    rows: int
    bytes: int
    reason: str


@dataclass(frozen=True)
class Kept:
    """What was to go, and stays.

    Attributes
    ----------
    name : str
    reason : str
    failed : bool
        Whether the system refused it; else it is as it should be, such as a store in use.
    """

    name: str
    reason: str
    failed: bool = False


class Removals(list[Removal]):
    """What went, and in `kept` what was left alone and why."""

    def __init__(self, removed: Iterable[Removal] = (), kept: Iterable[Kept] = ()) -> None:
        super().__init__(removed)
        self.kept = list(kept)


def remove(path: Path) -> Kept | None:
    """Take a store away by one rename, so that nobody sees half of it; None if it is gone."""
    grave = path.with_name(f"{_GONE}{uuid.uuid4().hex}-{path.name}")
    try:
        if path.is_symlink():
            return Kept(path.name, "it is a link; remove what it leads to yourself")
        foreign = foreign_files(path)
        if foreign:
            return Kept(
                path.name, f"it also holds files that are not of a store: {format_values(foreign)}"
            )
        with lease(path) as held:
            error = held.refused
            # Without room for a lease nobody else has one either; a removal needs no room.
            if not held and not (error is not None and error.errno in FULL):
                return Kept(path.name, LEASED) if error is None else refused(path, error)
            if is_in_use(path):
                return Kept(path.name, USED)
            if held:
                held.check()
            path.rename(grave)
    except OSError as failure:
        return refused(path, failure)
    except StoreError as failure:
        return Kept(path.name, str(failure), failed=True)
    return bury(grave)


def refused(path: Path, error: OSError) -> Kept:
    """Return that the system would not let something go; one that is gone is no failure."""
    if isinstance(error, FileNotFoundError) and not os.path.lexists(path):
        return Kept(path.name, GONE)
    return Kept(path.name, f"the system refuses: {error.strerror or error}", failed=True)


def bury(grave: Path) -> Kept | None:
    """Remove a store that was taken away, or put it back; None if it is gone."""
    path = grave.with_name(grave.name[len(_GONE) + _HEX_DIGITS + 1 :] or grave.name)
    with contextlib.suppress(OSError):
        (grave / LEASE_NAME).unlink()  # put back with the store, it would keep all others away
    try:
        # An extraction may have begun between the look and the rename: its mark went along.
        if is_in_use(grave):
            _put_back(grave, path)
            return Kept(path.name, USED)
        shutil.rmtree(grave)
    except FileNotFoundError:
        return None  # another process is doing the same
    except OSError as error:
        reason = f"{error.strerror or error} ({grave.name}); the next `gc` goes on"
        return Kept(path.name, f"the system refuses: {reason}", failed=True)
    return None


def _put_back(grave: Path, path: Path) -> None:
    """Undo a removal; file by file if the extraction has made a new folder by now.

    What cannot be moved stays in the grave, for the next to try.
    """
    with contextlib.suppress(OSError):
        grave.rename(path)
        return
    # The manifest last: the new one describes the same spec, and lists what it has found.
    # The mark of use after everything else, so that nobody removes what is still to be moved.
    names = sorted(os.listdir(grave), key=lambda name: (name == MANIFEST_NAME, name))
    names.sort(key=lambda name: name.startswith(USE_PREFIX))
    for name in names:
        if name == MANIFEST_NAME and (path / name).exists():
            continue
        if os.path.lexists(path / name):
            continue
        (grave / name).rename(path / name)
    shutil.rmtree(grave)


def finish_removals(folder: Path) -> list[Kept]:
    """Remove what a killed process had begun to."""
    try:
        names = os.listdir(folder) if folder.is_dir() else []
    except OSError as error:
        return [refused(folder, error)]
    outcomes = [bury(folder / name) for name in names if _GRAVE.fullmatch(name)]
    return [kept for kept in outcomes if kept is not None]
