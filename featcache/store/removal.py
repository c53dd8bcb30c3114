"""Removal of stores by one rename, undone if another process has begun to use the store."""

from __future__ import annotations

import contextlib
import errno
import os
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
from .own_files import REMOVED_PREFIX, removed_name, unexpected_files

FULL = (errno.ENOSPC, errno.EDQUOT)
USED = "it is in use"
GONE = "another process has just removed it"
LEASED = "another process is merging or removing its shards; try again later"


@dataclass(frozen=True)
class Removal:
    """A store, rows of a store, or a converted model that is removed.

    Attributes
    ----------
    name : str
        Name of the folder of the store or the converted model.
    rows : int
    bytes : int
        Space that is freed; approximate if only rows are removed.
    reason : str
    """

    name: str
    rows: int
    bytes: int
    reason: str


@dataclass(frozen=True)
class Kept:
    """A store or converted model that was not removed.

    Attributes
    ----------
    name : str
    reason : str
    failed : bool
        True after an error; False for an expected reason, such as a store in use.
    """

    name: str
    reason: str
    failed: bool = False


class Removals(list[Removal]):
    """List of `Removal`; its attribute `kept` lists what was not removed, with reasons."""

    def __init__(self, removed: Iterable[Removal] = (), kept: Iterable[Kept] = ()) -> None:
        super().__init__(removed)
        self.kept = list(kept)


def remove(path: Path) -> Kept | None:
    """Remove a store, by one rename first, so that no process sees a part of it.

    Returns
    -------
    Kept or None
        Why it was not removed; None if it was.
    """
    renamed = path.with_name(f"{REMOVED_PREFIX}{uuid.uuid4().hex}-{path.name}")
    try:
        if (not_ours := check_ownership(path)) is not None:
            return not_ours
        with lease(path) as held:
            error = held.refused
            # On a full disk no process can acquire a lease, and a removal needs no space.
            if not held and not (error is not None and error.errno in FULL):
                return Kept(path.name, LEASED) if error is None else failed_removal(path, error)
            if is_in_use(path):
                return Kept(path.name, USED)
            if held:
                held.check()
            path.rename(renamed)
    except OSError as failure:
        return failed_removal(path, failure)
    except StoreError as failure:
        return Kept(path.name, str(failure), failed=True)
    return remove_renamed(renamed)


def check_ownership(path: Path) -> Kept | None:
    """Return why a store's folder is not ours to change; None if it is.

    Raises
    ------
    OSError
        If the folder cannot be listed.
    """
    if path.is_symlink():  # before anything else: all below would look at its target
        return Kept(path.name, "it is a symbolic link; remove its target yourself")
    if unexpected := unexpected_files(path):
        names = format_values(unexpected)
        return Kept(path.name, f"it contains files that no store writes: {names}")
    return None


def failed_removal(path: Path, error: OSError) -> Kept:
    """Return the outcome for an `OSError` during a removal; a missing path is not a failure."""
    if isinstance(error, FileNotFoundError) and not os.path.lexists(path):
        return Kept(path.name, GONE)
    return Kept(path.name, f"the system refuses: {error.strerror or error}", failed=True)


def remove_renamed(renamed: Path) -> Kept | None:
    """Delete a renamed store, or restore it if a process uses it; None if it was deleted."""
    path = renamed.with_name(removed_name(renamed.name) or renamed.name)
    try:
        if (not_ours := check_ownership(renamed)) is not None:
            return Kept(renamed.name, not_ours.reason)
        with contextlib.suppress(OSError):
            (renamed / LEASE_NAME).unlink()  # in a restored store it would lock out all processes
        # An extraction may have begun just before the rename: its mark was renamed as well.
        if is_in_use(renamed):
            _put_back(renamed, path)
            return Kept(path.name, USED)
        shutil.rmtree(renamed)
    except FileNotFoundError:
        return None  # another process is doing the same
    except OSError as error:
        reason = f"{error.strerror or error} ({renamed.name}); the next `gc` tries again"
        return Kept(path.name, f"the system refuses: {reason}", failed=True)
    return None


def _put_back(renamed: Path, path: Path) -> None:
    """Undo the rename; file by file if the extraction has created a new folder since.

    Files that cannot be moved stay in the renamed folder, for the next attempt.
    """
    with contextlib.suppress(OSError):
        renamed.rename(path)
        return
    # The manifest after the shards: a new one describes the same spec and lists what it found.
    # Marks of use last, so that no process removes the files that are still to be moved.
    names = sorted(os.listdir(renamed), key=lambda name: (name == MANIFEST_NAME, name))
    names.sort(key=lambda name: name.startswith(USE_PREFIX))
    for name in names:
        if name == MANIFEST_NAME and (path / name).exists():
            continue
        if os.path.lexists(path / name):
            continue
        (renamed / name).rename(path / name)
    shutil.rmtree(renamed)


def resume_removals(folder: Path) -> list[Kept]:
    """Complete removals that killed processes had begun; return those that failed."""
    try:
        names = os.listdir(folder) if folder.is_dir() else []
    except OSError as error:
        return [failed_removal(folder, error)]
    outcomes = [remove_renamed(folder / name) for name in names if removed_name(name)]
    return [kept for kept in outcomes if kept is not None]
